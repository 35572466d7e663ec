package idp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern/session"
)

const (
	maxLifetime    = 366 * 24 * time.Hour // of an access token; more is nonsense
	maxTokenString = 64 << 10             // bytes of an access or refresh token
	maxScope       = 4 << 10
)

// tokenAnswer is what the token endpoint gave.
type tokenAnswer struct {
	access, refresh, id, scope string
	members                    claims    // all of the answer but for the tokens
	obtained                   time.Time // when they were asked for, so that an expiry is rather too early than too late
	lifetime                   time.Duration
}

// tokens makes the session's tokens out of the answer and of the older ones, which stay where the answer has none: RFC 6749
// sections 5.1 (scope) and 6 (refresh token).
func (t tokenAnswer) tokens(old session.Tokens) session.Tokens {
	n := session.Tokens{Access: t.access, Refresh: t.refresh, ID: t.id, Obtained: t.obtained, Scope: t.scope}
	if n.Refresh == "" {
		n.Refresh = old.Refresh
	}
	if n.ID == "" {
		n.ID = old.ID
	}
	if n.Scope == "" {
		n.Scope = old.Scope
	}
	if t.lifetime > 0 {
		n.Expiry = t.obtained.Add(t.lifetime)
	}
	return n
}

// tokenError says that the token endpoint, or another one for tokens, refused.
type tokenError struct {
	what       string
	status     int
	code       string // an OAuth error code, or empty
	hint       string
	retryAfter time.Duration
}

// Error names status and code.
func (e *tokenError) Error() string {
	if e.code == "" {
		return fmt.Sprintf("%s answered status %d%s", e.what, e.status, e.hint)
	}
	return fmt.Sprintf("%s answered status %d, error %s", e.what, e.status, e.code)
}

// busy reports whether the refusal says something about the provider, and nothing about the request.
func (e *tokenError) busy() bool {
	switch e.code {
	case "temporarily_unavailable", "server_error", "slow_down":
		return true
	case "":
		return e.status >= 500 || e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout
	}
	return e.status >= 500
}

// spent reports whether the refusal says that a refresh token is good for nothing any more: invalid_grant, or what GitHub, Slack and old
// Spring servers call that.
func (e *tokenError) spent() bool {
	switch e.code {
	case "invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_expired", "token_revoked", "invalid_token":
		return e.status < 500
	}
	return false
}

// requestToken makes one token request. It is sent once: a code or a refresh token that came twice can end everything it stands for.
// Its errors are [tokenError], [ProtocolError] and [UnavailableError].
func (p *Provider) requestToken(ctx context.Context, m *metadata, form url.Values) (tokenAnswer, error) {
	req, err := p.tokenRequest(m, form)
	if err != nil {
		return tokenAnswer{}, err
	}
	a, err := p.callBy(ctx, p.once, "token endpoint", req)
	if err != nil {
		return tokenAnswer{}, err
	}
	return p.readTokenAnswer(a)
}

// tokenRequest builds a token request.
func (p *Provider) tokenRequest(m *metadata, form url.Values) (*http.Request, error) {
	for name, value := range p.o.TokenParams {
		if !form.Has(name) {
			form.Set(name, value)
		}
	}
	if p.o.TokenRequest != requestQuery {
		return p.clientRequest(m, "token endpoint", m.token, form)
	}
	return p.queryRequest(m, form)
}

// queryRequest builds a token request for a provider that reads the query and no body. RFC 6749 section 2.3.1 forbids that, as addresses
// end in logs. So the operator must have written it out, and no error or log of ours ever holds the address of a call.
func (p *Provider) queryRequest(m *metadata, form url.Values) (*http.Request, error) {
	header := http.Header{}
	if err := p.authenticate(m, form, header); err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, m.token, nil)
	if err != nil {
		return nil, badAnswer("token endpoint has a malformed address")
	}
	req.Header = header
	req.Header.Set("Accept", "application/json")
	q := req.URL.Query()
	maps.Copy(q, form)
	req.URL.RawQuery = encodeQuery(q)
	return req, nil
}

// readTokenAnswer reads the answer of a token endpoint. Its errors are [tokenError] and [ProtocolError].
func (p *Provider) readTokenAnswer(a answer) (tokenAnswer, error) {
	c, err := parseAnswer(a)
	refused := &tokenError{what: "token endpoint", status: a.status, code: codeOf(c), retryAfter: a.retryAfter(p.now())}
	switch {
	case refused.code != "":
		return tokenAnswer{}, refused
	case a.status >= 300 && a.status < 400:
		refused.hint = ", a redirect to " + a.redirectHost() + ", which is not followed"
		return tokenAnswer{}, refused
	case a.status < 200 || a.status > 299:
		return tokenAnswer{}, refused
	case err != nil:
		return tokenAnswer{}, badAnswer("token endpoint answered status %d with neither a JSON object nor a form (media type %s)", a.status, a.mediaType())
	}
	t, err := readTokens(c)
	if err != nil {
		return tokenAnswer{}, err
	}
	if p.o.OAuth2 != nil {
		t.id = "" // nobody could verify it
	}
	t.obtained = a.sent
	t.lifetime = cmp.Or(lifetime(c["expires_in"]), jwtLifetime(t.access, a.sent), p.o.TokenLifetime)
	return t, nil
}

// codeOf is the OAuth error code of an answer, or nothing. Some send one with status 200.
func codeOf(c claims) string {
	switch code := c["error"].(type) {
	case nil:
		return ""
	case bool:
		if !code {
			return ""
		}
	case string:
		if code == "" {
			return ""
		}
		return errorCode(code)
	}
	return "unreadable"
}

// parseAnswer reads an answer that is a JSON object, whatever it is called, or else a form (as GitHub answers unless asked not to).
func parseAnswer(a answer) (claims, error) {
	body := bytes.TrimPrefix(a.body, []byte("\ufeff"))
	c, err := parseObject(body)
	if err == nil || strings.HasSuffix(a.mediaType(), "json") {
		return c, err
	}
	body = bytes.TrimSpace(body)
	form, formErr := url.ParseQuery(string(body))
	if formErr != nil || bytes.ContainsAny(body, " \t\r\n<>\"{}") || !form.Has("access_token") && !form.Has("error") {
		return nil, err // a page, perhaps with a link that looks like one
	}
	c = claims{}
	for name, values := range form {
		if len(values) > 1 { // who wins would depend on who reads
			return nil, fmt.Errorf("parameter %q is there more than once", name)
		}
		c[name] = values[0]
	}
	return c, nil
}

// readTokens takes the tokens out of an answer. Its errors are [ProtocolError]s.
func readTokens(c claims) (tokenAnswer, error) {
	t := tokenAnswer{scope: scopeOf(c["scope"]), members: maps.Clone(c)}
	for name, to := range map[string]*string{"access_token": &t.access, "refresh_token": &t.refresh, "id_token": &t.id} {
		delete(t.members, name)
		if v := c[name]; v != nil {
			var ok bool
			if *to, ok = v.(string); !ok {
				return tokenAnswer{}, badAnswer("token endpoint answered a %s that is not a string", name)
			}
		}
	}
	// The access token becomes a header: RFC 6750 section 2.1. A line break would let it write further headers.
	if !visible(t.access, false) || len(t.access) > maxTokenString {
		return tokenAnswer{}, badAnswer("token endpoint answered no access_token, or one that cannot be in a header")
	}
	if len(t.refresh) > maxTokenString {
		return tokenAnswer{}, badAnswer("token endpoint answered a refresh_token of more than %d bytes", maxTokenString)
	}
	// RFC 6749 section 7.1: a client must not use a token of a type that it does not understand. That the type is missing is common.
	if typ, ok := c["token_type"]; ok && typ != nil {
		if s, _ := typ.(string); !strings.EqualFold(s, "Bearer") {
			return tokenAnswer{}, badAnswer("token endpoint answered a token_type that is not Bearer")
		}
	}
	return t, nil
}

// scopeOf reads scope: text or, against RFC 6749 section 3.3, a list. What is neither says nothing; nobody loses tokens over it.
func scopeOf(v any) string {
	scope, _ := v.(string)
	if list, ok := v.([]any); ok {
		var names []string
		for _, one := range list {
			if s, ok := one.(string); ok {
				names = append(names, s)
			}
		}
		scope = strings.Join(names, " ")
	}
	if len(scope) > maxScope || !clean(scope) {
		return ""
	}
	return scope
}

// lifetime reads expires_in: a number or a string that holds one, with a fraction or without. 0 means that it says nothing; so do
// numbers that are not positive, as those who send them mean "never".
func lifetime(v any) time.Duration {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	}
	s, err := strconv.ParseFloat(text, 64)
	if math.IsNaN(s) || s <= 0 || err != nil && !math.IsInf(s, 1) {
		return 0
	}
	return seconds(s)
}

// jwtLifetime is how long after now an access token that is a JWT expires by its own word, or 0. The word of an unverified token
// is good enough for when to ask for the next one.
func jwtLifetime(token string, now time.Time) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	c, err := parseObject(payload)
	if err != nil {
		return 0
	}
	exp, ok := c["exp"].(json.Number)
	if !ok {
		return 0
	}
	at, err := exp.Float64()
	if err != nil {
		return 0
	}
	left := at - float64(now.UnixMilli())/1000
	if math.IsNaN(left) || left <= 0 {
		return 0
	}
	return seconds(left)
}

// seconds makes a duration of a positive number of seconds, bounded so that no time overflows.
func seconds(s float64) time.Duration {
	if s >= maxLifetime.Seconds() {
		return maxLifetime
	}
	return time.Duration(s * float64(time.Second))
}

// parseObject reads a JSON object, and nothing after it.
func parseObject(body []byte) (claims, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // a number that becomes a float loses digits
	var c claims
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if c == nil || d.More() {
		return nil, fmt.Errorf("not one JSON object")
	}
	return c, nil
}

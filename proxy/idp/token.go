package idp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
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
)

// tokenAnswer is what the token endpoint gave.
type tokenAnswer struct {
	access, refresh, id, scope string
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

// tokenError says that the token endpoint refused.
type tokenError struct {
	status     int
	code       string // an OAuth error code, or empty
	hint       string
	retryAfter time.Duration
}

// Error names status and code.
func (e *tokenError) Error() string {
	if e.code == "" {
		return fmt.Sprintf("token endpoint answered status %d%s", e.status, e.hint)
	}
	return fmt.Sprintf("token endpoint answered status %d, error %s", e.status, e.code)
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
	return parseTokenAnswer(a, p.now())
}

// tokenRequest builds a token request with exactly one kind of client authentication (RFC 6749 section 2.3).
func (p *Provider) tokenRequest(m *metadata, form url.Values) (*http.Request, error) {
	var secret string
	if m.clientAuth != authNone {
		var err error
		if secret, err = p.secret(); err != nil {
			return nil, &UnavailableError{What: "client_secret could not be read", Err: err}
		}
		if secret == "" {
			return nil, &UnavailableError{What: "client_secret is empty"}
		}
	}
	switch m.clientAuth {
	case authPost:
		form.Set("client_secret", secret)
		fallthrough
	case authNone:
		form.Set("client_id", p.clientID)
	}
	req, err := http.NewRequest(http.MethodPost, m.token, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, badAnswer("token endpoint has a malformed address")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if m.clientAuth == authBasic {
		req.SetBasicAuth(url.QueryEscape(p.clientID), url.QueryEscape(secret)) // RFC 6749 section 2.3.1: form-encoded first
	}
	return req, nil
}

// parseTokenAnswer reads the answer of a token endpoint. Its errors are [tokenError] and [ProtocolError].
func parseTokenAnswer(a answer, now time.Time) (tokenAnswer, error) {
	refused := &tokenError{status: a.status, retryAfter: a.retryAfter(now)}
	c, err := parseObject(a.body)
	if code, ok := c["error"]; ok && code != nil && code != "" { // some send it with status 200
		refused.code = "unreadable"
		if s, ok := code.(string); ok {
			refused.code = errorCode(s)
		}
		return tokenAnswer{}, refused
	}
	switch {
	case a.status >= 300 && a.status < 400:
		refused.hint = ", a redirect to " + a.redirectHost() + ", which is not followed"
		return tokenAnswer{}, refused
	case a.status < 200 || a.status > 299:
		return tokenAnswer{}, refused
	case err != nil:
		return tokenAnswer{}, badAnswer("token endpoint answered status %d without a JSON object (media type %s)", a.status, a.mediaType())
	}

	t := tokenAnswer{obtained: a.sent}
	for name, to := range map[string]*string{"access_token": &t.access, "refresh_token": &t.refresh, "id_token": &t.id, "scope": &t.scope} {
		if v, ok := c[name]; ok && v != nil {
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
	t.lifetime = lifetime(c["expires_in"])
	if t.lifetime == 0 {
		t.lifetime = jwtLifetime(t.access, a.sent)
	}
	return t, nil
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

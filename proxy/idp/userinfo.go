package idp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	maxCalls = 8
	maxPages = 20      // of one call
	maxBytes = 4 << 20 // of all calls: a list in memory is many times as big
)

// userinfoCall begins what errors name the operator's own calls by.
const userinfoCall = "userinfo call "

// ofToken are the claims that say what a token is, rather than who somebody is.
func ofToken() []string {
	return []string{"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "auth_time", "acr", "amr", "sid"}
}

// checkCalls checks the list of userinfo calls.
func checkCalls(ps *problems, calls []UserinfoCall) {
	if len(calls) > maxCalls {
		ps.add("userinfo: more than %d calls", maxCalls)
	}
	used := map[string]bool{}
	for _, call := range calls {
		if err := checkEndpoint(call.URL); err != nil {
			ps.add("userinfo: url %w", err)
		}
		switch {
		case used[call.As] && call.As == "":
			ps.add("userinfo: two calls have no as")
		case used[call.As]:
			ps.add("userinfo: two calls have as: %s", call.As)
		case call.As != "" && !isClaimName(call.As):
			ps.add("userinfo: as: %q is not a name: letters, digits and _", brief(call.As))
		case slices.Contains(ofToken(), call.As), call.As == "claims", call.As == "email_verified":
			ps.add("userinfo: as: %s has a meaning already", call.As)
		}
		used[call.As] = true
	}
}

// isClaimName reports whether s may stand alone in an expression.
func isClaimName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return s != "" && len(s) <= 64 && strings.ContainsRune(letters, rune(s[0])) && strings.Trim(s, letters+"0123456789") == ""
}

// addUserinfo asks the userinfo endpoint (OpenID Connect Core section 5.3) and adds what it says to c.
func (p *Provider) addUserinfo(ctx context.Context, m *metadata, access string, c claims) error {
	const what = "userinfo endpoint"
	a, err := p.fetch(ctx, p.asClient, what, m.userinfo, access) // RFC 8705 section 3: the token may be bound to the certificate
	if err != nil {
		return err
	}
	u, err := parseObject(a.body)
	if err != nil {
		return badAnswer("%s answered no JSON object (media type %s)", what, a.mediaType())
	}
	// Section 5.3.2: or someone else's claims would be taken for this person's.
	if p.o.OAuth2 == nil && u.text("sub") == "" {
		return badAnswer("userinfo: sub is missing or another person's")
	}
	return p.add(c, u)
}

// addCalls makes the operator's own calls and adds what they say to c.
func (p *Provider) addCalls(ctx context.Context, access string, c claims) error {
	left := maxBytes
	for _, call := range p.o.UserinfoCalls {
		if err := p.addCall(ctx, call, access, c, &left); err != nil {
			return err
		}
	}
	return nil
}

// addCall makes one of them. left is how many bytes all may still answer.
func (p *Provider) addCall(ctx context.Context, call UserinfoCall, access string, c claims, left *int) error {
	v, err := p.fetchPages(ctx, call, access, left)
	if err != nil {
		return err
	}
	if call.As != "" {
		c[call.As] = v
		return nil
	}
	u, ok := v.(map[string]any)
	if !ok {
		return badAnswer("userinfo call %s answered a list, which needs a name: see as", call.name())
	}
	return p.add(c, u)
}

// add adds claims of the same person.
func (p *Provider) add(c, more claims) error {
	if more.has("sub") && c.has("sub") && more["sub"] != c["sub"] {
		return badAnswer("userinfo: sub is missing or another person's")
	}
	p.overlay(c, more)
	return nil
}

// overlay puts claims over those of c, except, where c is of an ID token, for those that say what the token is.
func (p *Provider) overlay(c, more claims) {
	more = maps.Clone(more)
	if p.o.OAuth2 == nil {
		for _, name := range ofToken() {
			delete(more, name)
		}
	}
	maps.DeleteFunc(more, func(_ string, v any) bool { return v == nil })
	// That it is verified is said of the address beside it, not of one from elsewhere. That it is not is believed anyway.
	switch {
	case !more.has("email") && isTrue(more["email_verified"]):
		delete(more, "email_verified")
	case !more.has("email"):
	case more.text("email") != c.text("email"):
		delete(c, "email_verified")
	}
	maps.Copy(c, more)
}

// name names a call in messages.
func (u UserinfoCall) name() string {
	if u.As == "" {
		return "without as"
	}
	return u.As
}

// fetchPages makes one call and follows its pages (RFC 8288, rel=next) where it answers a list. Lists that are too long are refused
// rather than cut, as groups are.
func (p *Provider) fetchPages(ctx context.Context, call UserinfoCall, access string, left *int) (any, error) {
	what := userinfoCall + call.name()
	at, err := parseAddress(call.URL)
	if err != nil {
		return nil, badAnswer("%s has a malformed address", what)
	}
	first := p.internal.of(at)
	at = first
	var list []any
	for range maxPages {
		a, err := p.fetch(ctx, p.anyone, what, at.String(), access)
		if err != nil {
			return nil, err
		}
		if *left -= len(a.body); *left < 0 {
			return nil, badAnswer("%s: all userinfo calls together answered more than %d bytes", what, maxBytes)
		}
		v, err := parseValue(a.body)
		if err != nil {
			return nil, badAnswer("%s answered neither a JSON object nor a list (media type %s)", what, a.mediaType())
		}
		page, isList := v.([]any)
		switch {
		case !isList && at == first:
			return v, nil
		case !isList:
			return nil, badAnswer("%s answered a page that is no list", what)
		}
		list = append(list, page...)
		next, err := nextPage(a.header, at)
		switch {
		case err != nil:
			return nil, badAnswer("%s: %v", what, err)
		case next == nil:
			return list, nil
		}
		// The token is for this origin: whatever is behind the link would get it.
		if !sameOrigin(next, first) {
			if next = p.internal.of(next); !sameOrigin(next, first) {
				return nil, badAnswer("%s names a next page on another host, to which the access token is not sent: %q", what, printable(brief(next.Host)))
			}
		}
		at = next
	}
	return nil, badAnswer("%s has more than %d pages: ask for longer ones, such as with per_page=100 in its url", what, maxPages)
}

// parseValue reads a JSON object or list, and nothing after it.
func parseValue(body []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("more than one value")
	}
	switch v.(type) {
	case map[string]any, []any:
		return v, nil
	}
	return nil, errors.New("neither an object nor a list")
}

// fetch asks with the access token. It tells a provider that cannot answer ([UnavailableError]) from one that refuses or answers
// nonsense ([ProtocolError]).
func (p *Provider) fetch(ctx context.Context, by http.RoundTripper, what, address, access string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return answer{}, badAnswer("%s has a malformed address", what)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+access)
	a, err := p.callBy(ctx, by, what, req)
	if err != nil {
		return answer{}, err
	}
	switch {
	case a.status == http.StatusForbidden && (a.header.Get("Retry-After") != "" || a.header.Get("X-RateLimit-Remaining") == "0"):
		return answer{}, p.refused(what, a) // too many requests, as GitHub says it
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return answer{}, badAnswer("%s refused the access token: status %d", what, a.status)
	case a.status != http.StatusOK:
		return answer{}, p.refused(what, a)
	case a.mediaType() == "application/jwt":
		return answer{}, badAnswer("%s answered a signed token, which is not supported: register the client without userinfo_signed_response_alg", what)
	}
	return a, nil
}

// nextPage returns where the header says that the next page is, or nil. A Link that cannot be read is an error: it may be the one.
func nextPage(h http.Header, at *url.URL) (*url.URL, error) {
	for _, field := range h.Values("Link") {
		for field = strings.TrimLeft(field, " \t,"); field != ""; field = strings.TrimLeft(field, " \t,") {
			target, params, rest, ok := cutLink(field)
			if !ok {
				return nil, errors.New("its Link header cannot be read")
			}
			field = rest
			if _, elsewhere := params["anchor"]; elsewhere || !slices.Contains(strings.Fields(strings.ToLower(params["rel"])), "next") {
				continue
			}
			u, err := at.Parse(target)
			if err != nil || u.Host == "" || u.User != nil {
				return nil, errors.New("its Link header names an unusable next page")
			}
			u.Fragment, u.RawFragment = "", ""
			return u, nil
		}
	}
	return nil, nil
}

// cutLink cuts the first link off a Link field (RFC 8288 section 3 and appendix B.2). Of a parameter that comes twice the first counts.
func cutLink(field string) (target string, params map[string]string, rest string, ok bool) {
	if !strings.HasPrefix(field, "<") {
		return "", nil, "", false
	}
	target, rest, ok = strings.Cut(field[1:], ">")
	if !ok {
		return "", nil, "", false
	}
	params = map[string]string{}
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" || rest[0] == ',' {
			return target, params, rest, true
		}
		if rest[0] != ';' {
			return "", nil, "", false
		}
		rest = strings.TrimLeft(rest[1:], " \t")
		end := strings.IndexAny(rest, "=;, \t")
		if end < 0 {
			end = len(rest)
		}
		name := strings.ToLower(rest[:end])
		rest = strings.TrimLeft(rest[end:], " \t")
		value := ""
		if strings.HasPrefix(rest, "=") {
			if value, rest, ok = cutValue(strings.TrimLeft(rest[1:], " \t")); !ok {
				return "", nil, "", false
			}
		}
		if _, twice := params[name]; !twice && name != "" {
			params[name] = value
		}
	}
}

// cutValue cuts a token or quoted string (RFC 9110 section 5.6.4) off s.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ";, \t")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

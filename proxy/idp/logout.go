package idp

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// maxLogoutURL is how long an end-session URL may be. Servers and proxies refuse longer request lines.
const maxLogoutURL = 4 << 10

// EndSession says how a browser signs out at the provider.
type EndSession struct {
	// URL is where it goes: by GET, or, where there is a form, by POST.
	URL string
	// Form is what it posts; nil for GET. Providers take both (OpenID Connect RP-Initiated Logout section 2), but not each takes a URL
	// with a long ID token in it.
	Form map[string]string
}

// EndSession makes the request to sign out at the provider, too (OpenID Connect RP-Initiated Logout section 2). An argument that is
// empty is left out. ok is false when the provider has no place for that, or when it is not known.
func (p *Provider) EndSession(idTokenHint, postLogoutRedirectURI, state string) (e EndSession, ok bool) {
	params := map[string]string{"client_id": p.clientID, "id_token_hint": idTokenHint, "post_logout_redirect_uri": postLogoutRedirectURI, "state": state}
	if p.o.LogoutURI != "" {
		return EndSession{URL: fillIn(p.o.LogoutURI, params)}, true
	}
	m := p.meta.Load()
	if m == nil || m.endSession == nil {
		return EndSession{}, false
	}
	u := *m.endSession
	q := u.Query()
	for name, value := range params {
		if value == "" {
			delete(params, name)
			continue
		}
		q.Set(name, value)
	}
	u.RawQuery = encodeQuery(q)
	if address := u.String(); len(address) <= maxLogoutURL {
		return EndSession{URL: address}, true
	}
	return EndSession{URL: m.endSession.String(), Form: params}, true
}

// placeholder is what stands for a value in logout_uri.
var placeholder = regexp.MustCompile(`\{([^{}]*)\}`)

// fillIn puts values in the place of the placeholders of a checked logout_uri. Where an ID token makes that too long, it is left out.
func fillIn(address string, params map[string]string) string {
	with := func(params map[string]string) string {
		return placeholder.ReplaceAllStringFunc(address, func(s string) string {
			return url.QueryEscape(params[placeholder.FindStringSubmatch(s)[1]])
		})
	}
	filled := with(params)
	if len(filled) > maxLogoutURL {
		delete(params, "id_token_hint")
		filled = with(params)
	}
	return filled
}

// checkLogoutURI checks a logout_uri: an https URL whose placeholders are known and in its query, where a value can change nothing else.
func checkLogoutURI(address string) error {
	if err := checkEndpoint(address); err != nil {
		return err
	}
	before, query, _ := strings.Cut(address, "?")
	if strings.ContainsAny(before, "{}") {
		return errors.New("may have {placeholders} in its query alone")
	}
	for _, m := range placeholder.FindAllStringSubmatch(query, -1) {
		if !slices.Contains([]string{"client_id", "id_token_hint", "post_logout_redirect_uri", "state"}, m[1]) {
			return errors.New("has a placeholder that is none of {client_id}, {id_token_hint}, {post_logout_redirect_uri} and {state}")
		}
	}
	if strings.ContainsAny(placeholder.ReplaceAllString(query, ""), "{}") {
		return errors.New("has a brace that belongs to no placeholder")
	}
	return nil
}

// PageOrigins are the origins of the pages at which people sign in and out: of the issuer, the authorization endpoint and the place to
// sign out, as far as they are known. Only these may frame the page of front-channel logout.
func (p *Provider) PageOrigins() []string {
	var origins []string
	add := func(u *url.URL) {
		if u == nil || u.Host == "" || strings.Trim(strings.ToLower(u.Host), "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]") != "" {
			return // nothing that could mean more than a host in a Content-Security-Policy
		}
		if o := u.Scheme + "://" + u.Host; !slices.Contains(origins, o) {
			origins = append(origins, o)
		}
	}
	for _, address := range []string{p.o.Issuer, p.o.LogoutURI} {
		if u, err := url.Parse(address); err == nil {
			add(u)
		}
	}
	if m := p.meta.Load(); m != nil {
		add(m.authorize)
		add(m.endSession)
	}
	return origins
}

// HasIssuer reports whether issuer is this provider's, exactly as it writes it. One that is not OpenID Connect has none.
func (p *Provider) HasIssuer(issuer string) bool { return p.o.OAuth2 == nil && issuer == p.o.Issuer }

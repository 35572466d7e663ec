package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// maxScopeSeparator is generous: providers use a space, a comma, or nothing else known.
const maxScopeSeparator = 8

// scopes checks what is asked for.
func (v *validator) scopes(at string, p Provider) {
	sep := p.ScopeSeparator
	if sep != "" && (len(sep) > maxScopeSeparator || strings.ContainsFunc(sep, func(r rune) bool {
		return r < ' ' || r >= 0x7f || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	})) {
		v.shown(at+".scope_separator", "does not separate", `Write a sign such as ",", in quotes`)
		sep = ""
	}
	for i, s := range p.Scopes {
		e := element(v.c.src, at+".scopes", i)
		switch {
		case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }): // RFC 6749, section 3.3
			v.shown(e, "is not one scope", "Write each scope as its own entry")
		case sep != "" && strings.Contains(s, sep):
			v.shown(e, "holds scope_separator", "Write each scope as its own entry")
		}
	}
	separated := !slices.ContainsFunc(p.Scopes, func(s string) bool { return s == "" || strings.Contains(s, " ") }) // else that was said
	if p.Issuer != nil && p.OAuth2 == nil && p.Scopes != nil && separated && !slices.Contains(p.Scopes, "openid") {
		v.err(at+".scopes", "has no openid, without which a provider with an issuer sends no ID token", "Add openid")
	}
}

// parameters checks what is added to requests and renamed in answers. What Postern itself sets there cannot be set: each of
// these parameters is a check, and another value would undo it.
func (v *validator) parameters(at string, p Provider) {
	v.params(at+".authorize_params", p.AuthorizeParams, ofAuthorizeRequest)
	v.params(at+".token_params", p.TokenParams, ofTokenRequest)
	for i, name := range p.StartParams {
		e := element(v.c.src, at+".start_params", i)
		switch _, fixed := p.AuthorizeParams[name]; {
		case !isParameterName(name):
			v.shown(e, "is not the name of a parameter", "Write names such as login_hint, prompt and ui_locales")
		case fixed:
			v.shown(e, "is set by authorize_params, and whoever makes a link would replace it", "Keep one of the two")
		case decidesSecurity(name):
			v.shown(e, "is not for whoever makes a link to decide", "Leave it out; authorize_params can hold a fixed value of what is not Postern's own")
		case slices.Contains(p.StartParams[:i], name):
			v.shown(e, "is named twice", "Keep one")
		}
	}
	used := map[string]string{}
	for _, key := range []string{"code", "state", "error"} {
		name := p.CallbackParams[key]
		if name == "" {
			name = key
		}
		path := join(at+".callback_params", key)
		switch {
		case !isParameterName(name) || slices.Contains([]string{"iss", "error_description", "error_uri"}, name):
			v.shown(path, "cannot be the name of that parameter", "Write the provider's own name, such as auth_code")
		case used[name] != "":
			v.err(v.either(path, join(at+".callback_params", used[name])), used[name]+" and "+key+" would have the same name", "Give code, state and error different names")
		}
		used[name] = key
	}
	for _, key := range slices.Sorted(maps.Keys(p.CallbackParams)) {
		if key != "code" && key != "state" && key != "error" {
			v.err(join(at+".callback_params", key), "is none of code, state and error", "Write Postern's name first and the provider's after it, such as {code: auth_code}")
		}
	}
	switch u, err := url.Parse(p.RedirectURI); {
	case p.RedirectURI == "" || p.RedirectURI == "urn:ietf:wg:oauth:2.0:oob":
	case err != nil || u.Scheme != "http" || !isLoopback(u.Hostname()) || !isHostPort(u.Host) || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.shown(at+".redirect_uri", "is neither urn:ietf:wg:oauth:2.0:oob nor a loopback address",
			"It is for `postern login` alone: write http://127.0.0.1:PORT/PATH as registered there. In browsers the address is public_url with /oauth2/callback, and /NAME behind it with own_callback")
	}
}

// params checks parameters that are added to requests.
func (v *validator) params(at string, params map[string]string, ours func(string) bool) {
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch path := join(at, name); {
		case !isParameterName(name):
			v.err(path, "is not the name of a parameter", "Write a name without spaces, such as audience")
		case ours(name):
			v.err(path, "is set by Postern itself", "Leave it out; scopes, client_id and the like have their own keys")
		}
	}
}

// isParameterName is RFC 6749, appendix A, without what would need escaping, and bounded.
func isParameterName(s string) bool {
	return len(s) <= 64 && isPrintable(s) && !strings.ContainsAny(s, `&=#+%"\<>`)
}

// ofAuthorizeRequest tells whether a parameter of the authorize URL is Postern's own: RFC 6749 section 4.1.1, RFC 7636 section
// 4.3, OpenID Connect Core sections 3.1.2.1 and 6, RFC 9126.
func ofAuthorizeRequest(name string) bool {
	return isOneOf(name,
		"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
		"request", "request_uri", "registration",
	)
}

// ofTokenRequest is the same for token requests: RFC 6749 sections 2.3.1, 4 and 6, RFC 7521 section 4.2, RFC 7636 section 4.5.
func ofTokenRequest(name string) bool {
	return isOneOf(name,
		"grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "username", "password", "scope",
		"client_id", "client_secret", "client_assertion", "client_assertion_type",
	)
}

// decidesSecurity tells whether a parameter must not come from a link: those of Postern, and those that choose whose token it
// becomes, for which service, or how strong or how fresh the sign-in is. rd is the start endpoint's own.
func decidesSecurity(name string) bool {
	return ofAuthorizeRequest(name) || isOneOf(name,
		"claims", "resource", "audience", "authorization_details", "id_token_hint", "acr_values", "max_age", "dpop_jkt", "code", "error", "iss", "rd",
	)
}

// isOneOf ignores case, as some providers do.
func isOneOf(name string, names ...string) bool {
	return slices.Contains(names, strings.ToLower(name))
}

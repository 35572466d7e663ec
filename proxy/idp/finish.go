package idp

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/session"
)

const (
	maxParam       = 8 << 10 // bytes of one parameter of an authorization response
	maxDescription = 300
	maxTokenAge    = 10 * time.Minute // of an ID token at sign-in

	// unmetRequirements is the error of a provider that cannot sign the person in as strongly as asked for (OpenID Connect Core Error Code
	// unmet_authentication_requirements 1.0).
	unmetRequirements = "unmet_authentication_requirements"
)

// Finish is an authorization response, with what belongs to its attempt.
type Finish struct {
	// Params are the parameters as they came.
	Params url.Values
	// Secret and RedirectURI are those of [Begin].
	Secret      [32]byte
	RedirectURI string
	// Posted says that the response came by POST.
	Posted bool
	// ACR and MaxAge are those of [Begin]: the strengths of which the sign-in must have one, and how long ago it may be. Empty is any.
	ACR    []string
	MaxAge time.Duration
}

// Finish turns an authorization response into a grant. The caller has matched the state already: it found the attempt by it.
//
// Flow:
//  1. the response as such: no parameter twice, the right way in, the right issuer
//  2. what it says: an error, or a code
//  3. code → tokens
//  4. the ID token, and only then anything that uses a token; a provider that is not OpenID Connect has none; how and when it says that the
//     person signed in
//  5. what else says who the person is: userinfo, introspection, the answer itself
//  6. claims → identity
//
// Its errors are [AuthorizationError], [InsufficientError], [ProtocolError] and [UnavailableError].
func (p *Provider) Finish(ctx context.Context, f Finish) (session.Grant, error) {
	if f.Secret == [32]byte{} {
		return session.Grant{}, badAnswer("authorization response belongs to no attempt")
	}
	if p.o.Grant != grantCode {
		return session.Grant{}, badAnswer("authorization response for a provider that is not asked for any")
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Grant{}, err
	}
	code, err := p.readResponse(m, f)
	if bad, ok := err.(*ProtocolError); ok {
		bad.Response = true
	}
	if err != nil {
		return session.Grant{}, err
	}
	nonce, verifier := p.derive(f.Secret)
	form := url.Values{
		"grant_type": {"authorization_code"},
		"code":       {code},
	}
	if !p.o.OmitRedirectURI {
		form.Set("redirect_uri", f.RedirectURI)
	}
	if p.usesPKCE() {
		form.Set("code_verifier", verifier)
	}
	t, err := p.requestToken(ctx, m, form)
	if err != nil {
		return session.Grant{}, codeError(err)
	}
	return p.signIn(ctx, m, t, expect{nonce: nonce, maxAge: maxTokenAge, acr: f.ACR, authAge: f.MaxAge}, "")
}

// signIn makes the grant of a sign-in out of a token answer. typed is the name that the person typed in, if we asked for it.
func (p *Provider) signIn(ctx context.Context, m *metadata, t tokenAnswer, want expect, typed string) (session.Grant, error) {
	var c claims
	if p.o.OAuth2 != nil && want.stepUp() {
		return session.Grant{}, &InsufficientError{What: "plain OAuth 2.0 does not tell how or when a person signed in"}
	}
	if p.o.OAuth2 == nil {
		if t.id == "" {
			return session.Grant{}, badAnswer("token endpoint answered no id_token: is openid among the scopes?")
		}
		var err error
		if c, err = p.verifyIDToken(ctx, m, t.id, t.access, want); err != nil {
			return session.Grant{}, err
		}
		if err := p.checkStrength(c, want); err != nil {
			return session.Grant{}, err
		}
	}
	g, err := p.identify(ctx, m, t, c, nil, typed)
	if err != nil {
		return session.Grant{}, err
	}
	g.Issued, _ = c.time("iat") // what a logout token's iat is compared with
	return t.complete(g, session.Tokens{Scope: m.scope}), nil
}

// Callback reads what leads a caller to the attempt that a response belongs to, by the provider's own names: the state, and whether
// the response says that there was an error. An error may come without a state. state is empty when there is none, or more than one.
func (p *Provider) Callback(params url.Values) (state string, failed bool) {
	if v := params[p.o.callbackParam("state")]; len(v) == 1 && len(v[0]) <= maxParam {
		state = v[0]
	}
	return state, params.Has(p.o.callbackParam("error"))
}

// readResponse checks the authorization response and returns its code. Parameters that it does not know are ignored (RFC 6749
// section 4.1.2), tokens among them: only the token endpoint gives any.
func (p *Provider) readResponse(m *metadata, f Finish) (code string, err error) {
	stateName, codeName, errorName := p.o.callbackParam("state"), p.o.callbackParam("code"), p.o.callbackParam("error")
	for _, name := range []string{stateName, codeName, "iss", errorName, "error_description", "error_uri"} {
		switch v := f.Params[name]; {
		case len(v) > 1: // RFC 6749 section 3.1; who wins would depend on who reads
			return "", badAnswer("authorization response has parameter %s more than once", name)
		case len(v) == 1 && len(v[0]) > maxParam:
			return "", badAnswer("authorization response has a parameter %s of more than %d bytes", name, maxParam)
		}
	}
	if f.Posted != (p.o.ResponseMode == modeFormPost) {
		return "", badAnswer("authorization response did not come by response_mode %s", p.o.ResponseMode)
	}
	// RFC 9207 section 2.4, for errors too: a response of another provider must not make us send its code to this one. A provider
	// that is not OpenID Connect has no issuer that is known here, but it is none of the others.
	iss := f.Params.Get("iss")
	switch {
	case p.o.OAuth2 == nil && f.Params.Has("iss") && iss != p.issuer, slices.Contains(p.o.OtherIssuers, iss) && iss != p.issuer:
		return "", badAnswer("authorization response is of another issuer (iss): %q", printable(brief(iss)))
	case p.o.OAuth2 == nil && iss == "" && m.issRequired:
		return "", badAnswer("authorization response does not name its issuer (iss), as this provider always does")
	}
	if f.Params.Get(errorName) == unmetRequirements {
		return "", &InsufficientError{What: "provider answered error " + unmetRequirements}
	}
	if f.Params.Has(errorName) {
		return "", &AuthorizationError{Code: errorCode(f.Params.Get(errorName)), Description: description(f.Params.Get("error_description"))}
	}
	code = f.Params.Get(codeName)
	if code == "" {
		return "", badAnswer("authorization response has neither %s nor %s: see callback_params", codeName, errorName)
	}
	return code, nil
}

// codeError says what a refused code means.
func codeError(err error) error {
	err = refusal(err)
	if bad, ok := err.(*ProtocolError); ok && bad.Code == "invalid_grant" {
		bad.What += ": the code is spent, too old or of another redirect URI"
	}
	return err
}

// refusal says what it means that the token endpoint refused.
func refusal(err error) error {
	refused, ok := err.(*tokenError)
	if !ok {
		return err
	}
	if refused.busy() {
		return &UnavailableError{What: refused.Error(), RetryAfter: refused.retryAfter, sent: true}
	}
	e := &ProtocolError{What: refused.Error(), Code: refused.code}
	switch refused.code {
	case "invalid_client", "unauthorized_client":
		e.What += ": see client_id, client_secret and client_auth"
	}
	return e
}

// errorCode keeps an OAuth error code if it looks like one. What does not may hold anything.
func errorCode(s string) string {
	if s == "" || len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "unreadable"
	}
	return s
}

// description bounds a text for people.
func description(s string) string {
	if len(s) > maxDescription {
		s = s[:maxDescription]
	}
	return printable(s)
}

// printable replaces what is no character or controls a terminal, a log or the direction of text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

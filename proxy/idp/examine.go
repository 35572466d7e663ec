package idp

import (
	"context"
	"crypto/rand"
	"errors"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Advertised is what a provider says about itself in its discovery document, as far as it matters to whoever looks for a mistake.
type Advertised struct {
	Issuer                                                     string
	Scopes, ResponseModes, ClientAuthMethods, ChallengeMethods []string
	EndSession, BackChannelLogout                              bool
	// Ahead is how far the provider's clock is ahead of ours, by its Date header and so to about a second; Dated says that there was one.
	Ahead time.Duration
	Dated bool
}

// Examine reads the provider's metadata now. Where they cannot be used it returns them all the same, as far as they came, with the error. Of a
// provider that is not OpenID Connect there is nothing to read.
func (p *Provider) Examine(ctx context.Context) (Advertised, error) {
	if p.o.OAuth2 != nil {
		return Advertised{}, nil
	}
	d, a, err := p.fetchDocument(ctx)
	if err != nil {
		return Advertised{}, err
	}
	told := Advertised{
		Issuer: brief(d.Issuer), Scopes: d.Scopes, ResponseModes: d.ResponseModes, ClientAuthMethods: d.TokenAuthMethods,
		ChallengeMethods: d.ChallengeMethods, EndSession: d.EndSession != "", BackChannelLogout: d.BackChannelLogout,
	}
	told.Ahead, told.Dated = a.ahead(p.now())
	m, err := p.readDocument(d)
	if err != nil {
		return told, err
	}
	p.meta.Store(m)
	return told, nil
}

// ahead is how far the clock of who answered is ahead of ours, at received. A cached answer says how old it is (RFC 9111 section 5.1).
func (a answer) ahead(received time.Time) (time.Duration, bool) {
	date, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return 0, false
	}
	age, _ := strconv.ParseUint(a.header.Get("Age"), 10, 31)
	between := a.sent.Add(received.Sub(a.sent) / 2)
	return date.Add(time.Duration(age)*time.Second + 500*time.Millisecond).Sub(between), true // the date is cut to the second
}

// SigningKeys fetches the provider's keys and counts those that can verify this client's ID tokens.
func (p *Provider) SigningKeys(ctx context.Context) (usable int, err error) {
	m, err := p.metadata(ctx)
	if err != nil || m.keys == nil {
		return 0, err
	}
	if err := m.keys.refresh(ctx); err != nil {
		return 0, err
	}
	keys, _ := m.keys.current()
	for _, key := range keys {
		if fits(&key, p.alg) {
			usable++
		}
	}
	return usable, nil
}

// ClientAuth is how the client authenticates, once that is known.
func (p *Provider) ClientAuth() string {
	if m := p.meta.Load(); m != nil {
		return m.clientAuth
	}
	return ""
}

// Scopes are asked for, once that is known.
func (p *Provider) Scopes() []string {
	m := p.meta.Load()
	if m == nil || m.scope == "" {
		return nil
	}
	return strings.Split(m.scope, p.o.ScopeSeparator)
}

// Sent is what a provider did with a browser that asked to be signed in without being shown anything.
type Sent struct {
	// Back says that it was sent back to the redirect URI, which is registered then. Code is the OAuth error that it brought, or empty.
	Back bool
	Code string
	// Status is the answer's status.
	Status int
	// Refused says that the answer is an error page, and Blames what it speaks about: redirect_uri, client_id or nothing.
	Refused bool
	Blames  string
}

// TryAuthorize sends an authorization request as a browser without any cookie would, with prompt=none, and follows nothing. Nobody is signed in by it.
func (p *Provider) TryAuthorize(ctx context.Context, redirectURI string) (Sent, error) {
	b := Begin{State: rand.Text(), RedirectURI: redirectURI, Prompt: "none"}
	_, _ = rand.Read(b.Secret[:]) // never fails
	address, err := p.Begin(ctx, b)
	if err != nil {
		return Sent{}, err
	}
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return Sent{}, badAnswer("authorization_endpoint has a malformed address")
	}
	req.Header.Set("Accept", "text/html")
	a, err := p.call(ctx, "authorization endpoint", req)
	if err != nil {
		return Sent{}, err
	}
	return p.readSent(a, redirectURI), nil
}

// readSent judges what came of an authorization request.
func (p *Provider) readSent(a answer, redirectURI string) Sent {
	sent := Sent{Status: a.status}
	body := string(a.body)
	if a.status >= 300 && a.status < 400 {
		to, err := url.Parse(a.header.Get("Location"))
		if err != nil {
			return sent
		}
		params := to.Query()
		at := *to
		at.RawQuery, at.Fragment, at.RawFragment = "", "", ""
		registered, _, _ := strings.Cut(redirectURI, "?")
		switch theirs := p.o.callbackParam("error"); {
		case at.String() == registered:
			sent.Back, sent.Code = true, codeIn(params.Get(theirs))
		case params.Has("error") || strings.HasSuffix(strings.TrimSuffix(to.Path, "/"), "error"):
			sent.Refused, sent.Blames = true, blamed(params.Encode(), true)
		}
		return sent
	}
	if posted, ok := readPosted(body, redirectURI); ok {
		sent.Back, sent.Code = true, codeIn(posted)
		return sent
	}
	sent.Refused = a.status >= 400
	sent.Blames = blamed(body, sent.Refused)
	sent.Refused = sent.Refused || sent.Blames != ""
	return sent
}

// codeIn is the OAuth error code that came back, or empty.
func codeIn(param string) string {
	if param == "" {
		return ""
	}
	return errorCode(param)
}

var (
	formAction = regexp.MustCompile(`(?i)<form[^>]*\saction=["']([^"']*)["']`)
	formError  = regexp.MustCompile(`(?i)<input[^>]*\sname=["']error["'][^>]*\svalue=["']([^"']*)["']`)

	// What error pages say. A page that is none may show an address with redirect_uri in it: there it takes a complaint.
	speaksOfRedirect = regexp.MustCompile(`(?i)(redirect|callback|reply)[ _-]?(ur[il]|address)`)
	refusesRedirect  = regexp.MustCompile(`(?i)redirect_uri_mismatch|invalid[ _]redirect|AADSTS50011|(redirect|callback|reply)[ _-]?ur[il]\b[^.<>"]{0,200}\b(mismatch|invalid|not (match|registered|allowed|valid)|does not)`)
	speaksOfClient   = regexp.MustCompile(`(?i)\bclient|application`)
	refusesClient    = regexp.MustCompile(`(?i)invalid_client|unauthorized_client|AADSTS700016|client[^.<>"]{0,60}not found|(no such|unknown) client`)
)

// readPosted finds the form by which a browser is sent back (OAuth 2.0 Form Post Response Mode), and the error in it.
func readPosted(body, redirectURI string) (code string, ok bool) {
	form := formAction.FindStringSubmatch(body)
	if form == nil || html.UnescapeString(form[1]) != redirectURI {
		return "", false
	}
	if field := formError.FindStringSubmatch(body); field != nil {
		code = field[1]
	}
	return code, true
}

// blamed is the parameter that a page complains about. Of an error page it is enough that it speaks of one.
func blamed(text string, refused bool) string {
	switch {
	case refusesRedirect.MatchString(text) || refused && speaksOfRedirect.MatchString(text):
		return "redirect_uri"
	case refusesClient.MatchString(text) || refused && speaksOfClient.MatchString(text):
		return "client_id"
	}
	return ""
}

// TryClient sends one token request with a code that nobody gave. That the provider refuses the code, and not the client, is the good answer: nil. A
// client with grant password sends a made-up refresh token: a password would count as an attempt to guess one. Its errors are [ProtocolError], with
// the provider's error code, and [UnavailableError].
func (p *Provider) TryClient(ctx context.Context, redirectURI string) error {
	m, err := p.metadata(ctx)
	if err != nil {
		return err
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {rand.Text()}}
	if !p.o.OmitRedirectURI {
		form.Set("redirect_uri", redirectURI)
	}
	if p.usesPKCE() {
		form.Set("code_verifier", oauth2.GenerateVerifier())
	}
	if p.o.Grant == grantPassword {
		form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {rand.Text()}}
	}
	_, err = p.requestToken(ctx, m, form)
	if err == nil {
		return badAnswer("token endpoint gave tokens for a code that nobody has")
	}
	if refused, ok := errors.AsType[*tokenError](err); ok && (refused.spent() || refused.code == "bad_verification_code" || refused.code == "invalid_code") {
		return nil
	}
	return refusal(err)
}

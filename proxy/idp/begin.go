package idp

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// maxStartParam is how long a parameter of an attempt may be.
const maxStartParam = 512

// Begin is what one attempt to sign in needs.
type Begin struct {
	// State comes back with the response and leads the caller to the attempt.
	State string
	// Secret is random and known to this browser's attempt alone. The nonce and the PKCE verifier are made from it, so that
	// whoever injects a code of another attempt fails at the provider and here.
	Secret [32]byte
	// RedirectURI is where the response goes, exactly as it is registered.
	RedirectURI string
	// Prompt is none, login, consent or select_account, or empty.
	Prompt string
	// ACR and MaxAge are what the sign-in must be; see [Finish]. They are asked for where the provider is OpenID Connect.
	ACR    []string
	MaxAge time.Duration
	// Params are what whoever begins the attempt would like to add. Only those whose names [Options.StartParams] allows are sent.
	Params url.Values
}

// Begin returns the address at the provider to which the browser is sent. While the provider is not discovered the error wraps
// [ErrNotDiscovered].
func (p *Provider) Begin(ctx context.Context, b Begin) (authURL string, err error) {
	if b.State == "" || b.Secret == [32]byte{} || b.RedirectURI == "" {
		return "", errors.New("begin sign-in: state, secret and redirect URI are needed")
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return "", err
	}
	if m.authorize == nil {
		return "", errors.New("begin sign-in: this provider has no authorization endpoint")
	}
	nonce, verifier := p.derive(b.Secret)
	u := *m.authorize
	q := u.Query() // RFC 6749 section 3.1: the endpoint's own query stays
	for name, value := range p.o.AuthorizeParams {
		q.Set(name, value)
	}
	p.addStartParams(q, b.Params)
	if b.Prompt != "" {
		q.Set("prompt", b.Prompt)
	}
	for _, resource := range p.o.Resources {
		if !slices.Contains(q["resource"], resource) {
			q.Add("resource", resource)
		}
	}
	// What the protocol needs comes last, so that nothing above can stand in for it.
	q.Set("response_type", "code")
	q.Set("client_id", p.clientID)
	q.Set("redirect_uri", b.RedirectURI)
	q.Set("state", b.State)
	if m.scope != "" {
		q.Set("scope", m.scope)
	}
	if p.o.OAuth2 == nil {
		q.Set("nonce", nonce)
		if len(b.ACR) > 0 {
			q.Set("acr_values", strings.Join(b.ACR, " "))
		}
		if b.MaxAge > 0 {
			q.Set("max_age", strconv.FormatInt(int64(b.MaxAge/time.Second), 10))
		}
	}
	if p.usesPKCE() {
		q.Set("code_challenge", oauth2.S256ChallengeFromVerifier(verifier))
		q.Set("code_challenge_method", "S256")
	}
	if p.o.ResponseMode != modeQuery { // query is the default for codes
		q.Set("response_mode", p.o.ResponseMode)
	}
	u.RawQuery = encodeQuery(q)
	return u.String(), nil
}

// usesPKCE reports whether codes are bound to the attempt that asked for them (RFC 7636).
func (p *Provider) usesPKCE() bool { return p.o.PKCE != "off" }

// addStartParams adds those of the wanted parameters that are allowed, that are there once and are text of a sensible length. They come
// from a link that anyone can have written.
func (p *Provider) addStartParams(q, wanted url.Values) {
	for _, name := range p.o.StartParams {
		if v := wanted[name]; len(v) == 1 && len(v[0]) <= maxStartParam && clean(v[0]) {
			q.Set(name, v[0])
		}
	}
}

// encodeQuery encodes parameters for the query of a URL: there a plus is a space only to those who take it for a form.
func encodeQuery(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }

// derive makes an attempt's nonce and PKCE verifier. They are bound to the provider and the client, too: an attempt that is finished
// with another provider than it was begun with fails.
func (p *Provider) derive(secret [32]byte) (nonce, verifier string) {
	return p.expand(secret, "nonce"), p.expand(secret, "code_verifier")
}

func (p *Provider) expand(secret [32]byte, purpose string) string {
	info := strings.Join([]string{"postern sign-in", purpose, p.clientID, p.issuer}, "\x00")
	key, err := hkdf.Expand(sha256.New, secret[:], info, 32)
	if err != nil {
		panic(err) // 32 bytes are never too many
	}
	return base64.RawURLEncoding.EncodeToString(key)
}

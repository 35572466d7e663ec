package idp

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/oauth2"
)

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
	nonce, verifier := p.derive(b.Secret)
	u := *m.authorize
	q := u.Query() // RFC 6749 section 3.1: the endpoint's own query stays
	q.Set("response_type", "code")
	q.Set("client_id", p.clientID)
	q.Set("redirect_uri", b.RedirectURI)
	q.Set("scope", m.scope)
	q.Set("state", b.State)
	q.Set("nonce", nonce)
	q.Set("code_challenge", oauth2.S256ChallengeFromVerifier(verifier))
	q.Set("code_challenge_method", "S256")
	if p.responseMode != modeQuery { // query is the default for codes
		q.Set("response_mode", p.responseMode)
	}
	if b.Prompt != "" {
		q.Set("prompt", b.Prompt)
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // a plus is a space only in forms
	return u.String(), nil
}

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

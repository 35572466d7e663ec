package idp

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 section 2.2
	assertionLife = time.Minute
)

// chooseClientAuth decides how the client authenticates, out of what it has and what the provider supports. It is never found out by
// trying: the second try would send a code or refresh token again.
func (p *Provider) chooseClientAuth(supported []string) (string, error) {
	if p.o.ClientAuth != "" {
		return p.o.ClientAuth, nil
	}
	// RFC 8414 section 2: the default is client_secret_basic. A client with nothing but a key or certificate cannot mean that.
	said := supported != nil
	offers := func(method string) bool { return slices.Contains(supported, method) }
	secret, key, cert := p.o.ClientSecret != nil, p.o.ClientKey != nil, p.o.ClientCert != nil
	switch {
	case !secret && !key && !cert:
		return authNone, nil
	case key && (offers(authKey) || !said && !secret):
		return authKey, nil
	case cert && (offers(authTLS) || offers(authSelfTLS) || !said && !secret):
		return authTLS, nil
	case secret && (offers(authBasic) || !said):
		return authBasic, nil
	case secret && offers(authPost):
		return authPost, nil
	}
	return "", badAnswer("the provider supports client authentication by %s only: see client_auth", printable(brief(strings.Join(supported, ", "))))
}

// authenticate adds to a request's parameters and header what proves that the client sends it: one way and no other (RFC 6749
// section 2.3). Its errors are [UnavailableError]s for what could not be read.
func (p *Provider) authenticate(m *metadata, form url.Values, header http.Header) error {
	switch m.clientAuth {
	case authNone, authTLS: // RFC 8705 section 2: the certificate is shown by the connection
		form.Set("client_id", p.clientID)
		return nil
	case authKey:
		assertion, err := p.assertion(m)
		if err != nil {
			return &UnavailableError{What: "client assertion could not be made", Err: err}
		}
		form.Set("client_id", p.clientID)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
		return nil
	}
	secret, err := p.o.ClientSecret()
	if err != nil {
		return &UnavailableError{What: "client_secret could not be read", Err: err}
	}
	if secret == "" {
		return &UnavailableError{What: "client_secret is empty"}
	}
	if m.clientAuth == authPost {
		form.Set("client_id", p.clientID)
		form.Set("client_secret", secret)
		return nil
	}
	// RFC 6749 section 2.3.1: form-encoded first.
	pair := url.QueryEscape(p.clientID) + ":" + url.QueryEscape(secret)
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	return nil
}

// clientRequest makes a request of the client as itself: form parameters in the body, and what proves who sends them.
func (p *Provider) clientRequest(m *metadata, what, address string, form url.Values) (*http.Request, error) {
	header := http.Header{}
	if err := p.authenticate(m, form, header); err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, badAnswer("%s has a malformed address", what)
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// assertion makes a token that proves who the client is (RFC 7523 section 3). Each is used once and does not live long.
func (p *Provider) assertion(m *metadata) (string, error) {
	text, err := p.o.ClientKey()
	if err != nil {
		return "", err
	}
	key, err := p.key.parse(text)
	if err != nil {
		return "", err
	}
	audience := p.o.AssertionAudience
	if p.o.OAuth2 != nil {
		audience = cmp.Or(audience, p.o.OAuth2.Token)
	}
	now := p.now()
	payload, err := json.Marshal(map[string]any{
		"iss": p.clientID,
		"sub": p.clientID,
		"aud": cmp.Or(audience, p.issuer),
		"jti": rand.Text(),
		"iat": now.Unix(),
		"exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: key.alg(m.authAlgs),
		Key:       jose.JSONWebKey{Key: key.private, KeyID: cmp.Or(p.o.ClientKeyID, key.thumbprint)},
	}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// clientKey is the client's private key, parsed again when it changes.
type clientKey struct {
	mu   sync.Mutex
	text string
	key  *parsedKey
}

// parsedKey is a private key that is fit to sign.
type parsedKey struct {
	private    crypto.Signer
	thumbprint string // RFC 7638
}

// parse returns the key that text holds in PEM.
func (k *clientKey) parse(text string) (*parsedKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil && k.text == text {
		return k.key, nil
	}
	key, err := parseClientKey(text)
	if err != nil {
		return nil, err
	}
	k.text, k.key = text, key
	return key, nil
}

// parseClientKey reads the first private key of a PEM text. Its errors hold nothing of the text.
func parseClientKey(text string) (*parsedKey, error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("client_key holds no private key in PEM")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("client_key is encrypted with a passphrase")
			}
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("client_key is encrypted with a passphrase")
			}
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("client_key is encrypted with a passphrase")
		default: // certificates and parameters stand in the same file
			continue
		}
		if err != nil {
			return nil, errors.New("client_key holds a malformed private key")
		}
		return checkClientKey(key)
	}
}

// checkClientKey refuses keys that cannot sign, or that are weak.
func checkClientKey(key any) (*parsedKey, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("client_key is of a type that cannot sign: %T", key)
	}
	k := &parsedKey{private: signer}
	if !serves(signer.Public(), string(k.alg(nil))) {
		return nil, errors.New("client_key is too short, or of a kind that is not supported: use RSA with 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519")
	}
	public := jose.JSONWebKey{Key: signer.Public()}
	sum, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, errors.New("client_key has no thumbprint")
	}
	k.thumbprint = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// alg is the algorithm for the key: what the type says, and for RSA PS256 where the provider verifies that and not RS256.
func (k *parsedKey) alg(supported []string) jose.SignatureAlgorithm {
	switch key := k.private.(type) {
	case *rsa.PrivateKey:
		if slices.Contains(supported, "PS256") && !slices.Contains(supported, "RS256") {
			return jose.PS256
		}
		return jose.RS256
	case *ecdsa.PrivateKey:
		switch key.Curve.Params().BitSize {
		case 384:
			return jose.ES384
		case 521:
			return jose.ES512
		}
		return jose.ES256
	case ed25519.PrivateKey:
		return jose.EdDSA
	}
	return ""
}

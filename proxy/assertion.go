package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/maypok86/otter/v2"

	"postern/config"
)

const (
	assertionLife = time.Minute
	// assertionReuse is how long one is sent again, so that a page with a hundred requests costs one signature and each has half the life left.
	assertionReuse = assertionLife / 2
	// assertionsKept bounds those that are kept, in bytes.
	assertionsKept = 8 << 20
	// keySetAge is how long applications may keep our keys. A key is to be published that long before it signs.
	keySetAge = 5 * time.Minute
)

// assertion is what a route says about its signed statement.
type assertion struct {
	header, audience string
}

// asserter signs statements about who asks (a JWT, ES256), by which an application that anyone can reach tells what came through Postern. The first of
// server.assertion_keys signs, all are published.
type asserter struct {
	now    func() time.Time
	signer jose.Signer
	public []byte // the JSON Web Key Set
	kept   *otter.Cache[assertionKey, signedAssertion]
}

// assertionKey is what an assertion depends on: a session as it is now, and for whom it is made.
type assertionKey struct {
	owner            string
	version          int64
	obtained         time.Time
	issuer, audience string
}

type signedAssertion struct {
	text  string
	until time.Time
}

// newAsserter makes one of keys in PEM.
func newAsserter(texts []string, now func() time.Time) (*asserter, error) {
	a := &asserter{now: now, kept: otter.Must(&otter.Options[assertionKey, signedAssertion]{
		MaximumWeight: assertionsKept,
		Weigher:       func(_ assertionKey, s signedAssertion) uint32 { return uint32(256 + len(s.text)) },
		Logger:        &otter.NoopLogger{},
	})}
	return a, a.readKeys(texts)
}

// NewAssertionKey makes a private key for server.assertion_keys, in PEM.
func NewAssertionKey() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // never since Go 1.24
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err) // never for a key of this kind
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (a *asserter) readKeys(texts []string) error {
	var set jose.JSONWebKeySet
	var first jose.JSONWebKey
	for i, text := range texts {
		private, err := config.ParseAssertionKey(text)
		if err != nil {
			return fmt.Errorf("server.assertion_keys[%d] %w", i, err)
		}
		public := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.ES256), Use: "sig"}
		sum, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			return fmt.Errorf("server.assertion_keys[%d]: %w", i, err)
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(sum) // RFC 7638
		set.Keys = append(set.Keys, public)
		if i == 0 {
			first = jose.JSONWebKey{Key: private, KeyID: public.KeyID}
		}
	}
	var err error
	if a.public, err = json.Marshal(set); err != nil {
		return err
	}
	a.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: first}, (&jose.SignerOptions{}).WithType("JWT"))
	return err
}

// sign is the statement about the session of x for audience. An older one serves for a while.
func (a *asserter) sign(x *exchange, audience string) (string, error) {
	s, now := x.verdict.Session, a.now()
	key := assertionKey{owner: ownerOf(s), version: s.Version, obtained: s.Tokens.Obtained, issuer: x.origin.String(), audience: audience}
	if kept, ok := a.kept.GetIfPresent(key); ok && now.Before(kept.until) {
		return kept.text, nil
	}
	claims := map[string]any{
		"iss": key.issuer, "aud": audience, "sub": s.Subject, "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
		"provider": s.Provider, "user": s.Identity.User, "email": s.Identity.Email, "name": s.Identity.Name,
		"preferred_username": s.Identity.PreferredUsername, "sid": s.Handle(),
	}
	for name, value := range claims {
		if value == "" {
			delete(claims, name)
		}
	}
	if len(s.Identity.Groups) > 0 {
		claims["groups"] = s.Identity.Groups
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := a.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return "", err
	}
	a.kept.Set(key, signedAssertion{text, now.Add(assertionReuse)})
	return text, nil
}

// jwks is the endpoint with the public keys, for applications. It tells nobody anything, so it answers under any name that they call us by.
func (p *Proxy) jwks(x *exchange) {
	if p.asserter == nil {
		p.refuse(x, http.StatusNotFound, "no_endpoint", nil)
		return
	}
	h := x.Header()
	p.own(h)
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(keySetAge.Seconds())))
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("X-Content-Type-Options", "nosniff")
	x.WriteHeader(http.StatusOK)
	if x.r.Method != http.MethodHead {
		_, _ = x.Write(p.asserter.public)
	}
}

package idptest

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // hashOf
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Signing says how tokens are signed when not in the regular way.
type Signing struct {
	// Alg is RS256 to RS512, PS256 to PS512, ES256 to ES512, EdDSA, HS256 or none; "" is the provider's own. A key for it is made and
	// published.
	Alg string
	// Foreign signs with a key that is not published, under the name of the one that is.
	Foreign bool
	// HMACKey is the key of HS256; nil is the client's secret.
	HMACKey []byte
}

// keyring holds the keys that sign, the newest last. They are made when first needed: an RSA key takes a while.
type keyring struct {
	alg  string // the provider's own
	keys []key
}

type key struct {
	id, alg string
	private crypto.Signer
}

// SetSigning makes tokens be signed in another way from now on; the zero Signing is the regular one.
func (s *Server) SetSigning(how Signing) {
	s.change(func(x *settings) { x.signing = how })
	switch how.Alg {
	case "", "none", "HS256":
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keys.of(how.Alg)
	}
}

// AddKey publishes one more key of alg. It signs tokens of that alg from now on.
func (s *Server) AddKey(alg string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys.add(alg)
}

// RotateKeys signs with a new key from now on. The old ones stay published if keepOld.
func (s *Server) RotateKeys(keepOld bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !keepOld {
		s.keys.keys = nil
	}
	s.keys.add(s.keys.alg)
}

// SignJWT signs any claims the way the provider signs now, such as for tokens that a test makes up. The header's alg and kid are
// filled in before it is changed by extra.
func (s *Server) SignJWT(claims, extra map[string]any) string {
	return s.sign(claims, func(header, _ map[string]any) {
		for k, v := range extra {
			header[k] = v
		}
	}, "")
}

// algOf is the algorithm that tokens are signed with now.
func (s *Server) algOf() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.set.signing.Alg, s.keys.alg)
}

// of is the newest key of alg.
func (r *keyring) of(alg string) key {
	for i := len(r.keys) - 1; i >= 0; i-- {
		if r.keys[i].alg == alg {
			return r.keys[i]
		}
	}
	return r.add(alg)
}

func (r *keyring) add(alg string) key {
	k := newKey(alg)
	r.keys = append(r.keys, k)
	return k
}

func newKey(alg string) key {
	k := key{id: random(0)[:16], alg: alg}
	var err error
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		k.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("no such algorithm")
	}
	if err != nil {
		panic(fmt.Sprintf("idptest: make a key for %q: %v", alg, err))
	}
	return k
}

// hashOf is the hash that goes with an algorithm; EdDSA's is that of Ed25519.
func hashOf(alg string) crypto.Hash {
	switch alg {
	case "RS384", "PS384", "ES384":
		return crypto.SHA384
	case "RS512", "PS512", "ES512", "EdDSA":
		return crypto.SHA512
	}
	return crypto.SHA256
}

// sign makes a compact JWS. The pieces are put together here rather than by go-jose, which rightly refuses most of what a test may
// want: alg none, a header that names another algorithm, a foreign key under a known name.
func (s *Server) sign(claims map[string]any, mutate func(header, claims map[string]any), secret string) string {
	how := s.settings().signing
	header := map[string]any{"typ": "JWT"}
	var k key
	s.mu.Lock()
	switch how.Alg {
	case "none":
		header["alg"] = how.Alg
	case "HS256":
		header["alg"] = how.Alg
		if how.HMACKey == nil {
			how.HMACKey = []byte(secret)
		}
	default:
		alg := cmp.Or(how.Alg, s.keys.alg)
		k = s.keys.of(alg)
		header["alg"], header["kid"] = alg, k.id
	}
	s.mu.Unlock()
	if how.Foreign && k.private != nil {
		k.private = newKey(k.alg).private
	}
	if mutate != nil {
		mutate(header, claims)
	}
	signed := encode(header) + "." + encode(claims)
	var sig []byte
	switch {
	case how.Alg == "HS256":
		mac := hmac.New(sha256.New, how.HMACKey)
		mac.Write([]byte(signed))
		sig = mac.Sum(nil)
	case k.private != nil:
		sig = k.sign([]byte(signed))
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// sign is RFC 7518 section 3 and RFC 8037.
func (k key) sign(message []byte) []byte {
	hash := hashOf(k.alg)
	h := hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	var sig []byte
	var err error
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(k.alg, "PS") {
			sig, err = rsa.SignPSS(rand.Reader, private, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
			break
		}
		sig, err = rsa.SignPKCS1v15(rand.Reader, private, hash, digest)
	case *ecdsa.PrivateKey:
		var r, t *big.Int
		if r, t, err = ecdsa.Sign(rand.Reader, private, digest); err == nil {
			half := (private.Curve.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, half)), t.FillBytes(make([]byte, half))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(private, message)
	}
	if err != nil {
		panic(fmt.Sprintf("idptest: sign: %v", err))
	}
	return sig
}

// verify opens a JWS that one of the published keys signed.
func (s *Server) verify(token string) (map[string]any, bool) {
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	})
	if err != nil {
		return nil, false
	}
	set := s.published()
	payload, err := parsed.Verify(&set)
	if err != nil {
		return nil, false
	}
	var claims map[string]any
	return claims, json.Unmarshal(payload, &claims) == nil
}

func (s *Server) published() jose.JSONWebKeySet {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys.of(s.keys.alg)
	var set jose.JSONWebKeySet
	for _, k := range s.keys.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: k.alg, Use: "sig"})
	}
	return set
}

func (s *Server) jwks(w http.ResponseWriter, _ *http.Request) {
	set := s.published()
	writeJSON(w, http.StatusOK, set)
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("idptest: encode a token: %v", err))
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

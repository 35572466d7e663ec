package idp

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxToken     = 64 << 10         // bytes of an ID token
	maxKeys      = 100              // keys in a set
	fruitlessGap = 10 * time.Second // between fetches that bring nothing new
	failedGap    = 2 * time.Second  // after a fetch that failed
)

// signingAlgs are the algorithms that tokens may be signed with. None and the symmetric ones are not among them.
func signingAlgs() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

// errSignature says that a token is not signed by the provider.
var errSignature = errors.New("not signed by a key of the provider")

// keySet is the provider's keys. Tokens of known keys are verified without a call. For others the keys are fetched again: by one
// caller at a time, and not at once again when that brought nothing new, so that bad tokens cannot make Postern flood the provider. So
// that a withdrawn key goes, too, [Provider.Run] fetches them every hour.
type keySet struct {
	address string
	now     func() time.Time
	fetch   func(ctx context.Context) ([]byte, error)
	flight  flight

	mu        sync.Mutex
	keys      []jose.JSONWebKey
	fetched   time.Time // when keys came; zero: never
	count     int       // how often they came
	fruitless bool      // the last fetch, for a token that no key fitted, brought nothing new
	failed    time.Time // when the last fetch failed; zero: it did not
	failure   error
}

func newKeySet(p *Provider, address string) *keySet {
	return &keySet{
		address: address,
		now:     p.now,
		fetch: func(ctx context.Context) ([]byte, error) {
			a, err := p.get(ctx, "jwks_uri", address)
			return a.body, err
		},
	}
}

// adopt takes over the keys of another set at the same address.
func (k *keySet) adopt(other *keySet) {
	other.mu.Lock()
	defer other.mu.Unlock()
	k.keys, k.fetched, k.count = other.keys, other.fetched, other.count
}

// verify returns the payload of a token in compact serialization that is signed with one of algs. what names the token in errors: a
// [ProtocolError] for a bad one, and an [UnavailableError] when the key could not be had.
func (k *keySet) verify(ctx context.Context, what, token string, algs ...string) (header jose.Header, payload []byte, err error) {
	if len(token) > maxToken {
		return header, nil, badAnswer("%s is larger than %d bytes: ask the provider for fewer claims", what, maxToken)
	}
	// JSON serialisation, encrypted tokens, none and every other algorithm than the expected ones end here (RFC 8725 section 3.1).
	allowed := make([]jose.SignatureAlgorithm, len(algs))
	for i, alg := range algs {
		allowed[i] = jose.SignatureAlgorithm(alg)
	}
	jws, err := jose.ParseSignedCompact(token, allowed)
	if err != nil || len(jws.Signatures) != 1 {
		if len(algs) == 1 {
			return header, nil, badAnswer("%s is not signed with %s, or malformed (see id_token_signed_response_alg)", what, algs[0])
		}
		return header, nil, badAnswer("%s is not signed with an algorithm that is accepted, or malformed", what)
	}
	header = jws.Signatures[0].Protected
	keys, count := k.current()
	// Keys that someone else asked for may be older than the token, so up to twice that is not the last word.
	for range 3 {
		if payload, err := open(jws, keys, header); err == nil {
			return header, payload, nil
		}
		var last bool
		if keys, count, last, err = k.refetch(ctx, count, header.KeyID); err != nil {
			return header, nil, err
		}
		if last {
			break
		}
	}
	if payload, err = open(jws, keys, header); err != nil {
		return header, nil, badAnswer("%s is %v (key id %q)", what, err, brief(header.KeyID))
	}
	return header, payload, nil
}

// open tries the keys with the id that serve the algorithm, or for a token that names no id all that serve it.
func open(jws *jose.JSONWebSignature, keys []jose.JSONWebKey, header jose.Header) ([]byte, error) {
	for i := range keys {
		if header.KeyID != "" && keys[i].KeyID != header.KeyID || !fits(&keys[i], header.Algorithm) {
			continue
		}
		if payload, err := jws.Verify(keys[i].Key); err == nil {
			return payload, nil
		}
	}
	return nil, errSignature
}

// current returns the keys at hand and how often there were new ones.
func (k *keySet) current() (keys []jose.JSONWebKey, count int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys, k.count
}

// refresh fetches the keys without any token in need of them.
func (k *keySet) refresh(ctx context.Context) error {
	err := k.flight.join(ctx, func() error { return k.update(context.WithoutCancel(ctx)) })
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.fruitless = false
	}
	return err
}

// refetch returns newer keys than those of the count-th fetch. last says that there are none newer still: this caller's own fetch
// brought them, or one that brought nothing new was a moment ago. When keys cannot be had its error is an [UnavailableError].
func (k *keySet) refetch(ctx context.Context, count int, id string) (keys []jose.JSONWebKey, newCount int, last bool, err error) {
	k.mu.Lock()
	now := k.now()
	switch {
	case k.count != count: // someone else fetched meanwhile
		defer k.mu.Unlock()
		return k.keys, k.count, false, nil
	case !k.failed.IsZero() && now.Sub(k.failed) < failedGap:
		defer k.mu.Unlock()
		return nil, 0, false, noKey(k.failure, failedGap-now.Sub(k.failed))
	case k.fruitless && now.Sub(k.fetched) < fruitlessGap:
		defer k.mu.Unlock()
		// With its key at hand the token can be judged. Without, it may be signed with a newer one.
		if id == "" || slices.ContainsFunc(k.keys, func(key jose.JSONWebKey) bool { return key.KeyID == id }) {
			return k.keys, k.count, true, nil
		}
		return nil, 0, false, noKey(errSignature, fruitlessGap-now.Sub(k.fetched))
	}
	k.mu.Unlock()

	own := false
	err = k.flight.join(ctx, func() error {
		if done, err := k.since(count); done {
			return err
		}
		own = true
		return k.update(context.WithoutCancel(ctx))
	})
	if err != nil {
		return nil, 0, false, noKey(err, failedGap)
	}
	keys, newCount = k.current()
	return keys, newCount, own, nil
}

// since reports whether a fetch has ended since the count-th, or a moment ago, and how: between a caller's look at the keys and the
// start of its own fetch, someone else's may end.
func (k *keySet) since(count int) (done bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.count != count {
		return true, nil
	}
	return !k.failed.IsZero() && k.now().Sub(k.failed) < failedGap, k.failure
}

// noKey says that a token cannot be judged for now.
func noKey(why error, retry time.Duration) error {
	if bad, ok := errors.AsType[*ProtocolError](why); ok {
		why = errors.New(bad.What) // it is the key set that is bad: callers must not take it for the token
	}
	return &UnavailableError{What: "the key of the token could not be had", RetryAfter: retry, Err: why, sent: true}
}

// update fetches the keys. A failure keeps the old ones.
func (k *keySet) update(ctx context.Context) error {
	body, err := k.fetch(ctx)
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = parseKeys(body)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.failed, k.failure = k.now(), err
		return err
	}
	k.fruitless = sameKeys(k.keys, keys)
	k.keys, k.fetched = keys, k.now()
	k.count++
	k.failed, k.failure = time.Time{}, nil
	return nil
}

// sameKeys reports whether two fetches brought the same keys in the same order.
func sameKeys(a, b []jose.JSONWebKey) bool {
	return slices.EqualFunc(a, b, func(x, y jose.JSONWebKey) bool {
		key, ok := x.Key.(interface{ Equal(crypto.PublicKey) bool })
		return x.KeyID == y.KeyID && ok && key.Equal(y.Key)
	})
}

// parseKeys reads a JSON Web Key Set and keeps the keys that may verify signatures. Others are skipped, as RFC 7517 section 5 asks.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, badAnswer("jwks_uri answered no key set: %v", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, badAnswer("jwks_uri answered more than %d keys", maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var about struct {
			Use string   `json:"use"`
			Ops []string `json:"key_ops"`
		}
		if json.Unmarshal(raw, &about) != nil ||
			about.Use != "" && about.Use != "sig" ||
			about.Ops != nil && !slices.Contains(about.Ops, "verify") {
			continue
		}
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && key.IsPublic() && key.Valid() &&
			slices.ContainsFunc(signingAlgs(), func(alg string) bool { return fits(&key, alg) }) {
			keys = append(keys, key)
		}
	}
	slices.SortStableFunc(keys, func(a, b jose.JSONWebKey) int { return strings.Compare(a.KeyID, b.KeyID) })
	return keys, nil
}

// fits reports whether a key of the set is for alg: a set may bind a key to one algorithm (RFC 7517 section 4.4).
func fits(key *jose.JSONWebKey, alg string) bool {
	return (key.Algorithm == "" || key.Algorithm == alg) && serves(key.Key, alg)
}

// serves reports whether key is of the type that alg needs (RFC 7518 section 3.1), and neither weak nor a burden.
func serves(key any, alg string) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		bits := key.N.BitLen()
		return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && bits >= 2048 && bits <= 8192
	case *ecdsa.PublicKey:
		curve := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}
		return curve[alg] == key.Curve.Params().BitSize
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

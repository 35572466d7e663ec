package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/securecookie"
)

// ErrInvalid says that something was not sealed by us, for this purpose, in this place; or was changed since. It does not say
// which: the difference would help only an attacker.
var ErrInvalid = errors.New("sealed value is not valid")

// ErrExpired says that something was sealed by us too long ago.
var ErrExpired = errors.New("sealed value is too old")

// ErrTooLong says that a plaintext does not fit into a cookie.
var ErrTooLong = errors.New("value is too long to be sealed")

const (
	// MaxSealed is the longest text that Seal makes and Open looks at. Browsers drop a cookie whose name and value together are
	// longer than 4096 bytes (RFC 6265bis, section 5.6), and the name needs room too.
	MaxSealed = 3900

	// maxAhead is how far the clock of the process that sealed may be ahead of ours.
	maxAhead = 5 * time.Minute

	// textHeader is the length of what precedes the plaintext inside Seal: a format byte and five bytes of Unix time.
	textHeader = 1 + 5

	// formatText is the format byte of Seal.
	formatText = 1

	// maxPurposes bounds the derived keys that a ring remembers.
	maxPurposes = 64
)

// Ring seals under its first key and opens under each of its keys. Any number of goroutines may use it, also while [Ring.Replace]
// gives it other keys; nobody waits for that.
type Ring struct {
	now   func() time.Time
	state *atomic.Pointer[state] // shared by all that WithNow made
}

// state is a ring between two calls of Replace.
type state struct {
	keys       [][]byte
	generation uint64
	// purposes remembers the keys of each purpose, because deriving them costs more than using them.
	purposes  sync.Map // string → []purposeKeys, one for each key
	remembers atomic.Int32
}

// purposeKeys is what one ring key yields for one purpose.
type purposeKeys struct {
	text *securecookie.SecureCookie
	aead cipher.AEAD
	mac  []byte
}

// NewRing makes a ring of keys of [KeySize] bytes, as [ParseKey] returns them. The first seals, all open: to rotate, put a new key
// first, and remove the old one when nothing sealed under it matters any more.
func NewRing(keys ...[]byte) (*Ring, error) {
	st, err := newState(keys)
	if err != nil {
		return nil, err
	}
	r := &Ring{now: time.Now, state: &atomic.Pointer[state]{}}
	r.state.Store(st)
	return r, nil
}

func newState(keys [][]byte) (*state, error) {
	if len(keys) == 0 {
		return nil, errors.New("ring has no key")
	}
	st := &state{generation: 1}
	for i, key := range keys {
		if len(key) != KeySize {
			return nil, fmt.Errorf("key %d has %d bytes instead of %d", i+1, len(key), KeySize)
		}
		for j, other := range st.keys {
			if subtle.ConstantTimeCompare(key, other) == 1 {
				return nil, fmt.Errorf("key %d is the same as key %d", i+1, j+1)
			}
		}
		st.keys = append(st.keys, bytes.Clone(key))
	}
	return st, nil
}

// Replace gives the ring, and all that [Ring.WithNow] made of it, other keys, all at once. Keys that [NewRing] would refuse leave it as
// it was; the same keys in the same order change nothing.
func (r *Ring) Replace(keys ...[]byte) error {
	st, err := newState(keys)
	if err != nil {
		return err
	}
	for {
		old := r.state.Load()
		if slices.EqualFunc(st.keys, old.keys, func(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }) {
			return nil
		}
		st.generation = old.generation + 1
		if r.state.CompareAndSwap(old, st) {
			return nil
		}
	}
}

// Adopt gives r the keys that other has now, and reports whether they are others than before. other stays as it is.
func (r *Ring) Adopt(other *Ring) bool {
	before := r.Generation()
	_ = r.Replace(other.state.Load().keys...) // NewRing has taken them
	return r.Generation() != before
}

// Generation grows whenever Replace changes the keys. What somebody keeps that was made or opened with the ring holds for one generation.
// Read it before using the ring.
func (r *Ring) Generation() uint64 { return r.state.Load().generation }

// Keys is how many keys there are.
func (r *Ring) Keys() int { return len(r.state.Load().keys) }

// WithNow returns a ring of the same keys, now and after [Ring.Replace], that reads the time from now.
func (r *Ring) WithNow(now func() time.Time) *Ring {
	return &Ring{now: now, state: r.state}
}

// Seal encrypts plaintext for purpose and returns text of the characters A–Z a–z 0–9 - _ that needs no escaping in a cookie or a
// URL. 48 bytes become about 190 characters. What does not fit into [MaxSealed] is [ErrTooLong].
//
// The time inside is ours: securecookie's own stamp cannot be given a clock, and it believes stamps of the future.
func (r *Ring) Seal(purpose string, plaintext []byte) (string, error) {
	stamp := binary.BigEndian.AppendUint64(nil, uint64(r.now().Unix()))
	value := make([]byte, 0, textHeader+len(plaintext))
	value = append(value, formatText)
	value = append(value, stamp[len(stamp)-(textHeader-1):]...)
	value = append(value, plaintext...) // a copy: securecookie encrypts in place
	text, err := r.forPurpose(purpose)[0].text.Encode(purpose, value)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	if len(text) > MaxSealed {
		return "", fmt.Errorf("%w: %d bytes", ErrTooLong, len(plaintext))
	}
	return strings.TrimRight(text, "="), nil
}

// Open returns the plaintext of what [Ring.Seal] made for purpose at most maxAge ago, and which key of the ring opened it: when
// that is not 0, seal it again. Errors are [ErrInvalid] and [ErrExpired]; what comes from the future, beyond what clocks may
// differ, is invalid. Without a positive maxAge everything is expired.
func (r *Ring) Open(purpose, sealed string, maxAge time.Duration) (plaintext []byte, key int, err error) {
	text, ok := canonical(sealed)
	if !ok {
		return nil, 0, ErrInvalid
	}
	for i, keys := range r.forPurpose(purpose) {
		var value []byte
		if keys.text.Decode(purpose, text, &value) != nil {
			continue
		}
		if len(value) < textHeader || value[0] != formatText {
			return nil, 0, ErrInvalid
		}
		var stamp [8]byte
		copy(stamp[len(stamp)-(textHeader-1):], value[1:textHeader])
		age := r.now().Sub(time.Unix(int64(binary.BigEndian.Uint64(stamp[:])), 0))
		switch {
		case age < -maxAhead:
			return nil, 0, ErrInvalid
		case maxAge <= 0 || age > maxAge:
			return nil, 0, ErrExpired
		}
		return value[textHeader:], i, nil
	}
	return nil, 0, ErrInvalid
}

// canonical returns sealed as securecookie wants it, with padding, if Seal could have written it. Base64 decoders skip line breaks
// and ignore the last bits, so that other texts would open to the same value: one sealed value has one spelling.
func canonical(sealed string) (string, bool) {
	if len(sealed) == 0 || len(sealed) > MaxSealed {
		return "", false
	}
	if strings.ContainsAny(sealed, "\r\n") {
		return "", false
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(sealed); err != nil {
		return "", false
	}
	return sealed + "==="[:(4-len(sealed)%4)%4], true
}

// SealBytes encrypts plaintext for purpose and for the place aad, which [Ring.OpenBytes] must name too. It has no age.
//
// Values under one key and purpose should stay below 2^32 (see [Encrypt]).
func (r *Ring) SealBytes(purpose string, plaintext, aad []byte) []byte {
	return sealGCM(r.forPurpose(purpose)[0].aead, plaintext, aad)
}

// OpenBytes returns the plaintext of what [Ring.SealBytes] made for purpose and aad, and which key of the ring opened it. Anything
// else is [ErrInvalid].
func (r *Ring) OpenBytes(purpose string, sealed, aad []byte) (plaintext []byte, key int, err error) {
	for i, keys := range r.forPurpose(purpose) {
		plaintext, err := openGCM(keys.aead, sealed, aad)
		if err == nil {
			return plaintext, i, nil
		}
	}
	return nil, 0, ErrInvalid
}

// MAC returns the keyed hash (HMAC-SHA256, 32 bytes) of parts for purpose under each key of the ring, the first key's first: write
// under the first, look up under all. The parts are told apart: ("ab", "c") and ("a", "bc") differ. To check a hash that somebody
// sent, compare with [crypto/subtle.ConstantTimeCompare] or [crypto/hmac.Equal].
func (r *Ring) MAC(purpose string, parts ...string) [][]byte {
	keys := r.forPurpose(purpose)
	macs := make([][]byte, len(keys))
	for i, k := range keys {
		h := hmac.New(sha256.New, k.mac)
		for _, part := range parts {
			// The length before each part: joining them bare let Envoy be talked into other parts (CVE-2023-35941).
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write([]byte(part))
		}
		macs[i] = h.Sum(nil)
	}
	return macs
}

// Format writes how many keys there are and nothing of them, whatever the verb.
func (r *Ring) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "seal.Ring(%d keys)", r.Keys())
}

// forPurpose returns the keys for purpose, in the order of the ring.
func (r *Ring) forPurpose(purpose string) []purposeKeys {
	st := r.state.Load()
	if keys, ok := st.purposes.Load(purpose); ok {
		return keys.([]purposeKeys)
	}
	var keys []purposeKeys
	for _, key := range st.keys {
		keys = append(keys, derive(key, purpose))
	}
	if st.remembers.Load() < maxPurposes {
		if _, known := st.purposes.LoadOrStore(purpose, keys); !known {
			st.remembers.Add(1)
		}
	}
	return keys
}

// derive makes the keys of one purpose with HKDF-SHA256 (RFC 5869). Each use has a key of its own too, so that no value of one
// construction is ever valid in another.
func derive(key []byte, purpose string) purposeKeys {
	sub := func(use string) []byte {
		k, err := hkdf.Key(sha256.New, key, nil, "postern 1 "+use+"\x00"+purpose, KeySize)
		if err != nil {
			panic("seal: derive key: " + err.Error()) // only for lengths that are never asked for
		}
		return k
	}
	aead, err := newAEAD(sub("bytes"))
	if err != nil {
		panic("seal: " + err.Error()) // only for key lengths that HKDF does not make
	}
	text := securecookie.New(sub("text hash"), sub("text block"))
	text.SetSerializer(securecookie.NopEncoder{}) // not gob, which would run a decoder over what comes from outside
	text.MaxAge(0)                                // the age and the length are ours to judge
	text.MaxLength(0)
	return purposeKeys{text: text, aead: aead, mac: sub("mac")}
}

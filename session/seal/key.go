package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// minDistinct is how many different bytes a key has at least. Of 32 random bytes about 30 differ; fewer than 20 happens by chance
// less than once in 10^10 keys.
const minDistinct = 20

// NewKey makes a key: the base64 of 32 random bytes.
func NewKey() string {
	key := make([]byte, KeySize)
	rand.Read(key) // never fails: crypto/rand ends the program instead
	return base64.StdEncoding.EncodeToString(key)
}

// ParseKey reads what [NewKey] made. It also takes the URL alphabet and missing padding. It refuses other lengths and what no
// random source makes: placeholders, text, repetitions, counting. The error never holds the key.
func ParseKey(s string) ([]byte, error) {
	key, err := decodeKey(s)
	switch {
	case err != nil:
		return nil, errors.New("key is not base64; make one with: postern keygen")
	case len(key) != KeySize:
		return nil, fmt.Errorf("key has %d bytes instead of %d; make one with: postern keygen", len(key), KeySize)
	case weak(key):
		return nil, errors.New("key is a placeholder or not random; make one with: postern keygen")
	}
	return key, nil
}

func decodeKey(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // the decoder would skip them
		return nil, errors.New("line break")
	}
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}

// weak tells keys that a person typed or a program counted from random ones.
func weak(key []byte) bool {
	text, counts := true, true
	distinct := 0
	for i, b := range key {
		text = text && b >= 0x20 && b < 0x7f
		counts = counts && b-key[0] == byte(i)*(key[1]-key[0])
		if bytes.IndexByte(key[:i], b) < 0 {
			distinct++
		}
	}
	return text || counts || distinct < minDistinct
}

package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// formatGCM is the first byte of what [Encrypt] makes: AES-256-GCM with a random 96-bit nonce. A later format gets another byte.
const formatGCM = 1

// Encrypt seals plaintext under key with AES-256-GCM and a fresh random nonce. aad is not stored: [Decrypt] needs the same, so put
// there what the value belongs to (the name of its key, say), and it opens nowhere else.
//
// Random nonces are safe for 2^32 values under one key (NIST SP 800-38D, section 8.3).
func Encrypt(key *[KeySize]byte, plaintext, aad []byte) ([]byte, error) {
	aead, err := newAEAD(key[:])
	if err != nil {
		return nil, err
	}
	return sealGCM(aead, plaintext, aad), nil
}

// Decrypt opens what [Encrypt] made under the same key and aad. Anything else is [ErrInvalid].
func Decrypt(key *[KeySize]byte, sealed, aad []byte) ([]byte, error) {
	aead, err := newAEAD(key[:])
	if err != nil {
		return nil, err
	}
	return openGCM(aead, sealed, aad)
}

// newAEAD returns AES-256-GCM that puts a random nonce before what it seals, so that no caller can repeat one.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("cipher mode: %w", err)
	}
	return aead, nil
}

func sealGCM(aead cipher.AEAD, plaintext, aad []byte) []byte {
	out := make([]byte, 1, 1+len(plaintext)+aead.Overhead())
	out[0] = formatGCM
	return aead.Seal(out, nil, plaintext, withFormat(aad))
}

func openGCM(aead cipher.AEAD, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < 1+aead.Overhead() || sealed[0] != formatGCM {
		return nil, ErrInvalid
	}
	plaintext, err := aead.Open(nil, nil, sealed[1:], withFormat(aad))
	if err != nil {
		return nil, ErrInvalid
	}
	return plaintext, nil
}

// withFormat authenticates the format byte with the rest, so that a value cannot be passed off as one of another format.
func withFormat(aad []byte) []byte {
	return append([]byte{formatGCM}, aad...)
}

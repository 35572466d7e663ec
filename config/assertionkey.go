package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// ParseAssertionKey reads one of server.assertion_keys. Its errors hold nothing of the text; they begin with a verb, as problems do.
func ParseAssertionKey(text string) (*ecdsa.PrivateKey, error) {
	if what := badPrivateKey(text); what != "" {
		return nil, errors.New(what)
	}
	block, _ := pem.Decode([]byte(text))
	var key any
	var err error
	if block.Type == "EC PRIVATE KEY" {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("is no EC key on the curve P-256")
	}
	return private, nil
}

// badAssertionKey says why a text is none of server.assertion_keys.
func badAssertionKey(text string) string {
	if _, err := ParseAssertionKey(text); err != nil {
		return err.Error()
	}
	return ""
}

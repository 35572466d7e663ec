package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxPEM bounds what is read of a certificate or CA file.
const maxPEM = 4 << 20

// CheckFiles reads the files that the configuration names: secrets, session keys, certificates and CAs. Load does not,
// so that a file can be checked on another machine. It changes nothing.
func (c *Config) CheckFiles() Problems {
	v := &validator{c: c}
	if a := c.Server.Admin; a != nil {
		v.secret("server.admin.token", a.Token, func(text string) string {
			if len(text) < 16 {
				return "is shorter than 16 characters and could be guessed"
			}
			return ""
		})
	}
	if t := c.Server.TLS; t != nil {
		v.readableByOthers("server.tls.key_file", t.KeyFile)
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			v.err("server.tls", "the certificate and its key cannot be used: "+reason(err), "Name the PEM files of a certificate chain, leaf first, and of its key")
		}
	}
	for i, k := range c.Session.Keys {
		v.secret(fmt.Sprintf("session.keys[%d]", i), k, badKey)
	}
	v.sameKeys()
	if r := c.Session.Store.Redis; r != nil {
		v.secret("session.store.redis.password", r.Password, nil)
		v.ca("session.store.redis.ca_file", r.CAFile)
	}
	for _, p := range c.Providers {
		v.secret(join("providers", p.Name)+".client_secret", p.ClientSecret, nil)
	}
	return v.problems.sorted()
}

// secret reads a secret and lets bad say what is wrong with it.
func (v *validator) secret(path string, s Secret, bad func(string) string) {
	if s.IsZero() {
		return
	}
	text, err := s.Value()
	if err != nil {
		v.err(path, reason(err), "Put the secret there, readable by Postern's user")
		return
	}
	if bad != nil {
		if what := bad(text); what != "" {
			v.err(path, what, "Make one with `postern keygen`")
		}
	}
	v.readableByOthers(path, s.File())
}

// sameKeys finds one key under two names: rotating it would change nothing.
func (v *validator) sameKeys() {
	seen := map[string]bool{}
	for i, k := range v.c.Session.Keys {
		text, err := k.Value()
		if err != nil {
			continue
		}
		if seen[text] {
			v.err(fmt.Sprintf("session.keys[%d]", i), "is the same as a key before it", "Make another with `postern keygen`")
		}
		seen[text] = true
	}
}

// readableByOthers warns of a secret's file that every user of the machine can read or change.
func (v *validator) readableByOthers(path, file string) {
	info, err := os.Stat(file)
	if file == "" || err != nil {
		return
	}
	if info.Mode().Perm()&0o006 != 0 {
		v.warn(path, fmt.Sprintf("%s can be read or changed by every user of the machine (mode %04o)", quote(file), info.Mode().Perm()), "Give it to Postern's user with mode 0400; in Kubernetes set defaultMode and fsGroup")
	}
}

// ca wants a PEM file with at least one certificate.
func (v *validator) ca(path, file string) {
	if file == "" {
		return
	}
	data, err := readPEM(file)
	if err != nil {
		v.err(path, reason(err), "Name the PEM file of the CA")
		return
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		v.err(path, quote(file)+" holds no certificate", "Name the PEM file of the CA")
	}
}

func readPEM(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxPEM))
}

// reason is an error in the words of a problem: the file and what happened.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Sprintf("%s cannot be read: %v", quote(pe.Path), pe.Err)
	}
	return err.Error()
}

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"sync"
	"time"

	"postern/config"
)

// certificate serves a key pair from files and reads them again when they change, as certificate managers rotate them. A pair that does
// not load keeps the old one.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	pair    *tls.Certificate
	checked time.Time
	stamp   [2]os.FileInfo
}

// recheck bounds how often the files are looked at.
const recheck = 5 * time.Second

func newTLSConfig(certFile, keyFile string) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}, nil
}

// newAdminTLS is what the admin listener serves https with; nil: it serves http. Client certificates are asked for and verified where they come; who
// must have one is the handler's to say, since probes have none.
func newAdminTLS(s config.Server) (*tls.Config, error) {
	pair := s.AdminTLS()
	if pair == nil {
		return nil, nil
	}
	t, err := newTLSConfig(pair.CertFile, pair.KeyFile)
	if err != nil || s.Admin.ClientCA == "" {
		return t, err
	}
	data, err := os.ReadFile(s.Admin.ClientCA)
	if err != nil {
		return nil, err
	}
	t.ClientCAs = x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(data) {
		return nil, errors.New("client_ca holds no certificate")
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	return t, nil
}

func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= recheck {
		c.checked = now
		_ = c.load() // half-written or missing: the old pair serves until both fit again
	}
	return c.pair
}

// load reads the pair if either file changed.
func (c *certificate) load() error {
	var stamp [2]os.FileInfo
	changed := c.pair == nil
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		old := c.stamp[i]
		changed = changed || old == nil || !info.ModTime().Equal(old.ModTime()) || info.Size() != old.Size() || !os.SameFile(info, old)
		stamp[i] = info
	}
	if !changed {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.pair, c.stamp = &pair, stamp
	return nil
}

package main

import (
	"crypto/tls"
	"os"
	"sync"
	"time"
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

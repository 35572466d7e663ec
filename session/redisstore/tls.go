package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// TLSFiles are the PEM files for TLS with Redis. Each may be missing, but CertFile and KeyFile go together.
type TLSFiles struct {
	// CAFile has the CAs that are trusted, and only they are; else the system's.
	CAFile string
	// CertFile and KeyFile are the client's certificate. They are read for each new connection, so that they may change while we run; a
	// pair that cannot be read leaves the one of before.
	CertFile, KeyFile string
	// ServerName is the name that the servers' certificates must have; else the host of each server's address.
	ServerName string
}

// Config reads the files once, so that what is wrong with them shows at start.
func (f TLSFiles) Config() (*tls.Config, error) {
	c := &tls.Config{ServerName: f.ServerName, MinVersion: tls.VersionTLS12}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca: %s holds no PEM certificate", f.CAFile)
		}
	}
	if (f.CertFile == "") != (f.KeyFile == "") {
		return nil, errors.New("client certificate: needs both files")
	}
	if f.CertFile == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	var last atomic.Pointer[tls.Certificate]
	last.Store(&pair)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile); err == nil {
			last.Store(&pair)
		}
		return last.Load(), nil
	}
	return c, nil
}

// harden is a copy of c that speaks nothing older than TLS 1.2 and expects host unless c names another.
func harden(c *tls.Config, host string) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c
}

package main

import (
	"crypto/tls"
	"fmt"

	"postern/config"
)

// tlsConfigs are what the public and the admin listener serve https with, made of the files as they are now; nil where one serves http.
func tlsConfigs(s config.Server) (public, admin *tls.Config, err error) {
	if public, err = newTLSConfig(s.TLS); err != nil {
		return nil, nil, fmt.Errorf("server.tls: %w", err)
	}
	if admin, err = newAdminTLS(s); err != nil {
		return nil, nil, fmt.Errorf("server.admin: %w", err)
	}
	return public, admin, nil
}

func newTLSConfig(files *config.TLS) (*tls.Config, error) {
	if files == nil {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{pair},
	}, nil
}

// newAdminTLS asks for client certificates and verifies them where they come; who must have one is the handler's to say, since probes have none.
func newAdminTLS(s config.Server) (*tls.Config, error) {
	t, err := newTLSConfig(s.AdminTLS())
	if t == nil || err != nil || s.Admin.ClientCA == "" {
		return t, err
	}
	if t.ClientCAs, err = s.Admin.ClientCAs(); err != nil {
		return nil, err
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	t.SessionTicketsDisabled = true // a resumed session would be one that an earlier CA let in
	return t, nil
}

// listenerTLS serves each handshake with what is of the current generation.
func (gs *generations) listenerTLS(of func(*generation) *tls.Config) *tls.Config {
	if of(gs.current.Load()) == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return of(gs.current.Load()), nil
	}}
}

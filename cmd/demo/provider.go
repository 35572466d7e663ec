package main

import (
	"log/slog"
	"time"

	"postern/proxy/idp/idptest"
)

// The client that Postern is at the provider. Everybody may know this secret: both ends live in one process on one machine.
const (
	clientID     = "wiki"
	clientSecret = "demo-secret"
)

// newProvider makes the throw-away identity provider: two people without passwords, and one client.
func newProvider(issuer, publicURL string, tokenLife time.Duration, log *slog.Logger) *idptest.Server {
	s := idptest.New(idptest.Options{
		Issuer: issuer, Interactive: true, Title: "Demo identity provider", JWTAccessTokens: true, Log: log,
	})
	s.SetTokenTTL(tokenLife)
	s.AddClient(idptest.Client{
		ID: clientID, Name: "The Old Wiki", Secret: clientSecret,
		RedirectURIs:           []string{publicURL + "/oauth2/callback"},
		PostLogoutRedirectURIs: []string{publicURL + "/oauth2/logout/callback"},
	})
	for _, p := range people() {
		s.AddUser(p)
	}
	return s
}

func people() []idptest.User {
	return []idptest.User{
		{Sub: "ada", Claims: map[string]any{
			"name": "Ada Lovelace", "preferred_username": "ada", "email": "ada@example.com", "email_verified": true,
			"groups": []string{"wiki-users", "admins"},
		}},
		{Sub: "grace", Claims: map[string]any{
			"name": "Grace Hopper", "preferred_username": "grace", "email": "grace@example.com", "email_verified": true,
			"groups": []string{"wiki-users"},
		}},
	}
}

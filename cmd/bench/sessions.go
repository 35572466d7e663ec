package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/seal"
)

// A visitor is one browser that is signed in.
type visitor struct {
	User   string
	Cookie string // its Cookie header
}

// A place is where a Postern keeps sessions, and what it is to its provider: all that a cookie is bound to.
type place struct {
	redis, prefix string // host:port; the keys' beginning
	key           string // of session.keys
	issuer        string
}

// mint signs n people in without a provider: it writes what a callback of a Postern at that place writes, through the same code. A hundred thousand
// real sign-ins would take minutes of nothing but the provider's signatures.
func mint(ctx context.Context, at place, n int) ([]visitor, error) {
	key, err := seal.ParseKey(at.key)
	if err != nil {
		return nil, err
	}
	ring, err := seal.NewRing(key)
	if err != nil {
		return nil, err
	}
	store, err := redisstore.New(redisstore.Options{URL: "redis://" + at.redis + "/0", KeyPrefix: at.prefix, Timeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	m, err := session.NewManager(session.Options{
		Provider: providerName, ClientID: clientID, Issuer: at.issuer, Deployment: at.prefix, Ring: ring, Store: store,
		Cookie:      session.Cookie{Name: "postern"}, // the name on a plain http origin
		IdleTimeout: time.Hour, Lifetime: 12 * time.Hour, RefreshBefore: time.Minute,
		Cache: session.CacheOptions{MaxSize: 1 << 20},
	})
	if err != nil {
		return nil, err
	}
	const writers = 32
	visitors, failures := make([]visitor, n), make([]error, writers)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := w; i < n && failures[w] == nil; i += writers {
				visitors[i], failures[w] = signInDirectly(ctx, m, fmt.Sprintf("visitor%d", i), at.issuer)
			}
		})
	}
	writing.Wait()
	return visitors, errors.Join(append(failures, m.Close(ctx))...)
}

func signInDirectly(ctx context.Context, m *session.Manager, user, issuer string) (visitor, error) {
	g, err := grantFor(user, issuer)
	if err != nil {
		return visitor{}, err
	}
	_, cookie, err := m.Create(ctx, g, session.CreateOptions{Browser: "Firefox"})
	if err != nil {
		return visitor{}, err
	}
	return visitor{user, cookie.Name + "=" + cookie.Value}, nil
}

// grantFor is what the provider would have given for a person: tokens of the sizes that real ones have, good for longer than a run takes.
func grantFor(user, issuer string) (session.Grant, error) {
	now := time.Now()
	g := session.Grant{
		Issuer: issuer, Subject: user, SID: rand.Text(), AuthTime: now, Issued: now,
		Identity: session.Identity{
			User: user, Email: user + "@example.com", Name: "Visitor " + user, PreferredUsername: user, Groups: []string{"wiki-users", "admins"},
		},
		Tokens: session.Tokens{Refresh: rand.Text() + rand.Text(), Obtained: now, Expiry: now.Add(tokenLife)},
	}
	var err error
	if g.Tokens.Access, err = jwtFor(g, accessTokenSize); err != nil {
		return g, err
	}
	g.Tokens.ID, err = jwtFor(g, 950)
	return g, err
}

// jwtFor makes what has the form and about the size of a signed token. Postern checks tokens at sign-in, and nobody here signs in.
func jwtFor(g session.Grant, size int) (string, error) {
	claims := map[string]any{
		"iss": g.Issuer, "sub": g.Subject, "aud": clientID, "sid": g.SID, "iat": g.Issued.Unix(), "exp": g.Tokens.Expiry.Unix(), "jti": rand.Text(),
		"email": g.Identity.Email, "email_verified": true, "name": g.Identity.Name, "groups": g.Identity.Groups,
	}
	signature := make([]byte, 256) // of RS256
	rand.Read(signature)
	encoded := func() (string, error) {
		payload, err := json.Marshal(claims)
		if err != nil {
			return "", err
		}
		b64 := base64.RawURLEncoding.EncodeToString
		return b64([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`)) + "." + b64(payload) + "." + b64(signature), nil
	}
	token, err := encoded()
	if missing := size - len(token); err == nil && missing > 0 {
		claims["filler"] = strings.Repeat(rand.Text(), missing/26+1)[:missing*3/4]
		return encoded()
	}
	return token, err
}

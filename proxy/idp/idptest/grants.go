package idptest

import (
	"crypto/sha256"
	"time"
)

const (
	codeLife    = time.Minute
	idTokenLife = 5 * time.Minute
)

// grants is what the provider remembers of people, browsers and clients. Server.mu guards it.
type grants struct {
	browsers map[string]*browser // by cookie value
	pending  map[string]pending  // sign-in pages, by their unguessable names
	codes    map[string]*code
	access   map[[32]byte]*access // by hash: benchmarks use long tokens
	refresh  map[string]*refresh  // spent ones stay, so that their reuse is seen
	families map[*family]struct{}
}

// browser is one browser's session at the provider.
type browser struct {
	sid, sub string
	authTime time.Time
}

// pending is an authorization request that waits for a person.
type pending struct {
	request authRequest
	expires time.Time
}

// family is all that grew from one code.
type family struct {
	client, sub, sid string
	scope, resources []string
	authTime         time.Time
	revoked          bool
}

type code struct {
	*family
	nonce, redirectURI, challenge string
	expires                       time.Time
	spent                         bool
}

type access struct {
	*family
	scope    []string
	audience []string // nil: the provider's own API
	expires  time.Time
}

type refresh struct {
	*family
	spent bool
}

// authRequest is a checked authorization request.
type authRequest struct {
	client                                string
	redirectURI, mode, state, nonce       string
	challenge, loginHint                  string
	scope, resources                      []string
	promptNone, promptLogin, hasChallenge bool
	maxAge                                time.Duration // negative: not asked for
}

func newGrants() grants {
	return grants{
		browsers: map[string]*browser{},
		pending:  map[string]pending{},
		codes:    map[string]*code{},
		access:   map[[32]byte]*access{},
		refresh:  map[string]*refresh{},
		families: map[*family]struct{}{},
	}
}

// revoke ends the families that match says.
func (g *grants) revoke(match func(*family) bool) {
	for f := range g.families {
		if match(f) {
			f.revoked = true
			delete(g.families, f)
		}
	}
}

// putAccess remembers an access token, and now and then forgets those that have expired.
func (g *grants) putAccess(token string, a *access, now time.Time) {
	if n := len(g.access); n >= 4096 && n&(n-1) == 0 {
		for k, old := range g.access {
			if now.After(old.expires) {
				delete(g.access, k)
			}
		}
	}
	g.access[sha256.Sum256([]byte(token))] = a
}

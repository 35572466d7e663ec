package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"postern/config"
	"postern/proxy/idp"
	"postern/session"
)

// How long it is remembered what a presented token is, and how much of that.
const (
	presentedGood    = time.Minute // at most, and never beyond its expiry
	presentedBad     = 5 * time.Second
	presentedUnknown = time.Second // the provider did not answer
	presentedWeight  = 32 << 20    // bytes, about
	maxExamined      = 512         // tokens that are looked at in one moment
	maxExaminedOfOne = 64          // of them, from one network: made-up tokens must not keep others from being looked at
)

// acceptance says which access tokens of clients a route takes: its access.bearer_tokens.
type acceptance struct {
	provider   *provider
	audience   []string
	scopes     []string
	introspect bool
	// id tells acceptances apart that may judge one token differently. Scopes are looked at each time.
	id [sha256.Size]byte
}

func (p *Proxy) acceptance(c *config.BearerTokens, providers []*provider) *acceptance {
	if c == nil {
		return nil
	}
	a := &acceptance{provider: providers[0], audience: c.Audience, scopes: c.Scopes, introspect: c.Introspect}
	if c.Provider != "" {
		a.provider = p.provider(c.Provider)
	}
	// Each part with its length, so that no two lists are written alike (A99).
	var text []byte
	for _, part := range append([]string{a.provider.name, strconv.FormatBool(a.introspect)}, a.audience...) {
		text = append(binary.AppendUvarint(text, uint64(len(part))), part...)
	}
	a.id = sha256.Sum256(text)
	return a
}

// tokenProblem is why a request with a token of its own is not let in (RFC 6750 section 3.1). It tells nothing about the token that whoever made it
// up could use.
type tokenProblem struct {
	status     int
	code, text string
	scope      string // that the token lacks
}

var (
	tokenMalformed = &tokenProblem{http.StatusBadRequest, "invalid_request", "The Authorization header is not well-formed.", ""}
	tokenInvalid   = &tokenProblem{http.StatusUnauthorized, "invalid_token", "The access token is expired, revoked, or not for this application.", ""}
	tokenTooWeak   = &tokenProblem{http.StatusUnauthorized, codeStepUp, "The access token was issued for a sign-in that is too weak or too old.", ""}
	tokenUnknown   = &tokenProblem{http.StatusServiceUnavailable, "provider_unavailable", "The access token cannot be checked at the moment.", ""}
)

// presented is the verdict about a request that brings an access token of its own, where its route takes some. Such a token decides, whatever
// cookies are there too. ok is false where there is none.
//
// Flow: one Bearer token in Authorization → what it is, by its signature or by the provider's word → its scopes → the route's rule.
func (p *Proxy) presented(ctx context.Context, x *exchange) (v verdict, ok bool) {
	a := x.route.accepts
	if a == nil {
		return verdict{}, false
	}
	token, ok := bearerToken(x.r.Header["Authorization"])
	if !ok {
		return verdict{}, false
	}
	x.more = append(x.more, slog.Bool("bearer_token", true))
	if token == "" {
		return verdict{Kind: verdictDeny, Reason: "token_malformed", Token: tokenMalformed}, true
	}
	s, err := p.tokens.examine(ctx, a, token, network(x.client.Addr))
	var bad *idp.ProtocolError
	switch {
	case errors.As(err, &bad):
		x.err = err
		return verdict{Kind: verdictSignIn, Reason: "token_invalid", Token: tokenInvalid}, true
	case err != nil:
		x.err = err
		return verdict{Kind: verdictUnavailable, Reason: "provider_unavailable", Token: tokenUnknown, RetryAfter: retryAfter(err)}, true
	}
	if granted := strings.Fields(s.Tokens.Scope); slices.ContainsFunc(a.scopes, func(scope string) bool { return !slices.Contains(granted, scope) }) {
		return verdict{Kind: verdictDeny, Reason: "token_scope", Session: s, Token: &tokenProblem{http.StatusForbidden, "insufficient_scope",
			"The access token was not issued for this.", strings.Join(a.scopes, " ")}}, true
	}
	if v = x.judged(ctx, s, nil); v.Demand != nil {
		v.Token = tokenTooWeak
	}
	return v, true
}

// bearerToken finds the token in a request's Authorization. ok is false where none is sent; a token that is sent in a malformed way is empty.
func bearerToken(lines []string) (token string, ok bool) {
	for _, line := range lines {
		scheme, rest, _ := strings.Cut(line, " ")
		if strings.EqualFold(scheme, "Bearer") {
			token, ok = strings.TrimLeft(rest, " "), true
		}
	}
	if ok && (len(lines) > 1 || !isToken68(token)) {
		token = ""
	}
	return token, ok
}

// ofToken tells a session that is nothing but a presented token: it has no cookie, is stored nowhere, and ends when the token expires.
func ofToken(s *session.Session) bool { return s != nil && s.ID() == "" }

// refuseToken answers a request whose own token does not let it in.
func (p *Proxy) refuseToken(x *exchange) {
	t := x.verdict.Token
	if x.verdict.Kind == verdictUnavailable {
		p.setRetryAfter(x, x.verdict.RetryAfter)
	} else {
		p.setChallenge(x)
	}
	p.problem(x, t.status, told{t.code, http.StatusText(t.status), t.text}, nil)
}

// challenge is what WWW-Authenticate says of the problem, after the realm (RFC 6750 section 3).
func (t *tokenProblem) challenge() string {
	c := `, error="` + t.code + `", error_description="` + t.text + `"`
	if t.scope != "" {
		c += `, scope="` + t.scope + `"`
	}
	return c
}

// presentedTokens remembers for a short time what presented tokens are.
type presentedTokens struct {
	now   func() time.Time
	known *otter.Cache[[sha256.Size]byte, *examined]

	mu      sync.Mutex
	flights map[[sha256.Size]byte]*examined // that are looked at now
	from    map[string]int                  // how many of them each network sent
}

// examined is what a token is for an acceptance. Its members may be read once done is closed.
type examined struct {
	done  chan struct{}
	s     *session.Session
	err   error
	until time.Time
}

func newPresentedTokens(now func() time.Time) *presentedTokens {
	return &presentedTokens{now: now, flights: map[[sha256.Size]byte]*examined{}, from: map[string]int{}, known: otter.Must(&otter.Options[[sha256.Size]byte, *examined]{
		MaximumWeight: presentedWeight,
		Weigher:       func(_ [sha256.Size]byte, e *examined) uint32 { return e.weight() },
		Logger:        &otter.NoopLogger{},
	})}
}

// weight is about what e takes in memory: what is kept of a token is mostly what is in it.
func (e *examined) weight() uint32 {
	if e.s == nil {
		return 512
	}
	n := 2<<10 + 4*len(e.s.Tokens.Access)
	for _, g := range e.s.Identity.Groups {
		n += 16 + len(g)
	}
	return uint32(n)
}

// examine says what a token is: a session, an [idp.ProtocolError] for one that is not good, or another error when that cannot be known now. Each
// token is looked at by one request for all. from is the network that sent it.
func (c *presentedTokens) examine(ctx context.Context, a *acceptance, token, from string) (*session.Session, error) {
	key := sha256.Sum256(append(a.id[:len(a.id):len(a.id)], token...))
	if e, ok := c.known.GetIfPresent(key); ok && c.now().Before(e.until) {
		return e.s, e.err
	}
	c.mu.Lock()
	e := c.flights[key]
	if e == nil {
		if len(c.flights) >= maxExamined || c.from[from] >= maxExaminedOfOne {
			c.mu.Unlock()
			return nil, &idp.UnavailableError{What: "too many tokens are being checked", RetryAfter: presentedUnknown}
		}
		e = &examined{done: make(chan struct{})}
		c.flights[key] = e
		c.from[from]++
		go func() { // ends within the provider's time limits
			c.look(context.WithoutCancel(ctx), key, e, a, token)
			c.landed(key, from)
			close(e.done)
		}()
	}
	c.mu.Unlock()
	select {
	case <-e.done:
		return e.s, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// look finds out what a token is.
func (c *presentedTokens) look(ctx context.Context, key [sha256.Size]byte, e *examined, a *acceptance, token string) {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	g, err := a.grant(ctx, token)
	now := c.now()
	var bad *idp.ProtocolError
	switch {
	case err == nil:
		created := g.Issued
		if created.IsZero() {
			created = now
		}
		e.s = &session.Session{Grant: g, Provider: a.provider.name, Created: created, Ends: g.Tokens.Expiry, Seen: now}
		e.until = now.Add(presentedGood)
		if g.Tokens.Expiry.Before(e.until) {
			e.until = g.Tokens.Expiry
		}
	case errors.As(err, &bad):
		e.err, e.until = err, now.Add(presentedBad)
	default:
		e.err, e.until = err, now.Add(presentedUnknown)
	}
	c.known.Set(key, e)
}

// landed gives a place back.
func (c *presentedTokens) landed(key [sha256.Size]byte, from string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	if c.from[from]--; c.from[from] == 0 {
		delete(c.from, from)
	}
}

// grant asks the provider's keys, or the provider, about a token.
func (a *acceptance) grant(ctx context.Context, token string) (g session.Grant, err error) {
	defer func() {
		// There is no server above the caller's goroutine to catch it, and a token that anyone made up must not end the process.
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if a.introspect {
		return a.provider.idp.Introspected(ctx, token, a.audience)
	}
	return a.provider.idp.Presented(ctx, token, a.audience)
}

// sweep forgets what is too old.
func (c *presentedTokens) sweep() {
	now := c.now()
	for key, e := range c.known.All() {
		if !now.Before(e.until) {
			c.known.Invalidate(key)
		}
	}
}

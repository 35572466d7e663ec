package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"postern/config"
	"postern/proxy/idp"
	"postern/session"
)

const (
	// maxHolders bounds the sessions and presented tokens whose traded tokens are kept. Each has one for each target in the configuration at most.
	maxHolders = 20_000
	// maxLooks bounds the looks at sessions that the store tells of, lookLimit each of them.
	maxLooks  = 32
	lookLimit = 5 * time.Second
	// sweepEvery is how often what has expired is forgotten.
	sweepEvery = time.Minute
)

// target is what a person's token is traded for: `bearer.exchange` of a route, or its `resource` alone, which is of a kind of its own.
type target = config.Exchange

const kindResource = "resource"

// targetOf is what a route wants its tokens traded for; nil: nothing.
func targetOf(c config.Route) *target {
	if c.Resource != "" {
		return &target{Kind: kindResource, Resource: c.Resource}
	}
	return c.Bearer.Exchange
}

// traded keeps, in this process, the tokens that the tokens of sessions were traded for. They belong to the session's id, else to the very token
// that was presented, so they reach nobody else; when the session ends, here or elsewhere, they are dropped and revoked.
type traded struct {
	p       *Proxy
	holders *otter.Cache[string, *holder]
	looks   chan struct{} // a place for each look under way

	mu      sync.Mutex
	closed  bool // guarded by mu: nothing is looked at any more
	looking sync.WaitGroup
}

// holder has the traded tokens of one session, or of one presented token.
type holder struct {
	provider *provider
	handle   string

	mu     sync.Mutex
	tokens map[target]*appToken
	had    map[target]session.Tokens // the last of each
	over   bool                      // nothing is kept here any more
}

func newTraded(p *Proxy) *traded {
	return &traded{p: p, looks: make(chan struct{}, maxLooks), holders: otter.Must(&otter.Options[string, *holder]{
		MaximumSize: maxHolders, Logger: &otter.NoopLogger{},
	})}
}

// errOver is what remains for a request whose session ended while it asked for a token.
var errOver = errors.New("the session ended meanwhile")

// token is what the access token of s is traded for, good now. s has fresh tokens.
func (t *traded) token(ctx context.Context, s *session.Session, to target) (string, error) {
	h := t.holder(s)
	return h.of(to, t.p.now).tokenBy(ctx, func(ctx context.Context) (session.Tokens, error) {
		got, err := h.provider.trade(ctx, s, to)
		if err != nil {
			return session.Tokens{}, err
		}
		if got.Expiry.After(s.Ends) {
			got.Expiry = s.Ends
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.over {
			t.revoke(ctx, h, got)
			return session.Tokens{}, errOver
		}
		h.had[to] = got
		return got, nil
	})
}

// trade asks the provider for the token.
func (pr *provider) trade(ctx context.Context, s *session.Session, to target) (session.Tokens, error) {
	if to.Kind == kindResource {
		return pr.forResource(ctx, s, to.Resource)
	}
	return pr.idp.Exchange(ctx, s.Tokens.Access, idp.Target{
		OnBehalfOf: to.Kind == "jwt_bearer", Audience: to.Audience, Scope: to.Scope, Resource: to.Resource,
	})
}

// holder is where the tokens of s are kept.
func (t *traded) holder(s *session.Session) *holder {
	id := ownerOf(s)
	if h, ok := t.holders.GetIfPresent(id); ok {
		return h
	}
	h, _ := t.holders.SetIfAbsent(id, &holder{provider: t.p.provider(s.Provider), handle: s.Handle(), tokens: map[target]*appToken{}, had: map[target]session.Tokens{}})
	return h
}

// ownerOf names what may be kept for s alone: it is the session's id, else made of the presented token, with a space, which no id has.
func ownerOf(s *session.Session) string {
	if !ofToken(s) {
		return s.ID()
	}
	sum := sha256.Sum256([]byte(s.Tokens.Access))
	return s.Provider + " " + hex.EncodeToString(sum[:])
}

// of is the place of one token.
func (h *holder) of(to target, now func() time.Time) *appToken {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.tokens[to]
	if a == nil {
		a = &appToken{limit: finishTimeout, now: now}
		h.tokens[to] = a
	}
	return a
}

// changed is told that a session was changed or ended by anyone. If it ended, its traded tokens go.
func (t *traded) changed(id string) {
	if _, ok := t.holders.GetEntryQuietly(id); !ok {
		return
	}
	select {
	case t.looks <- struct{}{}:
	default: // a flood: who still needs a token trades again
		t.drop(context.Background(), id, false)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		<-t.looks
		return
	}
	t.looking.Go(func() { // ends within lookLimit
		defer func() { <-t.looks }()
		ctx, cancel := context.WithTimeout(context.Background(), lookLimit)
		defer cancel()
		rec, err := t.p.store.Get(ctx, id)
		if errors.Is(err, session.ErrNone) || err == nil && rec.Ended != "" {
			t.drop(ctx, id, rec.Ended != session.ReasonFrontChannel) // see Proxy.discarded
		}
	})
}

// close waits for the looks under way.
func (t *traded) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.looking.Wait()
}

// drop forgets what is kept for a session, and revokes it.
func (t *traded) drop(ctx context.Context, id string, revoke bool) {
	h, ok := t.holders.Invalidate(id)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if !revoke {
		return
	}
	for _, got := range h.had {
		t.revoke(ctx, h, got)
	}
}

func (t *traded) revoke(ctx context.Context, h *holder, got session.Tokens) {
	if h.provider.idp.CanRevoke() {
		t.p.revoking.revokeTokens(ctx, h.provider, h.handle, got)
	}
}

// sweep forgets the holders whose tokens have all expired.
func (t *traded) sweep() {
	now := t.p.now()
	for id, h := range t.holders.All() {
		h.mu.Lock()
		idle := true
		for _, a := range h.tokens {
			idle = idle && a.idle(now)
		}
		h.mu.Unlock()
		if idle {
			t.holders.Invalidate(id)
		}
	}
}

package idp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstRetry = time.Second      // after the first failed discovery; doubles
	lastRetry  = 30 * time.Second // while nobody can sign in
	lateRetry  = 10 * time.Minute // while older metadata serve
	rediscover = time.Hour        // while all is well
	healEvery  = 2 * time.Second  // how often a sign-in may cause an attempt of its own
	healWait   = 2 * time.Second  // and how long it waits for one
)

// Provider is one identity provider. Its methods may be called by any number of goroutines.
type Provider struct {
	o Options // with defaults

	// What o says, in short.
	name        string
	issuer      string // of sessions; a provider that has none is known by its token endpoint
	clientID    string
	alg         string
	assumeEmail bool
	keepClaims  []string
	timeout     time.Duration
	leeway      time.Duration
	now         func() time.Time
	log         *slog.Logger

	network
	internal internalURL
	key      clientKey
	mapping  mapping

	meta      atomic.Pointer[metadata] // nil until discovered
	discovery flight

	mu      sync.Mutex
	began   time.Time // the last attempt to discover
	ended   time.Time
	problem string // of the last attempt
}

// New checks o and makes a provider. It makes no calls: [Provider.Run] does, and the first sign-in.
func New(o Options) (*Provider, error) {
	o = o.withDefaults()
	mapping, err := newMapping(o.Claims)
	if err := errors.Join(o.check(), err); err != nil {
		return nil, fmt.Errorf("provider %q: %w", o.Name, err)
	}
	p := &Provider{
		o:           o,
		mapping:     mapping,
		name:        o.Name,
		issuer:      o.Issuer,
		clientID:    o.ClientID,
		alg:         o.SigningAlg,
		assumeEmail: o.AssumeEmailVerified,
		keepClaims:  slices.Compact(slices.Sorted(slices.Values(o.KeepClaims))),
		timeout:     o.Timeout,
		leeway:      o.Leeway,
		now:         o.Now,
		log:         o.Log.With("provider", o.Name),
	}
	if p.network, err = newNetwork(o); err != nil {
		return nil, fmt.Errorf("provider %q: %w", o.Name, err)
	}
	if p.internal, err = newInternalURL(o); err != nil {
		return nil, fmt.Errorf("provider %q: internal_url: %w", o.Name, err)
	}
	if o.OAuth2 != nil {
		p.issuer = "oauth2:" + o.OAuth2.Token
		m, err := p.readEndpoints(*o.OAuth2)
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", o.Name, err)
		}
		p.meta.Store(m)
	}
	return p, nil
}

// Name is the provider's name in the configuration.
func (p *Provider) Name() string { return p.name }

// Issuer is what [session.Grant] calls the provider: its issuer, or, for one that is not OpenID Connect, a name made of its token URL.
func (p *Provider) Issuer() string { return p.issuer }

// TellsHow reports whether the provider tells how strongly and when a person signed in, so that it can be asked for more ([Begin]).
func (p *Provider) TellsHow() bool { return p.o.OAuth2 == nil }

// ResponseMode is query or form_post.
func (p *Provider) ResponseMode() string { return p.o.ResponseMode }

// Discovered reports whether the provider's metadata are known: people can sign in.
func (p *Provider) Discovered() bool { return p.meta.Load() != nil }

// Problem says what is wrong with the provider's metadata, or nothing. While older metadata serve, people can sign in all the same.
// It holds no secrets.
func (p *Provider) Problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problem == "" && !p.Discovered() {
		return ErrNotDiscovered.Error()
	}
	return p.problem
}

// AuthorizeOrigin is the origin of the authorization endpoint, or empty while it is not known, or where there is none.
func (p *Provider) AuthorizeOrigin() string {
	m := p.meta.Load()
	if m == nil || m.authorize == nil {
		return ""
	}
	return m.authorize.Scheme + "://" + m.authorize.Host
}

// Run discovers the provider, again and again until it works, then keeps its metadata fresh. It returns nil when ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	defer p.network.close()
	if p.o.OAuth2 != nil { // there is nothing to discover
		p.logDoubts(ctx, p.meta.Load())
		<-ctx.Done()
		return nil
	}
	retry := firstRetry
	for ctx.Err() == nil {
		wait := rediscover
		if err := p.discover(ctx, 0); err != nil {
			limit := lastRetry
			if p.Discovered() {
				limit = lateRetry
			}
			wait = min(retry, limit)
			retry = min(2*retry, lateRetry)
		} else {
			retry = firstRetry
			if err := p.meta.Load().keys.refresh(ctx); err != nil && ctx.Err() == nil {
				p.log.WarnContext(ctx, "provider keys not fetched", "err", err)
			}
		}
		// Replicas that lost the provider together do not come back to it together.
		timer := time.NewTimer(time.Duration(float64(wait) * (0.75 + rand.Float64()/2)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return nil
}

// discover makes one attempt, or joins the one that is under way, unless one has ended less than gap ago. The attempt does not end
// with ctx, as others may wait for it.
func (p *Provider) discover(ctx context.Context, gap time.Duration) error {
	return p.discovery.join(ctx, func() error {
		if !p.start(gap) {
			return ErrNotDiscovered
		}
		old := p.meta.Load()
		m, err := p.fetchMetadata(context.WithoutCancel(ctx), old)
		if err == nil {
			p.meta.Store(m)
		}
		was := p.settle(err)
		switch {
		case err != nil && err.Error() != was:
			p.log.WarnContext(ctx, "provider discovery failed", "err", err, "sign_in_possible", old != nil)
		case err == nil && (old == nil || was != ""):
			p.log.InfoContext(ctx, "provider discovered", "issuer", p.issuer, "client_auth", m.clientAuth)
			p.logDoubts(ctx, m)
		}
		return err
	})
}

// logDoubts tells the operator what may not work.
func (p *Provider) logDoubts(ctx context.Context, m *metadata) {
	for _, d := range m.doubts {
		p.log.WarnContext(ctx, "provider metadata", "doubt", d)
	}
}

// start notes that an attempt begins, or that it is too soon for one. Only here nothing can have ended since it was looked at.
func (p *Provider) start(gap time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if !p.ended.IsZero() && now.Sub(p.ended) < gap {
		return false
	}
	p.began = now
	return true
}

// settle notes how an attempt ended, and returns the problem of the one before.
func (p *Provider) settle(err error) (was string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was = p.problem
	p.ended, p.problem = p.now(), ""
	if err != nil {
		p.problem = err.Error()
	}
	return was
}

// metadata returns what is known of the provider. When nothing is, it makes an attempt of its own, now and then and not for long, so
// that a provider which just came back serves at once. Its error is an [UnavailableError] that wraps [ErrNotDiscovered].
func (p *Provider) metadata(ctx context.Context) (*metadata, error) {
	if m := p.meta.Load(); m != nil {
		return m, nil
	}
	p.mu.Lock()
	now := p.now()
	wait := healWait
	if p.began.After(p.ended) { // one is under way: nobody waits for one that hangs
		wait -= now.Sub(p.began)
	} else if !p.ended.IsZero() && now.Sub(p.ended) < healEvery {
		wait = 0
	}
	p.mu.Unlock()
	if wait > 0 {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		_ = p.discover(ctx, healEvery) // its problem is noted
		if m := p.meta.Load(); m != nil {
			return m, nil
		}
	}
	return nil, &UnavailableError{What: fmt.Sprintf("provider %q is not discovered: %s", p.name, p.Problem()), RetryAfter: healEvery, Err: ErrNotDiscovered}
}

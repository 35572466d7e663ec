package idp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The ways in which a client authenticates at the token endpoint (OpenID Connect Core section 9).
const (
	authBasic = "client_secret_basic"
	authPost  = "client_secret_post"
	authNone  = "none"
)

// The ways in which an authorization response arrives.
const (
	modeQuery    = "query"
	modeFormPost = "form_post"
)

const (
	firstRetry     = time.Second      // after the first failed discovery; doubles
	lastRetry      = 30 * time.Second // while nobody can sign in
	lateRetry      = 10 * time.Minute // while older metadata serve
	rediscover     = time.Hour        // while all is well
	healEvery      = 2 * time.Second  // how often a sign-in may cause an attempt of its own
	healWait       = 2 * time.Second  // and how long it waits for one
	maxLeeway      = 5 * time.Minute
	defaultTimeout = 10 * time.Second
	defaultLeeway  = time.Minute
)

// Options describe one provider and Postern's registration there. Issuer and ClientID are needed.
type Options struct {
	// Name is the provider's name in the configuration; it is used in logs.
	Name string
	// Issuer is the OpenID Connect issuer, exactly as the provider writes it. It is https, except on a loopback address.
	Issuer string
	// ClientID is the client's id at the provider.
	ClientID string
	// ClientSecret returns the client's secret, as it is now. Nil means a public client.
	ClientSecret func() (string, error)
	// ClientAuth is client_secret_basic, client_secret_post or none. Empty: what the provider's metadata say, never a guess.
	ClientAuth string
	// Scopes are asked for. Nil: openid, profile, email, and offline_access where the provider advertises it.
	Scopes []string
	// ResponseMode is query (also when empty) or form_post.
	ResponseMode string
	// Userinfo also takes claims from the userinfo endpoint.
	Userinfo bool
	// SigningAlg is the algorithm that this client is registered with for ID tokens (id_token_signed_response_alg); RS256 when empty.
	// No other is accepted, whatever the metadata list.
	SigningAlg string
	// AssumeEmailVerified believes the email claim without email_verified.
	AssumeEmailVerified bool
	// Timeout bounds each call to the provider; 0 is 10 seconds.
	Timeout time.Duration
	// Leeway is the clock difference that is allowed for; 0 is a minute. At most five.
	Leeway time.Duration
	// Transport makes the calls; nil is an own one.
	Transport http.RoundTripper
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Log gets what is worth telling an operator; nil is nobody.
	Log *slog.Logger
}

// Provider is one identity provider. Its methods may be called by any number of goroutines.
type Provider struct {
	name         string
	issuer       string
	clientID     string
	secret       func() (string, error)
	clientAuth   string
	scopes       []string
	responseMode string
	wantUserinfo bool
	alg          string
	assumeEmail  bool
	timeout      time.Duration
	leeway       time.Duration
	client       *http.Client // for what may be asked twice
	once         *http.Client // for token requests
	ownTransport bool
	now          func() time.Time
	log          *slog.Logger

	meta      atomic.Pointer[metadata] // nil until discovered
	discovery flight

	mu      sync.Mutex
	began   time.Time // the last attempt to discover
	ended   time.Time
	problem string // of the last attempt
}

// New checks o and makes a provider. It makes no calls: [Provider.Run] does, and the first sign-in.
func New(o Options) (*Provider, error) {
	p := &Provider{
		name:         o.Name,
		issuer:       o.Issuer,
		clientID:     o.ClientID,
		secret:       o.ClientSecret,
		clientAuth:   o.ClientAuth,
		scopes:       slices.Clone(o.Scopes),
		responseMode: o.ResponseMode,
		wantUserinfo: o.Userinfo,
		alg:          o.SigningAlg,
		assumeEmail:  o.AssumeEmailVerified,
		timeout:      o.Timeout,
		leeway:       o.Leeway,
		now:          o.Now,
		log:          o.Log,
	}
	if p.responseMode == "" {
		p.responseMode = modeQuery
	}
	if p.alg == "" {
		p.alg = "RS256"
	}
	if p.timeout == 0 {
		p.timeout = defaultTimeout
	}
	if p.leeway == 0 {
		p.leeway = defaultLeeway
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("provider", p.name)
	transport := o.Transport
	if transport == nil {
		transport, p.ownTransport = newTransport(), true
	}
	p.client = &http.Client{Transport: transport, CheckRedirect: noRedirect}
	p.once = &http.Client{Transport: onceTransport(transport), CheckRedirect: noRedirect}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("provider %q: %w", o.Name, err)
	}
	return p, nil
}

// check reports every setting that cannot work.
func (p *Provider) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := checkIssuer(p.issuer); err != nil {
		wrong("issuer: %w", err)
	}
	if p.clientID == "" || !visible(p.clientID, true) {
		wrong("client_id: must be given, in printable ASCII")
	}
	switch p.clientAuth {
	case "":
	case authBasic, authPost:
		if p.secret == nil {
			wrong("client_auth: %s needs client_secret", p.clientAuth)
		}
	case authNone:
		if p.secret != nil {
			wrong("client_auth: none is for clients without client_secret")
		}
	default:
		wrong("client_auth: %q is not supported", p.clientAuth)
	}
	if p.scopes != nil && !slices.Contains(p.scopes, "openid") {
		wrong("scopes: openid is missing")
	}
	for _, s := range p.scopes {
		if !visible(s, false) || strings.ContainsAny(s, `"\`) { // RFC 6749 section 3.3
			wrong("scopes: %q is not a scope", s)
		}
	}
	if p.responseMode != modeQuery && p.responseMode != modeFormPost {
		wrong("response_mode: %q is neither query nor form_post", p.responseMode)
	}
	if !slices.Contains(signingAlgs(), p.alg) {
		wrong("id_token_signed_response_alg: %q is not supported", p.alg)
	}
	if p.timeout < 0 {
		wrong("timeout: must be positive")
	}
	if p.leeway < 0 || p.leeway > maxLeeway {
		wrong("leeway: must be between 0s and %s", maxLeeway)
	}
	return errors.Join(errs...)
}

// checkIssuer holds OpenID Connect Discovery section 3: an https URL without query and fragment.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Host == "":
		return errors.New("must be a URL") // the parser's error would show a password
	case u.User != nil:
		return errors.New("must not hold a user name or password")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#"):
		return errors.New("must have neither query nor fragment")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("must be https, except on a loopback address")
}

// isLoopback reports whether host never leaves this machine.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// visible reports whether s is printable ASCII, without spaces unless they are allowed, and not empty.
func visible(s string, space bool) bool {
	for i := range len(s) {
		if c := s[i]; c > 0x7e || c < 0x20 || c == ' ' && !space {
			return false
		}
	}
	return s != ""
}

// Name is the provider's name in the configuration.
func (p *Provider) Name() string { return p.name }

// ResponseMode is query or form_post.
func (p *Provider) ResponseMode() string { return p.responseMode }

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

// AuthorizeOrigin is the origin of the authorization endpoint, or empty while it is not known.
func (p *Provider) AuthorizeOrigin() string {
	m := p.meta.Load()
	if m == nil {
		return ""
	}
	return m.authorize.Scheme + "://" + m.authorize.Host
}

// Run discovers the provider, again and again until it works, then keeps its metadata fresh. It returns nil when ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	if p.ownTransport {
		defer p.client.CloseIdleConnections()
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
			for _, d := range m.doubts {
				p.log.WarnContext(ctx, "provider metadata", "doubt", d)
			}
		}
		return err
	})
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

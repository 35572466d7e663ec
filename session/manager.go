package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"postern/session/seal"
)

const (
	defaultExchangeTimeout = 15 * time.Second
	defaultCacheSize       = 64 << 20

	// storeLimit bounds a store operation that no request waits for. Stores have shorter limits of their own.
	storeLimit = 5 * time.Second

	// maxReads bounds the reads ahead under way; when the store is slower than that, they are dropped.
	maxReads = 32

	// MaxExchanges bounds the exchanges of refresh tokens under way. After an outage of the provider many sessions are due at once, and a provider
	// that they overrun lets calls time out: of those nobody knows whether the token is spent.
	MaxExchanges = 64

	// maxMemos bounds the sessions whose last refresh failed that are remembered.
	maxMemos = 1 << 16
)

// Options say what a [Manager] works with. Provider, ClientID, Ring, Store, Cookie.Name, IdleTimeout and Lifetime must be set.
type Options struct {
	// Provider is the provider's name in the configuration, Issuer and ClientID are what we are to it.
	Provider, ClientID, Issuer string
	// Deployment tells deployments that share a store apart (its key prefix). It is bound into everything that is sealed.
	Deployment string
	// Ring seals cookies and index entries.
	Ring *seal.Ring
	// Store keeps the sessions. Managers of several providers may share one.
	Store  Store
	Cookie Cookie
	// IdleTimeout ends a session that is not used for so long, Lifetime any session so long after sign-in.
	IdleTimeout, Lifetime time.Duration
	// RefreshBefore is how long before its expiry an access token is refreshed, at most a third of its life.
	RefreshBefore time.Duration
	// SpreadRefresh refreshes each session up to a tenth of its token's life sooner, each at another time, so that the provider does not
	// hear of all at once whose tokens are of one age.
	SpreadRefresh bool
	Cache         CacheOptions
	// KeepFor is how long after it was last confirmed a copy is used while the store does not answer. 0 is not at all. Idle timeout and lifetime hold
	// all the same, and what this process knows to be over, or was told a change of, is not used. It lengthens what MaxStale promises on a
	// process that is cut off.
	KeepFor time.Duration
	// MaxPerUser bounds the sessions of one person; the oldest end. 0 is no bound.
	MaxPerUser int
	// SharedGrant makes all sessions of one person share the newest grant, for providers at which a new refresh token makes the
	// person's older ones void. Whoever has the same Grant.Subject gets the same tokens, so it must name one person for certain. It
	// holds for sessions that are made from then on.
	SharedGrant bool
	// RevokeWithoutCookie keeps the refresh token where the deployment's keys open it too, so that a session that ends without its cookie
	// gives it to Discarded at once. Whoever has the store and the keys then has the refresh tokens.
	RevokeWithoutCookie bool
	// Discarded is called with tokens of a session that ended without its cookie, so that they can be revoked, when they come to light: with
	// RevokeWithoutCookie and for shared grants at once, else when the cookie comes next. It is called once in all
	// replicas, twice if the store's answer was lost. It must not block. Nil drops them.
	Discarded func(ctx context.Context, d Discarded)
	// ExchangeTimeout bounds one call of a [RefreshFunc]; 0 is 15 s. The lease outlives it.
	ExchangeTimeout time.Duration
	// Ended is told of each session whose end this process brought about (its write made the tombstone), or that ended without a write
	// and is seen first here: by time, because the store does not know it, or because it does not open. Each is told once by a process.
	// It is called by requests and by background work at once and must return quickly. Nil is nobody.
	//
	// Ends by [ReasonKeyUnknown] are those of cookies that anyone can make up, any number of them: count them, and do no more.
	Ended func(Ending)
	// Changed is told the [Session.ID] of each session, of any provider, that the store says somebody changed or ended. It must return quickly. Nil is
	// nobody.
	Changed func(id string)
	// Looked is told what the local cache knew, of each session that a request asks for. It must return at once. Nil is nobody.
	Looked func(Lookup)
	// Waited is told how long somebody waited for a refresh, of those who had to. It must return quickly. Nil is nobody.
	Waited func(took time.Duration)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log gets the life cycle of sessions; nil is nowhere.
	Log *slog.Logger
}

// CacheOptions bound what a process remembers of the store.
type CacheOptions struct {
	// MaxSize bounds the copies, in bytes; 0 is 64 MiB.
	MaxSize int64
	// MaxStale is how long a copy is used before the store is asked again; 0 asks for every request.
	MaxStale time.Duration
}

// Cookie says what the session cookie is like. It is always HttpOnly, for the whole host and for no other.
type Cookie struct {
	// Name is the cookie's name. __Host- and __Secure- names need Secure.
	Name string
	// Secure is false only on a plain http origin.
	Secure bool
	// Persistent keeps the cookie for the session's lifetime, else until the browser is closed.
	Persistent bool
	// SameSite is Lax when it is not set.
	SameSite http.SameSite
}

// Manager makes, finds, refreshes and ends the sessions of one provider. Any number of goroutines may use it.
//
// Goroutines that it starts end by themselves within bounded time; [Manager.Close] waits for them.
type Manager struct {
	o       Options
	log     *slog.Logger
	ring    *seal.Ring
	codec   *codec
	purpose string // of the cookie's seal

	tickets   *otter.Cache[[32]byte, *opened]    // by the hash of the cookie's value
	slots     *otter.Cache[string, *slot]        // by store key
	memos     *otter.Cache[[nameSize]byte, memo] // by fingerprint of the tokens: failed refreshes
	told      *otter.Cache[string, struct{}]     // by store key and by hash of the cookie: ends that were told and leave no tombstone
	ends      *recent[end]                       // see mend.go
	rotations *recent[*Session]                  // by store key, too
	lost      chan struct{}                      // has something when the store may have lost writes

	epoch   atomic.Uint64 // counts gaps in the notices
	watched atomic.Bool   // whether notices arrive
	touches touches
	reads   chan struct{} // a place for each read ahead under way
	calls   chan struct{} // a place for each exchange of a refresh token under way

	strange    *otter.Cache[[32]byte, struct{}] // by the hash of the cookie: those that were told
	strangeLog quota
	followed   followed // the sessions of open streams

	id      string          // of this process, in notes
	closing context.Context // ends when Close is called; done under mu
	stop    context.CancelFunc
	base    context.Context // ends when Close gives up waiting
	cancel  context.CancelFunc

	mu      sync.Mutex
	flights map[string]*flight // by store key; guarded by mu
	work    sync.WaitGroup     // Add only under mu while not closing
}

// NewManager checks o and makes a manager. It does no I/O; call [Manager.Run] to make use of the cache.
func NewManager(o Options) (*Manager, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("session manager: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ExchangeTimeout == 0 {
		o.ExchangeTimeout = defaultExchangeTimeout
	}
	if o.Cache.MaxSize == 0 {
		o.Cache.MaxSize = defaultCacheSize
	}
	if o.Cookie.SameSite == 0 || o.Cookie.SameSite == http.SameSiteDefaultMode {
		o.Cookie.SameSite = http.SameSiteLaxMode
	}
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("session manager: %w", err)
	}
	m := &Manager{
		o:       o,
		log:     o.Log.With("provider", o.Provider),
		ring:    o.Ring.WithNow(o.Now),
		id:      rand.Text(),
		codec:   c,
		reads:   make(chan struct{}, maxReads),
		calls:   make(chan struct{}, MaxExchanges),
		flights: map[string]*flight{},

		ends: newRecent[end](maxEnds), rotations: newRecent[*Session](maxRotations), lost: make(chan struct{}, 1),

		// Quoted, so that no two providers, clients or deployments have the same purpose.
		purpose: fmt.Sprintf("session %q %q %q %q %q", o.Deployment, o.Provider, o.Issuer, o.ClientID, o.Cookie.Name),
	}
	m.base, m.cancel = context.WithCancel(context.Background())
	m.closing, m.stop = context.WithCancel(context.Background())
	// Tickets are small and all alike; sessions get the rest.
	m.tickets = otter.Must(&otter.Options[[32]byte, *opened]{
		MaximumWeight: uint64(max(o.Cache.MaxSize/8, ticketWeight)),
		Weigher:       func([32]byte, *opened) uint32 { return ticketWeight },
		Logger:        &otter.NoopLogger{},
	})
	m.slots = otter.Must(&otter.Options[string, *slot]{
		MaximumWeight: uint64(max(o.Cache.MaxSize-o.Cache.MaxSize/8, slotWeight)),
		Weigher:       func(_ string, sl *slot) uint32 { return sl.weight.Load() },
		Logger:        &otter.NoopLogger{},
	})
	m.memos = otter.Must(&otter.Options[[nameSize]byte, memo]{MaximumSize: maxMemos, Logger: &otter.NoopLogger{}})
	m.told = otter.Must(&otter.Options[string, struct{}]{MaximumSize: maxTold, Logger: &otter.NoopLogger{}})
	m.strange = otter.Must(&otter.Options[[32]byte, struct{}]{MaximumSize: maxStrange, Logger: &otter.NoopLogger{}})
	return m, nil
}

func (o Options) validate() error {
	switch {
	case o.Provider == "" || o.ClientID == "":
		return errors.New("no provider or client id")
	case o.Ring == nil:
		return errors.New("no keys")
	case o.Store == nil:
		return errors.New("no store")
	case o.IdleTimeout <= 0 || o.Lifetime <= 0:
		return errors.New("idle timeout and lifetime must be positive")
	case o.RefreshBefore < 0 || o.ExchangeTimeout < 0 || o.Cache.MaxStale < 0 || o.Cache.MaxSize < 0 || o.MaxPerUser < 0 || o.KeepFor < 0:
		return errors.New("durations and bounds must not be negative")
	}
	if err := (&http.Cookie{Name: o.Cookie.Name, Value: "v", Path: "/"}).Valid(); err != nil {
		return fmt.Errorf("cookie: %w", err)
	}
	// Browsers compare the prefixes without case (RFC 6265bis, section 4.1.3) and would drop such a cookie.
	name := strings.ToLower(o.Cookie.Name)
	secure := o.Cookie.SameSite == http.SameSiteNoneMode ||
		strings.HasPrefix(name, "__host-") || strings.HasPrefix(name, "__secure-")
	if secure && !o.Cookie.Secure {
		return fmt.Errorf("cookie %s: must be Secure", o.Cookie.Name)
	}
	return nil
}

// Run listens to the store's notices of changed sessions until ctx ends. Until it has subscribed, and whenever the subscription is
// interrupted, every request asks the store. After an interruption it puts back what the store has lost and this process still knows: see mend.go.
func (m *Manager) Run(ctx context.Context) error {
	defer m.watched.Store(false)
	mended := make(chan struct{})
	go func() { // ends with ctx
		defer close(mended)
		m.mending(ctx)
	}()
	defer func() { <-mended }() // Run returns when ctx has ended, and only then
	for wait := watchPause; ; wait = min(2*wait, watchPauseMax) {
		start := time.Now()
		err := m.o.Store.Watch(ctx, m.changed, m.gap)
		m.watched.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		m.missed()
		m.log.WarnContext(ctx, "session notices interrupted", "err", err)
		if time.Since(start) > watchPauseMax {
			wait = watchPause
		}
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

const (
	watchPause    = 100 * time.Millisecond
	watchPauseMax = 5 * time.Second
)

// changed is told the key of a session that anyone changed, ended, or stopped refreshing.
func (m *Manager) changed(key string) {
	if sl, ok := m.slots.GetEntryQuietly(key); ok {
		sl.Value.gen.Add(1)
		m.readAhead(key, sl.Value)
	}
	m.notice(key)
	if m.o.Changed != nil {
		m.o.Changed(key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.flights[key]; f != nil {
		f.notify()
	}
}

// gap is told that notices may have been missed, and whether they arrive from now on. What was read before is unconfirmed.
func (m *Manager) gap(listening bool) {
	m.epoch.Add(1)
	m.watched.Store(listening)
	m.mendSoon()
	m.missed()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.flights {
		f.notify()
	}
}

// Close waits for running refreshes and for writes that the store has not taken yet. When ctx ends first they are given up.
// Nothing new is started meanwhile or afterwards.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.stop()
	m.mu.Unlock()
	m.followed.stop()
	done := make(chan struct{})
	go func() { // ends with the work, which ends soon after cancel at the latest
		m.work.Wait()
		close(done)
	}()
	defer m.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		m.mu.Lock()
		n := len(m.flights)
		m.mu.Unlock()
		return fmt.Errorf("close sessions: %d refreshes unfinished: %w", n, context.Cause(ctx))
	}
}

// spawn runs work in a goroutine that Close waits for. The context has the values of ctx, outlives it, and ends with the manager or
// after limit. It reports false when the manager is closing.
func (m *Manager) spawn(ctx context.Context, limit time.Duration, work func(context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spawnLocked(ctx, limit, work)
}

func (m *Manager) spawnLocked(ctx context.Context, limit time.Duration, work func(context.Context)) bool {
	if m.closing.Err() != nil {
		return false
	}
	m.work.Add(1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	stop := context.AfterFunc(m.base, cancel)
	go func() {
		defer m.work.Done()
		defer cancel()
		defer stop()
		work(ctx)
	}()
	return true
}

// unavailable says that the store did not answer.
func unavailable(what string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, err)
}

// sleep waits for d and reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

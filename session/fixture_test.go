package session_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer = "https://idp.example"
	alice  = "alice-subject"
)

var errStore = errors.New("store is down")

// clock is a clock that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// faults is a store that tests can break, cut and count.
type faults struct {
	session.Store
	mu     sync.Mutex
	calls  map[string]int
	before func(op string) error // an error keeps the operation from happening
	after  func(op string) error // an error hides that it happened
	deaf   atomic.Bool           // no notices pass
}

func (f *faults) do(op string, run func() error) error {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[op]++
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return err
		}
	}
	if err := run(); err != nil {
		return err
	}
	if after != nil {
		return after(op)
	}
	return nil
}

// fail makes the named operations fail, all without names, and with none heals the store.
func (f *faults) fail(ops ...string) {
	f.set(func(op string) error {
		for _, o := range ops {
			if o == op || o == "all" {
				return errStore
			}
		}
		return nil
	}, nil)
}

func (f *faults) set(before, after func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faults) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// opOn names an operation on a shared grant differently.
func opOn(op, key string) string {
	if strings.Contains(key, "!") { // that a refresh token is about to be sent
		return "note"
	}
	if strings.HasPrefix(key, "g:") {
		return op + " grant"
	}
	return op
}

func (f *faults) Get(ctx context.Context, key string) (rec session.Record, err error) {
	err = f.do(opOn("get", key), func() error { rec, err = f.Store.Get(ctx, key); return err })
	return rec, err
}

func (f *faults) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) (over []session.IndexEntry, err error) {
	err = f.do(opOn("create", key), func() error { over, err = f.Store.Create(ctx, key, rec, ttl, index); return err })
	return over, err
}

func (f *faults) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	return f.do(opOn("swap", key), func() error { return f.Store.Swap(ctx, key, rec, from) })
}

func (f *faults) Touch(ctx context.Context, seen time.Time, keys ...string) error {
	return f.do("touch", func() error { return f.Store.Touch(ctx, seen, keys...) })
}

func (f *faults) End(ctx context.Context, key string, why session.Reason, keep bool, index []session.IndexEntry) (ended bool, err error) {
	err = f.do(opOn("end", key), func() error { ended, err = f.Store.End(ctx, key, why, keep, index); return err })
	return ended, err
}

func (f *faults) Index(ctx context.Context, name string) (entries []session.IndexEntry, err error) {
	err = f.do("index", func() error { entries, err = f.Store.Index(ctx, name); return err })
	return entries, err
}

func (f *faults) Strip(ctx context.Context, key string, rest []byte) (was bool, err error) {
	err = f.do("strip", func() error { was, err = f.Store.Strip(ctx, key, rest); return err })
	return was, err
}

func (f *faults) Reindex(ctx context.Context, add, remove []session.IndexEntry) error {
	return f.do("reindex", func() error { return f.Store.Reindex(ctx, add, remove) })
}

func (f *faults) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (ok bool, err error) {
	err = f.do(opOn("acquire", key), func() error { ok, err = f.Store.Acquire(ctx, key, owner, ttl); return err })
	return ok, err
}

func (f *faults) Renew(ctx context.Context, key, owner string, ttl time.Duration) (ok bool, err error) {
	err = f.do(opOn("renew", key), func() error { ok, err = f.Store.Renew(ctx, key, owner, ttl); return err })
	return ok, err
}

func (f *faults) Release(ctx context.Context, key, owner string) error {
	return f.do(opOn("release", key), func() error { return f.Store.Release(ctx, key, owner) })
}

func (f *faults) Watch(ctx context.Context, changed func(string), gap func(bool)) error {
	return f.Store.Watch(ctx, func(key string) {
		if !f.deaf.Load() {
			changed(key)
		}
	}, gap)
}

// fixture is a manager (a replica) on a store that may have others.
type fixture struct {
	*session.Manager
	t     *testing.T
	store *faults
	clock *clock
	log   *bytes.Buffer
	mu    sync.Mutex

	cookies http.Header // of whom a test signed in, for its helpers
}

func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

func (f *fixture) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

var ringKey = bytes.Repeat([]byte{7}, 32)

func ring(t testing.TB, keys ...[]byte) *seal.Ring {
	t.Helper()
	if len(keys) == 0 {
		keys = [][]byte{ringKey}
	}
	r, err := seal.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replica makes a manager. Without a store it has a memory of its own.
func replica(t *testing.T, store session.Store, change func(*session.Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, clock: &clock{}, log: &bytes.Buffer{}}
	o := session.Options{
		Provider: "main", ClientID: "postern", Issuer: issuer, Deployment: "test:",
		Ring: ring(t), Cookie: session.Cookie{Name: "__Host-postern", Secure: true, Persistent: true},
		IdleTimeout: time.Hour, Lifetime: 12 * time.Hour, RefreshBefore: time.Minute,
		Cache:      session.CacheOptions{MaxSize: 16 << 20, MaxStale: 5 * time.Second},
		MaxPerUser: 100, ExchangeTimeout: 10 * time.Second,
		Now: f.clock.now, Log: slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if store == nil {
		store = memstore.New(memstore.Options{Now: f.clock.now})
	}
	if change != nil {
		o.Store = store
		change(&o)
		if o.Store != store {
			store = o.Store
		}
	}
	f.store = &faults{Store: store}
	o.Store = f.store
	m, err := session.NewManager(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Manager = m
	t.Cleanup(func() {
		f.store.fail()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// watch runs the manager's subscription until stop, which is called at the end too.
func (f *fixture) watch() (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	up := make(chan struct{})
	f.store.Store = &announced{Store: f.store.Store, up: up}
	go func() { defer close(done); f.Run(ctx) }()
	<-up
	stop = sync.OnceFunc(func() { cancel(); <-done })
	f.t.Cleanup(stop)
	return stop
}

// announced tells when the subscription stands.
type announced struct {
	session.Store
	once sync.Once
	up   chan struct{}
}

func (a *announced) Watch(ctx context.Context, changed func(string), gap func(bool)) error {
	return a.Store.Watch(ctx, changed, func(listening bool) { gap(listening); a.once.Do(func() { close(a.up) }) })
}

// grant is what signing in as Alice yields; tokens live for life, without end for 0.
func (f *fixture) grant(life time.Duration) session.Grant {
	g := session.Grant{
		Issuer: issuer, Subject: alice, AuthTime: f.clock.now(), ACR: "1",
		Identity: session.Identity{User: alice, Email: "alice@corp.example", Name: "Alice Liddell", Groups: []string{"dev", "ops"}},
		Tokens:   session.Tokens{Access: "access-0", Refresh: "refresh-0", ID: "id-0", Obtained: f.clock.now(), Scope: "openid"},
	}
	if life != 0 {
		g.Tokens.Expiry = f.clock.now().Add(life)
	}
	return g
}

func (f *fixture) signIn(g session.Grant, o session.CreateOptions) (*session.Session, http.Header) {
	f.t.Helper()
	s, c, err := f.Create(f.t.Context(), g, o)
	if err != nil {
		f.t.Fatal(err)
	}
	return s, header(c)
}

func header(cookies ...*http.Cookie) http.Header {
	var pairs []string
	for _, c := range cookies {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}

func (f *fixture) load(h http.Header) (*session.Session, error) {
	return f.Load(context.Background(), h)
}

func (f *fixture) mustLoad(h http.Header) *session.Session {
	f.t.Helper()
	s, err := f.load(h)
	if err != nil {
		f.t.Fatalf("load: %v", err)
	}
	return s
}

// provider is an identity provider that rotates refresh tokens and refuses spent ones.
type provider struct {
	f     *fixture
	life  time.Duration
	delay time.Duration
	mu    sync.Mutex
	sent  []string // refresh tokens, in order
	next  int
	fail  func(n int) error // n counts from 1
	hold  chan struct{}     // if set, an exchange waits for it
	begun chan struct{}     // if set, gets something when one begins
}

func (f *fixture) provider(life time.Duration) *provider { return &provider{f: f, life: life} }

func (p *provider) refresh(ctx context.Context, s *session.Session) (session.Grant, error) {
	if p.begun != nil {
		p.begun <- struct{}{}
	}
	if p.hold != nil {
		<-p.hold
	}
	if p.delay > 0 {
		select {
		case <-time.After(p.delay):
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, s.Tokens.Refresh)
	if ctx.Err() != nil {
		return session.Grant{}, ctx.Err()
	}
	if p.fail != nil {
		if err := p.fail(len(p.sent)); err != nil {
			return session.Grant{}, err
		}
	}
	if want := fmt.Sprintf("refresh-%d", p.next); s.Tokens.Refresh != want {
		return session.Grant{}, &session.RefreshError{Kind: session.Rejected, Err: errors.New("invalid_grant")}
	}
	p.next++
	g := s.Grant
	now := p.f.clock.now()
	g.Tokens = session.Tokens{
		Access: fmt.Sprintf("access-%d", p.next), Refresh: fmt.Sprintf("refresh-%d", p.next), ID: s.Tokens.ID,
		Obtained: now, Expiry: now.Add(p.life),
	}
	return g, nil
}

func (p *provider) calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.sent...)
}

// ended checks that err ends a session for want.
func ended(t testing.TB, err error, want session.Reason) {
	t.Helper()
	var e *session.EndedError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an end by %q", err, want)
	}
	if e.Reason != want {
		t.Fatalf("ended by %q, want %q", e.Reason, want)
	}
}

// jwt is a token of about size bytes that compresses as badly as real ones: random signature, named claims.
func jwt(size int, seed string) string {
	enc := base64.RawURLEncoding.EncodeToString
	head := `{"alg":"RS256","kid":"` + hex(seed, 16) + `","typ":"JWT"}`
	body := `{"iss":"https://idp.example/realms/corp","sub":"` + hex(seed, 16) + `","aud":["account","postern"],"exp":1795262400,"iat":1795262100,` +
		`"jti":"` + hex("j"+seed, 16) + `","azp":"postern","sid":"` + hex("sid", 16) + `","scope":"openid profile email offline_access",` +
		`"email_verified":true,"name":"Alice Liddell","preferred_username":"alice","email":"alice@corp.example","groups":[`
	sig := make([]byte, 0, 256)
	for i := range 8 {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		sig = append(sig, sum[:]...)
	}
	for i := 0; ; i++ {
		token := enc([]byte(head)) + "." + enc([]byte(body+`"x"]}`)) + "." + enc(sig)
		if len(token) >= size {
			return token
		}
		body += fmt.Sprintf(`"corp-team-%d-%s",`, i, hex(fmt.Sprint(seed, i), 3))
	}
}

func hex(seed string, n int) string {
	sum := sha256.Sum256([]byte(seed))
	return fmt.Sprintf("%x", sum[:n])
}

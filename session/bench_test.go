package session_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"postern/session"
	"postern/session/memstore"
)

func benchManager(b testing.TB, store session.Store, stale time.Duration, shared bool) (*session.Manager, http.Header) {
	b.Helper()
	up, done := make(chan struct{}), make(chan struct{})
	m, err := session.NewManager(session.Options{
		Provider: "main", ClientID: "postern", Issuer: issuer, Ring: ring(b), Store: &announced{Store: store, up: up},
		Cookie:      session.Cookie{Name: "__Host-postern", Secure: true},
		IdleTimeout: time.Hour, Lifetime: 12 * time.Hour, RefreshBefore: time.Minute,
		Cache: session.CacheOptions{MaxStale: stale}, SharedGrant: shared,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(done); m.Run(ctx) }()
	<-up
	b.Cleanup(func() { cancel(); <-done; m.Close(context.Background()) })
	_, c, err := m.Create(context.Background(), session.Grant{
		Issuer: issuer, Subject: alice, Tokens: session.Tokens{Access: jwt(1193, "at"), ID: jwt(950, "id"), Refresh: "r", Expiry: time.Now().Add(time.Hour)},
	}, session.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return m, header(&http.Cookie{Name: "theme", Value: "dark"}, c)
}

func BenchmarkLoadCached(b *testing.B) { loadCached(b, false) }

func BenchmarkLoadCachedSharedGrant(b *testing.B) { loadCached(b, true) }

func loadCached(b *testing.B, shared bool) {
	m, h := benchManager(b, memstore.New(memstore.Options{}), time.Hour, shared)
	b.ReportAllocs()
	for b.Loop() {
		s, err := m.Load(context.Background(), h)
		if err != nil {
			b.Fatal(err)
		}
		if s, err = m.Fresh(context.Background(), s, nil); err != nil {
			b.Fatal(err)
		}
		m.Touch(s)
	}
}

// The way of every request must stay free of garbage.
func TestLoadCachedAllocates(t *testing.T) {
	for _, shared := range []bool{false, true} {
		m, h := benchManager(t, memstore.New(memstore.Options{}), time.Hour, shared)
		n := testing.AllocsPerRun(1000, func() {
			if _, err := m.Load(context.Background(), h); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("shared grant %v: %v allocations", shared, n)
		if n > 0 {
			t.Errorf("shared grant %v: %v allocations for a request from the cache, want none", shared, n)
		}
	}
}

package session_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
)

func TestEndMatchingEndsExactlyThose(t *testing.T) {
	f := replica(t, nil, nil)
	person := func(sub, sid, signIn string) http.Header {
		g := f.grant(0)
		g.Subject, g.SID = sub, sid
		_, h := f.signIn(g, session.CreateOptions{SignIn: signIn})
		return h
	}
	alice1, alice2, alice3 := person(alice, "s1", "x"), person(alice, "s1", "y"), person(alice, "s2", "x")
	bob := person("bob", "s1", "x") // a provider that repeats sids
	lives := func(want string) {
		t.Helper()
		got := ""
		for i, h := range []http.Header{alice1, alice2, alice3, bob} {
			if _, err := f.load(h); err == nil {
				got += string("123b"[i])
			}
		}
		if got != want {
			t.Errorf("alive: %s, want %s", got, want)
		}
	}
	end := func(q session.Match, want int) {
		t.Helper()
		n, err := f.EndMatching(t.Context(), q, session.ReasonBackChannel)
		if n != want || err != nil {
			t.Errorf("%+v: ended %d, want %d (%v)", q, n, want, err)
		}
	}
	end(session.Match{SID: "s3"}, 0)
	end(session.Match{SID: "s1", Subject: "carol"}, 0)
	lives("123b")
	end(session.Match{SID: "s1", SignIn: "x"}, 0) // a session that has a SID is not found by its sign-in
	end(session.Match{SignIn: "x"}, 0)
	lives("123b")
	end(session.Match{SID: "s1", Subject: alice}, 2)
	lives("3b")
	end(session.Match{SID: "s1"}, 1)
	lives("3")
	end(session.Match{Subject: alice}, 1)
	lives("")
	end(session.Match{Subject: alice}, 0)
	without := person("carol", "", "z")
	end(session.Match{SignIn: "z", Subject: alice}, 0)
	end(session.Match{SignIn: "z", Subject: "carol"}, 1)
	if _, err := f.load(without); err == nil {
		t.Error("a session without a SID lives")
	}
	if _, err := f.EndMatching(t.Context(), session.Match{}, session.ReasonAdmin); err == nil {
		t.Error("matched everybody")
	}
	// Another client of the same provider has other sessions.
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	other := replica(t, f.store, func(o *session.Options) { o.ClientID = "other" })
	if n, _ := other.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); n != 0 {
		t.Errorf("ended %d sessions of another client", n)
	}
	f.mustLoad(h)
}

// An end without its cookie leaves the tokens where they can be revoked later; one with it does not. Both remove every index entry.
func TestEndLeavesTombstone(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(0)
	g.SID = "sid-1"
	for name, end := range map[string]func(s *session.Session) error{
		"with its cookie": func(s *session.Session) error { return f.End(t.Context(), s, session.ReasonSignedOut) },
		"without": func(*session.Session) error {
			_, err := f.EndMatching(t.Context(), session.Match{SID: "sid-1"}, session.ReasonSignedOut)
			return err
		},
	} {
		s, h := f.signIn(g, session.CreateOptions{})
		if err := end(s); err != nil {
			t.Fatal(err)
		}
		rec, err := f.store.Get(t.Context(), s.Key())
		if err != nil || rec.Ended != session.ReasonSignedOut || (rec.Sealed != nil) != (name == "without") {
			t.Errorf("%s: record ended %q, %d bytes, %v", name, rec.Ended, len(rec.Sealed), err)
		}
		if err := f.End(t.Context(), s, session.ReasonAdmin); err != nil {
			t.Errorf("%s: ending twice: %v", name, err)
		}
		_, err = f.load(h)
		ended(t, err, session.ReasonSignedOut)
		before := f.store.count("end")
		for _, q := range []session.Match{{SID: "sid-1"}, {Subject: alice}, {SignIn: s.SignIn}} {
			f.EndMatching(t.Context(), q, session.ReasonAdmin)
		}
		if n := f.store.count("end"); n != before {
			t.Errorf("%s: %d index entries are left", name, n-before)
		}
	}
}

func TestEndNeedsReasonAndManager(t *testing.T) {
	f := replica(t, nil, nil)
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	if f.End(t.Context(), s, "") == nil || f.End(t.Context(), &session.Session{}, session.ReasonAdmin) == nil {
		t.Error("accepted")
	}
	f.mustLoad(h)
}

func TestEndIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		s, h := f.signIn(f.grant(0), session.CreateOptions{})
		f.store.fail("end")
		if err := f.End(t.Context(), s, session.ReasonSignedOut); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable: it may live on", err)
		}
		f.mustLoad(h)
		f.store.fail()
		time.Sleep(time.Second)
		_, err := f.load(h)
		ended(t, err, session.ReasonSignedOut)
	})
}

func TestOldestSessionsOfOnePersonEnd(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.MaxPerUser = 3 })
	var headers []http.Header
	for range 5 {
		_, h := f.signIn(f.grant(0), session.CreateOptions{})
		headers = append(headers, h)
		f.clock.advance(time.Minute)
	}
	g := f.grant(0)
	g.Subject = "bob"
	_, bob := f.signIn(g, session.CreateOptions{})
	for i, h := range headers {
		_, err := f.load(h)
		if i < 2 {
			ended(t, err, session.ReasonLimit)
		} else if err != nil {
			t.Errorf("session %d of 5: %v", i+1, err)
		}
	}
	f.mustLoad(bob)
}

// A5, A6: a sign-in makes a new id and a new key, and the session that it replaces is dead.
func TestCreateReplaces(t *testing.T) {
	f := replica(t, nil, nil)
	old, hOld := f.signIn(f.grant(0), session.CreateOptions{})
	s, h := f.signIn(f.grant(0), session.CreateOptions{Replaces: old, SignIn: old.SignIn})
	if s.Key() == old.Key() || h.Get("Cookie") == hOld.Get("Cookie") || s.SignIn != old.SignIn {
		t.Error("not a new session of the same sign-in")
	}
	f.mustLoad(h)
	_, err := f.load(hOld)
	ended(t, err, session.ReasonReplaced)
}

func TestCreateRefusesHalfGrants(t *testing.T) {
	f := replica(t, nil, nil)
	for name, change := range map[string]func(*session.Grant){
		"no issuer":    func(g *session.Grant) { g.Issuer = "" },
		"other issuer": func(g *session.Grant) { g.Issuer = "https://evil.example" },
		"no token":     func(g *session.Grant) { g.Tokens.Access = "" },
		"too large":    func(g *session.Grant) { g.Tokens.ID = strings.Repeat("x", 2<<20) },
	} {
		g := f.grant(0)
		change(&g)
		if _, _, err := f.Create(t.Context(), g, session.CreateOptions{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := f.store.count("create"); n != 0 {
		t.Errorf("%d records written", n)
	}
}

// A182: the store forgot the last write (a failover). The session goes on with the newest refresh token.
func TestStoreThatWentBackIsHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		s := load()
		old, _ := f.store.Get(t.Context(), s.Key())
		s, err := f.Refresh(t.Context(), s, p.refresh)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until the lease is given back
		f.store.Store = &rolledBack{Store: f.store.Store, old: old}
		time.Sleep(10 * time.Minute)
		if got := load(); got.Tokens.Refresh != "refresh-1" {
			t.Errorf("loaded the spent %s", got.Tokens.Refresh)
		}
		got, err := f.Fresh(t.Context(), s, p.refresh)
		if err != nil || got.Tokens.Access != "access-2" {
			t.Errorf("got %v", err)
		}
	})
}

// rolledBack is a store that shows an old record until it is written.
type rolledBack struct {
	session.Store
	old session.Record
}

func (r *rolledBack) Get(ctx context.Context, key string) (session.Record, error) {
	if r.old.Version == 0 {
		return r.Store.Get(ctx, key)
	}
	rec := r.old
	rec.Sealed = bytes.Clone(rec.Sealed)
	return rec, nil
}

func (r *rolledBack) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	if from != r.old.Version {
		return session.ErrConflict
	}
	r.old = session.Record{Version: max(rec.Version, from+1), Seen: r.old.Seen, Sealed: rec.Sealed}
	return nil
}

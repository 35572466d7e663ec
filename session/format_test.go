package session_test

import (
	"bytes"
	"testing"
	"time"

	"postern/session"
)

// A188: during a rolling update two binaries work on one Redis. What a newer one adds and an older one may ignore, it ignores.
func TestA188_UnknownFieldsAreIgnored(t *testing.T) {
	f := replica(t, nil, nil)
	made, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	rec, err := f.WithMore(made)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Swap(t.Context(), made.Key(), rec, 1); err != nil {
		t.Fatal(err)
	}
	older := replica(t, f.store, nil)
	s := older.mustLoad(h)
	if s.Subject != alice || s.Tokens.Refresh != "refresh-0" || s.Version != 2 {
		t.Errorf("loaded %+v", s)
	}
	older.wantList(session.Match{Subject: alice}, made.ID())
	if _, err := older.Refresh(t.Context(), s, older.provider(time.Hour).refresh); err != nil {
		t.Error(err)
	}
	if n, err := older.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); n != 1 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
}

// A188: what it cannot ignore is no session to it, it stays as it is, and it can be ended.
func TestA188_UnknownFormatIsNoSessionAndStays(t *testing.T) {
	for name, newer := range map[string]func(f *fixture, s *session.Session) (session.Record, error){
		"session": func(f *fixture, s *session.Session) (session.Record, error) { return f.Newer(s) },
		"record": func(f *fixture, s *session.Session) (session.Record, error) {
			return session.Record{Sealed: append([]byte{99}, bytes.Repeat([]byte{1}, 200)...)}, nil
		},
	} {
		f := replica(t, nil, nil)
		made, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
		rec, err := newer(f, made)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.store.Swap(t.Context(), made.Key(), rec, 1); err != nil {
			t.Fatal(err)
		}
		older := replica(t, f.store, nil)
		for range 2 {
			_, err = older.load(h)
			ended(t, err, session.ReasonStoreMiss)
		}
		if _, err := f.Refresh(t.Context(), made, f.provider(time.Hour).refresh); err == nil {
			t.Errorf("%s: refreshed", name)
		}
		got, err := f.store.Get(t.Context(), made.Key())
		if err != nil || got.Ended != "" || !bytes.Equal(got.Sealed, rec.Sealed) || got.Version != 2 {
			t.Errorf("%s: the record became %+v, %v", name, got.Ended, err)
		}
		if n, err := older.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); n != 1 || err != nil {
			t.Errorf("%s: ended %d, %v", name, n, err)
		}
	}
}

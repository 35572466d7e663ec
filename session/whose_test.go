package session_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/session"
)

// However a session ended, whoever comes with its cookie is known for a while, on every replica, when its tokens are gone too. Only who signed
// out is not, nor is a session of which the store knows nothing.
func TestWhoseEndedSessionACookieIs(t *testing.T) {
	for why, c := range map[session.Reason]struct {
		end   func(f *fixture, s *session.Session)
		known bool
	}{
		session.ReasonIdle: {func(f *fixture, _ *session.Session) { f.clock.advance(61 * time.Minute) }, true},
		session.ReasonBackChannel: {func(f *fixture, _ *session.Session) {
			f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel)
		}, true},
		session.ReasonFrontChannel: {func(f *fixture, s *session.Session) {
			f.EndMatching(t.Context(), session.Match{SignIn: s.SignIn}, session.ReasonFrontChannel)
		}, true},
		session.ReasonAdmin: {func(f *fixture, s *session.Session) {
			f.EndID(t.Context(), s.ID(), session.Match{}, session.ReasonAdmin)
		}, true},
		session.ReasonRefreshRejected: {func(f *fixture, s *session.Session) {
			p := f.provider(time.Minute)
			p.next = 7 // so that refresh-0 is spent
			f.Refresh(t.Context(), s, p.refresh)
		}, true},
		session.ReasonTokenExpired: {func(f *fixture, s *session.Session) {
			f.clock.advance(31 * time.Minute)
			s.Tokens.Refresh = ""
			f.Fresh(t.Context(), s, nil)
		}, true},
		session.ReasonLimit: {func(f *fixture, s *session.Session) {
			for range 2 {
				f.clock.advance(time.Second)
				f.signIn(f.grant(0), session.CreateOptions{})
			}
		}, true},
		session.ReasonSignedOut: {func(f *fixture, s *session.Session) { f.End(t.Context(), s, session.ReasonSignedOut) }, false},
		session.ReasonLifetime:  {func(f *fixture, _ *session.Session) { f.clock.advance(12*time.Hour + time.Second) }, false},
	} {
		for _, revoke := range []bool{false, true} {
			t.Run(string(why), func(t *testing.T) {
				b := &bin{}
				options := func(o *session.Options) { b.options(revoke)(o); o.MaxPerUser = 2 }
				f := replica(t, nil, options)
				other := replica(t, f.store, options)
				g := f.grant(30 * time.Minute)
				if why == session.ReasonTokenExpired {
					g.Tokens.Refresh = ""
				}
				s, h := f.signIn(g, session.CreateOptions{})
				c.end(f, s)
				other.clock.advance(f.clock.now().Sub(other.clock.now()))
				for range 2 { // the first may take the tokens from behind the tombstone
					_, err := other.load(h)
					ended(t, err, why)
					f.settle()
					other.settle()
				}
				if rec, err := f.store.Get(t.Context(), s.ID()); err == nil && rec.Ended != "" && f.TokensBehind(s.ID(), rec) {
					t.Error("tokens are left behind the tombstone")
				}
				who, err := other.WhoseEnded(t.Context(), h)
				want := session.Whose{Issuer: issuer, Subject: alice, ID: s.ID(), Handle: s.Handle()}
				if c.known && (err != nil || who != want) {
					t.Errorf("%+v, %v, want %+v", who, err, want)
				}
				if !c.known && !errors.Is(err, session.ErrNone) {
					t.Errorf("%+v, %v, want nobody", who, err)
				}
			})
		}
	}
}

func TestNobodysCookieIsNobodys(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(0)
	g.Subject = "" // a provider that does not tell who it is
	_, nameless := f.signIn(g, session.CreateOptions{})
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	strange := strings.Replace(h.Get("Cookie"), "=", "=A", 1)
	foreign := replica(t, f.store, func(o *session.Options) { o.Deployment = "other:" })
	f.clock.advance(2 * time.Hour)
	for what, h := range map[string]http.Header{
		"no cookie": {}, "a cookie that is none of ours": {"Cookie": {strange}}, "nameless": nameless,
	} {
		if who, err := f.WhoseEnded(t.Context(), h); !errors.Is(err, session.ErrNone) {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
	}
	if who, err := foreign.WhoseEnded(t.Context(), h); !errors.Is(err, session.ErrNone) {
		t.Errorf("another deployment's: %+v, %v", who, err)
	}
	f.store.fail("get")
	if who, err := f.WhoseEnded(t.Context(), h); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("while the store does not answer: %+v, %v", who, err)
	}
	f.store.fail()
	if _, err := f.WhoseEnded(t.Context(), h); err != nil {
		t.Errorf("its own: %v", err)
	}
}

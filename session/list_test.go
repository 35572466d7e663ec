package session_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/session"
	"postern/session/memstore"
)

// listed are the ids that one call of List returned.
func (f *fixture) listed(q session.Match, after string, limit int) (ids []string, next string) {
	f.t.Helper()
	list, next, err := f.List(f.t.Context(), q, after, limit)
	if err != nil {
		f.t.Fatalf("list %+v: %v", q, err)
	}
	for _, i := range list {
		ids = append(ids, i.ID)
	}
	return ids, next
}

func (f *fixture) wantList(q session.Match, want ...string) {
	f.t.Helper()
	if got, next := f.listed(q, "", 0); !slices.Equal(got, want) || next != "" {
		f.t.Errorf("list %+v: %q next %q, want %q", q, got, next, want)
	}
}

func TestListTellsWhatIsKnown(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(time.Hour)
	g.SID, g.Identity.User = "sid-1", "alice@corp.example"
	s, h := f.signIn(g, session.CreateOptions{Browser: "Firefox"})
	f.clock.advance(10 * time.Minute)
	f.Touch(f.mustLoad(h))
	want := session.Info{
		ID: s.ID(), Handle: s.Handle(), Provider: "main", Subject: alice, User: "alice@corp.example", SID: "sid-1", Browser: "Firefox",
		Created: s.Created.Truncate(time.Second), Seen: f.clock.now().UTC().Truncate(time.Second), Ends: s.Created.Truncate(time.Second).Add(12 * time.Hour),
	}
	for _, q := range []session.Match{
		{Subject: alice}, {SID: "sid-1"}, {User: "alice@corp.example"},
		{Subject: alice, SID: "sid-1", User: "alice@corp.example", Except: "another", IssuedBy: f.clock.now()},
	} {
		got, next, err := f.List(t.Context(), q, "", 0)
		if err != nil || next != "" || len(got) != 1 {
			t.Fatalf("%+v: %d sessions, next %q, %v", q, len(got), next, err)
		}
		if d := got[0].Seen.Sub(want.Seen); d < -time.Second || d > time.Second {
			t.Errorf("seen %v, want %v", got[0].Seen, want.Seen)
		}
		got[0].Seen = want.Seen
		if diff := cmp.Diff(got[0], want); diff != "" {
			t.Errorf("%+v (-got +want):\n%s", q, diff)
		}
	}
	for _, q := range []session.Match{
		{Subject: "alice@corp.example"}, {User: alice}, {SID: "sid-2"}, {Subject: alice, SID: "sid-2"}, {SID: "sid-1", User: alice},
		{Subject: alice, Except: s.ID()}, {Subject: alice, IssuedBy: s.Created.Add(-2 * time.Second)}, {SignIn: "x"},
	} {
		f.wantList(q)
	}
	if _, _, err := f.List(t.Context(), session.Match{Except: "x", IssuedBy: f.clock.now()}, "", 0); err == nil || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("listed everybody: %v", err)
	}
}

// Where the user is the subject there is one entry less, and both words find the session.
func TestListByUserThatIsTheSubject(t *testing.T) {
	f := replica(t, nil, nil)
	s, _ := f.signIn(f.grant(0), session.CreateOptions{})
	g := f.grant(0)
	g.Identity.User = "mallory" // the subject of one is not to be taken for the user of another
	other, _ := f.signIn(g, session.CreateOptions{})
	f.wantList(session.Match{User: alice}, s.ID())
	f.wantList(session.Match{User: "mallory"}, other.ID())
	if n, err := f.EndMatching(t.Context(), session.Match{User: alice}, session.ReasonAdmin); n != 1 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	f.wantList(session.Match{Subject: alice}, other.ID())
}

func TestListPagesAreStable(t *testing.T) {
	f := replica(t, nil, nil)
	var newest []string // first
	for range 25 {
		s, _ := f.signIn(f.grant(0), session.CreateOptions{})
		newest = append([]string{s.ID()}, newest...)
		f.clock.advance(time.Second)
	}
	q := session.Match{Subject: alice}
	f.wantList(q, newest...)

	var got []string
	page, next := f.listed(q, "", 10)
	got = append(got, page...)
	// Meanwhile somebody signs in, one that was listed ends and so does one that was not.
	f.clock.advance(time.Minute)
	f.signIn(f.grant(0), session.CreateOptions{})
	for _, id := range []string{page[9], newest[12]} {
		if ended, err := f.EndID(t.Context(), id, session.Match{}, session.ReasonAdmin); !ended || err != nil {
			t.Fatalf("%v, %v", ended, err)
		}
	}
	for next != "" {
		page, next = f.listed(q, next, 10)
		got = append(got, page...)
	}
	if want := slices.Concat(newest[:12], newest[13:]); !slices.Equal(got, want) {
		t.Errorf("pages hold %d sessions, want %d", len(got), len(want))
	}
	if _, next := f.listed(session.Match{Subject: alice}, "", 25); next != "" {
		t.Error("there is a page after the last session")
	}
	for _, after := range []string{"x", "1", ".", "x.y", strings.Repeat("9", 30) + ".k"} {
		if _, _, err := f.List(t.Context(), q, after, 10); err == nil || errors.Is(err, session.ErrUnavailable) {
			t.Errorf("after %q: %v, want an error that is not the store's", after, err)
		}
	}
}

// Who is not signed in any more is not listed, and leaves the index; what the store has lost does not: it may be about to be written.
func TestListLeavesOutWhatIsOver(t *testing.T) {
	store := memstore.New(memstore.Options{})
	f := replica(t, store, nil)
	g := f.grant(0)
	g.SID = "sid-1"
	idle, _ := f.signIn(g, session.CreateOptions{})
	f.clock.advance(59 * time.Minute)
	live, _ := f.signIn(g, session.CreateOptions{})
	dead, _ := f.signIn(g, session.CreateOptions{})
	f.clock.advance(2 * time.Minute)
	// A process that knows no entries ended it.
	if _, err := store.End(t.Context(), dead.ID(), session.ReasonAdmin, false, nil); err != nil {
		t.Fatal(err)
	}
	name := ""
	for _, e := range f.Names(live) {
		if got, _ := store.Index(t.Context(), e); len(got) == 3 {
			name = e
		}
	}
	if err := store.Reindex(t.Context(), []session.IndexEntry{{Name: name, Handle: "not-there-yet", Expires: time.Now().Add(time.Hour)}}, nil); err != nil {
		t.Fatal(err)
	}
	f.wantList(session.Match{Subject: alice}, live.ID())
	f.wantList(session.Match{SID: "sid-1"}, live.ID())
	f.Close(t.Context()) // what it does in the background is done
	for _, name := range f.Names(live) {
		entries, err := store.Index(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			if e.Handle != "not-there-yet" {
				got = append(got, e.Handle)
			}
		}
		slices.Sort(got)
		want := []string{idle.ID(), live.ID()}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("left in the index: %q, want %q", got, want)
		}
	}
	if entries, _ := store.Index(t.Context(), name); len(entries) != 3 {
		t.Error("an entry without a session left the index")
	}
}

func TestListDoesNotTakeBrokenForAbsent(t *testing.T) {
	f := replica(t, nil, nil)
	s, _ := f.signIn(f.grant(0), session.CreateOptions{})
	for _, op := range []string{"index", "get"} {
		f.store.fail(op)
		if _, _, err := f.List(t.Context(), session.Match{Subject: alice}, "", 0); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("without %s: %v", op, err)
		}
		if _, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("end without %s: %v", op, err)
		}
	}
	if _, err := f.EndID(t.Context(), s.ID(), session.Match{}, session.ReasonAdmin); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("end by id: %v", err)
	}
	f.store.fail()
	f.wantList(session.Match{Subject: alice}, s.ID())
}

func TestEndIDEndsOnlyItsOwnersSession(t *testing.T) {
	f := replica(t, nil, nil)
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	g := f.grant(0)
	g.Subject = "bob"
	bob, hBob := f.signIn(g, session.CreateOptions{})
	end := func(id string, owner session.Match, want bool) {
		t.Helper()
		if ended, err := f.EndID(t.Context(), id, owner, session.ReasonSignedOut); ended != want || err != nil {
			t.Errorf("end %q of %+v: %v, %v, want %v", id, owner, ended, err, want)
		}
	}
	end(bob.ID(), session.Match{Subject: alice}, false) // A person names another's session.
	end("", session.Match{}, false)
	end("no-such", session.Match{}, false)
	end("g:"+s.ID(), session.Match{}, false)
	f.mustLoad(hBob)
	end(s.ID(), session.Match{Subject: alice}, true)
	end(s.ID(), session.Match{Subject: alice}, false)
	_, err := f.load(h)
	ended(t, err, session.ReasonSignedOut)
	end(bob.ID(), session.Match{}, true)
	s, _ = f.signIn(f.grant(0), session.CreateOptions{})
	if _, err := f.EndID(t.Context(), s.ID(), session.Match{}, ""); err == nil {
		t.Error("ended without a reason")
	}
}

func TestEndMatchingSparesOneSession(t *testing.T) {
	f := replica(t, nil, nil)
	mine, h := f.signIn(f.grant(0), session.CreateOptions{})
	for range 3 {
		f.signIn(f.grant(0), session.CreateOptions{})
	}
	if n, err := f.EndMatching(t.Context(), session.Match{Subject: alice, Except: mine.ID()}, session.ReasonSignedOut); n != 3 || err != nil {
		t.Errorf("ended %d, %v, want the other 3", n, err)
	}
	f.mustLoad(h)
	f.wantList(session.Match{Subject: alice}, mine.ID())
}

// A logout token that comes late must not end a later sign-in. What the provider said of the time counts; the clocks of both may differ.
func TestEndMatchingSparesNewerSignIns(t *testing.T) {
	f := replica(t, nil, nil)
	iat := f.clock.now().Truncate(time.Second).Add(-2 * time.Hour) // by the provider's clock, which is slow
	signIn := func(issued time.Time) http.Header {
		g := f.grant(time.Hour)
		g.Issued = issued
		_, h := f.signIn(g, session.CreateOptions{})
		return h
	}
	before, same, after := signIn(iat.Add(-time.Second)), signIn(iat.Add(500*time.Millisecond)), signIn(iat.Add(time.Second))
	untold := signIn(time.Time{})
	// A refresh brings a newer ID token and yet is no newer sign-in.
	p := f.provider(time.Hour)
	if _, err := f.Refresh(t.Context(), f.mustLoad(before), func(ctx context.Context, s *session.Session) (session.Grant, error) {
		g, err := p.refresh(ctx, s)
		g.Issued = iat.Add(time.Hour)
		return g, err
	}); err != nil {
		t.Fatal(err)
	}
	end := func(by time.Time, want int) {
		t.Helper()
		if n, err := f.EndMatching(t.Context(), session.Match{Subject: alice, IssuedBy: by}, session.ReasonBackChannel); n != want || err != nil {
			t.Errorf("ended %d, %v, want %d", n, err, want)
		}
	}
	end(iat.Add(-time.Hour), 0)
	end(iat, 2)
	for _, h := range []http.Header{before, same} {
		_, err := f.load(h)
		ended(t, err, session.ReasonBackChannel)
	}
	f.mustLoad(after)
	f.mustLoad(untold) // signed in two hours later by our clock
	end(f.mustLoad(untold).Created, 2)
}

// Some entries cannot be read: that is an error, and all others end all the same.
func TestEndMatchingGoesOnBehindAnError(t *testing.T) {
	f := replica(t, nil, nil)
	var all []*session.Session
	for range 30 {
		s, _ := f.signIn(f.grant(0), session.CreateOptions{})
		all = append(all, s)
	}
	broken := &broken{Store: f.store.Store, key: all[11].ID()}
	f.store.Store = broken
	n, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel)
	if n != 29 || !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("ended %d of 30: %v", n, err)
	}
	f.store.Store = broken.Store
	f.wantList(session.Match{Subject: alice}, all[11].ID())
	if n, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel); n != 1 || err != nil {
		t.Errorf("again: ended %d, %v", n, err)
	}
}

// Someone wrote over what is known of a session. Then rather one session too many ends.
func TestEndMatchingEndsWhatItCannotRead(t *testing.T) {
	f := replica(t, nil, nil)
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	rec, _ := f.store.Get(t.Context(), s.ID())
	rec.Sealed[5] ^= 1
	if err := f.store.Swap(t.Context(), s.ID(), rec, 1); err != nil {
		t.Fatal(err)
	}
	f.wantList(session.Match{Subject: alice})
	if n, err := f.EndMatching(t.Context(), session.Match{Subject: alice, IssuedBy: time.Unix(1, 0)}, session.ReasonBackChannel); n != 1 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	_, err := f.load(h)
	ended(t, err, session.ReasonBackChannel)
}

// Deployments that share a Redis: the same prefix and another client, or the same client and another prefix, and other keys of course.
func TestDeploymentsDoNotReach(t *testing.T) {
	store := memstore.New(memstore.Options{})
	f := replica(t, store, nil)
	g := f.grant(time.Hour)
	g.SID = "sid-1"
	s, h := f.signIn(g, session.CreateOptions{})
	for name, change := range map[string]func(*session.Options){
		"client": func(o *session.Options) { o.ClientID = "other" },
		"prefix": func(o *session.Options) { o.Deployment = "other:" },
		"keys":   func(o *session.Options) { o.Ring = ring(t, []byte(strings.Repeat("o", 32))) },
		"issuer": func(o *session.Options) { o.Issuer = "https://other.example" },
	} {
		other := replica(t, store, change)
		if _, err := other.load(h); err == nil {
			t.Errorf("another %s: reads the session", name)
		}
		for _, q := range []session.Match{{Subject: alice}, {SID: "sid-1"}, {User: alice}} {
			other.wantList(q)
			if n, err := other.EndMatching(t.Context(), q, session.ReasonBackChannel); n != 0 || err != nil {
				t.Errorf("another %s: ended %d (%v)", name, n, err)
			}
		}
		if ended, err := other.EndID(t.Context(), s.ID(), session.Match{}, session.ReasonAdmin); ended || err != nil {
			t.Errorf("another %s: ended by id: %v (%v)", name, ended, err)
		}
		f.mustLoad(h)
	}
	f.wantList(session.Match{Subject: alice}, s.ID())
}

func TestListOfSharedGrants(t *testing.T) {
	f := sharing(t, nil, nil)
	p := newJealous(f, time.Hour)
	g := p.grant(alice)
	g.Identity.User = "alice@corp.example"
	s, h := f.signIn(g, session.CreateOptions{})
	f.wantList(session.Match{User: "alice@corp.example"}, s.ID())
	f.wantList(session.Match{Subject: alice}, s.ID())
	f.mustLoad(h)
	// What they share is gone, and with it all sessions.
	if _, err := f.store.End(t.Context(), f.GrantKeys(s)[0], session.ReasonAdmin, false, nil); err != nil {
		t.Fatal(err)
	}
	f.wantList(session.Match{Subject: alice})
}

// broken is a store that cannot read one record.
type broken struct {
	session.Store
	key string
}

func (b *broken) Get(ctx context.Context, key string) (session.Record, error) {
	if key == b.key {
		return session.Record{}, errStore
	}
	return b.Store.Get(ctx, key)
}

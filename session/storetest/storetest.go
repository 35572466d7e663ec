// Package storetest is what every [session.Store] must do, as tests. A store's own test calls [Run].
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/session"
)

// limit is how long a test waits for what must happen, on a machine that is busy with other tests.
const limit = 20 * time.Second

// Harness is a store and the clock by which it forgets.
type Harness struct {
	session.Store
	// Pass moves the store's clock. Nil: the clock is real, and tests wait for it.
	Pass func(d time.Duration)
	// Short is a time to live that is soon over.
	Short time.Duration
	// Now is the store's clock.
	Now func() time.Time
}

// Run tests the stores that newStore makes. Each call must return an empty one, which Run closes.
func Run(t *testing.T, newStore func(t *testing.T) Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"absent":                     absent,
		"create":                     create,
		"create refuses no ttl":      createWithoutTTL,
		"create keeps what is there": createOverRecord,
		"values are copied":          valuesAreCopied,
		"any bytes":                  anyBytes,
		"ttl":                        ttl,
		"swap":                       swap,
		"swap to a later version":    swapSkipsVersions,
		"swap conflicts":             swapConflicts,
		"swap has one winner":        swapRace,
		"swap keeps ttl":             swapKeepsTTL,
		"swap lengthens ttl":         swapLengthensTTL,
		"touch":                      touch,
		"touch never creates":        touchNeverCreates,
		"touch of several":           touchSeveral,
		"touch against swap":         touchAgainstSwap,
		"end":                        end,
		"end keeps sealed":           endKeepsSealed,
		"end once":                   endOnce,
		"end has one winner":         endRace,
		"end keeps ttl":              endKeepsTTL,
		"ended stays ended":          endAgainstSwap,
		"index":                      index,
		"index forgets":              indexForgets,
		"index ttl grows":            indexLifetime,
		"index replaces by handle":   indexReplaces,
		"reindex":                    reindex,
		"strip":                      strip,
		"strip has one winner":       stripRace,
		"index handle is no prefix":  indexHandlePrefix,
		"index bound":                indexBound,
		"index bound is hard":        indexHardBound,
		"index bound in a race":      indexRace,
		"lease":                      lease,
		"lease expires":              leaseExpires,
		"lease has one owner":        leaseRace,
		"keep":                       keep,
		"kept in place":              keepReplaces,
		"kept for a while":           keepExpires,
		"kept is taken once":         takeKeptRace,
		"kept within a total":        keepTotal,
		"watch":                      watch,
		"watch begins with a gap":    watchGap,
		"watch is silent otherwise":  watchSilence,
		"watch ends":                 watchEnds,
		"cancelled context":          cancelled,
		"concurrent use":             concurrent,
		"close ends all":             closed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newStore(t)
			if h.Pass == nil {
				h.Pass = func(time.Duration) {}
			}
			t.Cleanup(func() { h.Close() })
			test(t, h)
		})
	}
}

// record is a first record with something sealed.
func record(sealed string) session.Record {
	return session.Record{Version: 1, Seen: time.Unix(1_700_000_000, 0), Sealed: []byte(sealed)}
}

func mustCreate(t *testing.T, s session.Store, key string, index ...session.IndexEntry) {
	t.Helper()
	if _, err := s.Create(t.Context(), key, record("sealed"), time.Hour, index); err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
}

func mustGet(t *testing.T, s session.Store, key string) session.Record {
	t.Helper()
	rec, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return rec
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || (want == nil) != (got == nil) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
	// Absent is not broken, and a conflict is neither.
	if want != nil && !errors.Is(want, session.ErrUnavailable) && errors.Is(got, session.ErrUnavailable) {
		t.Errorf("%s: %v reads as unavailable", what, got)
	}
}

func wantRecord(t *testing.T, got, want session.Record) {
	t.Helper()
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("record (-got +want):\n%s", diff)
	}
}

func absent(t *testing.T, h Harness) {
	_, err := h.Get(t.Context(), "k")
	wantErr(t, "get", err, session.ErrNone)
	wantErr(t, "swap", h.Swap(t.Context(), "k", record("x"), 1), session.ErrNone)
	wantErr(t, "touch", h.Touch(t.Context(), time.Unix(5, 0), "k"), nil)
	ended, err := h.End(t.Context(), "k", session.ReasonAdmin, false, nil)
	if ended || err != nil {
		t.Errorf("end: %v, %v, want false and no error", ended, err)
	}
	entries, err := h.Index(t.Context(), "name")
	if len(entries) != 0 || err != nil {
		t.Errorf("index: %v, %v, want none", entries, err)
	}
	_, err = h.Get(t.Context(), "k")
	wantErr(t, "get after all that", err, session.ErrNone)
	wantErr(t, "ping", h.Ping(t.Context()), nil)
}

func create(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	wantRecord(t, mustGet(t, h, "k"), record("sealed"))
	_, err := h.Get(t.Context(), "K")
	wantErr(t, "get of another key", err, session.ErrNone)
}

func createWithoutTTL(t *testing.T, h Harness) {
	entry := session.IndexEntry{Name: "n", Handle: "k", Expires: h.Now().Add(time.Hour)}
	for _, ttl := range []time.Duration{0, -time.Second} {
		if _, err := h.Create(t.Context(), "k", record("x"), ttl, []session.IndexEntry{entry}); err == nil {
			t.Errorf("created with a time to live of %v", ttl)
		}
	}
	wantHandles(t, h, "n")
	_, err := h.Get(t.Context(), "k")
	wantErr(t, "get", err, session.ErrNone)
}

func createOverRecord(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	_, err := h.Create(t.Context(), "k", record("other"), time.Hour, nil)
	wantErr(t, "create over a session", err, session.ErrConflict)
	wantRecord(t, mustGet(t, h, "k"), record("sealed"))

	if _, err := h.End(t.Context(), "k", session.ReasonSignedOut, true, nil); err != nil {
		t.Fatal(err)
	}
	_, err = h.Create(t.Context(), "k", record("sealed"), time.Hour, nil)
	wantErr(t, "create over a tombstone", err, session.ErrConflict)
	if got := mustGet(t, h, "k").Ended; got != session.ReasonSignedOut {
		t.Errorf("a create resurrected a session that ended: %q", got)
	}
}

func valuesAreCopied(t *testing.T, h Harness) {
	rec := record("sealed")
	if _, err := h.Create(t.Context(), "k", rec, time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	rec.Sealed[0] = 'X'
	mustGet(t, h, "k").Sealed[1] = 'X'
	if got := string(mustGet(t, h, "k").Sealed); got != "sealed" {
		t.Errorf("sealed is %q after the caller changed its own copy", got)
	}
}

func anyBytes(t *testing.T, h Harness) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	all = slices.Concat(all, []byte(strings.Repeat("\r\n\x00", 10_000)))
	entry := session.IndexEntry{Name: "n\r\n\x00{}", Handle: "h\xff\x00{}", Expires: h.Now().Add(time.Hour).Truncate(time.Millisecond)}
	const key = "k \r\n\x00*?[a]{}:é"
	if _, err := h.Create(t.Context(), key, record(string(all)), time.Hour, []session.IndexEntry{entry}); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, mustGet(t, h, key), record(string(all)))
	entries, err := h.Index(t.Context(), entry.Name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries, []session.IndexEntry{entry}); diff != "" {
		t.Errorf("index (-got +want):\n%s", diff)
	}
}

func ttl(t *testing.T, h Harness) {
	if _, err := h.Create(t.Context(), "k", record("x"), h.Short, nil); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, h, "longer")
	h.Pass(h.Short)
	wantGone(t, h, "k")
	mustGet(t, h, "longer")
	mustCreate(t, h, "k") // the key is free again
}

// wantGone waits until nothing is under key.
func wantGone(t *testing.T, h Harness, key string) {
	t.Helper()
	eventually(t, key+" is gone", func() bool {
		_, err := h.Get(t.Context(), key)
		return errors.Is(err, session.ErrNone)
	})
}

// eventually polls, because a real server's clock is not ours.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func swap(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	seen := time.Unix(1_700_000_500, 0)
	wantErr(t, "touch", h.Touch(t.Context(), seen, "k"), nil)
	for from := int64(1); from < 300; from++ { // past one byte
		sealed := fmt.Sprint("value ", from+1)
		wantErr(t, "swap", h.Swap(t.Context(), "k", session.Record{Sealed: []byte(sealed), Seen: time.Unix(1, 0)}, from), nil)
		if from < 5 || from > 250 {
			wantRecord(t, mustGet(t, h, "k"), session.Record{Version: from + 1, Seen: seen, Sealed: []byte(sealed)})
		}
	}
}

func swapSkipsVersions(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	later := session.Record{Version: 70_000, Sealed: []byte("later")}
	wantErr(t, "swap to a later version", h.Swap(t.Context(), "k", later, 1), nil)
	if rec := mustGet(t, h, "k"); rec.Version != 70_000 || string(rec.Sealed) != "later" {
		t.Errorf("version %d, %q", rec.Version, rec.Sealed)
	}
	another := session.Record{Version: 70_000, Sealed: []byte("another")} // the very same would be a repetition, which succeeds
	wantErr(t, "swap from the version before", h.Swap(t.Context(), "k", another, 1), session.ErrConflict)
	wantErr(t, "swap to an earlier version", h.Swap(t.Context(), "k", session.Record{Version: 3, Sealed: []byte("next")}, 70_000), nil)
	if rec := mustGet(t, h, "k"); rec.Version != 70_001 {
		t.Errorf("version %d after 70000", rec.Version)
	}
}

func swapConflicts(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	for _, from := range []int64{0, 2, -1, 1 << 40} {
		wantErr(t, fmt.Sprint("swap from ", from), h.Swap(t.Context(), "k", record("x"), from), session.ErrConflict)
	}
	wantErr(t, "swap", h.Swap(t.Context(), "k", record("second"), 1), nil)
	wantErr(t, "swap from the version before", h.Swap(t.Context(), "k", record("late"), 1), session.ErrConflict)
	if got := string(mustGet(t, h, "k").Sealed); got != "second" {
		t.Errorf("sealed is %q, want second", got)
	}
}

// race runs n functions at once and counts those that return true.
func race(n int, f func(i int) bool) int {
	var wg sync.WaitGroup
	start := make(chan struct{})
	won := make(chan struct{}, n)
	for i := range n {
		wg.Go(func() {
			<-start
			if f(i) {
				won <- struct{}{}
			}
		})
	}
	close(start)
	wg.Wait()
	return len(won)
}

func swapRace(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	won := race(100, func(i int) bool {
		err := h.Swap(t.Context(), "k", record(fmt.Sprint("from ", i)), 1)
		if err != nil && !errors.Is(err, session.ErrConflict) {
			t.Error(err)
		}
		return err == nil
	})
	if won != 1 {
		t.Errorf("%d of 100 compare-and-sets from version 1 succeeded", won)
	}
	if got := mustGet(t, h, "k").Version; got != 2 {
		t.Errorf("version is %d, want 2", got)
	}
}

func swapKeepsTTL(t *testing.T, h Harness) {
	if _, err := h.Create(t.Context(), "k", record("x"), h.Short, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Swap(t.Context(), "k", record("y"), 1); err != nil && !errors.Is(err, session.ErrNone) {
		t.Fatal(err)
	}
	if err := h.Touch(t.Context(), time.Unix(1_800_000_000, 0), "k"); err != nil {
		t.Fatal(err)
	}
	h.Pass(h.Short)
	wantGone(t, h, "k")
}

// A time to live grows when it is asked for and never shrinks.
func swapLengthensTTL(t *testing.T, h Harness) {
	grown, same := record("y"), record("y")
	grown.TTL, same.TTL = time.Hour, h.Short
	eventually(t, "a swap before the short time is over", func() bool {
		_, _ = h.Create(t.Context(), "grown", record("x"), h.Short, nil)
		return h.Swap(t.Context(), "grown", grown, 1) == nil
	})
	mustCreate(t, h, "same")
	wantErr(t, "swap", h.Swap(t.Context(), "same", same, 1), nil)
	if _, err := h.Create(t.Context(), "short", record("x"), h.Short, nil); err != nil {
		t.Fatal(err)
	}
	h.Pass(h.Short)
	wantGone(t, h, "short")
	mustCreate(t, h, "another") // a write, which makes a store forget
	for _, key := range []string{"grown", "same"} {
		if got := mustGet(t, h, key); got.TTL != 0 || got.Version != 2 {
			t.Errorf("%s: version %d with ttl %v, want 2 with none", key, got.Version, got.TTL)
		}
	}
}

func touch(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	later := time.Unix(1_700_000_256, 0) // differs in more than the last byte
	wantErr(t, "touch", h.Touch(t.Context(), later.Add(999*time.Millisecond), "k"), nil)
	want := record("sealed")
	want.Seen = later
	wantRecord(t, mustGet(t, h, "k"), want)

	for _, earlier := range []time.Time{later.Add(-time.Second), time.Unix(1_699_999_999, 0), time.Unix(-1, 0), {}} {
		wantErr(t, "touch with an earlier time", h.Touch(t.Context(), earlier, "k"), nil)
	}
	wantRecord(t, mustGet(t, h, "k"), want)

	want.Seen = time.Unix(1_700_000_511, 0)
	wantErr(t, "touch", h.Touch(t.Context(), want.Seen, "k"), nil)
	wantRecord(t, mustGet(t, h, "k"), want)
}

func touchNeverCreates(t *testing.T, h Harness) {
	wantErr(t, "touch of nothing", h.Touch(t.Context(), time.Unix(2_000_000_000, 0), "k"), nil)
	_, err := h.Get(t.Context(), "k")
	wantErr(t, "get", err, session.ErrNone)

	mustCreate(t, h, "k")
	if _, err := h.End(t.Context(), "k", session.ReasonIdle, true, nil); err != nil {
		t.Fatal(err)
	}
	before := mustGet(t, h, "k")
	wantErr(t, "touch of a tombstone", h.Touch(t.Context(), time.Unix(2_000_000_000, 0), "k"), nil)
	wantRecord(t, mustGet(t, h, "k"), before)
}

// Each of several records is touched as it would be alone.
func touchSeveral(t *testing.T, h Harness) {
	keys := []string{"absent", "ended"}
	mustCreate(t, h, "ended")
	if _, err := h.End(t.Context(), "ended", session.ReasonAdmin, true, nil); err != nil {
		t.Fatal(err)
	}
	tombstone := mustGet(t, h, "ended")
	for i := range 100 {
		keys = append(keys, fmt.Sprint(i))
		mustCreate(t, h, fmt.Sprint(i))
	}
	want := record("sealed")
	want.Seen = time.Unix(1_700_000_300, 0)
	wantErr(t, "touch of none", h.Touch(t.Context(), want.Seen), nil)
	wantErr(t, "touch", h.Touch(t.Context(), want.Seen, keys...), nil)
	_, err := h.Get(t.Context(), "absent")
	wantErr(t, "get", err, session.ErrNone)
	wantRecord(t, mustGet(t, h, "ended"), tombstone)
	for _, key := range keys[2:] {
		wantRecord(t, mustGet(t, h, key), want)
	}
}

func touchAgainstSwap(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	const n = 30
	race(2, func(i int) bool {
		for j := range int64(n) {
			var err error
			if i == 0 {
				err = h.Swap(t.Context(), "k", record(fmt.Sprint(j+2)), j+1)
			} else {
				err = h.Touch(t.Context(), time.Unix(1_700_000_000+j+1, 0), "k")
			}
			if err != nil {
				t.Error(err)
			}
		}
		return true
	})
	wantRecord(t, mustGet(t, h, "k"), session.Record{Version: n + 1, Seen: time.Unix(1_700_000_000+n, 0), Sealed: []byte(fmt.Sprint(n + 1))})
}

func end(t *testing.T, h Harness) {
	entries := []session.IndexEntry{
		{Name: "user", Handle: "k", Expires: h.Now().Add(time.Hour)},
		{Name: "sid", Handle: "k", Expires: h.Now().Add(time.Hour)},
	}
	mustCreate(t, h, "k", entries...)
	mustCreate(t, h, "other", session.IndexEntry{Name: "user", Handle: "other", Expires: h.Now().Add(time.Hour)})
	ended, err := h.End(t.Context(), "k", session.ReasonSignedOut, false, []session.IndexEntry{{Name: "user", Handle: "k"}, {Name: "sid", Handle: "k"}})
	if !ended || err != nil {
		t.Fatalf("end: %v, %v", ended, err)
	}
	want := record("")
	want.Ended, want.Sealed = session.ReasonSignedOut, nil
	wantRecord(t, mustGet(t, h, "k"), want)
	wantHandles(t, h, "user", "other")
	wantHandles(t, h, "sid")
	if got := mustGet(t, h, "other").Ended; got != "" {
		t.Errorf("another session ended too: %s", got)
	}
}

func endKeepsSealed(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	if ended, err := h.End(t.Context(), "k", session.ReasonBackChannel, true, nil); !ended || err != nil {
		t.Fatalf("end: %v, %v", ended, err)
	}
	want := record("sealed")
	want.Ended = session.ReasonBackChannel
	wantRecord(t, mustGet(t, h, "k"), want)
	wantErr(t, "swap after the end", h.Swap(t.Context(), "k", record("x"), 1), session.ErrConflict)
	wantRecord(t, mustGet(t, h, "k"), want)
}

func endOnce(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	if _, err := h.End(t.Context(), "k", session.ReasonIdle, true, nil); err != nil {
		t.Fatal(err)
	}
	for _, why := range []session.Reason{session.ReasonAdmin, session.ReasonIdle} {
		ended, err := h.End(t.Context(), "k", why, false, nil)
		if ended || err != nil {
			t.Errorf("end again: %v, %v, want false and no error", ended, err)
		}
	}
	want := record("sealed")
	want.Ended = session.ReasonIdle // the first reason stays, and what it kept
	wantRecord(t, mustGet(t, h, "k"), want)

	mustCreate(t, h, "live")
	if _, err := h.End(t.Context(), "live", "", false, nil); err == nil {
		t.Error("ended without a reason")
	}
	wantRecord(t, mustGet(t, h, "live"), record("sealed"))
}

func endRace(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	won := race(20, func(i int) bool {
		ended, err := h.End(t.Context(), "k", session.ReasonAdmin, false, nil)
		if err != nil {
			t.Error(err)
		}
		return ended
	})
	if won != 1 {
		t.Errorf("%d of 20 ended one session", won)
	}
}

func endKeepsTTL(t *testing.T, h Harness) {
	if _, err := h.Create(t.Context(), "k", record("x"), h.Short, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.End(t.Context(), "k", session.ReasonIdle, true, nil); err != nil {
		t.Fatal(err)
	}
	h.Pass(h.Short)
	wantGone(t, h, "k")
}

// A refresh that finishes while somebody signs out must not bring the session back.
func endAgainstSwap(t *testing.T, h Harness) {
	for i := range 20 {
		key := fmt.Sprint("k", i)
		mustCreate(t, h, key)
		race(2, func(i int) bool {
			if i == 0 {
				if ended, err := h.End(t.Context(), key, session.ReasonSignedOut, false, nil); !ended || err != nil {
					t.Errorf("end: %v, %v", ended, err)
				}
				return true
			}
			if err := h.Swap(t.Context(), key, record("refreshed"), 1); err != nil && !errors.Is(err, session.ErrConflict) {
				t.Error(err)
			}
			return true
		})
		if got := mustGet(t, h, key); got.Ended != session.ReasonSignedOut || got.Sealed != nil {
			t.Fatalf("a refresh resurrected a session that ended: %+v", got)
		}
	}
}

func wantHandles(t *testing.T, h Harness, name string, want ...string) {
	t.Helper()
	entries, err := h.Index(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if got := handles(entries); !slices.Equal(got, want) {
		t.Errorf("index %s: %q, want %q", name, got, want)
	}
}

func handles(entries []session.IndexEntry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Handle)
	}
	return out
}

func index(t *testing.T, h Harness) {
	base := h.Now().Truncate(time.Millisecond)
	late := session.IndexEntry{Name: "user", Handle: "a", Expires: base.Add(2 * time.Hour)}
	soon := session.IndexEntry{Name: "user", Handle: "b", Expires: base.Add(time.Hour)}
	mustCreate(t, h, "a", late)
	mustCreate(t, h, "b", soon)
	got, err := h.Index(t.Context(), "user")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, []session.IndexEntry{soon, late}); diff != "" {
		t.Errorf("index (-got +want):\n%s", diff)
	}
	wantHandles(t, h, "USER")
	// The same handle in two indexes is two entries.
	mustCreate(t, h, "c", session.IndexEntry{Name: "x", Handle: "c", Expires: base.Add(time.Hour)}, session.IndexEntry{Name: "y", Handle: "c", Expires: base.Add(time.Hour)})
	wantHandles(t, h, "x", "c")
	wantHandles(t, h, "y", "c")
}

func indexForgets(t *testing.T, h Harness) {
	mustCreate(t, h, "a", session.IndexEntry{Name: "user", Handle: "a", Expires: h.Now().Add(h.Short)})
	mustCreate(t, h, "past", session.IndexEntry{Name: "user", Handle: "past", Expires: h.Now().Add(-time.Hour)})
	mustCreate(t, h, "b", session.IndexEntry{Name: "user", Handle: "b", Expires: h.Now().Add(time.Hour)})
	h.Pass(h.Short)
	eventually(t, "a left the index", func() bool {
		entries, err := h.Index(t.Context(), "user")
		return err == nil && slices.Equal(handles(entries), []string{"b"})
	})
	// An entry that is over does not count against Max.
	over, err := h.Create(t.Context(), "c", record("x"), time.Hour, []session.IndexEntry{{Name: "user", Handle: "c", Expires: h.Now().Add(2 * time.Hour), Max: 2}})
	if len(over) != 0 || err != nil {
		t.Errorf("create: %v, %v, want none too many", over, err)
	}
}

// An entry that is over sooner must not take those with it that last longer, nor keep the index alive less long than they live.
func indexLifetime(t *testing.T, h Harness) {
	mustCreate(t, h, "long", session.IndexEntry{Name: "user", Handle: "long", Expires: h.Now().Add(time.Hour)})
	mustCreate(t, h, "short", session.IndexEntry{Name: "user", Handle: "short", Expires: h.Now().Add(h.Short)})
	mustCreate(t, h, "short2", session.IndexEntry{Name: "grow", Handle: "short2", Expires: h.Now().Add(h.Short)})
	mustCreate(t, h, "long2", session.IndexEntry{Name: "grow", Handle: "long2", Expires: h.Now().Add(time.Hour)})
	h.Pass(h.Short)
	eventually(t, "only the long ones are left", func() bool {
		a, err1 := h.Index(t.Context(), "user")
		b, err2 := h.Index(t.Context(), "grow")
		return err1 == nil && err2 == nil && slices.Equal(handles(a), []string{"long"}) && slices.Equal(handles(b), []string{"long2"})
	})
}

func indexReplaces(t *testing.T, h Harness) {
	base := h.Now().Truncate(time.Millisecond)
	mustCreate(t, h, "a", session.IndexEntry{Name: "user", Handle: "h", Expires: base.Add(time.Hour)})
	replaced := session.IndexEntry{Name: "user", Handle: "h", Expires: base.Add(2 * time.Hour)}
	mustCreate(t, h, "b", replaced)
	got, err := h.Index(t.Context(), "user")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, []session.IndexEntry{replaced}); diff != "" {
		t.Errorf("index (-got +want):\n%s", diff)
	}
}

func reindex(t *testing.T, h Harness) {
	base := h.Now().Truncate(time.Millisecond)
	at := func(name, handle string, after time.Duration) session.IndexEntry {
		return session.IndexEntry{Name: name, Handle: handle, Expires: base.Add(after)}
	}
	mustCreate(t, h, "a", at("old", "a", time.Hour))
	mustCreate(t, h, "b", at("old", "b", time.Hour), at("new", "b", time.Hour))
	over := at("new", "a", 2*time.Hour)
	over.Max = 1  // not looked at
	for range 2 { // doing it twice does what doing it once does
		err := h.Reindex(t.Context(), []session.IndexEntry{over}, []session.IndexEntry{{Name: "old", Handle: "a"}, {Name: "absent", Handle: "a"}})
		wantErr(t, "reindex", err, nil)
		wantHandles(t, h, "old", "b")
		got, err := h.Index(t.Context(), "new")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, []session.IndexEntry{at("new", "b", time.Hour), at("new", "a", 2*time.Hour)}); diff != "" {
			t.Errorf("index (-got +want):\n%s", diff)
		}
	}
	wantErr(t, "reindex of nothing", h.Reindex(t.Context(), nil, nil), nil)
	wantHandles(t, h, "new", "b", "a")
	// What is added and removed at once is removed.
	wantErr(t, "reindex", h.Reindex(t.Context(), []session.IndexEntry{at("x", "a", time.Hour)}, []session.IndexEntry{at("x", "a", time.Hour)}), nil)
	wantHandles(t, h, "x")
}

func strip(t *testing.T, h Harness) {
	step := func(what, key string, want bool) {
		t.Helper()
		if was, err := h.Strip(t.Context(), key, nil); was != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", what, was, err, want)
		}
	}
	step("absent", "absent", false)
	mustCreate(t, h, "k")
	step("alive", "k", false)
	wantRecord(t, mustGet(t, h, "k"), record("sealed"))
	if _, err := h.End(t.Context(), "k", session.ReasonBackChannel, true, nil); err != nil {
		t.Fatal(err)
	}
	step("ended", "k", true)
	want := record("")
	want.Ended, want.Sealed = session.ReasonBackChannel, nil
	wantRecord(t, mustGet(t, h, "k"), want)
	step("again", "k", false)
	wantRecord(t, mustGet(t, h, "k"), want)

	mustCreate(t, h, "named")
	if _, err := h.End(t.Context(), "named", session.ReasonBackChannel, true, nil); err != nil {
		t.Fatal(err)
	}
	for i, rest := range []string{"a\x00\xff", "b\x00\xff", "longer than it was"} {
		if was, err := h.Strip(t.Context(), "named", []byte(rest)); was != (i == 0) || err != nil {
			t.Errorf("strip down to %q: %v, %v", rest, was, err)
		}
	}
	want.Sealed = []byte("a\x00\xff")
	wantRecord(t, mustGet(t, h, "named"), want)
	if _, err := h.Create(t.Context(), "short", record("x"), h.Short, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.End(t.Context(), "short", session.ReasonBackChannel, true, nil); err != nil {
		t.Fatal(err)
	}
	_, _ = h.Strip(t.Context(), "short", nil)
	h.Pass(h.Short)
	wantGone(t, h, "short")
}

func stripRace(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	if _, err := h.End(t.Context(), "k", session.ReasonBackChannel, true, nil); err != nil {
		t.Fatal(err)
	}
	won := race(30, func(int) bool {
		was, err := h.Strip(t.Context(), "k", []byte("rest"))
		if err != nil {
			t.Error(err)
		}
		return was
	})
	if won != 1 {
		t.Errorf("%d of 30 were told that they took the value", won)
	}
}

func indexHandlePrefix(t *testing.T, h Harness) {
	for _, handle := range []string{"a", "ab", "abc"} {
		mustCreate(t, h, handle, session.IndexEntry{Name: "user", Handle: handle, Expires: h.Now().Add(time.Hour)})
	}
	if _, err := h.End(t.Context(), "ab", session.ReasonAdmin, false, []session.IndexEntry{{Name: "user", Handle: "ab"}}); err != nil {
		t.Fatal(err)
	}
	entries, err := h.Index(t.Context(), "user")
	if err != nil {
		t.Fatal(err)
	}
	got := handles(entries)
	slices.Sort(got)
	if want := []string{"a", "abc"}; !slices.Equal(got, want) {
		t.Errorf("index: %q, want %q", got, want)
	}
}

func indexBound(t *testing.T, h Harness) {
	base := h.Now()
	add := func(handle string, after time.Duration) []session.IndexEntry {
		over, err := h.Create(t.Context(), handle, record("x"), time.Hour, []session.IndexEntry{
			{Name: "free", Handle: handle, Expires: base.Add(after)},
			{Name: "user", Handle: handle, Expires: base.Add(after), Max: 3},
		})
		if err != nil {
			t.Fatal(err)
		}
		return over
	}
	for i, handle := range []string{"a", "b", "c"} {
		if over := add(handle, time.Hour+time.Duration(i)*time.Minute); len(over) != 0 {
			t.Errorf("%d of 3 entries: %v too many", i+1, over)
		}
	}
	over := add("d", 2*time.Hour)
	if !slices.Equal(handles(over), []string{"a"}) || over[0].Name != "user" {
		t.Fatalf("too many: %+v, want a, the oldest, of user", over)
	}
	// It stays to be found until its session has ended, and is returned again.
	wantHandles(t, h, "user", "a", "b", "c", "d")
	over = add("e", 3*time.Hour)
	if !slices.Equal(handles(over), []string{"a", "b"}) {
		t.Errorf("too many: %q, want a and b", handles(over))
	}
	for _, e := range over {
		if _, err := h.End(t.Context(), e.Handle, session.ReasonLimit, true, []session.IndexEntry{e}); err != nil {
			t.Fatal(err)
		}
	}
	wantHandles(t, h, "user", "c", "d", "e")
	// A new entry is never the one that is too many, though it may be over first.
	if over := add("brief", time.Minute); !slices.Equal(handles(over), []string{"c"}) {
		t.Errorf("too many: %q, want c", handles(over))
	}
	wantHandles(t, h, "free", "brief", "a", "b", "c", "d", "e")
}

func indexHardBound(t *testing.T, h Harness) {
	var handlesWant []string
	for i := range 10 {
		handle := fmt.Sprint("h", i)
		entry := session.IndexEntry{Name: "user", Handle: handle, Expires: h.Now().Add(time.Hour + time.Duration(i)*time.Minute), Max: 3}
		over, err := h.Create(t.Context(), handle, record("x"), time.Hour, []session.IndexEntry{entry})
		if err != nil {
			t.Fatal(err)
		}
		if i == 6 && !slices.Equal(handles(over), []string{"h0", "h1", "h2", "h3"}) {
			t.Errorf("too many of 7: %q", handles(over))
		}
		handlesWant = append(handlesWant, handle)
	}
	wantHandles(t, h, "user", handlesWant[4:]...)
}

func indexRace(t *testing.T, h Harness) {
	const n, bound = 40, 5
	race(n, func(i int) bool {
		handle := fmt.Sprintf("h%02d", i)
		entry := session.IndexEntry{Name: "user", Handle: handle, Expires: h.Now().Add(time.Hour + time.Duration(i)*time.Second), Max: bound}
		over, err := h.Create(t.Context(), handle, record("x"), time.Hour, []session.IndexEntry{entry})
		if err != nil {
			t.Error(err)
		}
		for _, e := range over {
			if _, err := h.End(t.Context(), e.Handle, session.ReasonLimit, false, []session.IndexEntry{e}); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	entries, err := h.Index(t.Context(), "user")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != bound {
		t.Errorf("%d entries, want %d", len(entries), bound)
	}
}

func lease(t *testing.T, h Harness) {
	step := func(what string, got bool, err error, want bool) {
		t.Helper()
		if got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	got, err := h.Renew(t.Context(), "k", "a", time.Hour)
	step("a renews what nobody holds", got, err, false)
	got, err = h.Acquire(t.Context(), "k", "a", time.Hour)
	step("a acquires", got, err, true)
	got, err = h.Acquire(t.Context(), "k", "a", time.Hour)
	step("a acquires again", got, err, true)
	got, err = h.Acquire(t.Context(), "k", "b", time.Hour)
	step("b acquires", got, err, false)
	got, err = h.Renew(t.Context(), "k", "b", time.Hour)
	step("b renews", got, err, false)
	got, err = h.Acquire(t.Context(), "k2", "b", time.Hour)
	step("b acquires another", got, err, true)
	wantErr(t, "b releases", h.Release(t.Context(), "k", "b"), nil)
	got, err = h.Acquire(t.Context(), "k", "b", time.Hour)
	step("b acquires after its own release of a's", got, err, false)
	wantErr(t, "a releases", h.Release(t.Context(), "k", "a"), nil)
	got, err = h.Acquire(t.Context(), "k", "b", time.Hour)
	step("b acquires after a's release", got, err, true)
	for _, ttl := range []time.Duration{0, -1} {
		if ok, err := h.Acquire(t.Context(), "k3", "a", ttl); ok || err == nil {
			t.Errorf("acquired for %v", ttl)
		}
		if ok, err := h.Renew(t.Context(), "k", "b", ttl); ok || err == nil {
			t.Errorf("renewed for %v", ttl)
		}
	}
	// A lease is no session.
	_, err = h.Get(t.Context(), "k")
	wantErr(t, "get", err, session.ErrNone)
}

func leaseExpires(t *testing.T, h Harness) {
	acquire := func(key, owner string, ttl time.Duration) bool {
		t.Helper()
		ok, err := h.Acquire(t.Context(), key, owner, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !acquire("k", "a", h.Short) || !acquire("renewed", "a", h.Short) {
		t.Fatal("not acquired")
	}
	eventually(t, "a renews its lease", func() bool {
		ok, err := h.Renew(t.Context(), "renewed", "a", time.Hour)
		return ok && err == nil || !acquire("renewed", "a", h.Short) // on a busy machine it may be over already
	})
	h.Pass(h.Short)
	eventually(t, "b gets a's lease", func() bool { return acquire("k", "b", time.Hour) })
	if ok, err := h.Renew(t.Context(), "k", "a", time.Hour); ok || err != nil {
		t.Errorf("a renews what it lost: %v, %v", ok, err)
	}
	wantErr(t, "a releases what it lost", h.Release(t.Context(), "k", "a"), nil)
	if acquire("k", "c", time.Hour) {
		t.Error("a released b's lease")
	}
	if acquire("renewed", "b", time.Hour) {
		t.Error("a renewed lease expired")
	}
}

func leaseRace(t *testing.T, h Harness) {
	won := race(50, func(i int) bool {
		ok, err := h.Acquire(t.Context(), "k", fmt.Sprint("owner ", i), time.Hour)
		if err != nil {
			t.Error(err)
		}
		return ok
	})
	if won != 1 {
		t.Errorf("%d owners hold one lease", won)
	}
}

// listener collects what a Watch says.
type listener struct {
	keys chan string
	gaps chan struct{}
	done chan error
	stop context.CancelFunc
}

// listen watches h and returns once it is subscribed.
func listen(t *testing.T, h Harness) *listener {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &listener{keys: make(chan string, 1000), gaps: make(chan struct{}, 1000), done: make(chan error, 1), stop: stop}
	go func() {
		l.done <- h.Watch(ctx, func(key string) { l.keys <- key }, func(bool) { l.gaps <- struct{}{} })
	}()
	t.Cleanup(func() {
		stop()
		<-l.done
	})
	select {
	case <-l.gaps:
	case <-time.After(limit):
		t.Fatal("no gap after subscribing")
	}
	return l
}

func (l *listener) want(t *testing.T, key string) {
	t.Helper()
	if got := l.next(t); got != key {
		t.Errorf("notice of %q, want %q", got, key)
	}
}

func (l *listener) next(t *testing.T) string {
	t.Helper()
	select {
	case got := <-l.keys:
		return got
	case <-time.After(limit):
		t.Fatal("no notice")
		return ""
	}
}

func watch(t *testing.T, h Harness) {
	l, second := listen(t, h), listen(t, h)
	mustCreate(t, h, "swapped")
	mustCreate(t, h, "ended\n\x00é")
	wantErr(t, "swap", h.Swap(t.Context(), "swapped", record("x"), 1), nil)
	l.want(t, "swapped")
	if _, err := h.End(t.Context(), "ended\n\x00é", session.ReasonAdmin, false, nil); err != nil {
		t.Fatal(err)
	}
	l.want(t, "ended\n\x00é")
	if _, err := h.Acquire(t.Context(), "leased", "a", time.Hour); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "release", h.Release(t.Context(), "leased", "a"), nil)
	l.want(t, "leased")
	// What the store never had may still be in somebody's cache.
	if _, err := h.End(t.Context(), "lost", session.ReasonAdmin, false, nil); err != nil {
		t.Fatal(err)
	}
	l.want(t, "lost")
	// Notices of different keys may come over different ways, and in any order.
	heard := []string{second.next(t), second.next(t), second.next(t), second.next(t)}
	slices.Sort(heard)
	if want := []string{"ended\n\x00é", "leased", "lost", "swapped"}; !slices.Equal(heard, want) {
		t.Errorf("the second heard %q, want %q", heard, want)
	}
}

func watchGap(t *testing.T, h Harness) {
	for range 3 {
		l := listen(t, h) // which waits for the gap
		l.stop()
		if err := <-l.done; err != nil {
			t.Errorf("watch ended: %v", err)
		}
		l.done <- nil
	}
}

func watchSilence(t *testing.T, h Harness) {
	l := listen(t, h)
	mustCreate(t, h, "k", session.IndexEntry{Name: "user", Handle: "k", Expires: h.Now().Add(time.Hour)})
	wantErr(t, "touch", h.Touch(t.Context(), time.Unix(1_800_000_000, 0), "k"), nil)
	wantErr(t, "failing swap", h.Swap(t.Context(), "k", record("x"), 7), session.ErrConflict)
	if _, err := h.Acquire(t.Context(), "k", "a", time.Hour); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "release by another", h.Release(t.Context(), "k", "b"), nil)
	// Where notices come in order: if this is the first, there was none before.
	if _, err := h.End(t.Context(), "last", session.ReasonAdmin, false, nil); err != nil {
		t.Fatal(err)
	}
	l.want(t, "last")
	if len(l.gaps) > 0 {
		t.Error("a gap though nothing was interrupted")
	}
}

func watchEnds(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- h.Watch(ctx, func(string) {}, func(bool) {}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("watch: %v, want nil when its context ends", err)
		}
	case <-time.After(limit):
		t.Fatal("watch goes on after its context ended")
	}
}

// operations calls every method once.
func operations(ctx context.Context, h Harness) map[string]error {
	errs := map[string]error{}
	_, errs["get"] = h.Get(ctx, "k")
	_, errs["create"] = h.Create(ctx, "new", record("x"), time.Hour, []session.IndexEntry{{Name: "user", Handle: "new", Expires: h.Now().Add(time.Hour)}})
	errs["swap"] = h.Swap(ctx, "k", record("x"), 1)
	errs["touch"] = h.Touch(ctx, time.Unix(1_800_000_000, 0), "k")
	_, errs["end"] = h.End(ctx, "k", session.ReasonAdmin, false, nil)
	_, errs["index"] = h.Index(ctx, "user")
	_, errs["acquire"] = h.Acquire(ctx, "k", "a", time.Hour)
	_, errs["renew"] = h.Renew(ctx, "k", "a", time.Hour)
	errs["release"] = h.Release(ctx, "k", "a")
	_, errs["strip"] = h.Strip(ctx, "k", nil)
	errs["reindex"] = h.Reindex(ctx, []session.IndexEntry{{Name: "user", Handle: "k", Expires: h.Now().Add(time.Hour)}}, nil)
	errs["keep"] = h.Keep(ctx, "k", []byte("x"), time.Hour, 1<<30)
	_, errs["kept"] = h.Kept(ctx, "k")
	errs["take kept"] = h.TakeKept(ctx, "k")
	errs["ping"] = h.Ping(ctx)
	return errs
}

// A person who left is not a session that is absent.
func cancelled(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, err := range operations(ctx, h) {
		if !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want unavailable because cancelled", what, err)
		}
	}
	wantRecord(t, mustGet(t, h, "k"), record("sealed"))
	_, err := h.Get(t.Context(), "new")
	wantErr(t, "get of what was not created", err, session.ErrNone)
}

func concurrent(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	race(30, func(i int) bool {
		key := fmt.Sprint("own ", i)
		mustCreate(t, h, key, session.IndexEntry{Name: "user", Handle: key, Expires: h.Now().Add(time.Hour)})
		if _, err := h.Get(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		if ended, err := h.End(t.Context(), key, session.ReasonAdmin, false, []session.IndexEntry{{Name: "user", Handle: key}}); !ended || err != nil {
			t.Errorf("end: %v, %v", ended, err)
		}
		return true
	})
	wantHandles(t, h, "user")
}

func closed(t *testing.T, h Harness) {
	mustCreate(t, h, "k")
	l := listen(t, h)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-l.done:
		wantErr(t, "watch", err, session.ErrUnavailable)
		l.done <- nil
	case <-time.After(limit):
		t.Fatal("watch goes on after close")
	}
	for what, err := range operations(t.Context(), h) {
		wantErr(t, what, err, session.ErrUnavailable)
	}
	wantErr(t, "watch after close", h.Watch(t.Context(), func(string) {}, func(bool) {}), session.ErrUnavailable)
}

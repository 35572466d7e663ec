package redisstore_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
)

// waits is how often WAIT was sent to a server so far.
func waits(t testing.TB, s *redistest.Server) (n int) {
	t.Helper()
	for line := range strings.Lines(s.Client().Info(t.Context(), "commandstats").Val()) {
		fmt.Sscanf(line, "cmdstat_wait:calls=%d", &n)
	}
	return n
}

// What a failover must not lose is on a replica before it counts: sign-ins, new tokens and ends, and nothing else waits.
func TestReplicasConfirmWhatMustLast(t *testing.T) {
	g := redistest.StartSentinel(t, redistest.SentinelOptions{})
	master, replica := g.Servers[0], g.Servers[1]
	o := onSentinel(g)
	o.Wait = redisstore.Wait{Replicas: 3, Timeout: patient} // more than there are: all there are
	s := newStore(t, master, o)
	index := []session.IndexEntry{{Name: "user", Handle: "k", Expires: time.Now().Add(time.Hour)}}
	for _, c := range []struct {
		what string
		want int
		do   func() error
	}{
		{"create", 1, func() error { _, err := s.Create(t.Context(), "k", record("sealed"), time.Hour, index); return err }},
		{"get", 0, func() error { _, err := s.Get(t.Context(), "k"); return err }},
		{"touch", 0, func() error { return s.Touch(t.Context(), time.Now(), "k") }},
		{"acquire", 0, func() error { _, err := s.Acquire(t.Context(), "k", "a", time.Hour); return err }},
		{"swap", 1, func() error { return s.Swap(t.Context(), "k", record("new"), 1) }},
		{"release", 0, func() error { return s.Release(t.Context(), "k", "a") }},
		{"end", 1, func() error { _, err := s.End(t.Context(), "k", session.ReasonAdmin, false, index); return err }},
	} {
		if err := c.do(); err != nil { // loads the script
			t.Fatal(err)
		}
		if c.want > 0 && replica.Client().Get(t.Context(), "s:{k}").Val() != master.Client().Get(t.Context(), "s:{k}").Val() {
			t.Errorf("%s: the replica does not have it", c.what)
		}
		before := waits(t, master)
		if _, err := s.Index(t.Context(), "user"); err != nil { // never waits
			t.Fatal(err)
		}
		_ = c.do() // create and swap conflict now
		if got := waits(t, master) - before; got != c.want {
			t.Errorf("%s: WAIT was sent %d times, want %d", c.what, got, c.want)
		}
	}
	if got := s.Status().Unconfirmed; got != 0 {
		t.Errorf("%d writes were not confirmed", got)
	}
}

// Where there is no replica, nothing is sent and nothing waits.
func TestNoReplicaCostsNothing(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := newStore(t, server, redisstore.Options{Wait: redisstore.Wait{Replicas: 1, Timeout: patient}})
	start := time.Now()
	for i := range 20 {
		mustCreate(t, s, fmt.Sprint(i))
	}
	if took := time.Since(start); took > slack || waits(t, server) > 0 {
		t.Errorf("20 writes took %v and sent WAIT %d times", took, waits(t, server))
	}
	var infos int
	for line := range strings.Lines(server.Client().Info(t.Context(), "commandstats").Val()) {
		fmt.Sscanf(line, "cmdstat_info:calls=%d", &infos)
	}
	if infos > 4 { // and one in five seconds
		t.Errorf("INFO was sent %d times", infos)
	}
}

// A replica that stands still makes no write fail, delays none by more than the time limit, and does not hold all connections: the rest
// of the requests goes on. The log says it once.
func TestReplicaBehindFailsNoWrite(t *testing.T) {
	g := redistest.StartSentinel(t, redistest.SentinelOptions{DownAfter: time.Minute})
	master, replica := g.Servers[0], g.Servers[1]
	var log bytes.Buffer
	o := onSentinel(g)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	o.Wait = redisstore.Wait{Replicas: 1, Timeout: 200 * time.Millisecond}
	o.PoolSize = 4
	s := newStore(t, master, o)
	mustCreate(t, s, "k")
	before := s.Status().Unconfirmed // on a busy machine
	replica.Pause()
	start := time.Now()
	mustCreate(t, s, "first")
	if took := time.Since(start); took < 150*time.Millisecond || took > 200*time.Millisecond+slack {
		t.Errorf("it waited %v, want 200ms", took)
	}
	start = time.Now()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { mustCreate(t, s, fmt.Sprint("k", i)) })
	}
	wg.Wait()
	if took := time.Since(start); took > 100*200*time.Millisecond/4 {
		t.Errorf("100 writes took %v: they waited on all connections", took)
	}
	if got := s.Status().Unconfirmed - before; got != 101 {
		t.Errorf("%d writes count as not confirmed, want 101", got)
	}
	replica.Resume()
	eventually(t, "writes are confirmed again", func() bool {
		before := s.Status().Unconfirmed
		mustCreate(t, s, fmt.Sprint("later", before, time.Now()))
		return s.Status().Unconfirmed == before
	})
	if n := strings.Count(log.String(), "did not confirm"); n != 1 { // at most once a minute
		t.Errorf("the log says it %d times:\n%s", n, log.String())
	}
}

// A user that may not ask writes all the same; that it is not confirmed is counted, so that somebody sees it.
func TestForbiddenToAskReplicas(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	for _, forbidden := range []string{"-info", "-wait"} {
		permit(t, []*redistest.Server{server}, forbidden)
		var log bytes.Buffer
		s := newStore(t, nil, redisstore.Options{
			Log: slog.New(slog.NewTextHandler(&log, nil)),
			URL: "redis://postern:pw@" + server.Address(), KeyPrefix: "p:" + forbidden + ":", Wait: redisstore.Wait{Replicas: 1, Timeout: patient},
		})
		for i := range 3 {
			mustCreate(t, s, fmt.Sprint(i))
		}
		if got, want := s.Status().Unconfirmed, map[string]uint64{"-info": 3, "-wait": 0}[forbidden]; got != want { // without a replica there is nobody to ask
			t.Errorf("%s: %d writes are not confirmed, want %d", forbidden, got, want)
		}
		// What is missing is a permission, not a replica: whoever runs this must not look for the latter.
		if said := strings.Contains(log.String(), "counted") && strings.Contains(log.String(), "NOPERM"); said != (forbidden == "-info") || strings.Contains(log.String(), "did not confirm") {
			t.Errorf("%s: the log says\n%s", forbidden, log.String())
		}
	}
}

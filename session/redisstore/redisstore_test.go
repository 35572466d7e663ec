package redisstore_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
	"postern/session/storetest"
)

func TestMain(m *testing.M) {
	redisstore.LogTo(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// patient is a time limit that no healthy server misses on a busy machine.
const patient = 10 * time.Second

// newStore makes a store on s. o says what is special about it.
func newStore(t testing.TB, s *redistest.Server, o redisstore.Options) *redisstore.Store {
	t.Helper()
	if o.URL == "" && o.Sentinel == nil && o.Cluster == nil {
		o.URL = s.URL()
	}
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	if s != nil && s.CAFile != "" && o.TLS == nil {
		var err error
		if o.TLS, err = (redisstore.TLSFiles{CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile}).Config(); err != nil {
			t.Fatal(err)
		}
	}
	store, err := redisstore.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func record(sealed string) session.Record {
	return session.Record{Version: 1, Seen: time.Unix(1_700_000_000, 0), Sealed: []byte(sealed)}
}

func mustCreate(t testing.TB, s session.Store, key string, index ...session.IndexEntry) {
	t.Helper()
	if _, err := s.Create(t.Context(), key, record("sealed"), time.Hour, index); err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
}

func TestStore(t *testing.T) {
	for name, o := range map[string]redistest.Options{"unix": {Unix: true}, "tls": {TLS: true, Password: "secret"}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, o)
			var n atomic.Int64
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				return storetest.Harness{
					Store: newStore(t, server, redisstore.Options{KeyPrefix: fmt.Sprint(n.Add(1), ":")}),
					Short: 50 * time.Millisecond,
					Now:   time.Now,
				}
			})
		})
	}
}

// Two deployments on one Redis see nothing of each other, notices included.
func TestKeyPrefixSeparatesDeployments(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	a := newStore(t, server, redisstore.Options{KeyPrefix: "a:"})
	b := newStore(t, server, redisstore.Options{KeyPrefix: "b:"})
	keys := subscribe(t, b)
	mustCreate(t, a, "k", session.IndexEntry{Name: "user", Handle: "k", Expires: time.Now().Add(time.Hour)})
	if _, err := a.Acquire(t.Context(), "k", "owner", time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := a.End(t.Context(), "k", session.ReasonAdmin, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "k"); !errors.Is(err, session.ErrNone) {
		t.Errorf("b sees a's session: %v", err)
	}
	if entries, err := b.Index(t.Context(), "user"); len(entries) != 0 || err != nil {
		t.Errorf("b sees a's index: %v, %v", entries, err)
	}
	if ok, err := b.Acquire(t.Context(), "k", "other", time.Hour); !ok || err != nil {
		t.Errorf("b is kept out by a's lease: %v", err)
	}
	if err := b.Release(t.Context(), "k", "other"); err != nil {
		t.Fatal(err)
	}
	if got := <-keys; got != "k" || len(keys) > 0 {
		t.Errorf("b heard %q and %d more, want its own release alone", got, len(keys))
	}
	for _, key := range server.Client().Keys(t.Context(), "*").Val() {
		if !strings.HasPrefix(key, "a:") {
			t.Errorf("key %q lacks the prefix", key)
		}
	}
}

// Everything that is written goes away by itself.
func TestEveryKeyHasTimeToLive(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	s := newStore(t, server, redisstore.Options{KeyPrefix: "p:"})
	for i := range 3 {
		key := fmt.Sprint("k", i)
		mustCreate(t, s, key,
			session.IndexEntry{Name: "user", Handle: key, Expires: time.Now().Add(time.Duration(3-i) * time.Hour)},
			session.IndexEntry{Name: "past", Handle: key, Expires: time.Now().Add(-time.Hour)}) // would be there for ever
		if err := s.Swap(t.Context(), key, record("x"), 1); err != nil {
			t.Fatal(err)
		}
		if err := s.Touch(t.Context(), time.Now(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Acquire(t.Context(), key, "owner", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.End(t.Context(), "k0", session.ReasonAdmin, true, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(t.Context(), "k0", []byte("x"), time.Hour, 1<<30); err != nil {
		t.Fatal(err)
	}
	keys := server.Client().Keys(t.Context(), "*").Val()
	if len(keys) != 9 {
		t.Errorf("keys: %q, want 3 sessions, 3 leases, 1 index, 1 kept value, 1 set of sizes", keys)
	}
	for _, key := range keys {
		ttl, want := server.Client().PTTL(t.Context(), key).Val(), time.Hour
		if key == "p:i:user" {
			want = 3 * time.Hour // it only grows
		}
		if ttl <= want-time.Minute || ttl > want {
			t.Errorf("%s lives for %v, want %v", key, ttl, want)
		}
	}
}

// Reading costs one GET, and a write one round trip: the number of commands is part of the promise.
func TestCommandsPerOperation(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	s := newStore(t, server, redisstore.Options{})
	entry := session.IndexEntry{Name: "user", Handle: "k", Expires: time.Now().Add(time.Hour)}
	mustCreate(t, s, "k", entry)
	calls := func(f func() error) string {
		t.Helper()
		if err := server.Client().ConfigResetStat(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := f(); err != nil {
			t.Fatal(err)
		}
		var out []string
		for line := range strings.Lines(server.Client().Info(t.Context(), "commandstats").Val()) {
			name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
			if n, _, _ := strings.Cut(rest, ","); ok && !strings.HasPrefix(name, "config") && name != "info" && name != "hello" {
				out = append(out, n+" "+name)
			}
		}
		return strings.Join(out, ", ")
	}
	if got := calls(func() error { _, err := s.Get(t.Context(), "k"); return err }); got != "1 get" {
		t.Errorf("get: %s, want 1 get", got)
	}
	got := calls(func() error {
		for range 100 {
			if err := s.Touch(t.Context(), time.Unix(1, 0), "k"); err != nil {
				return err
			}
		}
		return nil
	})
	if !strings.Contains(got, "101 evalsha") && !strings.Contains(got, "100 evalsha") || strings.Contains(got, "100 eval,") {
		t.Errorf("100 touches: %s, want 100 evalsha and the source at most once", got)
	}
	for _, bad := range []string{"keys", "scan"} {
		if strings.Contains(got, bad) {
			t.Errorf("%s is used", bad)
		}
	}
}

// What somebody else wrote to Redis is no session, and no reason to fail.
func TestForeignValues(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	s := newStore(t, server, redisstore.Options{})
	for _, value := range []string{"", "x", "\x01", strings.Repeat("\x01", 17), "\x02" + strings.Repeat("\x00", 40), "\x01\xff" + strings.Repeat("\x00", 16) + "short"} {
		if err := server.Client().Set(t.Context(), "s:{k}", value, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		rec, err := s.Get(t.Context(), "k")
		if err != nil || rec.Sealed != nil {
			t.Errorf("get of %q: %+v, %v, want a record that does not open", value, rec, err)
		}
		err = s.Swap(t.Context(), "k", record("x"), 0)
		if !errors.Is(err, session.ErrConflict) && !(value == "" && errors.Is(err, session.ErrNone)) {
			t.Errorf("swap of %q: %v, want a conflict", value, err)
		}
		if err := s.Touch(t.Context(), time.Now(), "k"); err != nil {
			t.Errorf("touch of %q: %v", value, err)
		}
		if got := server.Client().Get(t.Context(), "s:{k}").Val(); got != value {
			t.Errorf("%q became %q", value, got)
		}
		if _, err := s.End(t.Context(), "k", session.ReasonTampered, true, nil); err != nil {
			t.Errorf("end of %q: %v", value, err)
		}
	}
	server.Client().ZAdd(t.Context(), "i:user") // nothing
	for _, m := range []string{"", "x", "\xff\xffx"} {
		server.Client().Do(t.Context(), "ZADD", "i:user", "inf", m)
	}
	mustCreate(t, s, "mine", session.IndexEntry{Name: "user", Handle: "mine", Expires: time.Now().Add(time.Hour)})
	if entries, err := s.Index(t.Context(), "user"); len(entries) != 1 || err != nil {
		t.Errorf("index: %v, %v, want ours alone", entries, err)
	}
	server.Client().LPush(t.Context(), "s:{list}", "x")
	if _, err := s.Get(t.Context(), "list"); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("get of a list: %v", err)
	}
}

// subscribe watches s and returns the keys it hears of, once it listens.
func subscribe(t testing.TB, s session.Store) <-chan string {
	t.Helper()
	keys, gaps := watch(t, s)
	<-gaps
	return keys
}

func watch(t testing.TB, s session.Store) (keys chan string, gaps chan struct{}) {
	keys, gaps = make(chan string, 1000), make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	heard := func(key string) {
		select {
		case keys <- key:
		default: // nobody counts them any more, and Watch must not be held up
		}
	}
	wg.Go(func() { s.Watch(ctx, heard, func(bool) { gaps <- struct{}{} }) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return keys, gaps
}

func TestURLs(t *testing.T) {
	config := &tls.Config{}
	password := func() (string, error) { return "p", nil }
	for _, c := range []struct {
		o    redisstore.Options
		want string // part of the error; empty: fine
	}{
		{redisstore.Options{URL: "redis://host"}, ""},
		{redisstore.Options{URL: "redis://host:1/2"}, ""},
		{redisstore.Options{URL: "redis://[::1]/"}, ""},
		{redisstore.Options{URL: "redis://user@host", Password: password}, ""},
		{redisstore.Options{URL: "redis://user:secret@host"}, ""},
		{redisstore.Options{URL: "rediss://host", TLS: config}, ""},
		{redisstore.Options{URL: "unix:///run/redis.sock?db=3"}, ""},
		{redisstore.Options{URL: ""}, "scheme"},
		{redisstore.Options{URL: "http://user:secret@host"}, "scheme"},
		{redisstore.Options{URL: "redis://user:secret@host:port"}, "not a url"},
		{redisstore.Options{URL: "redis://user:secret@"}, "no host"},
		{redisstore.Options{URL: "redis://user:secret@host/x"}, "database"},
		{redisstore.Options{URL: "redis://user:secret@host/-1"}, "database"},
		{redisstore.Options{URL: "redis://user:secret@host/0?read_timeout=1h"}, "options"},
		{redisstore.Options{URL: "redis://user:secret@host/0#x"}, "want redis://"},
		{redisstore.Options{URL: "redis:user:secret"}, "want redis://"},
		{redisstore.Options{URL: "unix://host/path"}, "want unix://"},
		{redisstore.Options{URL: "redis://user:secret@host", Password: password}, "twice"},
		{redisstore.Options{URL: "redis://user@host"}, "no password"},
		{redisstore.Options{URL: "redis://user:secret@host", TLS: config}, "rediss"},
		{redisstore.Options{URL: "unix:///run/redis.sock", TLS: config}, "rediss"},
		{redisstore.Options{URL: "redis://host", Timeout: -1}, "negative"},
	} {
		s, err := redisstore.New(c.o)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.o.URL, err)
		case c.want == "":
			s.Close()
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: error %v, want %q", c.o.URL, err, c.want)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("error shows the password: %v", err)
		}
	}
}

func TestDatabaseOfURL(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := newStore(t, server, redisstore.Options{URL: "redis://" + server.Address() + "/5"})
	mustCreate(t, s, "k")
	if got := server.Client().Info(t.Context(), "keyspace").Val(); !strings.Contains(got, "db5:keys=1") {
		t.Errorf("keyspace: %s", got)
	}
}

func TestTLSRefusesForeignServer(t *testing.T) {
	server, other := redistest.Start(t, redistest.Options{TLS: true}), redistest.Start(t, redistest.Options{TLS: true})
	ours, err := redisstore.TLSFiles{CAFile: server.CAFile}.Config()
	if err != nil {
		t.Fatal(err)
	}
	wrongName, err := redisstore.TLSFiles{CAFile: server.CAFile, ServerName: "redis.example"}.Config()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(server.Address())
	for name, c := range map[string]struct {
		o    redisstore.Options
		want string
	}{
		"right CA":       {redisstore.Options{URL: server.URL(), TLS: ours}, ""},
		"by other name":  {redisstore.Options{URL: "rediss://localhost:" + port, TLS: ours}, ""},
		"another CA":     {redisstore.Options{URL: other.URL(), TLS: ours}, "unknown authority"},
		"system's CAs":   {redisstore.Options{URL: server.URL(), TLS: &tls.Config{}}, "unknown authority"},
		"another name":   {redisstore.Options{URL: server.URL(), TLS: wrongName}, "redis.example"},
		"no TLS":         {redisstore.Options{URL: "redis://" + server.Address(), TLS: nil}, " "},
		"server without": {redisstore.Options{URL: "rediss://" + redistest.Start(t, redistest.Options{}).Address(), TLS: ours, Timeout: 300 * time.Millisecond}, " "},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Timeout = cmp.Or(c.o.Timeout, patient)
			s, err := redisstore.New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			err = s.Ping(t.Context())
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" && (!errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("ping: %v, want unavailable because %q", err, c.want)
			}
		})
	}
	if _, err := (redisstore.TLSFiles{CAFile: "no such file"}).Config(); err == nil {
		t.Error("no CA file, no error")
	}
}

// The health check must not take TLS's own records for trouble: that would be a handshake for each command.
func TestConnectionsAreReused(t *testing.T) {
	for name, o := range map[string]redistest.Options{"plain": {}, "tls": {TLS: true}, "unix": {Unix: true}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, o)
			s := newStore(t, server, redisstore.Options{})
			before := received(t, server)
			for range 50 {
				if err := s.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := received(t, server) - before; got != 1 {
				t.Errorf("50 commands made %d connections, want 1", got)
			}
		})
	}
}

// received is how many connections the server has accepted.
func received(t testing.TB, s *redistest.Server) (n int) {
	t.Helper()
	for line := range strings.Lines(s.Client().Info(t.Context(), "stats").Val()) {
		fmt.Sscanf(line, "total_connections_received:%d", &n)
	}
	return n
}

func TestPasswordIsReadAtEachConnect(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Password: "first"})
	var current atomic.Pointer[string]
	set := func(p string) { current.Store(&p) }
	set("first")
	u, _ := url.Parse(server.URL())
	u.User = nil
	s := newStore(t, server, redisstore.Options{URL: u.String(), Password: func() (string, error) {
		if *current.Load() == "" {
			return "", errors.New("secret file is gone")
		}
		return *current.Load(), nil
	}})
	mustCreate(t, s, "k")

	if err := server.Client().ConfigSet(t.Context(), "requirepass", "second").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Errorf("the old connection: %v", err)
	}
	cut := func() {
		t.Helper()
		if err := server.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
			t.Fatal(err)
		}
	}
	cut()
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, session.ErrUnavailable) || strings.Contains(err.Error(), "first") {
		t.Errorf("get with the password of before: %v, want unavailable", err)
	}
	set("")
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "secret file is gone") {
		t.Errorf("get without a password: %v, want the reason", err)
	}
	set("second")
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Errorf("get with the new password: %v", err)
	}
}

// permit lets a user named postern do all that Postern needs on each server, and no more. more is what the
// shape needs beside.
func permit(t testing.TB, servers []*redistest.Server, more ...any) {
	t.Helper()
	rules := []any{"ACL", "SETUSER", "postern", "on", ">pw", "~p:*", "resetchannels", "&p:*"}
	for _, command := range redisstore.Commands() {
		rules = append(rules, "+"+command)
	}
	for _, s := range servers {
		if err := s.Client().Do(t.Context(), append(rules, more...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUserOfURL(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	permit(t, []*redistest.Server{server})
	var n atomic.Int64
	open := func(t *testing.T) storetest.Harness {
		return storetest.Harness{
			Store: newStore(t, server, redisstore.Options{
				URL:       "redis://postern@" + server.Address(),
				Password:  func() (string, error) { return "pw", nil },
				KeyPrefix: fmt.Sprint("p:", n.Add(1), ":"),
			}),
			Short: 50 * time.Millisecond,
			Now:   time.Now,
		}
	}
	storetest.Run(t, open)
	foreign := newStore(t, server, redisstore.Options{URL: "redis://postern:pw@" + server.Address(), KeyPrefix: "other:"})
	if _, err := foreign.Get(t.Context(), "k"); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("get of another's key: %v, want refused", err)
	}
}

// A connection that was cut does not say why, so the log says what is wrong with the next one too; but not again and again.
func TestLostNoticesAreLoggedWithTheirCause(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Password: "first"})
	u, _ := url.Parse(server.URL())
	u.User = nil
	name := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := newStore(t, server, redisstore.Options{
		URL: u.String(), Password: func() (string, error) { return "first", nil }, Log: slog.New(slog.NewTextHandler(file, nil)),
	})
	_, gaps := watch(t, s)
	<-gaps
	for _, command := range [][]any{{"CONFIG", "SET", "requirepass", "second"}, {"CLIENT", "KILL", "TYPE", "pubsub"}} {
		if err := server.Client().Do(t.Context(), command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		log, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(log)
	}
	eventually(t, "the log says that the password is wrong", func() bool { return strings.Contains(read(), "WRONGPASS") })
	begun := accepted(t, server)
	eventually(t, "it is tried some more times", func() bool { return accepted(t, server) >= begun+3 })
	if n := strings.Count(read(), "interrupted"); n != 2 {
		t.Errorf("the log says it %d times, want the cut and its cause:\n%s", n, read())
	}
}

// accepted is how many connections the server has ever accepted.
func accepted(t *testing.T, server *redistest.Server) int {
	t.Helper()
	for line := range strings.Lines(server.Client().Info(t.Context(), "stats").Val()) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "total_connections_received:"); ok {
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			return count
		}
	}
	t.Fatal("redis does not tell its connections")
	return 0
}

// A server that does not know AUTH quotes the password in its error.
func TestErrorsNeverShowPassword(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					fmt.Fprintf(c, "-ERR unknown command with args %s\r\n", strings.ReplaceAll(string(buf[:n]), "\r\n", " "))
				}
			}()
		}
	}()
	for name, o := range map[string]redisstore.Options{
		"function": {URL: "redis://" + l.Addr().String(), Password: func() (string, error) { return "hunter2", nil }},
		"url":      {URL: "redis://user:hunter2@" + l.Addr().String()},
	} {
		s := newStore(t, nil, o)
		_, err := s.Get(t.Context(), "k")
		if !errors.Is(err, session.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "[redacted]") {
			t.Errorf("%s: %v, want unavailable without the password", name, err)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(fmt.Sprintf("%+v %#v", e, e), "hunter2") {
				t.Errorf("%s: the chain shows the password: %#v", name, e)
			}
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for name, o := range map[string]redistest.Options{"unix": {Unix: true, Forgetful: true}, "tcp": {Forgetful: true}, "tls": {TLS: true, Forgetful: true}} {
		b.Run(name, func(b *testing.B) {
			s := newStore(b, redistest.Start(b, o), redisstore.Options{})
			if _, err := s.Create(b.Context(), "k", session.Record{Version: 1, Sealed: make([]byte, 3000)}, time.Hour, nil); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Get(b.Context(), "k"); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

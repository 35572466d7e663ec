package redistest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// changeLimit is how long a failover or a slot move may take on a machine that is busy with everyone's tests.
const changeLimit = 60 * time.Second

// SentinelOptions says what a group of a master, its replicas and its sentinels is like.
type SentinelOptions struct {
	// Server is what each server and each sentinel is like. Unix is not possible here.
	Server Options
	// Replicas is how many replicas the master has; 0 is 1.
	Replicas int
	// DownAfter is how long a server may be silent before the sentinels replace it; 0 is 1 s.
	DownAfter time.Duration
	// SentinelPassword is the password of the sentinels themselves; empty: none.
	SentinelPassword string
}

// Sentinel is a master with replicas, watched by three sentinels.
type Sentinel struct {
	// Servers are the master and the replicas, in the order of their start: the first was the first master.
	Servers []*Server
	// Sentinels watch over them.
	Sentinels []*Server

	t testing.TB
}

// MasterName is under which name sentinels know the master.
const MasterName = "mymaster"

// StartSentinel runs a master, replicas and sentinels until the test ends. It returns when all know each other.
func StartSentinel(t testing.TB, o SentinelOptions) *Sentinel {
	t.Helper()
	s := &Sentinel{t: t}
	master := Start(t, o.Server)
	s.Servers = append(s.Servers, master)
	o.Server.certificates = filepath.Dir(master.CAFile)
	for range cmp.Or(o.Replicas, 1) {
		so := o.Server
		so.master = master.Address()
		s.Servers = append(s.Servers, Start(t, so))
	}
	host, port, _ := net.SplitHostPort(master.Address())
	conf := fmt.Sprintf("sentinel monitor %s %s %s 2\nsentinel failover-timeout %[1]s 2000\n", MasterName, host, port)
	if o.Server.Password != "" {
		conf += fmt.Sprintf("sentinel auth-pass %s %s\n", MasterName, o.Server.Password)
	}
	if o.SentinelPassword != "" {
		conf += fmt.Sprintf("sentinel sentinel-pass %s\n", o.SentinelPassword)
	}
	for i := range 3 {
		down := cmp.Or(o.DownAfter, time.Second)
		if i == 2 {
			// Three that notice at the same time may each vote for itself, and try again seconds later. This one votes for one of the others.
			down += 2 * time.Second
		}
		so := o.Server
		so.sentinel = conf + fmt.Sprintf("sentinel down-after-milliseconds %s %d\n", MasterName, down.Milliseconds())
		so.Password, so.Args, so.Forgetful = o.SentinelPassword, nil, true
		one := Start(t, so)
		s.Sentinels = append(s.Sentinels, one)
		// What they do every second or ten. A server that does not know this is slower, no more.
		_ = one.client.Do(context.Background(), "SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200,
			"ASK-PERIOD", 100, "ELECTION-TIMEOUT", 1000).Err()
	}
	s.wait("all sentinels know each other and the replicas", func(ctx context.Context) bool {
		for _, one := range s.Sentinels {
			reply, err := one.client.Do(ctx, "SENTINEL", "MASTER", MasterName).StringSlice()
			if err != nil || field(reply, "num-other-sentinels") != "2" || field(reply, "num-slaves") != strconv.Itoa(len(s.Servers)-1) ||
				field(reply, "flags") != "master" {
				return false
			}
		}
		return strings.Count(master.client.Info(ctx, "replication").Val(), "state=online") == len(s.Servers)-1
	})
	return s
}

// Addresses are the sentinels'.
func (s *Sentinel) Addresses() []string { return addresses(s.Sentinels) }

// Master is the master that most sentinels name.
func (s *Sentinel) Master() *Server {
	s.t.Helper()
	votes := map[string]int{}
	for _, one := range s.Sentinels {
		if !one.Running() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		reply, err := one.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
		cancel()
		if err == nil && len(reply) == 2 {
			votes[net.JoinHostPort(reply[0], reply[1])]++
		}
	}
	for _, server := range s.Servers {
		if votes[server.Address()] >= 2 {
			return server
		}
	}
	s.t.Fatalf("no master has two votes: %v", votes)
	return nil
}

// Failover makes a replica the master, as an operator would, and waits until all sentinels and the new master know. The old one
// becomes a replica.
func (s *Sentinel) Failover() *Server {
	s.t.Helper()
	old := s.Master()
	// A replica that was just started may not be good enough yet.
	s.wait("a sentinel begins a failover", func(ctx context.Context) bool {
		return s.Sentinels[0].client.Do(ctx, "SENTINEL", "FAILOVER", MasterName).Err() == nil
	})
	return s.AwaitFailover(old)
}

// AwaitFailover waits until another than old is the master and all running sentinels say so. It is to follow old.Kill or old.Pause.
func (s *Sentinel) AwaitFailover(old *Server) *Server {
	s.t.Helper()
	var master *Server
	s.wait("another master", func(ctx context.Context) bool {
		named := ""
		for _, one := range s.Sentinels {
			if !one.Running() {
				continue
			}
			reply, err := one.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
			if err != nil || len(reply) != 2 {
				return false
			}
			address := net.JoinHostPort(reply[0], reply[1])
			if address == old.Address() || named != "" && named != address {
				return false
			}
			named = address
		}
		for _, server := range s.Servers {
			if server.Address() == named {
				master = server
			}
		}
		return master != nil && strings.Contains(master.client.Info(ctx, "replication").Val(), "role:master")
	})
	return master
}

func (s *Sentinel) wait(what string, ok func(ctx context.Context) bool) {
	s.t.Helper()
	await(s.t, what, ok)
}

// await asks ok until it says yes. Its context bounds one question.
func await(t testing.TB, what string, ok func(ctx context.Context) bool) {
	t.Helper()
	for deadline := time.Now().Add(changeLimit); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		done := ok(ctx)
		cancel()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", changeLimit, what)
		}
	}
}

// sentinelFile is the path of the server's configuration, which a sentinel rewrites itself; it is made when it is not there.
func (s *Server) sentinelFile() string {
	path := filepath.Join(s.dir, "sentinel.conf")
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path, []byte(s.o.sentinel), 0o600); err != nil {
			s.t.Fatalf("configure sentinel: %v", err)
		}
	}
	return path
}

// field is one of a list of names, each followed by its value.
func field(list []string, name string) string {
	for i := 0; i+1 < len(list); i += 2 {
		if list[i] == name {
			return list[i+1]
		}
	}
	return ""
}

func addresses(servers []*Server) []string {
	out := make([]string, len(servers))
	for i, s := range servers {
		out[i] = s.Address()
	}
	return out
}

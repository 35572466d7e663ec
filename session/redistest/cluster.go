package redistest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const slots = 16384

// ClusterOptions says what a Redis Cluster is like.
type ClusterOptions struct {
	// Server is what each node is like. Unix is not possible here.
	Server Options
	// Masters is how many nodes share the slots; 0 is 3.
	Masters int
	// Replicas is how many replicas each master has.
	Replicas int
	// NodeTimeout is how long a node may be silent before its replica takes over; 0 is 2 s.
	NodeTimeout time.Duration
}

// Cluster is a running Redis Cluster.
type Cluster struct {
	// Nodes are the masters and then the replicas, by their first roles. Node i of the n first is the master of node n+i, n+n+i and so on.
	Nodes []*Server

	t   testing.TB
	ids map[*Server]string
}

// StartCluster runs a Redis Cluster until the test ends. It returns when all nodes know each other and every slot.
func StartCluster(t testing.TB, o ClusterOptions) *Cluster {
	t.Helper()
	masters := cmp.Or(o.Masters, 3)
	c := &Cluster{t: t, ids: map[*Server]string{}}
	so := o.Server
	so.cluster = true
	so.Args = append([]string{"--cluster-node-timeout", strconv.FormatInt(cmp.Or(o.NodeTimeout, 2*time.Second).Milliseconds(), 10),
		"--repl-ping-replica-period", "1", "--cluster-allow-replica-migration", "no"}, so.Args...)
	for i := range masters * (1 + o.Replicas) {
		s := Start(t, so)
		so.certificates = filepath.Dir(s.CAFile)
		c.Nodes = append(c.Nodes, s)
		c.ids[s] = c.do(s, "CLUSTER", "MYID")
		c.do(s, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i < masters {
			c.do(s, "CLUSTER", "ADDSLOTSRANGE", i*slots/masters, (i+1)*slots/masters-1)
		}
	}
	first := c.Nodes[0]
	for _, s := range c.Nodes[1:] {
		host, port, _ := net.SplitHostPort(first.bind)
		c.do(s, "CLUSTER", "MEET", host, port, first.announcedBusPort())
	}
	await(t, "all nodes know each other", func(ctx context.Context) bool {
		for _, s := range c.Nodes {
			nodes := s.client.ClusterNodes(ctx).Val()
			if strings.Count(nodes, " connected") != len(c.Nodes) || strings.Contains(nodes, "handshake") {
				return false
			}
		}
		return true
	})
	for i, s := range c.Nodes[masters:] {
		c.do(s, "CLUSTER", "REPLICATE", c.ids[c.Nodes[i%masters]])
	}
	c.Await()
	await(t, "all replicas follow", func(ctx context.Context) bool {
		for _, s := range c.Nodes[:masters] {
			if strings.Count(s.client.Info(ctx, "replication").Val(), "state=online") != o.Replicas {
				return false
			}
		}
		return true
	})
	return c
}

// Addresses are the nodes'.
func (c *Cluster) Addresses() []string { return addresses(c.Nodes) }

// Await waits until every running node says that all slots are served and that it sees the same masters as the others.
func (c *Cluster) Await() {
	c.t.Helper()
	await(c.t, "the cluster is in order", func(ctx context.Context) bool {
		view := ""
		for _, s := range c.Nodes {
			if !s.Running() {
				continue
			}
			if !strings.Contains(s.client.ClusterInfo(ctx).Val(), "cluster_state:ok") {
				return false
			}
			ranges, err := slotRanges(ctx, s)
			if err != nil {
				return false
			}
			sees := ""
			for _, r := range ranges {
				sees += fmt.Sprintln(r.Start, r.End, r.Nodes[0].ID)
			}
			if view == "" {
				view = sees
			}
			if len(sees) != len(view) {
				return false
			}
		}
		return true
	})
}

// Slot is the slot of a key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	n, err := strconv.Atoi(c.do(c.Nodes[0], "CLUSTER", "KEYSLOT", key))
	if err != nil {
		c.t.Fatalf("slot of %q: %v", key, err)
	}
	return n
}

// slotRanges are the ranges of slots as a node sees them. The first node of each is its master.
func slotRanges(ctx context.Context, s *Server) ([]redis.ClusterSlot, error) {
	//lint:ignore SA1019 CLUSTER SHARDS would need Redis 7, and names no master while one fails over
	return s.client.ClusterSlots(ctx).Result()
}

// Owner is the master of a slot.
func (c *Cluster) Owner(slot int) *Server {
	c.t.Helper()
	var said *Server // to be, by a node that may not have heard of the last change
	for _, s := range c.Nodes {
		if !s.Running() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		ranges, err := slotRanges(ctx, s)
		cancel()
		for _, r := range ranges {
			if err == nil && r.Start <= slot && slot <= r.End {
				for owner, id := range c.ids {
					switch {
					case id != r.Nodes[0].ID:
					case owner == s:
						return s
					case said == nil:
						said = owner
					}
				}
			}
		}
	}
	if said == nil {
		c.t.Fatalf("nobody owns slot %d", slot)
	}
	return said
}

// MigrateSlot moves a slot with all its keys to another master, key by key as redis-cli does: during, when not nil, is called while half of
// them have moved.
func (c *Cluster) MigrateSlot(slot int, to *Server, during func()) {
	c.t.Helper()
	from := c.Owner(slot)
	if from == to {
		c.t.Fatalf("slot %d is there already", slot)
	}
	c.do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from])
	c.do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to])
	ctx := context.Background()
	count, err := from.client.ClusterCountKeysInSlot(ctx, slot).Result()
	if err != nil {
		c.t.Fatalf("move slot: %v", err)
	}
	host, port, _ := net.SplitHostPort(to.bind)
	for moved := 0; ; moved++ {
		if during != nil && moved >= int(count/2) {
			during()
			during = nil
		}
		keys, err := from.client.ClusterGetKeysInSlot(ctx, slot, 1).Result()
		if err != nil {
			c.t.Fatalf("move slot: %v", err)
		}
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", host, port, keys[0], 0, 5000, "REPLACE"}
		if c.Nodes[0].o.Password != "" {
			args = append(args, "AUTH", c.Nodes[0].o.Password)
		}
		c.do(from, args...)
	}
	for _, s := range []*Server{to, from} { // the new owner first: else nobody has it for a moment
		c.do(s, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to])
	}
}

// Failover kills the master of a slot and waits until its replica has taken over.
func (c *Cluster) Failover(slot int) (killed, master *Server) {
	c.t.Helper()
	killed = c.Owner(slot)
	killed.Kill()
	await(c.t, "a replica takes over", func(context.Context) bool {
		master = c.Owner(slot)
		return master != killed
	})
	return killed, master
}

// do sends one command to one node.
func (c *Cluster) do(s *Server, args ...any) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	reply, err := s.client.Do(ctx, args...).Result()
	if err != nil {
		c.t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(reply)
}

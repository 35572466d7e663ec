// Package redisstore keeps sessions in Redis (6.0 or newer, or what speaks its protocol): one server, a master that Sentinel names, or a
// Redis Cluster.
//
// A session is one string key, so that reading it is one GET (record.go has its layout). Everything that writes is a short Lua
// script on one key (scripts.go): it decides and writes in one step, and doing it twice does what doing it once does, so that a
// write whose answer was lost with its connection can be sent again. Scripts that belong together go in one pipeline, or in a cluster
// one step after the other. Nothing here ever runs KEYS or SCAN.
//
// Under the key prefix, with {…} as written so that a session and its lease share a slot of Redis Cluster:
//
//	s:{key}  a session or its tombstone, or a grant that sessions share
//	l:{key}  the owner of its lease
//	i:name   an index: a sorted set of entries, scored by when they expire
//	k:{key}  what is kept for a session that is over (kept.go)
//	k        how much that is together
//	n        the channel of notices; a message is a session's key
//	n:…      in a cluster, a channel on which each subscriber hears itself (watch.go)
//
// The way of a command: run.go (order, repetition, redirects, WAIT) → servers.go (which server has the key; sentinel.go and cluster.go ask
// who that is) → node.go (one server: connections, circuit breaker, replicas) → dial.go. The client library only keeps connections to single
// servers. Replicas are never read.
//
// Every command is over within [Options.Timeout], dialing, redirects and waiting for a connection included; what [Wait] adds comes on top, and what moving a kept
// value may take. An error that is neither
// [session.ErrNone] nor [session.ErrConflict] is [session.ErrUnavailable] and names its cause, never a password.
//
// Redis must not evict keys (maxmemory-policy noeviction): a session whose index entry is gone can be signed out by its cookie alone.
// When Redis has been away, it may take a second until the first command gets through again: the client library looks that often, and the
// circuit breaker every half second.
//
// A failover can lose what no replica had confirmed, and while a cut-off master still runs whoever reaches only that one goes on with it.
//
// Start with [New]. [LogTo] quiets the client library.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/session"
)

// Store is a [session.Store] in Redis. Make one with [New].
type Store struct {
	servers *servers
	prefix  string
	timeout time.Duration
	wait    Wait
	cluster bool
	log     *slog.Logger
	secrets *secrets
	closed  chan struct{}
	close   func() // closes closed, once

	unconfirmed atomic.Uint64
	warned      atomic.Int64 // Unix seconds of the last warning about these
}

var _ session.Store = (*Store)(nil)

// Get implements [session.Store].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	var value []byte
	name := s.sessionKey(key)
	err := s.do(ctx, name, s.timeout, func(ctx context.Context, to way) error {
		var err error
		if to.asking {
			pipe := to.client.Pipeline()
			pipe.Do(ctx, "ASKING")
			get := pipe.Get(ctx, name)
			_, _ = pipe.Exec(ctx)
			value, err = get.Bytes()
			return err
		}
		value, err = to.gets.get(ctx, name)
		return err
	})
	switch {
	case errors.Is(err, redis.Nil):
		return session.Record{}, session.ErrNone
	case err != nil:
		return session.Record{}, s.unavailable("get session", err)
	}
	return decode(value), nil
}

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	if ttl < time.Millisecond { // refused before the index is written
		return nil, errors.New("create session: no time to live")
	}
	// The index first: an entry without a session is harmless, a session without its entry cannot be logged out.
	entries := step{lasting: true}
	for _, e := range index {
		entries.calls = append(entries.calls, call{addEntry, s.indexKey(e.Name), []any{e.Handle, e.Expires.UnixMilli(), e.Max}})
	}
	replies, err := s.run(ctx, entries, lasting(call{createSession, s.sessionKey(key), []any{encode(rec), ttl.Milliseconds()}}))
	if err != nil {
		return nil, s.unavailable("create session", err)
	}

	var over []session.IndexEntry
	for i, e := range index {
		entries, err := members(e.Name, replies[i])
		if err != nil {
			return nil, s.unavailable("create session", err)
		}
		over = append(over, entries...)
	}
	if replies[len(index)].code() != codeDone {
		return nil, session.ErrConflict
	}
	return over, nil
}

// Swap implements [session.Store].
func (s *Store) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	replies, err := s.run(ctx, lasting(call{swapSession, s.sessionKey(key), []any{number(from), number(max(rec.Version, from+1)), rec.Sealed, s.channel(), key, rec.TTL.Milliseconds()}}))
	if err != nil {
		return s.unavailable("swap session", err)
	}
	return replies[0].result()
}

// Touch implements [session.Store].
func (s *Store) Touch(ctx context.Context, seen time.Time, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	sec := unixSeconds(seen)
	head := number(sec)
	var steps []step
	for some := range slices.Chunk(keys, touchesAtOnce) {
		var st step
		for _, key := range some {
			st.calls = append(st.calls, call{touchSession, s.sessionKey(key), []any{head, sec}})
		}
		steps = append(steps, st)
	}
	if _, err := s.run(ctx, steps...); err != nil {
		return s.unavailable("touch sessions", err)
	}
	return nil
}

// touchesAtOnce bounds the connections that touches take in a cluster, where each goes alone.
const touchesAtOnce = 8

// End implements [session.Store].
func (s *Store) End(ctx context.Context, key string, why session.Reason, keepSealed bool, index []session.IndexEntry) (bool, error) {
	if why == "" || len(why) > maxReason {
		return false, fmt.Errorf("end session: reason %q", why)
	}
	// The tombstone first: a live session must not lose its entries.
	var entries step
	for _, e := range index {
		entries.calls = append(entries.calls, call{removeEntry, s.indexKey(e.Name), []any{e.Handle}})
	}
	replies, err := s.run(ctx, lasting(call{endSession, s.sessionKey(key), []any{string(why), keepSealed, s.channel(), key}}), entries)
	if err != nil {
		return false, s.unavailable("end session", err)
	}
	// Sent again, the script finds the tombstone that the first sending may have made.
	code := replies[0].code()
	return code == codeDone || code == codeSame && replies[0].again, nil
}

// Strip implements [session.Store].
func (s *Store) Strip(ctx context.Context, key string, rest []byte) (bool, error) {
	replies, err := s.run(ctx, one(call{stripTombstone, s.sessionKey(key), []any{rest}}))
	if err != nil {
		return false, s.unavailable("strip tombstone", err)
	}
	// Sent again, the script finds what the first sending may have left: better told twice than never.
	code := replies[0].code()
	return code == codeDone || code == codeSame && replies[0].again, nil
}

// Reindex implements [session.Store].
func (s *Store) Reindex(ctx context.Context, add, remove []session.IndexEntry) error {
	if len(add)+len(remove) == 0 {
		return nil
	}
	added, removed := step{lasting: true}, step{}
	for _, e := range add {
		added.calls = append(added.calls, call{addEntry, s.indexKey(e.Name), []any{e.Handle, e.Expires.UnixMilli(), 0}})
	}
	for _, e := range remove {
		removed.calls = append(removed.calls, call{removeEntry, s.indexKey(e.Name), []any{e.Handle}})
	}
	if _, err := s.run(ctx, added, removed); err != nil {
		return s.unavailable("reindex session", err)
	}
	return nil
}

// Index implements [session.Store].
func (s *Store) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	replies, err := s.run(ctx, one(call{listEntries, s.indexKey(name), nil}))
	if err != nil {
		return nil, s.unavailable("list index", err)
	}
	entries, err := members(name, replies[0])
	if err != nil {
		return nil, s.unavailable("list index", err)
	}
	return entries, nil
}

// Acquire implements [session.Store].
func (s *Store) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	return s.lease(ctx, "acquire lease", call{acquireLease, s.leaseKey(key), []any{owner, ttl.Milliseconds()}}, ttl)
}

// Renew implements [session.Store].
func (s *Store) Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	return s.lease(ctx, "renew lease", call{renewLease, s.leaseKey(key), []any{owner, ttl.Milliseconds()}}, ttl)
}

func (s *Store) lease(ctx context.Context, what string, c call, ttl time.Duration) (bool, error) {
	if ttl < time.Millisecond {
		return false, fmt.Errorf("%s: no time to live", what)
	}
	replies, err := s.run(ctx, one(c))
	if err != nil {
		return false, s.unavailable(what, err)
	}
	return replies[0].code() == codeDone, nil
}

// Release implements [session.Store].
func (s *Store) Release(ctx context.Context, key, owner string) error {
	if _, err := s.run(ctx, one(call{releaseLease, s.leaseKey(key), []any{owner, s.channel(), key}})); err != nil {
		return s.unavailable("release lease", err)
	}
	return nil
}

// Ping implements [session.Store]. In a cluster all masters must answer.
func (s *Store) Ping(ctx context.Context) error {
	ping := func(ctx context.Context, to way) error { return to.client.Ping(ctx).Err() }
	if !s.cluster {
		if err := s.do(ctx, "", s.timeout, ping); err != nil {
			return s.unavailable("ping", err)
		}
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	v, err := s.servers.current(limited)
	if err != nil {
		return s.unavailable("ping", err)
	}
	masters := v.masters()
	err = atOnce(len(masters), func(i int) error {
		err := s.try(ctx, limited, v, way{node: masters[i]}, ping)
		if isBroken(err) {
			err = s.try(ctx, limited, v, way{node: masters[i]}, ping)
		}
		return err
	})
	if err != nil {
		return s.unavailable("ping", err)
	}
	return nil
}

// Status is how a store does, for readiness and metrics.
type Status struct {
	// Breaker is closed when commands are sent, open when they fail at once because a server did not answer for some time, and half-open
	// when the next one tries. With several servers it is the worst of them.
	Breaker string
	// Unconfirmed counts the writes that fewer replicas than asked for had confirmed in time (see [Wait]), since the start.
	Unconfirmed uint64
}

// Status asks nobody and never blocks for long.
func (s *Store) Status() Status {
	return Status{Breaker: s.servers.state(), Unconfirmed: s.unconfirmed.Load()}
}

// Close implements [session.Store].
func (s *Store) Close() error {
	s.close()
	return s.servers.close()
}

func (s *Store) sessionKey(key string) string { return s.prefix + "s:{" + key + "}" }
func (s *Store) leaseKey(key string) string   { return s.prefix + "l:{" + key + "}" }
func (s *Store) indexKey(name string) string  { return s.prefix + "i:" + name }
func (s *Store) channel() string              { return s.prefix + "n" }

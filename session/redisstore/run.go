package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/session"
)

// call is one script to run on one key.
type call struct {
	script script
	key    string
	args   []any
}

// step is calls whose order among each other does not matter.
type step struct {
	calls []call
	// lasting asks replicas to have them, too (see Wait).
	lasting bool
}

func one(c call) step     { return step{calls: []call{c}} }
func lasting(c call) step { return step{calls: []call{c}, lasting: true} }

// reply is what one script returned.
type reply struct {
	value any
	err   error
	again bool // the script may have run before, with the same arguments
}

// run runs steps one after the other, and returns a reply for each call, in order. Where all keys are on one server it is one pipeline,
// in which order is kept; in a cluster a step is begun when the one before it is done.
func (s *Store) run(ctx context.Context, steps ...step) ([]reply, error) {
	steps = slices.DeleteFunc(steps, func(st step) bool { return len(st.calls) == 0 })
	lastingSteps := 0
	for _, st := range steps {
		if st.lasting {
			lastingSteps++
		}
	}
	wait := Wait{}
	if lastingSteps > 0 {
		wait = s.wait
	}
	limit := s.timeout
	if wait.Replicas > 0 {
		limit += wait.Timeout
	}
	if !s.cluster {
		var calls []call
		for _, st := range steps {
			calls = append(calls, st.calls...)
		}
		return s.runOn(ctx, limit, wait, calls)
	}

	// All steps together have the time that one command has.
	end := time.Now().Add(limit)
	if lastingSteps > 1 {
		wait.Timeout = max(wait.Timeout/time.Duration(lastingSteps), time.Millisecond)
	}
	var replies []reply
	for _, st := range steps {
		w := wait
		if !st.lasting {
			w = Wait{}
		}
		part := make([]reply, len(st.calls))
		err := atOnce(len(st.calls), func(i int) error {
			r, err := s.runOn(ctx, time.Until(end), w, st.calls[i:i+1])
			if err == nil {
				part[i] = r[0]
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		replies = append(replies, part...)
	}
	return replies, nil
}

// atOnce runs n functions at the same time and returns the first error in their order.
func atOnce(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// runOn runs calls in one pipeline on the server of the first one's key, and again if the connection broke.
func (s *Store) runOn(ctx context.Context, limit time.Duration, wait Wait, calls []call) ([]reply, error) {
	var replies []reply
	err := s.do(ctx, calls[0].key, limit, func(ctx context.Context, to way) error {
		first, err := s.pipeline(ctx, to, calls, wait, false)
		replies = first
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			// Redis was restarted or its scripts were flushed. All of them once more, because their order matters.
			replies, err = s.pipeline(ctx, to, calls, wait, true)
		}
		for i := range replies {
			replies[i].again = to.again || &replies[0] != &first[0] && first[i].err == nil
		}
		return err
	})
	return replies, err
}

// pipeline sends calls in one write, with their source or by the digest alone, and returns the first error among the replies. WAIT is
// in the same write, because it is about what its own connection wrote.
func (s *Store) pipeline(ctx context.Context, to way, calls []call, wait Wait, withSource bool) ([]reply, error) {
	ask, done := to.toAsk(ctx, wait.Replicas)
	pipe := to.client.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		if to.asking {
			pipe.Do(ctx, "ASKING")
		}
		if withSource {
			cmds[i] = pipe.Eval(ctx, c.script.source, []string{c.key}, c.args...)
		} else {
			cmds[i] = pipe.EvalSha(ctx, c.script.sha, []string{c.key}, c.args...)
		}
	}
	var confirmed *redis.Cmd
	if ask > 0 {
		confirmed = pipe.Do(ctx, "WAIT", ask, wait.Timeout.Milliseconds())
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var err error
	replies := make([]reply, len(cmds))
	for i, cmd := range cmds {
		replies[i].value, replies[i].err = cmd.Result()
		if err == nil {
			err = replies[i].err
		}
	}
	if err != nil {
		done(-1)
		return replies, err
	}
	got := 0
	if confirmed != nil {
		n, _ := confirmed.Int64()
		got = int(n)
	}
	done(got)
	if got < ask || ask < 0 {
		s.notConfirmed(ctx, to.node, confirmed)
	}
	return replies, nil
}

// notConfirmed counts a write that too few replicas have, and warns once a minute.
func (s *Store) notConfirmed(ctx context.Context, from *node, answer *redis.Cmd) {
	n := s.unconfirmed.Add(1)
	now, last := time.Now().Unix(), s.warned.Load()
	if now-last < 60 || !s.warned.CompareAndSwap(last, now) {
		return
	}
	attrs := []any{"count", n}
	if refused := from.replicas.refused.Load(); refused != nil {
		s.log.WarnContext(ctx, "redis does not let its replicas be counted, so that none is asked to confirm writes; a failover could lose them",
			append(attrs, "err", s.secrets.redact(*refused))...)
		return
	}
	if answer != nil && answer.Err() != nil {
		attrs = append(attrs, "err", s.secrets.redact(answer.Err()))
	}
	s.log.WarnContext(ctx, "replicas of redis did not confirm writes in time; a failover now could lose them", attrs...)
}

// way is how a command goes to a server.
type way struct {
	*node
	asking bool // each command must be preceded by ASKING
	again  bool // it may have run before
}

// maxRedirects bounds how often one command is sent on, while slots move.
const maxRedirects = 4

// do runs op on the server of key within limit, and once more when its connection turned out to be dead: after a restart of Redis, or
// of something between, that is how a pooled connection ends. All attempts share the limit. A second connection is not as dead as
// the first (see conn), and all operations here may happen twice. What a server refused, because it is not or no longer the one to
// ask, was not done.
func (s *Store) do(ctx context.Context, key string, limit time.Duration, op func(ctx context.Context, to way) error) error {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := s.servers.current(ctx)
	if err != nil {
		return err
	}
	n, err := v.of(key)
	if err != nil {
		s.servers.begin(v)
		return err
	}
	to := way{node: n}
	for redirects, tries := 0, 1; ; {
		err := s.try(caller, ctx, v, to, op)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if address, once, ok := to.redirected(err); ok {
			if redirects++; redirects > maxRedirects {
				return err
			}
			next, failed := s.servers.at(address)
			if failed != nil {
				return failed
			}
			if !once {
				s.servers.begin(v)
			}
			to.node, to.asking = next, once
			continue
		}
		stale := isReadOnly(err) || errors.Is(err, errNoMaster)
		if tries++; tries > 2 || !stale && !isBroken(err) {
			return err
		}
		if stale {
			to.distrust()
		} else {
			to.again = true
		}
		// Before the second attempt: does somebody else serve now?
		if s.servers.look(ctx, v) == nil {
			if now := s.servers.now.Load(); now != v {
				v = now
				if n, err := v.of(key); err == nil {
					to.node, to.asking = n, false
				}
			}
		}
	}
}

// try runs op once, and has it found out who serves now when it failed.
func (s *Store) try(caller, ctx context.Context, v *view, to way, op func(ctx context.Context, to way) error) error {
	err := to.run(caller, func() error { return op(ctx, to) })
	if isFailure(err) && !errors.Is(err, errOpen) && !isGone(caller) {
		s.servers.begin(v)
	}
	return err
}

// isBroken tells a connection that the other side closed from every other trouble.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, net.ErrClosed) || errors.Is(err, redis.ErrClosed)
}

// unavailable is how all troubles leave the package.
func (s *Store) unavailable(what string, err error) error {
	err = s.secrets.redact(err)
	return fmt.Errorf("%s: %w: %w", what, session.ErrUnavailable, err)
}

// code is the number that the script returned. An unknown reply is a conflict, which changes nothing.
func (r reply) code() int64 {
	n, ok := r.value.(int64)
	if !ok {
		return codeConflict
	}
	return n
}

func (r reply) result() error {
	switch r.code() {
	case codeDone:
		return nil
	case codeNone:
		return session.ErrNone
	}
	return session.ErrConflict
}

// maxScore is beyond every time that is written here, and what a score holds exactly.
const maxScore = 1 << 53

// members reads the entries of a reply: members, each followed by its score.
func members(name string, r reply) ([]session.IndexEntry, error) {
	list, ok := r.value.([]any)
	if !ok || len(list)%2 != 0 {
		return nil, fmt.Errorf("index answer is %T", r.value)
	}
	var entries []session.IndexEntry
	for i := 0; i < len(list); i += 2 {
		m, ok1 := list[i].(string)
		score, ok2 := list[i+1].(string)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("index answer holds %T and %T", list[i], list[i+1])
		}
		ms, err := strconv.ParseFloat(score, 64)
		if err != nil || ms > maxScore {
			continue // none of ours: somebody wrote to Redis
		}
		entries = append(entries, session.IndexEntry{Name: name, Handle: m, Expires: time.UnixMilli(int64(ms))})
	}
	return entries, nil
}

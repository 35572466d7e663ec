package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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

// reply is what one script returned.
type reply struct {
	value any
	err   error
	again bool // the script may have run before, with the same arguments
}

// run runs calls in one pipeline, and again if the connection broke, and returns a reply for each.
func (s *Store) run(ctx context.Context, calls ...call) ([]reply, error) {
	var replies []reply
	err := s.do(ctx, func(ctx context.Context, again bool) error {
		first, err := s.pipeline(ctx, calls, false)
		replies = first
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			// Redis was restarted or its scripts were flushed. All of them once more, because their order matters.
			replies, err = s.pipeline(ctx, calls, true)
		}
		for i := range replies {
			replies[i].again = again || &replies[0] != &first[0] && first[i].err == nil
		}
		return err
	})
	return replies, err
}

// pipeline sends calls in one write, with their source or by the digest alone, and returns the first error among the replies.
func (s *Store) pipeline(ctx context.Context, calls []call, withSource bool) ([]reply, error) {
	pipe := s.client.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	for i, c := range calls {
		if withSource {
			cmds[i] = pipe.Eval(ctx, c.script.source, []string{c.key}, c.args...)
		} else {
			cmds[i] = pipe.EvalSha(ctx, c.script.sha, []string{c.key}, c.args...)
		}
	}
	_, err := pipe.Exec(ctx)
	replies := make([]reply, len(cmds))
	for i, cmd := range cmds {
		replies[i].value, replies[i].err = cmd.Result()
	}
	return replies, err
}

// do runs op within the store's time limit, and once more when its connection turned out to be dead: after a restart of Redis, or
// of something between, that is how a pooled connection ends. Both attempts share the limit. A second connection is not as dead as
// the first (see conn), and all operations here may happen twice.
func (s *Store) do(ctx context.Context, op func(ctx context.Context, again bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := op(ctx, false)
	if isBroken(err) && ctx.Err() == nil {
		err = op(ctx, true)
	}
	return err
}

// isBroken tells a connection that the other side closed from every other trouble.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}

// unavailable is how all troubles leave the package.
func (s *Store) unavailable(what string, err error) error {
	// Servers that do not know a command answer with its arguments: AUTH's are the password.
	if secret := s.secret.Load(); secret != nil && *secret != "" && strings.Contains(err.Error(), *secret) {
		err = errors.New(strings.ReplaceAll(err.Error(), *secret, "[redacted]"))
	}
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

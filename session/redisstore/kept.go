package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/session"
)

// A kept value is a string of its own, beside its session in the same slot:
//
//	byte  0  keptWaiting, and then the value; or keptTaken, and then who took it
//
// A sorted set of all of them, scored by when they expire, says how large each is. They are in different slots of a cluster, so a value is counted before
// it is written, and what is lost between the two counts until it would have expired: the bound holds whatever fails.
const (
	keptTaken   = 0
	keptWaiting = 1

	// keptTimeout is what moving a value may take, beside [Options.Timeout]: 10 MiB need that on a slow network.
	keptTimeout = 5 * time.Second
)

func (s *Store) keptKey(key string) string { return s.prefix + "k:{" + key + "}" }
func (s *Store) keptSizes() string         { return s.prefix + "k" }

// Keep implements [session.Store].
func (s *Store) Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error {
	if ttl < time.Millisecond {
		return errors.New("keep: no time to live")
	}
	size := strconv.Itoa(max(len(value), session.KeptLeast))
	replies, err := s.run(ctx, one(call{countKept, s.keptSizes(), []any{key, size, ttl.Milliseconds(), total}}))
	if err != nil {
		return s.unavailable("keep", err)
	}
	if replies[0].code() != codeDone {
		return session.ErrFull
	}
	_, err = large(ctx, s, s.keptKey(key), func(ctx context.Context, c redis.Cmdable) *redis.StatusCmd {
		return c.Set(ctx, s.keptKey(key), append([]byte{keptWaiting}, value...), ttl)
	})
	if err != nil {
		return s.unavailable("keep", err)
	}
	return nil
}

// Kept implements [session.Store].
func (s *Store) Kept(ctx context.Context, key string) ([]byte, error) {
	cmd, err := large(ctx, s, s.keptKey(key), func(ctx context.Context, c redis.Cmdable) *redis.StringCmd {
		return c.Get(ctx, s.keptKey(key))
	})
	if errors.Is(err, redis.Nil) {
		return nil, session.ErrNone
	}
	if err != nil {
		return nil, s.unavailable("read what is kept", err)
	}
	value, _ := cmd.Bytes()
	switch {
	case len(value) == 0:
		return nil, session.ErrNone
	case value[0] != keptWaiting:
		return nil, session.ErrConflict
	}
	return value[1:], nil
}

// TakeKept implements [session.Store].
func (s *Store) TakeKept(ctx context.Context, key string) error {
	replies, err := s.run(ctx, one(call{takeKept, s.keptKey(key), []any{string(rune(keptTaken)) + rand.Text()}}))
	if err != nil {
		return s.unavailable("take what is kept", err)
	}
	if err := replies[0].result(); err != nil {
		return err
	}
	_, _ = s.run(ctx, one(call{forgetKept, s.keptSizes(), []any{key}})) // else it counts until it expires
	return nil
}

// large runs one command of the client library that may move a kept value.
func large[C redis.Cmder](ctx context.Context, s *Store, key string, command func(context.Context, redis.Cmdable) C) (cmd C, err error) {
	limit := s.timeout + keptTimeout
	err = s.do(ctx, key, limit, func(ctx context.Context, to way) error {
		client := to.client.WithTimeout(limit)
		if !to.asking {
			cmd = command(ctx, client)
			return cmd.Err()
		}
		pipe := client.Pipeline()
		pipe.Do(ctx, "ASKING")
		cmd = command(ctx, pipe)
		_, _ = pipe.Exec(ctx) // the command has its own error
		return cmd.Err()
	})
	return cmd, err
}

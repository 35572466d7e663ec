package memstore

import (
	"container/heap"
	"context"
	"errors"
	"time"

	"postern/session"
)

// Keep implements [session.Store].
func (s *Store) Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error {
	if ttl <= 0 {
		return errors.New("keep: no time to live")
	}
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s.expire(now)

	sum := int64(max(len(value), session.KeptLeast))
	for other, k := range s.kept {
		if other != key && !k.taken {
			sum += int64(max(len(k.value), session.KeptLeast))
		}
	}
	if sum > total {
		return session.ErrFull
	}
	k := &kept{value: value, expires: now.Add(ttl)}
	s.kept[key] = k
	heap.Push(&s.expiries, expiry{at: k.expires, kept: k, key: key})
	return nil
}

// Kept implements [session.Store].
func (s *Store) Kept(ctx context.Context, key string) ([]byte, error) {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err := s.waiting(key, now)
	if err != nil {
		return nil, err
	}
	return k.value, nil
}

// TakeKept implements [session.Store].
func (s *Store) TakeKept(ctx context.Context, key string) error {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	k, err := s.waiting(key, now)
	if err != nil {
		return err
	}
	k.value, k.taken = nil, true
	return nil
}

// waiting is what is kept under key and was not taken.
func (s *Store) waiting(key string, now time.Time) (*kept, error) {
	k := s.kept[key]
	switch {
	case k == nil || !now.Before(k.expires):
		return nil, session.ErrNone
	case k.taken:
		return nil, session.ErrConflict
	}
	return k, nil
}

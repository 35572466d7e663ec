package proxy

import (
	"context"
	"errors"
	"time"

	"postern/proxy/tracing"
	"postern/session"
)

// traceStore is store with a span for each operation that a request makes; store itself where there is no tracer.
func traceStore(store session.Store, tracer *tracing.Tracer, redis bool) session.Store {
	if tracer == nil {
		return store
	}
	system := "memory"
	if redis {
		system = "redis"
	}
	return &tracedStore{store, tracer, system}
}

// tracedStore passes everything on. Watch, Ping and Close are not of requests.
type tracedStore struct {
	session.Store
	tracer *tracing.Tracer
	system string
}

func (s *tracedStore) begin(ctx context.Context, operation string) *tracing.Span {
	return s.tracer.Store(ctx, s.system, operation)
}

// ended ends a span. That there is no record, or another than was thought, is an answer and no failure.
func ended(span *tracing.Span, err error) error {
	if err != nil && !errors.Is(err, session.ErrNone) && !errors.Is(err, session.ErrConflict) {
		span.Fail(tracing.ErrorType(err))
	}
	span.End()
	return err
}

// Get implements session.Store, and so do all others here.
func (s *tracedStore) Get(ctx context.Context, key string) (session.Record, error) {
	span := s.begin(ctx, "get")
	rec, err := s.Store.Get(ctx, key)
	return rec, ended(span, err)
}

func (s *tracedStore) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	span := s.begin(ctx, "create")
	evicted, err := s.Store.Create(ctx, key, rec, ttl, index)
	return evicted, ended(span, err)
}

func (s *tracedStore) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	span := s.begin(ctx, "swap")
	return ended(span, s.Store.Swap(ctx, key, rec, from))
}

func (s *tracedStore) Touch(ctx context.Context, key string, seen time.Time) error {
	span := s.begin(ctx, "touch")
	return ended(span, s.Store.Touch(ctx, key, seen))
}

func (s *tracedStore) End(ctx context.Context, key string, why session.Reason, keepSealed bool, index []session.IndexEntry) (bool, error) {
	span := s.begin(ctx, "end")
	was, err := s.Store.End(ctx, key, why, keepSealed, index)
	return was, ended(span, err)
}

func (s *tracedStore) Strip(ctx context.Context, key string, rest []byte) (bool, error) {
	span := s.begin(ctx, "strip")
	was, err := s.Store.Strip(ctx, key, rest)
	return was, ended(span, err)
}

func (s *tracedStore) Reindex(ctx context.Context, add, remove []session.IndexEntry) error {
	span := s.begin(ctx, "reindex")
	return ended(span, s.Store.Reindex(ctx, add, remove))
}

func (s *tracedStore) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	span := s.begin(ctx, "index")
	entries, err := s.Store.Index(ctx, name)
	return entries, ended(span, err)
}

func (s *tracedStore) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	span := s.begin(ctx, "acquire")
	got, err := s.Store.Acquire(ctx, key, owner, ttl)
	return got, ended(span, err)
}

func (s *tracedStore) Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	span := s.begin(ctx, "renew")
	held, err := s.Store.Renew(ctx, key, owner, ttl)
	return held, ended(span, err)
}

func (s *tracedStore) Release(ctx context.Context, key, owner string) error {
	span := s.begin(ctx, "release")
	return ended(span, s.Store.Release(ctx, key, owner))
}

func (s *tracedStore) Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error {
	span := s.begin(ctx, "keep")
	return ended(span, s.Store.Keep(ctx, key, value, ttl, total))
}

func (s *tracedStore) Kept(ctx context.Context, key string) ([]byte, error) {
	span := s.begin(ctx, "kept")
	value, err := s.Store.Kept(ctx, key)
	return value, ended(span, err)
}

func (s *tracedStore) TakeKept(ctx context.Context, key string) error {
	span := s.begin(ctx, "take_kept")
	return ended(span, s.Store.TakeKept(ctx, key))
}

package proxy

import (
	"context"
	"errors"
	"time"

	"postern/proxy/metrics"
	"postern/proxy/tracing"
	"postern/session"
)

// watchStore is store with a span for each operation that a request makes, and each operation counted; store itself where there is neither tracer nor metrics.
func watchStore(store session.Store, tracer *tracing.Tracer, m *metrics.Metrics, redis bool) session.Store {
	if tracer == nil && m == nil {
		return store
	}
	system := "memory"
	if redis {
		system = "redis"
	}
	return &watchedStore{store, tracer, m, system}
}

// watchedStore passes everything on. Watch and Close are no operations.
type watchedStore struct {
	session.Store
	tracer  *tracing.Tracer
	metrics *metrics.Metrics
	system  string
}

// operation is one under way.
type operation struct {
	name    string
	began   time.Time
	span    *tracing.Span
	metrics *metrics.Metrics
}

func (s *watchedStore) begin(ctx context.Context, name string) operation {
	return operation{name, time.Now(), s.tracer.Store(ctx, s.system, name), s.metrics}
}

// end takes note of what came of it.
func (o operation) end(err error) error {
	outcome := "ok"
	switch {
	case err == nil:
	case errors.Is(err, session.ErrNone):
		outcome = "none"
	case errors.Is(err, session.ErrConflict):
		outcome = "conflict"
	case errors.Is(err, session.ErrFull):
		outcome = "full"
	default:
		outcome = metrics.Failure(err)
		o.span.Fail(tracing.ErrorType(err))
	}
	o.span.End()
	o.metrics.StoreOperation(o.name, outcome, time.Since(o.began))
	return err
}

// Get implements session.Store, and so do all others here.
func (s *watchedStore) Get(ctx context.Context, key string) (session.Record, error) {
	op := s.begin(ctx, "get")
	rec, err := s.Store.Get(ctx, key)
	return rec, op.end(err)
}

func (s *watchedStore) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	op := s.begin(ctx, "create")
	evicted, err := s.Store.Create(ctx, key, rec, ttl, index)
	return evicted, op.end(err)
}

func (s *watchedStore) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	op := s.begin(ctx, "swap")
	return op.end(s.Store.Swap(ctx, key, rec, from))
}

func (s *watchedStore) Touch(ctx context.Context, seen time.Time, keys ...string) error {
	op := s.begin(ctx, "touch")
	return op.end(s.Store.Touch(ctx, seen, keys...))
}

func (s *watchedStore) End(ctx context.Context, key string, why session.Reason, keepSealed bool, index []session.IndexEntry) (bool, error) {
	op := s.begin(ctx, "end")
	was, err := s.Store.End(ctx, key, why, keepSealed, index)
	return was, op.end(err)
}

func (s *watchedStore) Strip(ctx context.Context, key string, rest []byte) (bool, error) {
	op := s.begin(ctx, "strip")
	was, err := s.Store.Strip(ctx, key, rest)
	return was, op.end(err)
}

func (s *watchedStore) Reindex(ctx context.Context, add, remove []session.IndexEntry) error {
	op := s.begin(ctx, "reindex")
	return op.end(s.Store.Reindex(ctx, add, remove))
}

func (s *watchedStore) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	op := s.begin(ctx, "index")
	entries, err := s.Store.Index(ctx, name)
	return entries, op.end(err)
}

func (s *watchedStore) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	op := s.begin(ctx, "acquire")
	got, err := s.Store.Acquire(ctx, key, owner, ttl)
	return got, op.end(err)
}

func (s *watchedStore) Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	op := s.begin(ctx, "renew")
	held, err := s.Store.Renew(ctx, key, owner, ttl)
	return held, op.end(err)
}

func (s *watchedStore) Release(ctx context.Context, key, owner string) error {
	op := s.begin(ctx, "release")
	return op.end(s.Store.Release(ctx, key, owner))
}

func (s *watchedStore) Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error {
	op := s.begin(ctx, "keep")
	return op.end(s.Store.Keep(ctx, key, value, ttl, total))
}

func (s *watchedStore) Kept(ctx context.Context, key string) ([]byte, error) {
	op := s.begin(ctx, "kept")
	value, err := s.Store.Kept(ctx, key)
	return value, op.end(err)
}

func (s *watchedStore) TakeKept(ctx context.Context, key string) error {
	op := s.begin(ctx, "take_kept")
	return op.end(s.Store.TakeKept(ctx, key))
}

func (s *watchedStore) Ping(ctx context.Context) error {
	op := s.begin(ctx, "ping")
	return op.end(s.Store.Ping(ctx))
}

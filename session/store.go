package session

import (
	"context"
	"errors"
	"time"
)

// ErrNone says that there is nothing: no cookie, or no such record in the store.
var ErrNone = errors.New("no session")

// ErrUnavailable says that the store did not answer. It never means that a session is absent or over:
// keep the cookie and answer 503.
var ErrUnavailable = errors.New("session store did not answer")

// ErrConflict is what [Store.Swap] returns when the record changed meanwhile or has ended.
var ErrConflict = errors.New("session changed meanwhile")

// ErrFull is what [Store.Keep] returns when too much is kept already.
var ErrFull = errors.New("store keeps too much already")

// Record is what a store keeps under one key.
type Record struct {
	// Version counts the writes of Sealed; the first is 1.
	Version int64
	// Seen is when the session was last used, to the second. A touch writes it alone.
	Seen time.Time
	// Ended is empty while the session lives. A tombstone holds the reason until the key's time to live is over.
	Ended Reason
	// Sealed is the session, sealed under its data key, or a grant that sessions share. The store cannot read it.
	Sealed []byte
	// TTL is for Swap alone: how long the record is to live from then on at least. 0 leaves its time to live as it is.
	TTL time.Duration
}

// IndexEntry is one line under which a session can be found without its cookie. What is known of it is in its record.
type IndexEntry struct {
	// Name is the keyed hash under which entries are looked up.
	Name string
	// Handle is the session's store key; it identifies the entry within Name.
	Handle string
	// Expires is when the entry may be dropped.
	Expires time.Time
	// Max bounds the live entries under Name; 0 is no bound.
	Max int
}

// KeptLeast is what a kept value counts at least, so that a total bounds how many there are.
const KeptLeast = 64 << 10

// Store keeps sealed sessions. Implementations are memstore and redisstore; storetest is the suite that each passes.
//
// All methods may be called by any number of goroutines and obey ctx. A record that is absent is [ErrNone]. Every other error than
// ErrNone, [ErrConflict] and [ErrFull] means that the store did not answer and that the write may or may not have happened.
type Store interface {
	// Get reads one record with one operation. A tombstone is a record, too.
	Get(ctx context.Context, key string) (Record, error)

	// Create writes a new record that lives for ttl, after its index entries, in one round trip. It is ErrConflict when key holds
	// another record or a tombstone.
	//
	// The oldest entries beyond an entry's Max are returned: the caller ends those sessions with [Store.End], and names the
	// entry there, which takes it out of the index. Until then it stays, because a session without its entry cannot be found to
	// be ended: an answer that was lost, or a process that died here, would leave one. (Only beyond twice Max entries leave the
	// index at once, so that it is bounded whatever callers do.)
	Create(ctx context.Context, key string, rec Record, ttl time.Duration, index []IndexEntry) (evicted []IndexEntry, err error)

	// Swap replaces the sealed value if the record lives and has version from; the record then has rec.Version, or from+1 if that is
	// more. Of rec only Version, Sealed and TTL are read: Seen stays, and the time to live never gets shorter. It is ErrNone when there is no record,
	// ErrConflict when it has another version or has ended.
	Swap(ctx context.Context, key string, rec Record, from int64) error

	// Touch sets Seen of those records that live. It never creates one, never touches a tombstone and never moves Seen back. After an error
	// some are touched and some are not.
	Touch(ctx context.Context, seen time.Time, keys ...string) error

	// End turns a live record into a tombstone that stays until its time to live is over, and removes the index entries, of which
	// Name and Handle suffice. It reports whether the record lived; to end what is absent or has ended is no error. keepSealed
	// leaves the sealed value behind the tombstone.
	End(ctx context.Context, key string, why Reason, keepSealed bool, index []IndexEntry) (ended bool, err error)

	// Strip puts rest in place of a longer sealed value that End has left behind a tombstone, and reports whether it did: of several callers
	// whose rests are equally long one is told so. It changes no record that lives.
	Strip(ctx context.Context, key string, rest []byte) (was bool, err error)

	// Reindex adds or replaces entries of sessions that exist, without looking at Max, then removes others, of which Name and Handle
	// suffice.
	Reindex(ctx context.Context, add, remove []IndexEntry) error

	// Index lists the live entries under name, the oldest first, without their Max.
	Index(ctx context.Context, name string) ([]IndexEntry, error)

	// Acquire takes the lease of key for owner unless another owner holds it. An owner may take it again.
	Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error)

	// Renew prolongs a lease that owner still holds.
	Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error)

	// Release gives back a lease that owner holds, and notifies watchers of key. When owner does not hold it, it does nothing.
	Release(ctx context.Context, key, owner string) error

	// Watch calls changed for each Swap, End and Release by anyone, soon after it happened, until ctx ends. It calls gap whenever
	// notices may have been missed, once right after it has subscribed included, with whether they arrive from then on. Both must return
	// quickly. It returns nil when ctx ends and an error only when the store was closed.
	Watch(ctx context.Context, changed func(key string), gap func(listening bool)) error

	// Keep keeps a large value for ttl under key, in place of what was kept there. It is [ErrFull] when all values that are kept would have more than
	// total bytes together, where each counts as [KeptLeast] at least. The value is the store's from then on: nobody changes it.
	Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error

	// Kept returns what is kept under key, which nobody changes. It is ErrNone when there is nothing and ErrConflict when it was taken.
	Kept(ctx context.Context, key string) ([]byte, error)

	// TakeKept takes what is kept under key: once only, of several callers one succeeds. It is ErrNone when there is nothing and ErrConflict when it was
	// taken before, which is remembered for the rest of its ttl.
	TakeKept(ctx context.Context, key string) error

	// Ping asks the store for an answer.
	Ping(ctx context.Context) error

	// Close releases connections.
	Close() error
}

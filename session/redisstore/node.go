package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/sony/gobreaker/v2"
)

const (
	// maxIdle is how long an unused connection is kept: less than the 350 s after which common load balancers forget it silently.
	maxIdle = 3 * time.Minute

	// bufferSize holds most sessions. Each connection has two.
	bufferSize = 16 << 10

	// maxDials bounds the connections that are made at the same time: a server that comes back must not be met by all at once.
	maxDials = 8

	// tripAfter failures in a row, without a success in between, a server is not asked any more, for half to all of maxOpen. Then one
	// request tries.
	tripAfter = 5
	maxOpen   = 500 * time.Millisecond

	// recount is how long it is believed how many replicas a server has.
	recount = 5 * time.Second
)

// connector makes nodes that are alike but for their address.
type connector struct {
	network      string // tcp or unix; empty: tcp
	db           int
	tls          *tls.Config
	credentials  func(context.Context) (user, password string, err error)
	mustBeMaster bool
	timeout      time.Duration
	wait         time.Duration
	poolSize     int
}

// node is one server with the connections to it.
type node struct {
	address string
	client  *redis.Client
	gets    gatherer
	breaker *gobreaker.CircuitBreaker[struct{}]
	breaks  *atomic.Int64
	failure atomic.Pointer[error] // the last one that counted
	used    atomic.Int64          // Unix ms, when it was last chosen for a reason other than that it has slots

	replicas replicas
}

// connect makes the node of an address. It opens no connection.
func (c connector) connect(address string) *node {
	n := &node{address: address, breaks: new(atomic.Int64)}
	d := &dialer{tls: c.tls, breaks: n.breaks}
	o := &redis.Options{
		Network:                    c.network,
		Addr:                       address,
		DB:                         c.db,
		Dialer:                     d.dial,
		CredentialsProviderContext: c.credentials,

		// RESP2: with RESP3 a server may push frames between replies, for features that are not used here. With RESP2 data on a
		// connection that waits in the pool is an error, always, and a reply can never be taken for another command's.
		Protocol: 2,
		// One fewer round trip on connecting, and nothing that an ACL may forbid.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},

		// Without it go-redis ignores the deadline of a context.
		ContextTimeoutEnabled: true,
		ReadTimeout:           c.timeout + c.wait,
		WriteTimeout:          c.timeout,
		PoolTimeout:           c.timeout,
		DialTimeout:           max(c.timeout, minDial),
		// Retries are ours (Store.do): go-redis repeats what may have happened, and after time-outs, too.
		MaxRetries:    -1,
		DialerRetries: 1,

		PoolSize:           c.poolSize,
		MaxActiveConns:     c.poolSize,
		MaxConcurrentDials: min(maxDials, c.poolSize),
		PipelinePoolSize:   -1, // one pool, one bound
		ConnMaxIdleTime:    maxIdle,
		ReadBufferSize:     bufferSize,
		WriteBufferSize:    bufferSize,
	}
	if c.mustBeMaster {
		o.OnConnect = onlyMaster
	}
	n.client = redis.NewClient(o)
	n.gets = gatherer{client: n.client, timeout: c.timeout}
	n.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		// Jitter, or all replicas would come back in the same moment.
		Timeout:      maxOpen/2 + rand.N(maxOpen/2),
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsSuccessful: func(err error) bool { return !isFailure(err) },
		IsExcluded:   func(err error) bool { return errors.As(err, new(callerGone)) },
	})
	return n
}

// errNoMaster says that the server that was to be the master is a replica: what it holds may be old.
var errNoMaster = errors.New("server is a replica")

// onlyMaster refuses a connection to a server that was demoted. Reads there would not fail; they would be of the past.
func onlyMaster(ctx context.Context, c *redis.Conn) error {
	info, err := c.Info(ctx, "replication").Result()
	if err != nil {
		return fmt.Errorf("ask for the role: %w", err)
	}
	if !strings.Contains(info, "role:master") {
		return errNoMaster
	}
	return nil
}

// callerGone is a failure that only shows that its caller did not wait.
type callerGone struct{ error }

func (e callerGone) Unwrap() error { return e.error }

// run runs op unless the server failed so often that it is not to be asked now. caller is the context of who wants op done, without
// our own limits.
func (n *node) run(caller context.Context, op func() error) error {
	_, err := n.breaker.Execute(func() (struct{}, error) {
		err := op()
		if isFailure(err) {
			if isGone(caller) {
				return struct{}{}, callerGone{err}
			}
			n.failure.Store(&err)
		}
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = errOpen
		if last := n.failure.Load(); last != nil {
			err = fmt.Errorf("%w; the last time: %w", errOpen, *last)
		}
	}
	return err
}

// isGone tells whether a context is over. Its own Err may be late: what waits for its deadline, too, may see that first.
func isGone(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// errOpen says that nobody was asked.
var errOpen = errors.New("circuit breaker is open")

// isFailure tells a server that does not serve from one that answers, whatever it answers.
func isFailure(err error) bool {
	var answer redis.Error
	switch {
	case err == nil || errors.Is(err, redis.Nil):
		return false
	case !errors.As(err, &answer):
		return true
	}
	for _, prefix := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "WRONGPASS", "NOAUTH", "max number of clients"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// isReadOnly is the answer of a replica to a write. Redis before 7 puts it into the error of the script.
func isReadOnly(err error) bool {
	return redis.HasErrorPrefix(err, "READONLY") || redis.HasErrorPrefix(err, "Error running script") && strings.Contains(err.Error(), "-READONLY ")
}

// distrust makes every pooled connection be replaced before it is used again.
func (n *node) distrust() { n.breaks.Add(1) }

// state is what Status says.
func (n *node) state() string { return n.breaker.State().String() }

// replicas is what is known of a master's replicas.
type replicas struct {
	online  atomic.Int32
	counted atomic.Int64 // Unix ms; 0: never
	behind  atomic.Bool  // the last answer came short
	asking  atomic.Bool  // one write asks, while behind

	refused atomic.Pointer[error] // why they cannot be counted; nil: they can
}

// toAsk is how many replicas are to be asked for a write, at most want, or -1: there may be some, but they are not to be asked now. done
// must be called with how many answered; -1 when none was asked after all.
//
// While replicas are behind one write at a time waits for them. Else all connections would be held by writes that wait, and readers
// would have none.
func (n *node) toAsk(ctx context.Context, want int) (ask int, done func(got int)) {
	r := &n.replicas
	if want == 0 {
		return 0, func(int) {}
	}
	now := time.Now().UnixMilli()
	if at := r.counted.Load(); at == 0 || now-at > recount.Milliseconds() && r.counted.CompareAndSwap(at, now) {
		info, err := n.client.Info(ctx, "replication").Result()
		switch {
		case err == nil:
			r.online.Store(int32(strings.Count(info, ",state=online,")))
			r.refused.Store(nil)
			r.counted.Store(now)
		case errors.As(err, new(redis.Error)): // it may not be asked
			r.online.Store(-1)
			r.refused.Store(&err)
			r.counted.Store(now)
		}
	}
	ask = min(want, int(r.online.Load()))
	mine := ask > 0 && r.behind.Load()
	if mine && !r.asking.CompareAndSwap(false, true) {
		return -1, func(int) {}
	}
	return ask, func(got int) {
		if got >= 0 && ask > 0 {
			r.behind.Store(got < ask)
		}
		if mine {
			r.asking.Store(false)
		}
	}
}

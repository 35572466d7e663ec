package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	defaultTimeout = 250 * time.Millisecond
	defaultWait    = 100 * time.Millisecond
)

// Options says which Redis and how: one of URL, Sentinel and Cluster.
type Options struct {
	// URL is redis://user@host:6379/0, rediss:// for TLS, or unix:///path/to/socket?db=0. User, port and database may be missing.
	URL string
	// Sentinel finds the master of a group of servers.
	Sentinel *Sentinel
	// Cluster are some of the nodes of a Redis Cluster, as host:port; without a port, 6379.
	Cluster []string

	// User is the ACL user with Sentinel and Cluster; empty: default. A URL names its own.
	User string
	// Database is the number of the database with Sentinel. A URL names its own, a cluster has none but 0.
	Database int
	// Password returns the user's password. It is asked for each new connection, so that a password may change while we run. Nil: the
	// URL's own, if any.
	Password func() (string, error)
	// TLS is for rediss:// and for Sentinel and Cluster, whose servers, sentinels included, are spoken to in plaintext without it. With
	// rediss:// nil trusts the system's CAs. The expected name is the host of each server's address unless it names another. Nothing
	// older than TLS 1.2 is spoken. See [TLSFiles].
	TLS *tls.Config

	// KeyPrefix begins every key and the channel. Deployments that share a Redis need different ones.
	KeyPrefix string
	// Timeout bounds each command with all that it needs; 0 is 250 ms.
	Timeout time.Duration
	// Wait is what happens after ends, new sessions and new tokens were written.
	Wait Wait
	// PoolSize bounds the connections to each server, beside one for Watch; 0 is 10 for each CPU, at least 20.
	PoolSize int
	// Log is told when the subscription breaks and heals, and when servers change; nil is silent.
	Log *slog.Logger
}

// Sentinel says who knows the master.
type Sentinel struct {
	// Master is the master's name there, such as mymaster.
	Master string
	// Addresses are the sentinels' host:port; without a port, 26379.
	Addresses []string
	// User and Password are for the sentinels themselves; Password as in [Options].
	User     string
	Password func() (string, error)
}

// Wait asks replicas whether they have a write before it counts as done, so that a failover right after it does not lose it. That a
// replica did not answer in time is no failure of the write. Where no replica is connected nobody is asked.
type Wait struct {
	// Replicas is how many must have it, or as many as are connected; 0 asks none.
	Replicas int
	// Timeout is what the answer may take, beside [Options.Timeout]; 0 is 100 ms.
	Timeout time.Duration
}

// New makes a store. It connects when it is first used.
func New(o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Wait.Timeout == 0 {
		o.Wait.Timeout = defaultWait
	}
	if o.PoolSize == 0 {
		o.PoolSize = max(20, 10*runtime.GOMAXPROCS(0))
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	closed := make(chan struct{})
	s := &Store{
		prefix:  o.KeyPrefix,
		timeout: o.Timeout,
		wait:    o.Wait,
		cluster: o.Cluster != nil,
		log:     o.Log,
		secrets: new(secrets),
		closed:  closed,
		close:   sync.OnceFunc(func() { close(closed) }),
	}
	c := connector{timeout: o.Timeout, wait: o.Wait.Timeout, poolSize: o.PoolSize}
	s.servers = newServers(o.Timeout, o.Log, func(address string) *node { return c.connect(address) })
	switch {
	case o.Sentinel != nil:
		c.tls, c.db, c.mustBeMaster = o.TLS, o.Database, true
		c.credentials = s.secrets.credentials(o.User, o.Password)
		sentinels := newSentinels(*o.Sentinel, c, s.secrets)
		s.servers.find, s.servers.finally = sentinels.find, sentinels.close
	case o.Cluster != nil:
		c.tls = o.TLS
		c.credentials = s.secrets.credentials(o.User, o.Password)
		s.servers.find = s.servers.askCluster(withPort(o.Cluster, "6379"))
		s.servers.keep = time.Minute
	default:
		t, err := parseURL(o.URL)
		if err != nil {
			return nil, err
		}
		if o.Password == nil {
			o.Password = func() (string, error) { return t.password, nil }
		}
		c.network, c.db = t.network, t.db
		if c.tls = t.tls; o.TLS != nil {
			c.tls = o.TLS
		}
		c.credentials = s.secrets.credentials(t.user, o.Password)
		s.servers.set(layout{spans: []span{{last: lastSlot, address: t.address}}})
	}
	return s, nil
}

// check finds contradictions. Its errors never show the URL.
func (o Options) check() error {
	if o.Wait.Timeout > 0 && o.Wait.Timeout < time.Millisecond {
		return errors.New("redis: less than a millisecond to wait would be for ever to redis")
	}
	if o.Timeout < 0 || o.PoolSize < 0 || o.Wait.Timeout < 0 || o.Wait.Replicas < 0 || o.Database < 0 {
		return errors.New("redis: timeouts, pool size, replicas and database cannot be negative")
	}
	if o.URL != "" && (o.Sentinel != nil || o.Cluster != nil) || o.Sentinel != nil && o.Cluster != nil {
		return errors.New("redis: give one of url, sentinel and cluster")
	}
	if o.Sentinel != nil || o.Cluster != nil {
		switch {
		case o.Sentinel != nil && (o.Sentinel.Master == "" || len(o.Sentinel.Addresses) == 0):
			return errors.New("redis sentinel: needs the master's name and addresses")
		case o.Sentinel != nil && o.Sentinel.User != "" && o.Sentinel.Password == nil:
			return errors.New("redis sentinel: names a user, but there is no password")
		case o.Cluster != nil && len(o.Cluster) == 0:
			return errors.New("redis cluster: needs addresses")
		case o.Cluster != nil && o.Database != 0:
			return errors.New("redis cluster: has no database but 0")
		case o.User != "" && o.Password == nil:
			return errors.New("redis: names a user, but there is no password")
		}
		return nil
	}
	t, err := parseURL(o.URL)
	switch {
	case err != nil:
		return err
	case t.password != "" && o.Password != nil:
		return errors.New("redis url: password is given twice, in the url and beside it")
	case t.user != "" && t.password == "" && o.Password == nil:
		return errors.New("redis url: names a user, but there is no password")
	case o.User != "" || o.Database != 0:
		return errors.New("redis url: user and database belong into the url")
	case t.tls == nil && o.TLS != nil:
		return errors.New("redis url: TLS is configured but the url does not begin with rediss://")
	}
	return nil
}

// withPort is addresses with a port where there is none.
func withPort(addresses []string, port string) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), port)
		}
		out[i] = a
	}
	return out
}

// secrets are the passwords last used, to keep them out of errors.
type secrets struct {
	mu   sync.Mutex
	used []string // one for each function of credentials
}

// credentials asks password for each new connection and remembers it.
func (s *secrets) credentials(user string, password func() (string, error)) func(context.Context) (string, string, error) {
	s.used = append(s.used, "")
	i := len(s.used) - 1
	return func(context.Context) (string, string, error) {
		if password == nil {
			return user, "", nil
		}
		p, err := password()
		if err != nil {
			return "", "", fmt.Errorf("read password: %w", err)
		}
		if user != "" && p == "" {
			// go-redis would not authenticate at all and go on as the user "default".
			return "", "", errors.New("password of the redis user is empty")
		}
		s.mu.Lock()
		s.used[i] = p
		s.mu.Unlock()
		return user, p, nil
	}
}

// redact is err, without the passwords that it may show: servers that do not know a command answer with its arguments, and AUTH's are
// the password.
func (s *secrets) redact(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.used {
		if p != "" && strings.Contains(err.Error(), p) {
			err = errors.New(strings.ReplaceAll(err.Error(), p, "[redacted]"))
		}
	}
	return err
}

// LogTo sends what the client library has to say to log at debug level, instead of to standard error. What matters of it comes back
// as errors. It is for the whole process: main calls it, once.
func LogTo(log *slog.Logger) {
	redis.SetLogger(clientLog{log})
}

type clientLog struct{ log *slog.Logger }

func (l clientLog) Printf(ctx context.Context, format string, args ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "redis client", "message", fmt.Sprintf(format, args...))
	}
}

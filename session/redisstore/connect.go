package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	defaultTimeout = 250 * time.Millisecond

	// minDial is the least that a new connection may take. A command does not wait for it longer than its own limit, but the
	// connection that came too late for it serves the next one: else a slow handshake would never succeed.
	minDial = time.Second

	// maxIdle is how long an unused connection is kept: less than the 350 s after which common load balancers forget it silently.
	maxIdle = 3 * time.Minute

	// bufferSize holds most sessions. Each connection has two.
	bufferSize = 16 << 10
)

// Options says which Redis and how.
type Options struct {
	// URL is redis://user@host:6379/0, rediss:// for TLS, or unix:///path/to/socket?db=0. User, port and database may be missing.
	URL string
	// Password returns the password of the URL's user. It is asked for each new connection, so that a password may change while
	// we run. Nil: the URL's own, if any.
	Password func() (string, error)
	// TLS is for rediss:// alone; nil trusts the system's CAs. The server's name is the URL's host unless it names another.
	// Nothing older than TLS 1.2 is spoken. See [TLSConfig].
	TLS *tls.Config
	// KeyPrefix begins every key and the channel. Deployments that share a Redis need different ones.
	KeyPrefix string
	// Timeout bounds each command with all that it needs; 0 is 250 ms.
	Timeout time.Duration
	// PoolSize bounds the connections, beside one for Watch; 0 is 10 for each CPU, at least 20.
	PoolSize int
	// Log is told when the subscription breaks and heals; nil is silent.
	Log *slog.Logger
}

// New makes a store. It connects when it is first used.
func New(o Options) (*Store, error) {
	t, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if t.password != "" && o.Password != nil {
		return nil, errors.New("redis url: password is given twice, in the url and beside it")
	}
	if t.user != "" && t.password == "" && o.Password == nil {
		return nil, errors.New("redis url: names a user, but there is no password")
	}
	if t.tls == nil && o.TLS != nil {
		return nil, errors.New("redis url: TLS is configured but the url does not begin with rediss://")
	}
	if o.Timeout < 0 || o.PoolSize < 0 {
		return nil, errors.New("redis: timeout and pool size cannot be negative")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.PoolSize == 0 {
		o.PoolSize = max(20, 10*runtime.GOMAXPROCS(0))
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TLS != nil {
		t.tls = harden(o.TLS, t.tls.ServerName)
	}

	secret := new(atomic.Pointer[string])
	d := &dialer{target: t, breaks: new(atomic.Int64)}
	client := redis.NewClient(&redis.Options{
		Network: t.network,
		Addr:    t.address,
		DB:      t.db,
		Dialer:  d.dial,
		CredentialsProviderContext: func(context.Context) (string, string, error) {
			password := t.password
			if o.Password != nil {
				var err error
				if password, err = o.Password(); err != nil {
					return "", "", fmt.Errorf("read password: %w", err)
				}
			}
			if t.user != "" && password == "" {
				// go-redis would not authenticate at all and go on as the user "default".
				return "", "", errors.New("password of the redis user is empty")
			}
			secret.Store(&password)
			return t.user, password, nil
		},

		// RESP2: with RESP3 a server may push frames between replies, for features that are not used here. With RESP2 data on a
		// connection that waits in the pool is an error, always, and a reply can never be taken for another command's.
		Protocol: 2,
		// One fewer round trip on connecting, and nothing that an ACL may forbid.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},

		// Without it go-redis ignores the deadline of a context.
		ContextTimeoutEnabled: true,
		ReadTimeout:           o.Timeout,
		WriteTimeout:          o.Timeout,
		PoolTimeout:           o.Timeout,
		DialTimeout:           max(o.Timeout, minDial),
		// Retries are ours (Store.do): go-redis repeats what may have happened, and after time-outs, too.
		MaxRetries:    -1,
		DialerRetries: 1,

		PoolSize:         o.PoolSize,
		MaxActiveConns:   o.PoolSize,
		PipelinePoolSize: -1, // one pool, one bound
		ConnMaxIdleTime:  maxIdle,
		ReadBufferSize:   bufferSize,
		WriteBufferSize:  bufferSize,
	})
	closed := make(chan struct{})
	return &Store{
		client:  client,
		prefix:  o.KeyPrefix,
		timeout: o.Timeout,
		log:     o.Log,
		secret:  secret,
		closed:  closed,
		close:   sync.OnceFunc(func() { close(closed) }),
	}, nil
}

// TLSConfig trusts the CAs of a PEM file, and only them, for a server whose certificate names host; an empty host is the URL's.
func TLSConfig(caFile, host string) (*tls.Config, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read ca: %s holds no PEM certificate", caFile)
	}
	return &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}, nil
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

// target is what a URL says.
type target struct {
	network, address string
	user, password   string
	db               int
	tls              *tls.Config // nil: plaintext
}

// parseURL is stricter than go-redis, whose URLs can set any option. Its errors never quote the URL, which may hold a password.
func parseURL(s string) (target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return target{}, errors.New("redis url: not a url")
	}
	if u.Fragment != "" || u.Opaque != "" {
		return target{}, errors.New("redis url: want redis://user@host:6379/0")
	}
	t := target{user: u.User.Username()}
	t.password, _ = u.User.Password()

	query := u.Query()
	db := strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "redis", "rediss":
		if u.Hostname() == "" {
			return target{}, errors.New("redis url: no host")
		}
		t.network, t.address = "tcp", u.Host
		if u.Port() == "" {
			t.address = net.JoinHostPort(u.Hostname(), "6379")
		}
		if u.Scheme == "rediss" {
			t.tls = harden(&tls.Config{}, u.Hostname())
		}
	case "unix":
		if u.Host != "" || u.Path == "" {
			return target{}, errors.New("redis url: want unix:///path/to/socket")
		}
		t.network, t.address = "unix", u.Path
		db = query.Get("db")
		query.Del("db")
	default:
		return target{}, fmt.Errorf("redis url: scheme %q is not redis, rediss or unix", u.Scheme)
	}
	if len(query) > 0 {
		return target{}, errors.New("redis url: options after ? are not supported")
	}
	if db != "" {
		if t.db, err = strconv.Atoi(db); err != nil || t.db < 0 {
			return target{}, errors.New("redis url: database is not a number")
		}
	}
	return t, nil
}

// harden is a copy of c that speaks nothing older than TLS 1.2 and expects host unless c names another.
func harden(c *tls.Config, host string) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c
}

// dialer makes the connections of one store.
type dialer struct {
	target target
	// breaks counts the connections that broke in use.
	breaks *atomic.Int64
}

// noDial is the key of a context under which nothing is dialed.
type noDial struct{}

// withoutDial is ctx for calls that must fail when their connection is gone, where go-redis would make another behind our back.
func withoutDial(ctx context.Context) context.Context {
	return context.WithValue(ctx, noDial{}, true)
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(noDial{}) != nil {
		return nil, errors.New("connection is gone")
	}
	raw, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, raw: raw, breaks: d.breaks}
	c.proven.Store(d.breaks.Load())
	if d.target.tls != nil {
		secure := tls.Client(raw, d.target.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS handshake with redis: %w", err)
		}
		c.Conn = secure
	}
	return c, nil
}

// conn is a connection that helps the pool to tell whether it is still alive. Before go-redis uses a pooled connection it peeks at
// the socket through SyscallConn. It cannot do so through TLS; here it can. And a connection that was last heard of before another
// one broke is reported dead: when Redis or something between went away without a word, no request has to find out for each pooled
// connection in turn.
type conn struct {
	net.Conn
	raw    net.Conn
	breaks *atomic.Int64 // of all connections of the store
	proven atomic.Int64  // breaks, when this one was last heard of
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.learn(n, err)
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.learn(0, err)
	return n, err
}

func (c *conn) learn(n int, err error) {
	if n > 0 {
		c.proven.Store(c.breaks.Load())
	}
	if isBroken(err) {
		c.breaks.Add(1)
	}
}

// SyscallConn implements [syscall.Conn] for the health check of the pool.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if c.proven.Load() != c.breaks.Load() {
		return nil, errors.New("another connection broke since this one was heard of")
	}
	sys, ok := c.raw.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection has no socket")
	}
	return sys.SyscallConn()
}

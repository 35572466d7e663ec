// Package redistest runs real redis-servers for tests and benchmarks, and does to them what happens to servers: stopped, killed,
// restarted, frozen, cut off. Each test has its own, on free loopback ports or a unix socket; they end with the test.
//
// [Start] runs one server, [StartSentinel] a master with replicas and sentinels, [StartCluster] a Redis Cluster. A [Proxy] is the network
// before a server, and breaks the way networks do; with Options.Proxied each server of any shape stands behind one.
//
// A machine without redis-server fails the test and is told the line that installs it. Nothing is skipped.
package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// startLimit is how long a server may take to answer, on a machine that is busy with everyone's tests.
const startLimit = 20 * time.Second

// Options says what the server is like. The zero value is a server on a loopback port that keeps its data over restarts.
type Options struct {
	// Unix serves on a socket instead of a port.
	Unix bool
	// TLS serves TLS alone, with a certificate for 127.0.0.1 and localhost from a CA of its own (see [Server.CAFile]).
	TLS bool
	// Password is the password of the user default.
	Password string
	// Forgetful keeps nothing on disk: faster, and empty after a restart. For benchmarks.
	Forgetful bool
	// ClientCert is with TLS: the server accepts only connections with a client certificate of its CA (see [Server.CertFile]).
	ClientCert bool
	// Proxied puts a [Proxy] before the server: Address and URL are the proxy's, and in Sentinel and Cluster that is what the servers
	// tell of themselves, so that all connections but those of Client go through it. Another one stands before the bus of a cluster's node.
	Proxied bool
	// Args are more arguments, such as "--databases", "1".
	Args []string

	certificates string // a directory with certificates, shared by servers; empty: made
	sentinel     string // the first configuration of a sentinel; empty: an ordinary server
	cluster      bool
	master       string // host:port of whom it replicates
}

// Server is a running redis-server, or one that was stopped.
type Server struct {
	// CAFile is the PEM file of the CA that signed the server's certificate; empty without TLS.
	CAFile string
	// CertFile and KeyFile are with TLS a certificate of that CA, good for the server and for clients.
	CertFile, KeyFile string
	// Proxy stands before the server with Options.Proxied; else nil.
	Proxy *Proxy
	// Bus stands before the bus of a cluster's node with Options.Proxied: what other nodes tell this one goes through it.
	Bus *Proxy

	t       testing.TB
	o       Options
	dir     string
	bind    string // host:port, or the socket's path, where the server itself listens
	busPort string // of a cluster's node, where it listens itself
	client  *redis.Client
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
}

// Start runs a server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not installed; run: sudo apt-get install --yes redis-server")
	}
	// Not t.TempDir: its long path does not fit into a socket's address.
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, o: o, dir: dir}
	t.Cleanup(func() {
		s.Kill()
		if s.client != nil {
			s.client.Close()
		}
		os.RemoveAll(dir)
	})
	if o.TLS {
		if o.certificates == "" {
			o.certificates = dir
			if err := writeCertificates(dir); err != nil {
				t.Fatalf("make certificates: %v", err)
			}
		}
		s.CAFile = filepath.Join(o.certificates, "ca.pem")
		s.CertFile, s.KeyFile = filepath.Join(o.certificates, "cert.pem"), filepath.Join(o.certificates, "key.pem")
	}
	if o.Proxied {
		s.Proxy = NewProxy(t, "")
	}
	// Somebody may take the free port before the server does.
	for try := 1; ; try++ {
		s.bind = s.freeAddress()
		if o.cluster {
			bus := s.freeAddress()
			_, s.busPort, _ = net.SplitHostPort(bus)
			if o.Proxied {
				s.Bus = NewProxy(t, bus)
			}
		}
		if s.Proxy != nil {
			s.Proxy.Redirect(s.bind)
		}
		err := s.run()
		if err == nil {
			break
		}
		s.Kill()
		if try == 5 {
			t.Fatalf("start redis-server: %v", err)
		}
	}
	return s
}

// URL is where the server is, with the password if it has one.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Address(), Path: "/0"}
	switch {
	case s.o.Unix:
		u = url.URL{Scheme: "unix", Path: s.bind}
	case s.o.TLS:
		u.Scheme = "rediss"
	}
	if s.o.Password != "" {
		u.User = url.UserPassword("default", s.o.Password)
	}
	return u.String()
}

// Address is the server's host:port, or its proxy's, or the path of its socket.
func (s *Server) Address() string {
	if s.Proxy != nil {
		return s.Proxy.Address()
	}
	return s.bind
}

// Running tells whether the server was started and not stopped since.
func (s *Server) Running() bool { return s.cmd != nil }

// Client is a plain client for looking at the server's data and changing its settings. Every start of the server makes another.
func (s *Server) Client() *redis.Client { return s.client }

// Stop ends the server in good order and waits for it.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once and waits for it. To kill one that does not run is no error.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Restart stops the server, if it runs, and starts it at the same address.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Start starts a stopped server at the same address.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart redis-server: %v", err)
	}
}

// Pause freezes the server: connections stay and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a frozen server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v to redis-server: %v", sig, err)
	}
}

func (s *Server) end(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGCONT) // a frozen process would not see SIGTERM
	s.cmd.Process.Signal(sig)
	<-s.exited
	s.cmd = nil
}

// run starts the server and waits until it answers.
func (s *Server) run() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("redis-server", s.args()...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited

	if s.client != nil {
		s.client.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			out, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it ended at once:\n%s", out)
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// answers makes a new client if the server answers it. A bare connection first: clients print it when they cannot connect.
func (s *Server) answers(ctx context.Context) error {
	network := "tcp"
	if s.o.Unix {
		network = "unix"
	}
	c, err := net.DialTimeout(network, s.bind, time.Second)
	if err != nil {
		return err
	}
	c.Close()
	if s.client, err = s.newClient(); err != nil {
		return err
	}
	if err := s.client.Ping(ctx).Err(); err != nil {
		s.client.Close()
		return err
	}
	return nil
}

func (s *Server) args() []string {
	var args []string
	if s.o.sentinel != "" {
		args = []string{s.sentinelFile(), "--sentinel"}
	}
	args = append(args, "--dir", s.dir, "--daemonize", "no", "--bind", "127.0.0.1", "--port", "0")
	_, port, _ := net.SplitHostPort(s.bind)
	switch {
	case s.o.Unix:
		args = append(args, "--unixsocket", s.bind)
	case s.o.TLS:
		clients := "no"
		if s.o.ClientCert {
			clients = "yes"
		}
		args = append(args, "--tls-port", port, "--tls-auth-clients", clients, "--tls-replication", "yes",
			"--tls-cert-file", s.CertFile, "--tls-key-file", s.KeyFile, "--tls-ca-cert-file", s.CAFile)
	default:
		args = append(args, "--port", port)
	}
	if s.o.Password != "" {
		args = append(args, "--requirepass", s.o.Password)
	}
	if s.o.sentinel != "" {
		return append(args, s.o.Args...)
	}
	args = append(args, "--save", "", "--repl-diskless-sync-delay", "0") // replicas need not wait for each other
	if s.o.Password != "" {
		args = append(args, "--masterauth", s.o.Password)
	}
	if s.o.cluster {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", s.busPort, "--cluster-announce-bus-port", s.announcedBusPort())
	}
	if host, port, ok := strings.Cut(s.o.master, ":"); ok {
		args = append(args, "--replicaof", host, port)
	}
	if s.Proxy != nil && !s.o.Unix {
		_, announced, _ := net.SplitHostPort(s.Proxy.Address())
		args = append(args, "--replica-announce-ip", "127.0.0.1", "--replica-announce-port", announced)
		if s.o.cluster {
			what := "--cluster-announce-port"
			if s.o.TLS {
				what = "--cluster-announce-tls-port"
			}
			args = append(args, what, announced)
		}
	}
	if s.o.cluster && s.o.TLS {
		args = append(args, "--tls-cluster", "yes")
	}
	if !s.o.Forgetful {
		args = append(args, "--appendonly", "yes", "--appendfsync", "no") // a kill -9 loses nothing that the kernel has
	}
	return append(args, s.o.Args...)
}

// announcedBusPort is where other nodes are to connect.
func (s *Server) announcedBusPort() string {
	if s.Bus == nil {
		return s.busPort
	}
	_, port, _ := net.SplitHostPort(s.Bus.Address())
	return port
}

func (s *Server) newClient() (*redis.Client, error) {
	o := &redis.Options{
		Network:                  "tcp",
		Addr:                     s.bind,
		Password:                 s.o.Password,
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               -1,
		DialerRetries:            1,
		ContextTimeoutEnabled:    true,
	}
	if s.o.Unix {
		o.Network = "unix"
	}
	if s.o.TLS {
		pool, err := readPool(s.CAFile)
		if err != nil {
			return nil, err
		}
		o.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		if s.o.ClientCert {
			pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
			if err != nil {
				return nil, err
			}
			o.TLSConfig.Certificates = []tls.Certificate{pair}
		}
	}
	return redis.NewClient(o), nil
}

// freeAddress is where nobody listens at the moment.
func (s *Server) freeAddress() string {
	if s.o.Unix {
		return filepath.Join(s.dir, "socket")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Dump is every key and value of the server as text and as Redis serializes it, to search for what must not be there.
func (s *Server) Dump() string {
	s.t.Helper()
	var out strings.Builder
	ctx := context.Background()
	keys, err := s.client.Keys(ctx, "*").Result()
	if err != nil {
		s.t.Fatalf("dump redis: %v", err)
	}
	for _, key := range keys {
		out.WriteString(key + "\n")
		raw, err := s.client.Dump(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			s.t.Fatalf("dump redis: %v", err)
		}
		out.WriteString(raw + "\n")
		// DUMP may compress; the plain commands do not.
		switch kind := s.client.Type(ctx, key).Val(); kind {
		case "string":
			out.WriteString(s.client.Get(ctx, key).Val() + "\n")
		case "zset":
			out.WriteString(strings.Join(s.client.ZRange(ctx, key, 0, -1).Val(), "\n") + "\n")
		case "none": // expired meanwhile
		default:
			s.t.Fatalf("dump redis: %s is a %s", key, kind)
		}
	}
	return out.String()
}

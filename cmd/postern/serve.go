package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	goversion "go/version"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"postern/config"
	"postern/proxy"
	"postern/proxy/metrics"
	"postern/proxy/tracing"
	"postern/session"
	"postern/session/memstore"
	"postern/session/redisstore"
)

// Limits of the listeners. Bodies have none: they stream, and an upload may take hours.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 256 << 10        // proxy refuses more than 64 KiB, with a page
	closeTimeout      = 10 * time.Second // for refreshes under way, after shutdown_timeout
)

// serve runs Postern until ctx ends, then drains. Meanwhile it takes the configuration anew when its files change, and at SIGHUP.
//
// Flow of the end: not ready → drain_delay → stop accepting, end streams spread over what is left → running requests finish within
// shutdown_timeout → refreshes under way are stored → exit.
func serve(ctx context.Context, o *options) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	files := look(o.config)
	cfg, err := load(o)
	if err != nil {
		return err
	}
	maps.Copy(files, look(cfg.Files()...))
	problems := cfg.CheckFiles()
	if errs := problems.Errors(); len(errs) > 0 {
		return errs
	}
	level, m := new(slog.LevelVar), metrics.New(version)
	log, closeLog := newLogger(os.Stderr, cfg.Server.Log, level, m)
	defer closeLog()
	warn(log, cfg, problems)
	warnOfGo(log)
	store, err := openStore(cfg, log)
	if err != nil {
		return err
	}
	defer store.Close()
	countStore(m, store)
	audit, closeAudit, err := openAudit(cfg.Server.Audit, log)
	if err != nil {
		return err
	}
	defer closeAudit()
	tracer := newTracer(cfg.Server.Tracing, log)
	defer tracer.Close()
	env := proxy.Env{Store: store, Log: log, Audit: audit, Metrics: m, Tracer: tracer}
	first, err := newGeneration(cfg, env, nil)
	if err != nil {
		return err
	}
	all := newGenerations(first, log)
	s, err := listen(cfg, all, m, log)
	if err != nil {
		first.stop()
		return err
	}
	failed := s.serve()
	first.proxy.Listening()
	collectLess()
	log.Info("serving", "version", version, "listen", s.public.addr(), "admin_listen", s.admin.addr(), "config", o.config)
	notify("READY=1")
	debug.FreeOSMemory() // what reading the configuration and compiling its rules took
	r := &reloader{o: o, env: env, level: level, all: all, cfg: cfg, watcher: watcher{seen: files}, taken: files}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for serving := true; serving; {
		select {
		case <-hangup:
			r.reload()
		case <-tick.C:
			if r.changed() {
				r.reload()
			}
		case err = <-failed:
			log.Error("listener failed", "error", err)
			serving = false
		case <-ctx.Done():
			serving = false
		}
	}
	notify("STOPPING=1")
	return errors.Join(err, drain(all, s, log))
}

// drain ends serving without losing anything that runs.
func drain(all *generations, s *servers, log *slog.Logger) error {
	current := all.current.Load()
	c := current.server
	log.Info("draining", "drain_delay", c.DrainDelay.String(), "shutdown_timeout", c.ShutdownTimeout.String())
	current.proxy.Drain()
	time.Sleep(c.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), c.ShutdownTimeout)
	defer cancel()
	var ending sync.WaitGroup
	ending.Go(func() {
		// Streams end before the time is up, so that their last bytes still go out.
		streams, cancel := context.WithTimeout(ctx, c.ShutdownTimeout*8/10)
		defer cancel()
		all.drainStreams(streams)
	})
	err := s.shutdown(ctx)
	ending.Wait()
	// Whatever requests took: a refresh under way holds a token that exists nowhere else.
	closing, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err = errors.Join(err, all.close(closing))
	if err != nil {
		log.Warn("stopped before everything had finished", "error", err)
		return nil // the time was used up as configured: that is no failure of the process
	}
	log.Info("stopped")
	return nil
}

// newTracer makes what sends spans to a collector; nil without server.tracing.
func newTracer(c *config.Tracing, log *slog.Logger) *tracing.Tracer {
	if c == nil {
		return nil
	}
	return tracing.New(tracing.Options{Endpoint: c.Endpoint, Sample: c.Sample, Version: version, Log: log})
}

// warn says once what an operator should know of a configuration, and of its files.
func warn(log *slog.Logger, cfg *config.Config, files config.Problems) {
	for _, p := range append(slices.Clip(cfg.Warnings), files.Warnings()...) {
		log.Warn("configuration", "problem", p.String())
	}
	if !cfg.Secure() {
		log.Warn("the public origin is plain http: cookies are not Secure; use this for trying out only")
	}
}

func warnOfGo(log *slog.Logger) {
	if v := runtime.Version(); goversion.Compare(v, "go1.26.9") < 0 || goversion.Lang(v) == "go1.27" && goversion.Compare(v, "go1.27.2") < 0 {
		log.Warn("built with a Go whose net/http has known request smuggling; Postern refuses CONNECT itself, rebuild all the same", "go", v)
	}
}

// openStore makes the session store. It opens no connection: Redis may come up later.
func openStore(cfg *config.Config, log *slog.Logger) (session.Store, error) {
	r := cfg.Session.Store.Redis
	if r == nil {
		return memstore.New(memstore.Options{}), nil
	}
	redisstore.LogTo(log)
	o := redisstore.Options{
		User:      r.Username,
		Database:  r.Database,
		KeyPrefix: r.KeyPrefix,
		Timeout:   r.Timeout,
		Wait:      redisstore.Wait{Replicas: r.Wait.Replicas, Timeout: r.Wait.Timeout},
		Log:       log,
	}
	if !r.Password.IsZero() {
		o.Password = r.Password.Value
	}
	speaksTLS := r.TLS
	switch {
	case r.Sentinel != nil:
		o.Sentinel = &redisstore.Sentinel{Master: r.Sentinel.Master, Addresses: r.Sentinel.Addresses, User: r.Sentinel.Username}
		if !r.Sentinel.Password.IsZero() {
			o.Sentinel.Password = r.Sentinel.Password.Value
		}
	case r.Cluster != nil:
		o.Cluster = r.Cluster.Addresses
	default:
		o.URL = r.URL.String()
		speaksTLS = r.URL.Scheme == "rediss"
	}
	if speaksTLS {
		t, err := redisstore.TLSFiles{CAFile: r.CAFile, CertFile: r.CertFile, KeyFile: r.KeyFile, ServerName: r.ServerName}.Config()
		if err != nil {
			return nil, fmt.Errorf("session.store.redis: %w", err)
		}
		o.TLS = t
	}
	return redisstore.New(o)
}

// countStore counts what a store knows of itself, if it does.
func countStore(m *metrics.Metrics, store session.Store) {
	if r, ok := store.(*redisstore.Store); ok {
		m.StoreStatus(func() (string, uint64) {
			status := r.Status()
			return status.Breaker, status.Unconfirmed
		})
	}
}

// server is one listener with what it serves.
type server struct {
	http     *http.Server
	listener net.Listener
}

func (s *server) addr() string { return s.listener.Addr().String() }

// limit bounds the connections of one client.
func (s *server) limit(all *generations, m *metrics.Metrics) {
	s.listener = limitPerClient(s.listener, func() connectionLimits {
		c := all.current.Load().server
		return connectionLimits{c.MaxConnectionsPerClient, c.TrustedProxies}
	}, m)
}

// servers are all listeners of the process; redirect may be nil.
type servers struct {
	public, admin, redirect *server
}

func (s *servers) all() []*server {
	all := []*server{s.public, s.admin}
	if s.redirect != nil {
		all = append(all, s.redirect)
	}
	return all
}

// listen opens every listener, or none, and takes those that systemd has opened (socket activation): they have the names of the keys in server that
// they stand for. Each serves the current generation.
func listen(cfg *config.Config, all *generations, m *metrics.Metrics, log *slog.Logger) (_ *servers, err error) {
	s := &servers{}
	opened, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	defer func() {
		if err != nil {
			for _, one := range s.all() {
				if one != nil {
					one.listener.Close()
				}
			}
		}
	}()
	given := func(key string) net.Listener {
		if l := opened[key]; len(l) > 0 {
			opened[key] = l[1:]
			return l[0]
		}
		return nil
	}
	public := all.handler(func(g *generation) http.Handler { return g.proxy })
	if s.public, err = open(given("listen"), cfg.Server.Listen, public, all.listenerTLS(func(g *generation) *tls.Config { return g.tls }), log); err != nil {
		return nil, fmt.Errorf("server.listen: %w", err)
	}
	s.public.limit(all, m)
	admin := all.handler(func(g *generation) http.Handler { return g.proxy.Admin() })
	if s.admin, err = open(given("admin_listen"), cfg.Server.AdminListen, admin, all.listenerTLS(func(g *generation) *tls.Config { return g.adminTLS }), log); err != nil {
		return nil, fmt.Errorf("server.admin_listen: %w", err)
	}
	if cfg.Server.RedirectListen != "" {
		redirect := all.handler(func(g *generation) http.Handler { return g.redirect })
		if s.redirect, err = open(given("redirect_listen"), cfg.Server.RedirectListen, redirect, nil, log); err != nil {
			return nil, fmt.Errorf("server.redirect_listen: %w", err)
		}
		s.redirect.limit(all, m)
	}
	for name, left := range opened {
		if len(left) > 0 { // it would take connections that nobody answers
			return nil, fmt.Errorf("the socket %q of systemd is none that this configuration has; FileDescriptorName must be listen, admin_listen or redirect_listen, each once", name)
		}
	}
	return s, nil
}

// open opens a listener at address, unless l is that already.
func open(l net.Listener, address string, h http.Handler, t *tls.Config, log *slog.Logger) (_ *server, err error) {
	if l == nil {
		if l, err = net.Listen("tcp", address); err != nil {
			return nil, err
		}
	}
	return &server{listener: l, http: &http.Server{
		Handler:           h,
		TLSConfig:         t,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 250,
			PingTimeout:          15 * time.Second,
			SendPingTimeout:      30 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers' connections do wrong is no news
	}}, nil
}

// serve starts every listener; the channel gets the first that fails.
func (s *servers) serve() <-chan error {
	failed := make(chan error, len(s.all()))
	for _, one := range s.all() {
		go func() { // ends with shutdown
			var err error
			if one.http.TLSConfig != nil {
				err = one.http.ServeTLS(one.listener, "", "")
			} else {
				err = one.http.Serve(one.listener)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	return failed
}

// shutdown stops accepting and waits for running requests; the admin listener goes last. What is left when ctx ends is cut.
func (s *servers) shutdown(ctx context.Context) error {
	var errs []error
	for _, one := range []*server{s.public, s.redirect, s.admin} {
		if one == nil {
			continue
		}
		if err := one.http.Shutdown(ctx); err != nil {
			errs = append(errs, err)
			one.http.Close()
		}
	}
	return errors.Join(errs...)
}

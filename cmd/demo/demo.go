package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"postern/config"
	"postern/proxy"
	"postern/proxy/idp/idptest"
	"postern/session/memstore"
)

const (
	readyTimeout    = 10 * time.Second
	shutdownTimeout = 5 * time.Second
)

//go:embed postern.yaml
var posternYAML []byte

// demo is the three servers of one process.
type demo struct {
	url, issuer, appURL string
	failed              chan error // a server that ended by itself

	provider        *idptest.Server
	proxy           *proxy.Proxy
	store           *memstore.Store
	idp, app, front *http.Server
	endRun          context.CancelFunc // ends proxy.Run and what people opened past Postern
	runEnded        chan struct{}
}

// start brings everything up: provider and application first, then Postern, until sign-in works.
func start(ctx context.Context, o options, out io.Writer, log *slog.Logger) (d *demo, err error) {
	var listeners []net.Listener
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	for _, one := range []struct{ what, address string }{{"provider", o.provider}, {"application", o.app}, {"Postern", o.listen}} {
		l, err := listen(one.what, one.address, out)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	d = &demo{
		issuer:   "http://" + listeners[0].Addr().String(),
		appURL:   "http://" + listeners[1].Addr().String(),
		url:      "http://" + listeners[2].Addr().String(),
		store:    memstore.New(memstore.Options{}),
		failed:   make(chan error, len(listeners)),
		runEnded: make(chan struct{}),
	}
	d.provider = newProvider(d.issuer, d.url, o.tokenLife, log.With("part", "provider"))
	cfg, err := d.config(listeners[2].Addr().String())
	if err != nil {
		return nil, err
	}
	if d.proxy, err = proxy.New(cfg, proxy.Env{Store: d.store, Log: log.With("part", "postern")}); err != nil {
		return nil, err
	}
	work, endRun := context.WithCancel(context.WithoutCancel(ctx))
	d.endRun = endRun
	d.idp = d.serve(work, listeners[0], d.provider, log)
	d.app = d.serve(work, listeners[1], newApp(log.With("part", "application")), log)
	d.front = d.serve(context.WithoutCancel(ctx), listeners[2], d.proxy, log)
	go func() { // ends with stop
		defer close(d.runEnded)
		_ = d.proxy.Run(work)
	}()
	d.proxy.Listening()
	if err := d.ready(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// config is postern.yaml with the addresses of this run.
func (d *demo) config(listen string) (*config.Config, error) {
	values := map[string]string{
		"LISTEN": listen, "PUBLIC_URL": d.url, "ISSUER": d.issuer, "APP": d.appURL, "CLIENT_ID": clientID, "CLIENT_SECRET": clientSecret,
	}
	return config.Parse("postern.yaml", posternYAML, config.LoadOptions{LookupEnv: func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	}})
}

// serve starts one server; ctx is that of its requests.
func (d *demo) serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() { // ends with stop
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.failed <- err
		}
	}()
	return srv
}

// ready waits until Postern has found the provider, so that the first click works.
func (d *demo) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := httptest.NewRecorder()
		d.proxy.Admin().ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil))
		if answer.Code == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for Postern to find the provider: %w: %s", ctx.Err(), answer.Body)
		case <-tick.C:
		}
	}
}

// stop ends everything in the order in which Postern itself would: streams are ended, requests finish, refreshes are stored. Then what
// stood behind it goes.
func (d *demo) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	d.proxy.Drain()
	streams, cancelStreams := context.WithTimeout(ctx, time.Second)
	defer cancelStreams()
	d.proxy.EndStreams(streams)
	shutdown(ctx, d.front)
	// Refreshes get a time of their own: a connection that a browser opened ahead and never used may have taken all of the other.
	closing, cancelClosing := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancelClosing()
	err := d.proxy.Close(closing)
	d.endRun()
	<-d.runEnded
	shutdown(ctx, d.app)
	d.provider.Close()
	shutdown(ctx, d.idp)
	return errors.Join(err, d.store.Close())
}

// shutdown ends one server. A connection that somebody holds open does not keep the demo from ending.
func shutdown(ctx context.Context, srv *http.Server) {
	if srv.Shutdown(ctx) != nil {
		srv.Close()
	}
}

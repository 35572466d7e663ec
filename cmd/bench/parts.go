package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"postern/proxy/idp/idptest"
)

// Paths of the application.
const (
	plainPath  = "/plain"  // for whoever asks
	signedPath = "/signed" // as through Postern: a bearer token, a user, and no cookie of ours
)

// What Postern is to the provider, and what it gets.
const (
	providerName    = "corp"
	clientID        = "bench"
	clientSecret    = "secret"
	accessTokenSize = 1193
	tokenLife       = time.Hour
)

// page is the 1 KiB that the application answers.
var page = strings.Repeat("0123456789abcdef0123456789abcde\n", 32)

// serveUpstream is the application.
func serveUpstream(ctx context.Context, _ []string) error {
	return serve(ctx, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		if r.URL.Path == signedPath &&
			(len(h.Get("Authorization")) < 1000 || h.Get("X-Forwarded-User") != "alice" || strings.Contains(h.Get("Cookie"), "postern")) {
			http.Error(w, "not signed in", http.StatusForbidden)
			return
		}
		w.Header()["Content-Type"] = []string{"text/plain; charset=utf-8"}
		_, _ = io.WriteString(w, page) // a client that left is no matter of the measurement
	}))
}

// serveBare is the yardstick: nothing but httputil.ReverseProxy, with a Transport and buffers as good as they get.
func serveBare(ctx context.Context, args []string) error {
	target, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	return serve(ctx, "127.0.0.1:0", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			MaxIdleConns:        4096,
			MaxIdleConnsPerHost: 1024,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		BufferPool: new(buffers),
	})
}

// buffers is a pool of the size that httputil.ReverseProxy copies with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return p[:]
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }

// serveProvider is the identity provider, with access tokens as large as real ones.
func serveProvider(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("provider", flag.ContinueOnError)
	addr := flags.String("listen", "", "address")
	callbacks := flags.String("callbacks", "", "redirect URIs, by comma")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p, err := idptest.Start(*addr, idptest.Options{JWTAccessTokens: true, AccessTokenSize: accessTokenSize})
	if err != nil {
		return err
	}
	defer p.Close()
	p.SetTokenTTL(tokenLife)
	p.AddClient(idptest.Client{ID: clientID, Secret: clientSecret, RedirectURIs: strings.Split(*callbacks, ",")})
	p.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{
		"name": "Alice Liddell", "email": "alice@example.com", "email_verified": true, "preferred_username": "alice",
		"groups": []string{"wiki-users", "admins"},
	}})
	fmt.Println(p.URL)
	<-ctx.Done()
	return nil
}

// serve answers on addr until ctx ends, and prints the address.
func serve(ctx context.Context, addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	fmt.Println("http://" + l.Addr().String())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

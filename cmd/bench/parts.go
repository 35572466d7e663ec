package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"postern/proxy/idp/idptest"
)

// What Postern is to the provider, and what it gets.
const (
	providerName    = "corp"
	clientID        = "bench"
	clientSecret    = "secret"
	callbackPath    = "/oauth2/callback"
	user            = "alice"
	accessTokenSize = 1193
	tokenLife       = time.Hour
)

// parts are the processes that bench starts of itself. A part that serves prints where.
var parts = map[string]func(context.Context, []string) error{
	"app":      serveApp,
	"bare":     serveBare,
	"provider": serveProvider,
	"load":     sendLoad,
}

// serveBare is the yardstick: nothing but httputil.ReverseProxy, with a Transport and buffers as good as they get.
func serveBare(ctx context.Context, args []string) error {
	target := &url.URL{Scheme: "http", Host: args[0]}
	return serve(ctx, &httputil.ReverseProxy{
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
	callbacks := flags.String("callbacks", "", "redirect URIs, by comma")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p, err := idptest.Start("127.0.0.1:0", idptest.Options{JWTAccessTokens: true, AccessTokenSize: accessTokenSize})
	if err != nil {
		return err
	}
	defer p.Close()
	p.SetTokenTTL(tokenLife)
	p.AddClient(idptest.Client{ID: clientID, Secret: clientSecret, RedirectURIs: strings.Split(*callbacks, ",")})
	p.AddUser(idptest.User{Sub: user, Claims: map[string]any{
		"name": "Alice Liddell", "email": "alice@example.com", "email_verified": true, "preferred_username": user,
		"groups": []string{"wiki-users", "admins"},
	}})
	fmt.Println(p.URL)
	<-ctx.Done()
	return nil
}

// serve answers on a free port until ctx ends.
func serve(ctx context.Context, h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	fmt.Println(l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

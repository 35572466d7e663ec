package doctor

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// standIn listens in Postern's place while it does not run, and notes the requests of the doctor alone. All others get 503. A nil one saw nothing.
type standIn struct {
	http *http.Server
	runs sync.WaitGroup

	mu   sync.Mutex
	seen map[string]*http.Request // by the token that is waited for; nil until it came
}

// standIn opens server.listen; nil where that cannot be.
func (o Options) standIn(ctx context.Context) *standIn {
	on, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Config.Server.Listen)
	if err != nil {
		return nil
	}
	s := &standIn{seen: map[string]*http.Request{}}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	if t := o.Config.Server.TLS; t != nil {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			_ = on.Close()
			return nil
		}
		on = tls.NewListener(on, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}})
	}
	s.runs.Go(func() { _ = s.http.Serve(on) })
	return s
}

// expect makes the request with a token be noted.
func (s *standIn) expect(token string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[token] = nil
}

// ServeHTTP notes a request and answers with its token.
func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("doctor")
	s.mu.Lock()
	_, known := s.seen[token]
	if known {
		s.seen[token] = r
	}
	s.mu.Unlock()
	w.Header().Set("Cache-Control", "no-store")
	if !known {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "Postern is not running", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, token)
}

// request is the one that came with a token; nil: none.
func (s *standIn) request(token string) *http.Request {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[token]
}

func (s *standIn) close() {
	if s != nil {
		_ = s.http.Close()
		s.runs.Wait()
	}
}

// forwarded looks at what a proxy before Postern made of a request: what it says of the browser, and whether Postern will believe that.
func (o Options) forwarded(l *list, origin *url.URL, r *http.Request) {
	h := r.Header
	proto, host, client := last(h, "X-Forwarded-Proto"), last(h, "X-Forwarded-Host"), last(h, "X-Forwarded-For")
	older := proto != "" || host != "" || client != "" || last(h, "X-Forwarded-Port") != "" // where one of these is there, Forwarded is not believed
	if standard := strings.ToLower(strings.ReplaceAll(strings.Join(h["Forwarded"], ","), `"`, "")); !older && strings.Contains(standard, "proto=https") {
		proto = "https"
	}
	says := older || len(h["Forwarded"]) > 0
	if !says && (origin.Scheme == "http" || r.TLS != nil) {
		l.pass("public.forwarded", "no proxy stands before Postern")
		return
	}
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	who := peer.Addr().Unmap()
	trusted := o.trusts(who)
	seen := r.Host
	if trusted && host != "" {
		seen = host
	}
	const check = "public.forwarded"
	mend := "server.trusted_proxies: [" + who.String() + "], or the network that the proxy is in"
	switch {
	case !says:
		l.warn(check, "the proxy at "+who.String()+" does not say who asks: applications and the log see its own address and plain http",
			"Let it send X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host, and write "+mend)
	case !trusted:
		l.warn(check, "what the proxy at "+who.String()+" says of browsers (X-Forwarded-*) is not believed", mend)
	case proto == "" && origin.Scheme == "https" && r.TLS == nil:
		l.fail(check, "the proxy at "+who.String()+" does not say https: Postern and applications take it for plain http", "Let it send X-Forwarded-Proto: https")
	case proto != "" && !strings.EqualFold(proto, origin.Scheme):
		l.fail(check, "the proxy says that browsers use "+proto+", and not "+origin.Scheme, "Let it send X-Forwarded-Proto: "+origin.Scheme+"; where two stand in a row, the second must keep the first one's")
	case client == "" && (older || len(h["Forwarded"]) == 0):
		l.warn(check, "the proxy does not tell the browser's address", "Let it send X-Forwarded-For")
	default:
		l.pass(check, "the proxy at "+who.String()+" says who asks, and is believed")
	}
	if name := (&url.URL{Host: seen}).Hostname(); !strings.EqualFold(name, origin.Hostname()) {
		const mend = "Let the proxy pass the browser's Host on (nginx: proxy_set_header Host $host), or send X-Forwarded-Host and be in server.trusted_proxies"
		if o.Config.Server.PublicURL == nil {
			l.fail("public.host", "Postern is asked for the host "+name+", which no route has", mend)
		} else {
			l.warn("public.host", "applications see the host "+name, mend)
		}
	}
}

// trusts tells whether server.trusted_proxies has an address.
func (o Options) trusts(a netip.Addr) bool {
	for _, p := range o.Config.Server.TrustedProxies {
		if p.Contains(a) || p.Addr().Is4In6() && a.Is4() && p.Contains(netip.AddrFrom16(a.As16())) {
			return true
		}
	}
	return false
}

// last is the last of a header's list: what the proxy itself wrote.
func last(h http.Header, name string) string {
	values := strings.Join(h[name], ",")
	return strings.TrimSpace(values[strings.LastIndexByte(values, ',')+1:])
}

package proxy

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"postern/config"
	"postern/proxy/metrics"
	"postern/session"
)

// How long parts may take before readiness stops waiting for them.
const (
	discoveryGrace = 30 * time.Second // then sign-in alone answers 503
	storeProbe     = time.Second
	storeTimeout   = 2 * time.Second
)

// readiness knows whether requests should be sent here: listening, and the store has answered once since start. Later failures of a shared part
// leave it true, since taking every replica out at once helps nobody; they show in the body.
type readiness struct {
	listening, draining, storeOnce atomic.Bool
	storeProblem, configProblem    atomic.Pointer[string]

	now   func() time.Time
	start time.Time
	store session.Store
}

func newReadiness(store session.Store, now func() time.Time) *readiness {
	rd := &readiness{now: now, start: now(), store: store}
	rd.configProblem.Store(new(string))
	return rd
}

// run asks the store until ctx ends.
func (rd *readiness) run(ctx context.Context) {
	rd.probe(ctx)
	tick := time.NewTicker(storeProbe)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			rd.probe(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (rd *readiness) probe(work context.Context) {
	ctx, cancel := context.WithTimeout(work, storeTimeout)
	defer cancel()
	problem := ""
	if err := rd.store.Ping(ctx); work.Err() != nil {
		return // that says nothing of the store
	} else if err != nil {
		problem = "does not answer"
	} else {
		rd.storeOnce.Store(true)
	}
	rd.storeProblem.Store(&problem)
}

// readyBody is the JSON of /readyz: which part is not well.
type readyBody struct {
	Ready     bool              `json:"ready"`
	Listening bool              `json:"listening"`
	Draining  bool              `json:"draining"`
	Store     string            `json:"store"`
	Config    string            `json:"config"`
	Providers map[string]string `json:"providers"`
}

// report is what holds now. Strict is false for any part that is not well.
func (rd *readiness) report(providers []*provider) (body readyBody, strict bool) {
	body = readyBody{Listening: rd.listening.Load(), Draining: rd.draining.Load(), Store: "not asked yet", Config: orOK(*rd.configProblem.Load()), Providers: map[string]string{}}
	if problem := rd.storeProblem.Load(); problem != nil {
		body.Store = orOK(*problem)
	}
	strict = body.Store == "ok" && body.Config == "ok"
	discovered := true
	for _, pr := range providers {
		problem := pr.idp.Problem()
		if problem == "" && !pr.idp.Discovered() {
			problem = "not discovered yet"
		}
		body.Providers[pr.name] = orOK(problem)
		discovered = discovered && pr.idp.Discovered()
		strict = strict && problem == ""
	}
	waited := rd.now().Sub(rd.start) >= discoveryGrace
	body.Ready = body.Listening && !body.Draining && rd.storeOnce.Load() && (discovered || waited)
	return body, strict && body.Ready
}

func orOK(problem string) string {
	if problem == "" {
		return "ok"
	}
	return problem
}

func (p *Proxy) serveReady(w http.ResponseWriter, r *http.Request) {
	body, strict := p.ready.report(p.providers)
	good := body.Ready
	if r.URL.Query().Get("strict") == "1" {
		good = strict
	}
	noStore(w.Header())
	w.Header().Set("Content-Type", "application/json")
	if !good {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // a prober that left is no error of ours
}

// newAdmin builds the admin listener's handler. What can harm needs server.admin.
func newAdmin(ready http.HandlerFunc, sessions *adminSessions, m *metrics.Metrics, c config.Server) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		noStore(w.Header())
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", ready)
	mux.Handle("GET /metrics", m.Handler())
	if c.Admin == nil || c.Admin.Token.IsZero() && c.Admin.ClientCA == "" {
		return mux, nil
	}
	if !c.Admin.Token.IsZero() {
		if _, err := c.Admin.Token.Value(); err != nil {
			return nil, err
		}
	}
	guarded := http.NewServeMux()
	guarded.HandleFunc("GET /debug/pprof/", pprof.Index)
	guarded.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	guarded.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	guarded.HandleFunc("/sessions", sessions.many)
	guarded.HandleFunc("/sessions/{id}", sessions.one)
	callers, err := c.Admin.ClientCAs()
	if err != nil {
		return nil, fmt.Errorf("server.admin: %w", err)
	}
	guard := adminOnly(guarded, c, callers, sessions.audit)
	for _, path := range []string{"/debug/pprof/", "/sessions", "/sessions/"} {
		mux.Handle(path, guard)
	}
	return mux, nil
}

// signedBy tells whether the client of a TLS connection has a certificate that one of the CAs signed for clients. That it has the key was proven by
// the handshake.
func signedBy(cas *x509.CertPool, state *tls.ConnectionState) bool {
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: cas, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// adminOnly asks for what server.admin names, all of it, and refuses browsers: any Origin, or a Host that a page could have made resolve to us (DNS
// rebinding). With https the certificate binds the host. A client's certificate is verified with each request, since its connection may be older than the
// CAs that count now.
func adminOnly(next http.Handler, c config.Server, callers *x509.CertPool, audit *auditor) http.Handler {
	adminHost, _, _ := net.SplitHostPort(c.AdminListen)
	refuse := func(w http.ResponseWriter, r *http.Request, status int, code, detail string) {
		audit.auditOperator(r, auditAdminRefused, slog.String("reason", code), slog.String("method", brief(r.Method)), slog.String("path", brief(r.URL.Path)))
		adminProblem(w, status, code, detail, nil)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostname(r.Host)
		_, notIP := netip.ParseAddr(strings.Trim(host, "[]"))
		if r.Header.Get("Origin") != "" || r.TLS == nil && notIP != nil && host != "localhost" && host != adminHost {
			refuse(w, r, http.StatusForbidden, "not_for_browsers", "A request with an Origin, or to a host that is no address, may be a web page's. Use the address of the admin listener.")
			return
		}
		if callers != nil && !signedBy(callers, r.TLS) {
			refuse(w, r, http.StatusForbidden, "client_certificate_required", "Present a certificate that a CA of server.admin.client_ca has signed.")
			return
		}
		if !c.Admin.Token.IsZero() {
			want, err := c.Admin.Token.Value()
			got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if err != nil || !ok || !sameText(got, want) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="postern admin"`)
				refuse(w, r, http.StatusUnauthorized, "token_required", "Send the token of server.admin.token as Authorization: Bearer.")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// sameText compares in a time that tells neither contents nor length.
func sameText(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

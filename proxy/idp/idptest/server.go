package idptest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The endpoints by the names under which they are scripted and counted.
const (
	Discovery  = "discovery"
	JWKS       = "jwks"
	Authorize  = "authorize"
	SignIn     = "sign_in"
	Token      = "token"
	Userinfo   = "userinfo"
	EndSession = "end_session"
	Revoke     = "revoke"
	Introspect = "introspect"
)

// Options say how a [Server] begins. The zero value works with [Start] and [NewServer].
type Options struct {
	// Issuer is the provider's own URL, such as http://127.0.0.1:9000. It may have a path. [Start] fills it in when empty.
	Issuer string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Interactive asks who signs in on a page, instead of signing in the current user at once.
	Interactive bool
	// Title is the heading of the pages.
	Title string
	// Alg signs ID tokens; see [Signing]. Default RS256.
	Alg string
	// JWTAccessTokens makes access tokens JWTs (RFC 9068) instead of opaque strings.
	JWTAccessTokens bool
	// AccessTokenSize is the length of an access token in bytes, at least; 0 is as short as is safe.
	AccessTokenSize int
	// Log receives one line for each request at debug; nil discards.
	Log *slog.Logger
}

// Client is one registered client.
type Client struct {
	ID     string
	Secret string
	// Name is what the sign-in page calls it; default its ID.
	Name string
	// AuthMethod is client_secret_basic (the default, for a client with a secret), client_secret_post or none. Any other way is refused.
	AuthMethod string
	// RedirectURIs and PostLogoutRedirectURIs are matched as exact strings.
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
}

// User is one person.
type User struct {
	Sub string
	// Claims are in the ID token and at userinfo, as far as the granted scope covers them. Claims outside the standard scopes,
	// such as groups, always are.
	Claims map[string]any
	// UserinfoClaims are at userinfo only.
	UserinfoClaims map[string]any
}

// RefreshPolicy says when a refresh token is issued.
type RefreshPolicy int

// The refresh policies.
const (
	RefreshAlways  RefreshPolicy = iota // with every sign-in
	RefreshByScope                      // when offline_access was asked for
	RefreshNever
)

// Server is a provider. It is an http.Handler; [Start] and [NewServer] also make it listen. All methods may be called by any
// number of goroutines at any time.
type Server struct {
	// URL is the issuer. It does not change.
	URL string

	o      Options
	path   string // of the issuer, without a trailing slash
	closed context.Context
	close  context.CancelFunc
	listen listener

	mu      sync.Mutex
	clients map[string]Client
	users   map[string]User
	order   []string // subs as they were added
	current string
	grants  grants
	script  script
	keys    keyring
	set     settings
}

// settings are what the Set methods change.
type settings struct {
	ttl              time.Duration
	rotation         bool
	refresh          RefreshPolicy
	jwtAccess        bool
	accessSize       int
	issParameter     bool
	idTokenOnRefresh bool
	signing          Signing
}

// New makes a provider that its caller serves at o.Issuer, which it panics without.
func New(o Options) *Server {
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" {
		panic(fmt.Sprintf("idptest: Options.Issuer %q is no absolute URL", o.Issuer))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Title = cmp.Or(o.Title, "Test identity provider")
	closed, cancel := context.WithCancel(context.Background())
	s := &Server{
		URL:     o.Issuer,
		o:       o,
		path:    strings.TrimSuffix(u.Path, "/"),
		closed:  closed,
		close:   cancel,
		clients: map[string]Client{},
		users:   map[string]User{},
		grants:  newGrants(),
		script:  newScript(),
		set: settings{
			ttl: 5 * time.Minute, rotation: true, issParameter: true, idTokenOnRefresh: true,
			jwtAccess: o.JWTAccessTokens, accessSize: o.AccessTokenSize,
		},
	}
	s.keys.alg = cmp.Or(o.Alg, "RS256")
	return s
}

// Start makes a provider that listens on addr, such as 127.0.0.1:0, until [Server.Close].
func Start(addr string, o Options) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the provider: %w", err)
	}
	if o.Issuer == "" {
		o.Issuer = "http://" + l.Addr().String()
	}
	s := New(o)
	s.listen.serve(s, l)
	return s, nil
}

// NewServer makes a provider on a free loopback port that ends with the test.
func NewServer(t testing.TB) *Server {
	t.Helper()
	return NewServerWith(t, Options{})
}

// NewServerWith is [NewServer] with options; their Issuer may stay empty.
func NewServerWith(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Close ends a provider: what hangs or stands at a gate is let go, and what [Start] opened is closed.
func (s *Server) Close() {
	s.close()
	s.listen.down()
}

// Down makes connections to a provider that listens be refused, and cuts those that are open.
func (s *Server) Down() { s.listen.down() }

// Up makes a provider listen again, on the port it had.
func (s *Server) Up() {
	if err := s.listen.up(s); err != nil {
		panic(err)
	}
}

// AddClient registers a client, or replaces it.
func (s *Server) AddClient(c Client) {
	if c.AuthMethod == "" {
		c.AuthMethod = "client_secret_basic"
		if c.Secret == "" {
			c.AuthMethod = "none"
		}
	}
	c.Name = cmp.Or(c.Name, c.ID)
	c.RedirectURIs, c.PostLogoutRedirectURIs = slices.Clone(c.RedirectURIs), slices.Clone(c.PostLogoutRedirectURIs)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c.ID] = c
}

// AddUser adds a person, or replaces one. The first one is the current user until [Server.SignInAs] says otherwise.
func (s *Server) AddUser(u User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.users[u.Sub]; !known {
		s.order = append(s.order, u.Sub)
	}
	if len(s.users) == 0 {
		s.current = u.Sub
	}
	s.users[u.Sub] = u
}

// SignInAs names the current user: whom authorization requests sign in when the provider is not interactive. With "" they end in
// login_required.
func (s *Server) SignInAs(sub string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.users[sub]; sub != "" && !known {
		panic(fmt.Sprintf("idptest: SignInAs(%q): no such user", sub))
	}
	s.current = sub
}

// RevokeUser ends all that a person was granted: refresh tokens, access tokens, and the provider's own sessions.
func (s *Server) RevokeUser(sub string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants.revoke(func(f *family) bool { return f.sub == sub })
	for id, b := range s.grants.browsers {
		if b.sub == sub {
			delete(s.grants.browsers, id)
		}
	}
}

// SetTokenTTL sets the life of access tokens issued from now on, and so expires_in. Default 5 minutes.
func (s *Server) SetTokenTTL(d time.Duration) { s.change(func(x *settings) { x.ttl = d }) }

// SetRotation says whether each refresh gives a new refresh token and spends the old one. Default true. Without rotation the answer
// holds no refresh token.
func (s *Server) SetRotation(on bool) { s.change(func(x *settings) { x.rotation = on }) }

// SetRefresh says when refresh tokens are issued. Default [RefreshAlways].
func (s *Server) SetRefresh(p RefreshPolicy) { s.change(func(x *settings) { x.refresh = p }) }

// SetAccessTokens says what access tokens issued from now on look like; see [Options].
func (s *Server) SetAccessTokens(asJWT bool, size int) {
	s.change(func(x *settings) { x.jwtAccess, x.accessSize = asJWT, size })
}

// SetIssParameter says whether authorization answers carry iss (RFC 9207) and the metadata says so. Default true.
func (s *Server) SetIssParameter(on bool) { s.change(func(x *settings) { x.issParameter = on }) }

// SetIDTokenOnRefresh says whether the answer to a refresh holds an ID token. Default true.
func (s *Server) SetIDTokenOnRefresh(on bool) {
	s.change(func(x *settings) { x.idTokenOnRefresh = on })
}

func (s *Server) change(f func(*settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.set)
}

func (s *Server) settings() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

// EndpointURL is where an endpoint is.
func (s *Server) EndpointURL(endpoint string) string {
	base := strings.TrimSuffix(s.URL, "/")
	for _, e := range s.endpoints() {
		if e.name == endpoint {
			return base + e.path
		}
	}
	panic(fmt.Sprintf("idptest: no endpoint %q", endpoint))
}

// endpoint is one row of the route table.
type endpoint struct {
	name, path string
	methods    []string
	handle     http.HandlerFunc
}

// endpoints is the route table. All that a browser's session is needed for is under /connect/, so that its cookie is sent nowhere
// else: cookies know no ports, and on one machine the application's host name is often the same.
func (s *Server) endpoints() []endpoint {
	get, post, both := []string{"GET", "HEAD"}, []string{"POST"}, []string{"GET", "HEAD", "POST"}
	return []endpoint{
		{Discovery, "/.well-known/openid-configuration", get, s.discovery},
		{JWKS, "/jwks", get, s.jwks},
		{Authorize, "/connect/authorize", both, s.authorize},
		{SignIn, "/connect/sign-in", post, s.signIn},
		{EndSession, "/connect/end_session", both, s.endSession},
		{Token, "/token", post, s.token},
		{Userinfo, "/userinfo", both, s.userinfo},
		{Revoke, "/revoke", post, s.revocation},
		{Introspect, "/introspect", post, s.introspection},
		{"", "/connect/", get, s.home},
	}
}

// ServeHTTP answers one request, the way the script of its endpoint says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, s.path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if path == "" || path == "/" {
		http.Redirect(w, r, s.path+"/connect/", http.StatusSeeOther)
		return
	}
	for _, e := range s.endpoints() {
		if e.path != path {
			continue
		}
		if !slices.Contains(e.methods, r.Method) {
			w.Header().Set("Allow", strings.Join(e.methods, ", "))
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		s.o.Log.DebugContext(r.Context(), "request", "endpoint", e.name, "method", r.Method)
		s.play(e, w, r)
		return
	}
	http.NotFound(w, r)
}

// listener is the part of a Server that [Start] adds.
type listener struct {
	mu   sync.Mutex
	addr string
	srv  *http.Server
	done chan struct{}
}

func (l *listener) serve(h http.Handler, on net.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start(h, on)
}

func (l *listener) start(h http.Handler, on net.Listener) {
	l.addr = on.Addr().String()
	l.srv = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	l.done = done
	srv := l.srv
	go func() { // ends with down
		defer close(done)
		_ = srv.Serve(on)
	}()
}

func (l *listener) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.srv == nil {
		return
	}
	_ = l.srv.Close()
	<-l.done
	l.srv = nil
}

func (l *listener) up(h http.Handler) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.srv != nil || l.addr == "" {
		return nil
	}
	on, err := net.Listen("tcp", l.addr)
	if err != nil {
		return fmt.Errorf("listen for the provider again: %w", err)
	}
	l.start(h, on)
	return nil
}

// random makes an unguessable name of n bytes of text, at least 26.
func random(n int) string {
	var b strings.Builder
	b.WriteString(rand.Text())
	for b.Len() < n {
		b.WriteString(rand.Text())
	}
	return b.String()[:max(n, len(rand.Text()))]
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// oauthError is an error answer of RFC 6749 section 5.2.
func oauthError(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, map[string]string{"error": code, "error_description": description})
}

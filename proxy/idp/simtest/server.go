package simtest

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// The endpoints by the names under which they are counted and scripted.
const (
	Authorize = "authorize"
	Token     = "token"
	Revoke    = "revoke"
	Me        = "me"
	WhoAmI    = "whoami"
)

// Options say how a simulator begins.
type Options struct {
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Client is one registered application.
type Client struct {
	ID, Secret string
	// RedirectURIs are matched as exact strings.
	RedirectURIs []string
	// Scopes are those that the client may ask for.
	Scopes []string
	// Owner is the person to whom a token for the application itself belongs.
	Owner string
}

// User is one person.
type User struct {
	// Name is what identifies the person: the user name, the e-mail address, or the subject.
	Name string
	// Password is what BreakOut asks for.
	Password string
	// Members describe the person: at BreakOut's /me/, in LikeCoin's token answer, in the claims of GearCode's tokens.
	Members map[string]any
}

// Server is what the five simulators have in common. All methods may be called by any number of goroutines at any time.
type Server struct {
	// URL is the provider's origin, without a path.
	URL string

	name      string
	now       func() time.Time
	endpoints []endpoint
	addr      string

	listening sync.Mutex
	srv       *http.Server
	served    chan struct{}

	mu      sync.Mutex
	clients map[string]Client
	users   map[string]User
	current string
	refuses bool
	issued  issued
	calls   map[string]int
	grants  map[string]int
	errors  []string
	script  map[string]*script
}

// endpoint is one documented address. Its handle runs with Server.mu held.
type endpoint struct {
	name, method, path string
	handle             func(*request) answer
}

// answer is what an endpoint says: body is JSON, or an HTML page when it is a string.
type answer struct {
	status   int
	location string
	body     any
}

// start makes the provider listen on loopback until the test ends.
func start(t testing.TB, name string, o Options) *Server {
	t.Helper()
	s := &Server{
		name: name, now: o.Now,
		clients: map[string]Client{}, users: map[string]User{}, issued: newIssued(),
		calls: map[string]int{}, grants: map[string]int{}, script: map[string]*script{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for %s: %v", name, err)
	}
	s.addr = l.Addr().String()
	s.URL = "http://" + s.addr
	s.serve(l)
	t.Cleanup(func() {
		s.mu.Lock()
		for _, x := range s.script {
			x.release()
		}
		s.mu.Unlock()
		s.Down()
	})
	return s
}

func (s *Server) serve(l net.Listener) {
	s.listening.Lock()
	defer s.listening.Unlock()
	srv := &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	served := make(chan struct{})
	s.srv, s.served = srv, served
	go func() { // ends with Down
		defer close(served)
		_ = srv.Serve(l)
	}()
}

// Down makes connections be refused, and cuts those that are open.
func (s *Server) Down() {
	s.listening.Lock()
	defer s.listening.Unlock()
	if s.srv != nil {
		_ = s.srv.Close()
		<-s.served
		s.srv = nil
	}
}

// Up makes a provider that is down listen again on its port.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatalf("listen for %s again: %v", s.name, err)
	}
	s.serve(l)
}

// AddClient registers an application, or replaces it.
func (s *Server) AddClient(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c.ID] = c
}

// AddUser adds a person, or replaces one. The first one signs in until [Server.SignInAs] says otherwise.
func (s *Server) AddUser(u User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) == 0 {
		s.current = u.Name
	}
	s.users[u.Name] = u
}

// SignInAs names the person whom authorization requests sign in from now on.
func (s *Server) SignInAs(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.users[name]; !known {
		panic(fmt.Sprintf("simtest: SignInAs(%q): no such user", name))
	}
	s.current = name
}

// Refuse says whether the person refuses what applications ask for.
func (s *Server) Refuse(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = on
}

// Errors are the protocol errors so far, in words, oldest first.
func (s *Server) Errors() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.errors)
}

// Calls says how often an endpoint was called, scripted failures included.
func (s *Server) Calls(endpoint string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known(endpoint)
	return s.calls[endpoint]
}

// Granted says how many token requests of a grant_type succeeded.
func (s *Server) Granted(grantType string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grants[grantType]
}

// serves are the documented addresses, and the simulators' own. It is called once, by the constructor.
func (s *Server) serves(documented ...endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(documented, endpoint{WhoAmI, http.MethodGet, "/api/whoami", s.whoAmI})
}

// known panics for an endpoint that the provider does not have: a script that does nothing would make a test pass wrongly.
func (s *Server) known(endpoint string) {
	if !slices.ContainsFunc(s.endpoints, has(endpoint)) {
		panic(fmt.Sprintf("simtest: %s has no endpoint %q", s.name, endpoint))
	}
}

func has(name string) func(endpoint) bool { return func(e endpoint) bool { return e.name == name } }

// maxBody bounds what one request may send.
const maxBody = 1 << 20

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a, held := s.process(&request{Request: r, server: s, text: string(body)})
	if held != nil {
		held.wait()
	}
	w.Header().Set("Cache-Control", "no-store")
	switch body := a.body.(type) {
	case raw:
		for name, values := range body.header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, body.text)
	case string:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, body)
	case nil:
		if a.location != "" {
			w.Header().Set("Location", a.location)
		}
		w.WriteHeader(a.status)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.status)
		_ = json.NewEncoder(w).Encode(body)
	}
}

// process finds the endpoint and what it says. One request at a time, so that no two can spend the same code.
func (s *Server) process(q *request) (answer, *Held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.endpoints, func(e endpoint) bool { return e.path == q.URL.EscapedPath() })
	if i < 0 {
		q.wrong("no such address is documented")
		return q.refuse(http.StatusNotFound, "not_found"), nil
	}
	e := s.endpoints[i]
	s.calls[e.name]++
	x := s.script[e.name]
	if a, failed := x.fail(); failed {
		return a, nil
	}
	if q.Method != e.method {
		q.wrong("the method must be " + e.method)
		return q.refuse(http.StatusMethodNotAllowed, "invalid_request"), nil
	}
	a := e.handle(q)
	if x != nil && x.held != nil {
		return a, x.held
	}
	return a, nil
}

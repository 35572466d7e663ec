package idptest

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"time"
)

// maxBody bounds what one request may send.
const maxBody = 1 << 20

// keptRequests bounds the log of token requests, so that a benchmark does not fill the memory.
const keptRequests = 10_000

// Answer is one scripted answer.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// TokenRequest is one request that the token endpoint received.
type TokenRequest struct {
	At     time.Time
	Header http.Header
	Form   url.Values
}

// Gate holds requests to one endpoint. See [Server.Gate].
type Gate struct {
	arrived chan struct{}
	open    chan struct{}
	server  *Server
	name    string
}

// script is what a test wants of the endpoints, and what it asks about them.
type script struct {
	hooks   map[string]func(http.ResponseWriter, *http.Request) bool
	gates   map[string]*Gate
	answers map[string]*times[Answer]
	hang    map[string]bool
	drop    map[string]int // cut after processing, so many more times; negative: always
	cut     map[string]int // cut before processing
	calls   map[string]int
	reuses  int
	tokens  []TokenRequest

	idToken   func(header, claims map[string]any)
	answer    func(map[string]any)
	metadata  func(map[string]any)
	userinfo  func(map[string]any)
	authorize func(url.Values)

	introspect func(map[string]any)
	refusal    *refusal

	listeners []func(name, value string) // of TellSecrets
}

// times is a value to be used so many times; negative: always.
type times[T any] struct {
	left  int
	value T
}

func newScript() script {
	return script{
		hooks:   map[string]func(http.ResponseWriter, *http.Request) bool{},
		gates:   map[string]*Gate{},
		answers: map[string]*times[Answer]{},
		hang:    map[string]bool{},
		drop:    map[string]int{},
		cut:     map[string]int{},
		calls:   map[string]int{},
	}
}

// On puts f before an endpoint; nil takes it away. When f returns true it has answered, else the request goes on. The form is parsed.
func (s *Server) On(endpoint string, f func(w http.ResponseWriter, r *http.Request) bool) {
	s.edit(endpoint, func(x *script) { x.hooks[endpoint] = f })
}

// Gate holds every further request to an endpoint before it is processed, until [Gate.Open]. A request whose client has left
// meanwhile is processed all the same, as slow servers do: its answer is lost.
func (s *Server) Gate(endpoint string) *Gate {
	g := &Gate{arrived: make(chan struct{}, 1<<14), open: make(chan struct{}), server: s, name: endpoint}
	s.edit(endpoint, func(x *script) {
		if x.gates[endpoint] != nil {
			panic(fmt.Sprintf("idptest: endpoint %q has a gate", endpoint))
		}
		x.gates[endpoint] = g
	})
	return g
}

// Arrived receives once for each request that came to the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets those that wait pass, and takes the gate away. It may be called again.
func (g *Gate) Open() {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	if g.server.script.gates[g.name] == g {
		delete(g.server.script.gates, g.name)
		close(g.open)
	}
}

// Fail makes the next n requests to an endpoint (all, if negative) end in status, unprocessed. The headers are pairs, such as
// "Retry-After", "2".
func (s *Server) Fail(endpoint string, status, n int, header ...string) {
	a := Answer{Status: status, Header: http.Header{}, Body: http.StatusText(status) + "\n"}
	for pair := range slices.Chunk(header, 2) {
		a.Header.Set(pair[0], pair[1])
	}
	s.AnswerWith(endpoint, n, a)
}

// FailOAuth is [Server.Fail] with an error answer of RFC 6749 section 5.2, such as 400 and invalid_grant.
func (s *Server) FailOAuth(endpoint string, status int, code string, n int) {
	s.AnswerWith(endpoint, n, Answer{
		Status: status,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   fmt.Sprintf("{\"error\":%q}\n", code),
	})
}

// AnswerWith makes the next n requests to an endpoint (all, if negative) get a, unprocessed.
func (s *Server) AnswerWith(endpoint string, n int, a Answer) {
	s.edit(endpoint, func(x *script) { x.answers[endpoint] = &times[Answer]{n, a} })
}

// Hang makes every further request to an endpoint wait, unprocessed, until its client leaves or the server closes.
func (s *Server) Hang(endpoint string) {
	s.edit(endpoint, func(x *script) { x.hang[endpoint] = true })
}

// DropConnection cuts the connection of the next n requests to an endpoint (all, if negative), unprocessed.
func (s *Server) DropConnection(endpoint string, n int) {
	s.edit(endpoint, func(x *script) { x.cut[endpoint] = n })
}

// DropConnectionAfterProcessing processes the next n requests to an endpoint (all, if negative), then cuts their connections: a code
// or refresh token is spent and the answer is lost.
func (s *Server) DropConnectionAfterProcessing(endpoint string, n int) {
	s.edit(endpoint, func(x *script) { x.drop[endpoint] = n })
}

// Heal takes away what On, Fail, AnswerWith, Hang and the DropConnection methods did to an endpoint. Gates stay.
func (s *Server) Heal(endpoint string) {
	s.edit(endpoint, func(x *script) {
		delete(x.hooks, endpoint)
		delete(x.answers, endpoint)
		delete(x.hang, endpoint)
		delete(x.drop, endpoint)
		delete(x.cut, endpoint)
	})
}

// MutateIDToken changes the header and the claims of every ID token before it is signed; nil leaves them alone.
func (s *Server) MutateIDToken(f func(header, claims map[string]any)) {
	s.edit("", func(x *script) { x.idToken = f })
}

// MutateTokenAnswer changes every successful answer of the token endpoint; nil leaves them alone.
func (s *Server) MutateTokenAnswer(f func(map[string]any)) {
	s.edit("", func(x *script) { x.answer = f })
}

// MutateMetadata changes the discovery document; nil leaves it alone.
func (s *Server) MutateMetadata(f func(map[string]any)) {
	s.edit("", func(x *script) { x.metadata = f })
}

// MutateUserinfo changes the userinfo answer; nil leaves it alone.
func (s *Server) MutateUserinfo(f func(map[string]any)) {
	s.edit("", func(x *script) { x.userinfo = f })
}

// MutateAuthorizeAnswer changes the parameters that go back to the client's redirect URI, errors included; nil leaves them alone.
func (s *Server) MutateAuthorizeAnswer(f func(url.Values)) {
	s.edit("", func(x *script) { x.authorize = f })
}

// RefuseSignIn makes every authorization request end in an error, such as access_denied; "" ends that.
func (s *Server) RefuseSignIn(code, description string) {
	s.edit("", func(x *script) {
		x.refusal = nil
		if code != "" {
			x.refusal = &refusal{code, description}
		}
	})
}

// Calls says how often an endpoint was called, scripted failures included.
func (s *Server) Calls(endpoint string) (n int) {
	s.edit(endpoint, func(x *script) { n = x.calls[endpoint] })
	return n
}

// RefreshReuses says how often a refresh token arrived that had been spent before.
func (s *Server) RefreshReuses() (n int) {
	s.edit("", func(x *script) { n = x.reuses })
	return n
}

// TokenRequests lists the requests that the token endpoint received, oldest first, scripted failures included.
func (s *Server) TokenRequests() (all []TokenRequest) {
	s.edit("", func(x *script) { all = slices.Clone(x.tokens) })
	return all
}

// TellSecrets makes f hear of everything secret that passes the provider from now on: tokens, codes, verifiers, states and nonces, by the names of
// their parameters.
func (s *Server) TellSecrets(f func(name, value string)) {
	s.edit("", func(x *script) { x.listeners = append(x.listeners, f) })
}

// tell is called with what passes, as a request or an answer has it.
func (s *Server) tell(name, value string) {
	var listeners []func(name, value string)
	s.edit("", func(x *script) { listeners = x.listeners })
	for _, f := range listeners {
		f(name, value)
	}
}

// secretParameters are those of requests and of answers to the browser.
var secretParameters = []string{
	"code", "code_verifier", "code_challenge", "state", "nonce", "refresh_token", "token", "subject_token", "assertion", "client_assertion", "client_secret", "password", "id_token_hint",
}

// tellForm tells of the secrets in a request or in an answer to the browser.
func (s *Server) tellForm(form url.Values) {
	for _, name := range secretParameters {
		if form.Has(name) {
			s.tell(name, form.Get(name))
		}
	}
}

// tellTokens tells of those in an answer of the token endpoint.
func (s *Server) tellTokens(answer map[string]any) {
	for _, name := range []string{"access_token", "refresh_token", "id_token"} {
		if token, ok := answer[name].(string); ok {
			s.tell(name, token)
		}
	}
}

// edit runs f on the script, under the lock. A misspelt endpoint panics: a script that does nothing would make a test pass wrongly.
func (s *Server) edit(endpoint string, f func(*script)) {
	if endpoint != "" {
		s.EndpointURL(endpoint)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.script)
}

// play answers one request as the script says. Order: count, hook, gate, hang, cut, fail, process, drop.
func (s *Server) play(e endpoint, w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	// Read now, so that a client that leaves is seen while the request hangs. A broken form is the endpoint's to refuse.
	formErr := r.ParseForm()
	s.tellForm(r.Form)

	var hook func(http.ResponseWriter, *http.Request) bool
	var gate *Gate
	s.edit("", func(x *script) {
		x.calls[e.name]++
		if e.name == Token {
			if len(x.tokens) >= keptRequests {
				x.tokens = slices.Delete(x.tokens, 0, keptRequests/2)
			}
			x.tokens = append(x.tokens, TokenRequest{s.o.Now(), r.Header.Clone(), maps.Clone(r.PostForm)})
		}
		hook, gate = x.hooks[e.name], x.gates[e.name]
	})
	if hook != nil && hook(w, r) {
		return
	}
	if gate != nil {
		gate.wait(s)
	}

	var hang, cut, drop bool
	var answer *Answer
	s.edit("", func(x *script) {
		switch {
		case x.hang[e.name]:
			hang = true
		case use(x.cut, e.name):
			cut = true
		case x.answers[e.name] != nil && x.answers[e.name].left != 0:
			t := x.answers[e.name]
			answer = &t.value
			t.left = max(t.left-1, -1)
		default:
			drop = use(x.drop, e.name)
		}
	})
	switch {
	case hang:
		select {
		case <-r.Context().Done():
		case <-s.closed.Done():
		}
		panic(http.ErrAbortHandler)
	case cut:
		panic(http.ErrAbortHandler)
	case answer != nil:
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.Status)
		_, _ = w.Write([]byte(answer.Body))
	case formErr != nil:
		oauthError(w, http.StatusBadRequest, "invalid_request", "the form cannot be read")
	case drop:
		e.handle(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		e.handle(w, r)
	}
}

func (g *Gate) wait(s *Server) {
	select {
	case g.arrived <- struct{}{}:
	default: // nobody counts that many
	}
	select {
	case <-g.open:
	case <-s.closed.Done():
		panic(http.ErrAbortHandler)
	}
}

// use takes one from left[name]; negative counts last for ever.
func use(left map[string]int, name string) bool {
	n := left[name]
	if n == 0 {
		return false
	}
	left[name] = max(n-1, -1)
	return true
}

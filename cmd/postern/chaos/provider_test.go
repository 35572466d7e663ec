//go:build chaos

package chaos_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"postern/proxy/idp/idptest"
)

// browserHeader says which browser asks, and as whom: "user/label". Only the test's own browsers send it, and only to the provider.
const browserHeader = "X-Chaos-Browser"

// A provider is idptest behind a clerk that writes down who sends which token when, and what becomes of it. It rotates refresh tokens
// and revokes the whole family when a spent one arrives.
type provider struct {
	*idptest.Server
	line *timeline
	ttl  time.Duration // of access tokens

	connections counter
	signingIn   sync.Mutex       // idptest has one current user
	clockSlack  time.Duration    // how far replicas' clocks may be off
	failedOver  func() time.Time // when Redis may have lost what was written last

	mu       sync.Mutex
	fault    tokenFault
	codes    map[string]*family   // by code
	refresh  map[string]*token    // by refresh token
	access   map[string]access    // by access token
	ended    map[string]time.Time // when a replica's process was killed last, by name
	calls    int                  // refresh requests
	rotated  int                  // successful ones
	families []*family
}

// A family is what grew from one sign-in.
type family struct {
	label, user string
	sid         string // of the session at the provider
	over        string // why the provider no longer honours it
	current     *token // the newest that was handed over
}

func (f *family) topics() []string { return []string{f.label} }

// A token is one refresh token.
type token struct {
	name    string // for the timeline: a hash, since real ones are never printed
	family  *family
	expires time.Time // of the access token that came with it
	sent    []*presentation
}

// A presentation is one arrival of a refresh token.
type presentation struct {
	replica           string
	arrived, answered time.Time
	outcome           outcome
}

// outcome is what became of a presentation.
type outcome string

const (
	pending  outcome = "unanswered"
	success  outcome = "success"
	rejected outcome = "rejected"
	again    outcome = "not processed" // 429, or 503 with Retry-After
	unknown  outcome = "unknown"       // 5xx, cut, or the answer was lost
)

type access struct {
	family  *family
	expires time.Time
}

// tokenFault is what happens to refresh requests. The zero value is none.
type tokenFault struct {
	before, after time.Duration // waits around the processing
	status        int           // instead of processing
	retryAfter    string
	cut           bool // the connection, unprocessed
	cutAfter      bool // the connection, processed: the answer is lost
	hold          chan struct{}
	held          chan<- string // gets the replica's name when a request waits at hold, which is then cut unprocessed
}

// startProvider starts a provider on a port of its own.
func startProvider(w *world, port int, ttl time.Duration) *provider {
	t := w.t
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{
		Server: idptest.New(idptest.Options{Issuer: "http://" + listener.Addr().String(), Alg: "ES256"}),
		line:   w.timeline, ttl: ttl,
		codes: map[string]*family{}, refresh: map[string]*token{}, access: map[string]access{}, ended: map[string]time.Time{},
	}
	p.SetTokenTTL(ttl)
	p.TellSecrets(w.secrets.AddParameter)
	p.AddClient(idptest.Client{ID: "wiki", Secret: w.clientSecret, RedirectURIs: []string{w.origin.String() + "/oauth2/callback"},
		PostLogoutRedirectURIs: []string{w.origin.String() + "/oauth2/logout/callback"}})
	server := &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: 10 * time.Second,
		ConnState: p.connections.state, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		_ = server.Serve(coldListener{listener, &p.connections})
	}()
	t.Cleanup(func() {
		p.connections.thaw()
		p.Close()
		server.Close()
		<-done
	})
	return p
}

// serve is the clerk.
func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/connect/authorize"):
		p.authorize(w, r)
	case r.URL.Path == "/token":
		p.token(w, r)
	case r.URL.Path == "/revoke":
		p.revoke(w, r)
	default:
		p.ServeHTTP(w, r)
	}
}

// authorize signs in whom the browser says and notes the code.
func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	user, label, _ := strings.Cut(r.Header.Get(browserHeader), "/")
	answer := httptest.NewRecorder()
	p.signingIn.Lock()
	p.AddUser(idptest.User{Sub: user, Claims: map[string]any{"name": user, "email": user + "@example.com", "email_verified": true}})
	p.SignInAs(user)
	p.ServeHTTP(answer, r)
	p.signingIn.Unlock()
	if back, err := url.Parse(answer.Header().Get("Location")); err == nil && back.Query().Get("code") != "" {
		p.mu.Lock()
		f := &family{label: label, user: user}
		p.codes[back.Query().Get("code")] = f
		p.families = append(p.families, f)
		p.mu.Unlock()
	}
	copyAnswer(w, answer)
}

// revoke notes that what Postern revokes is over.
func (p *provider) revoke(w http.ResponseWriter, r *http.Request) {
	if form := peekForm(r); form != nil {
		p.mu.Lock()
		if tok := p.refresh[form.Get("token")]; tok != nil {
			tok.family.over = "revoked by postern"
			p.line.about(tok.family.topics(), "provider: token %s is revoked", tok.name)
		}
		p.mu.Unlock()
	}
	p.ServeHTTP(w, r)
}

// endFamily ends what grew from a sign-in as an operator of the provider would.
func (p *provider) endUser(user string) {
	p.mu.Lock()
	for _, f := range p.families {
		if f.user == user {
			f.over = "ended at the provider"
		}
	}
	p.mu.Unlock()
	p.RevokeUser(user)
}

// token is the token endpoint.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	form := peekForm(r)
	if form == nil || form.Get("grant_type") != "refresh_token" {
		answer := httptest.NewRecorder()
		p.ServeHTTP(answer, r)
		if form != nil && answer.Code == http.StatusOK {
			p.mu.Lock()
			f := p.codes[form.Get("code")]
			if tok := p.issued(f, answer.Body.Bytes()); f != nil {
				f.current = tok
			}
			p.mu.Unlock()
		}
		copyAnswer(w, answer)
		return
	}
	tok, sent, fault := p.arrives(form)
	if fault.hold != nil {
		if fault.held != nil {
			fault.held <- sent.replica
		}
		<-fault.hold
		p.outcome(tok, sent, unknown)
		panic(http.ErrAbortHandler)
	}
	time.Sleep(fault.before)
	switch {
	case fault.cut:
		p.outcome(tok, sent, unknown)
		panic(http.ErrAbortHandler)
	case fault.status != 0:
		result := unknown
		if fault.retryAfter != "" {
			w.Header().Set("Retry-After", fault.retryAfter)
			result = again
		}
		p.outcome(tok, sent, result)
		w.WriteHeader(fault.status)
		return
	}
	answer := httptest.NewRecorder()
	p.ServeHTTP(answer, r)
	var next *token
	if tok != nil {
		p.mu.Lock()
		if answer.Code == http.StatusOK {
			next = p.issued(tok.family, answer.Body.Bytes())
			p.rotated++
		} else if tok.family.over == "" {
			tok.family.over = "refresh refused"
			p.line.about(tok.family.topics(), "provider: family is over, %s refused: %.100s", tok.name, answer.Body.String())
		}
		p.mu.Unlock()
	}
	time.Sleep(fault.after)
	if fault.cutAfter || r.Context().Err() != nil {
		p.outcome(tok, sent, unknown)
		panic(http.ErrAbortHandler)
	}
	if answer.Code != http.StatusOK {
		p.outcome(tok, sent, rejected)
	} else {
		p.outcome(tok, sent, success)
		p.handOver(next)
		p.line.about(tok.family.topics(), "provider: %s became %s", tok.name, next.name)
	}
	copyAnswer(w, answer)
}

// arrives notes a refresh token's arrival and holds it against the rules.
func (p *provider) arrives(form url.Values) (*token, *presentation, tokenFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	sent := &presentation{replica: form.Get("replica"), arrived: time.Now(), outcome: pending}
	tok := p.refresh[form.Get("refresh_token")]
	if tok == nil {
		p.line.violated(nil, "a refresh token arrives that was never issued")
		return nil, sent, p.fault
	}
	p.line.about(tok.family.topics(), "provider: %s from %s", tok.name, sent.replica)
	p.judge(tok, sent)
	tok.sent = append(tok.sent, sent)
	return tok, sent, p.fault
}

// exchangeLimit is the replicas' time limit of a call to the provider.
const exchangeLimit = 5 * time.Second

// judge is design.md, "Refresh" 6: never while an earlier exchange is unanswered within its time limit, never after a success, after an
// unknown outcome once more and only when the current token has expired. Who was killed in the middle of an exchange cannot have told
// the others of it.
func (p *provider) judge(tok *token, now *presentation) {
	const slack = 250 * time.Millisecond // the replica counts from when it asked; we from when we answered
	unknowns := 0
	for _, earlier := range tok.sent {
		settled := earlier.answered
		if settled.IsZero() {
			settled = earlier.arrived.Add(exchangeLimit)
		}
		died := p.ended[earlier.replica]
		untold := died.After(earlier.arrived) && died.Before(settled.Add(2*time.Second))
		switch {
		case earlier.outcome == pending && now.arrived.Sub(earlier.arrived) < exchangeLimit-slack:
			p.line.violated(tok.family.topics(), "%s is sent by %s while %s waits for an answer to it since %v", tok.name, now.replica,
				earlier.replica, now.arrived.Sub(earlier.arrived))
		case untold, earlier.outcome == again, earlier.outcome == pending:
		case earlier.outcome != unknown && p.failedOver().Add(failoverSlack).After(earlier.arrived):
			p.line.count("tokens sent again after a failover had lost the newer")
			p.line.about(tok.family.topics(), "%s is sent again by %s after a failover", tok.name, now.replica)
		case earlier.outcome == success:
			p.line.violated(tok.family.topics(), "%s is sent by %s, %v after it was exchanged by %s", tok.name, now.replica,
				now.arrived.Sub(earlier.answered), earlier.replica)
		case earlier.outcome == rejected:
			p.line.violated(tok.family.topics(), "%s is sent by %s though it was refused to %s", tok.name, now.replica, earlier.replica)
		default:
			unknowns++
			if now.arrived.Before(tok.expires.Add(-slack - p.clockSlack)) {
				p.line.violated(tok.family.topics(), "%s is sent by %s after an unknown outcome, %v before the current token expires",
					tok.name, now.replica, tok.expires.Sub(now.arrived))
			}
		}
	}
	if unknowns > 1 {
		p.line.violated(tok.family.topics(), "%s is sent again after %d unknown outcomes", tok.name, unknowns)
	}
}

// issued notes the tokens of an answer. The caller holds mu.
func (p *provider) issued(f *family, body []byte) *token {
	var got struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		ID      string `json:"id_token"`
		Seconds int    `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &got); err != nil || f == nil {
		p.line.violated(nil, "the provider's own answer is not understood: %v", err)
		return &token{}
	}
	if claims := strings.Split(got.ID, "."); len(claims) == 3 {
		var id struct{ SID string }
		if text, err := base64.RawURLEncoding.DecodeString(claims[1]); err == nil && json.Unmarshal(text, &id) == nil {
			f.sid = id.SID
		}
	}
	now := time.Now()
	sum := sha256.Sum256([]byte(got.Refresh))
	expires := now.Add(time.Duration(got.Seconds) * time.Second)
	tok := &token{name: "token " + hex.EncodeToString(sum[:3]), family: f, expires: expires}
	p.refresh[got.Refresh] = tok
	p.access[got.Access] = access{f, expires}
	return tok
}

// accessToken is one that was issued.
func (p *provider) accessToken() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for token := range p.access {
		return token
	}
	return ""
}

func (p *provider) outcome(tok *token, sent *presentation, o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent.outcome, sent.answered = o, time.Now()
	if tok != nil && o != success {
		p.line.about(tok.family.topics(), "provider: %s from %s: %s", tok.name, sent.replica, o)
	}
}

// handOver notes that a new token is on its way.
func (p *provider) handOver(next *token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next.family.current = next
}

// killed notes that a replica's process has ended without a farewell.
func (p *provider) killed(replica string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended[replica] = time.Now()
}

// setFault says what happens to refresh requests that arrive from now on.
func (p *provider) setFault(f tokenFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// setTTL sets the life of access tokens that are issued from now on.
func (p *provider) setTTL(d time.Duration) { p.SetTokenTTL(d) }

// over says why the family of a sign-in cannot be refreshed any more: empty while the provider honours it and Postern may still use
// its refresh token.
func (p *provider) over(label string) string {
	f := p.family(label)
	if f == nil {
		return "the code was never redeemed"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.over != "" {
		return f.over
	}
	unknowns := 0
	for _, s := range f.current.sent {
		if s.outcome == unknown {
			unknowns++
		}
	}
	if unknowns > 1 {
		return "its refresh token had two unknown outcomes"
	}
	return ""
}

// family is what grew from the sign-in of that label, or nil.
func (p *provider) family(label string) *family {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.families {
		if f.label == label && f.current != nil {
			return f
		}
	}
	return nil
}

// together reports whether two sign-ins belong to one session at the provider.
func (p *provider) together(a, b string) bool {
	x, y := p.family(a), p.family(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	return x != nil && y != nil && x.sid != "" && x.sid == y.sid
}

// whose says whom an access token is for and whether it is valid.
func (p *provider) whose(accessToken string) (user, label string, valid bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, known := p.access[accessToken]
	if !known {
		return "", "", false
	}
	return a.family.user, a.family.label, time.Now().Before(a.expires)
}

// refreshes are the refresh requests so far, and those of them that gave new tokens.
func (p *provider) refreshes() (calls, rotated int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls, p.rotated
}

// sends are how often each refresh token was sent that was sent at all: the greatest number, and how many there are.
func (p *provider) sends() (most, tokens int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, tok := range p.refresh {
		most = max(most, len(tok.sent))
		if len(tok.sent) > 0 {
			tokens++
		}
	}
	return most, tokens
}

// peekForm reads the form of a request and leaves the body to be read again.
func peekForm(r *http.Request) url.Values {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return form
}

func copyAnswer(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// A counter counts open connections, and may freeze them: what arrives is not looked at, and a thaw closes them unread.
type counter struct {
	mu     sync.Mutex
	open   map[net.Conn]bool
	frozen chan struct{} // nil, or closed by thaw
}

func (c *counter) state(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]bool{}
	}
	switch s {
	case http.StateNew:
		c.open[conn] = true
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}

func (c *counter) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// freeze cuts the connections that there are and leaves new ones unread.
func (c *counter) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = make(chan struct{})
	for conn := range c.open {
		conn.Close()
	}
}

// thaw ends freeze. What waited is dropped.
func (c *counter) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != nil {
		close(c.frozen)
		c.frozen = nil
	}
}

// A coldListener is one whose connections a counter can freeze.
type coldListener struct {
	net.Listener
	counter *counter
}

func (l coldListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.counter.mu.Lock()
		frozen := l.counter.frozen
		l.counter.mu.Unlock()
		if frozen == nil {
			return conn, nil
		}
		go func() { // ends with thaw
			<-frozen
			conn.Close()
		}()
	}
}

package simtest_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp/simtest"
)

const callback = "https://app.test/oauth2/callback"

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newClock is at a full second, which is what JWTs tell.
func newClock() *clock { return &clock{now: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)} }

// call is one request in the words of a documentation: its parameters in order, as they are written on the wire.
type call struct {
	method, path string
	query, body  []string
	header       http.Header
}

func get(path string, query ...string) call {
	return call{method: "GET", path: path, query: query, header: http.Header{}}
}

func post(path string, body ...string) call {
	return call{method: "POST", path: path, body: body, header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}}
}

// change edits a copy of a call.
type change func(*call)

func (c call) with(changes ...change) call {
	c.query, c.body, c.header = append([]string(nil), c.query...), append([]string(nil), c.body...), c.header.Clone()
	for _, f := range changes {
		f(&c)
	}
	return c
}

func without(name string) change {
	return func(c *call) { c.query, c.body = drop(c.query, name), drop(c.body, name) }
}

func drop(pairs []string, name string) (left []string) {
	for _, p := range pairs {
		if !strings.HasPrefix(p, name+"=") {
			left = append(left, p)
		}
	}
	return left
}

func set(pair string) change {
	name, _, _ := strings.Cut(pair, "=")
	return func(c *call) {
		for _, pairs := range [][]string{c.query, c.body} {
			for i, p := range pairs {
				if strings.HasPrefix(p, name+"=") {
					pairs[i] = pair
				}
			}
		}
	}
}

func add(pair string) change {
	return func(c *call) {
		if len(c.query) > 0 {
			c.query = append(c.query, pair)
		} else {
			c.body = append(c.body, pair)
		}
	}
}

func header(name, value string) change {
	return func(c *call) {
		c.header.Del(name)
		if value != "" {
			c.header.Set(name, value)
		}
	}
}

func basic(id, secret string) change {
	return header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(id+":"+secret)))
}

// elsewhere moves all parameters from the query to the body, or back.
func elsewhere(c *call) {
	c.query, c.body = c.body, c.query
	c.header.Set("Content-Type", "application/x-www-form-urlencoded")
}

func method(m string) change { return func(c *call) { c.method = m } }
func path(p string) change   { return func(c *call) { c.path = p } }

// reply is what a call got.
type reply struct {
	status int
	text   string
	body   map[string]any
	back   url.Values
}

func (r reply) string(name string) string {
	s, _ := r.body[name].(string)
	return s
}

func send(t *testing.T, s *simtest.Server, c call) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path+"?"+strings.Join(c.query, "&"), strings.NewReader(strings.Join(c.body, "&")))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.query) == 0 {
		r.URL.ForceQuery = false
	}
	r.Header = c.header
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{status: resp.StatusCode, text: string(text)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(text, &got.body); err != nil {
			t.Fatal(err)
		}
	}
	if location, err := resp.Location(); err == nil {
		got.back = location.Query()
		location.RawQuery = ""
		if location.String() != callback {
			t.Errorf("sent back to %s", location)
		}
	}
	return got
}

// fine sends what must work and be counted as no error.
func fine(t *testing.T, s *simtest.Server, c call) reply {
	t.Helper()
	before := len(s.Errors())
	got := send(t, s, c)
	if got.status >= 400 || got.body["error"] != nil {
		t.Fatalf("%s %s: %d %s %v", c.method, c.path, got.status, got.text, s.Errors())
	}
	if all := s.Errors(); len(all) != before {
		t.Errorf("%s %s is counted as an error: %v", c.method, c.path, all[before:])
	}
	return got
}

// refused sends what must be refused and counted with a text that says why.
func refused(t *testing.T, s *simtest.Server, c call, why string) {
	t.Helper()
	before := len(s.Errors())
	got := send(t, s, c)
	if got.status < 400 || got.back != nil || got.string("access_token") != "" {
		t.Errorf("passes: %d %s", got.status, got.text)
	}
	all := strings.Join(s.Errors()[before:], "\n")
	if !strings.Contains(all, why) {
		t.Errorf("is counted as %q, want %q", all, why)
	}
}

// wrongs are changes of a call that must be refused, by what the error says.
type wrongs map[string]struct {
	change
	why string
}

func (w wrongs) check(t *testing.T, s *simtest.Server, base func() call) {
	t.Helper()
	for name, c := range w {
		t.Run(name, func(t *testing.T) { refused(t, s, base().with(c.change), c.why) })
	}
}

var hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

func whose(t *testing.T, s *simtest.Server, token, user string) {
	t.Helper()
	h, err := s.Whose(token)
	if err != nil || h.User != user {
		t.Errorf("the token is %q's, %v; want %q's", h.User, err, user)
	}
	got := fine(t, s, get("/api/whoami").with(header("Authorization", "Bearer "+token)))
	if got.body["user"] != user {
		t.Errorf("the API says %s", got.text)
	}
}

func TestMetamaps(t *testing.T) {
	c := newClock()
	m := simtest.NewMetamaps(t, simtest.Options{Now: c.Now})
	s := m.Server
	s.AddClient(simtest.Client{ID: "app", Secret: "s ecret", RedirectURIs: []string{callback}})
	s.AddUser(simtest.User{Name: "ada"})

	authorize := get("/oauth/authorize", "client_id=app", "redirect_uri="+url.QueryEscape(callback), "response_type=code")
	wrongs{
		"no client_id":       {without("client_id"), "client_id is missing"},
		"no redirect_uri":    {without("redirect_uri"), "redirect_uri is missing"},
		"no response_type":   {without("response_type"), "response_type is missing"},
		"other type":         {set("response_type=token"), "response_type must be code"},
		"other client":       {set("client_id=other"), "no such client"},
		"other redirect_uri": {set("redirect_uri=https%3A%2F%2Fapp.test%2F"), "redirect_uri is not registered"},
		"twice":              {add("client_id=app"), "more than once"},
		"in the body":        {elsewhere, "must be in the query"},
		"POST":               {method("POST"), "method must be GET"},
		"other path":         {path("/oauth/authorize/"), "no such address"},
		"discovery":          {path("/.well-known/openid-configuration"), "no such address"},
	}.check(t, s, func() call { return authorize })

	back := fine(t, s, authorize.with(add("state=a%26b"), add("scope=x"), add("code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), add("code_challenge_method=S256"))).back
	if back.Get("state") != "a&b" || back.Get("code") == "" {
		t.Fatalf("back came %v", back)
	}
	code := func() string { return fine(t, s, authorize).back.Get("code") }
	token := func(code string) call {
		return call{method: "POST", path: "/oauth/token", header: http.Header{}, query: []string{
			"client_id=app", "client_secret=s+ecret", "code=" + code, "grant_type=authorization_code", "redirect_uri=" + url.QueryEscape(callback)}}
	}
	wrongs{
		"no client_id":     {without("client_id"), "client_id is missing"},
		"no client_secret": {without("client_secret"), "client_secret is missing"},
		"wrong secret":     {set("client_secret=other"), "another secret"},
		"no code":          {without("code"), "code is missing"},
		"empty code":       {set("code="), "code is missing"},
		"unknown code":     {set("code=unknown"), "not issued to this client"},
		"no grant_type":    {without("grant_type"), "grant_type is missing"},
		"other grant_type": {set("grant_type=password"), "not documented"},
		"no redirect_uri":  {without("redirect_uri"), "redirect_uri is missing"},
		"other redirect":   {set("redirect_uri=https%3A%2F%2Fother.test"), "not that of the authorization request"},
		"in the body":      {elsewhere, "must be in the query"},
		"body too":         {func(c *call) { c.body = []string{"a=b"} }, "there is a body"},
		"Basic":            {func(c *call) { without("client_secret")(c); basic("app", "s+ecret")(c) }, "must not authenticate in a header"},
		"both":             {basic("app", "s+ecret"), "must not authenticate in a header"},
		"GET":              {method("GET"), "method must be POST"},
	}.check(t, s, func() call { return token(code()) })

	refused(t, s, token(back.Get("code")), "code_verifier")
	got := fine(t, s, token(back.Get("code")).with(add("code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")))
	if !hex64.MatchString(got.string("access_token")) || !hex64.MatchString(got.string("refresh_token")) || got.body["token_type"] != "bearer" || got.body["expires_in"] != 7200.0 || len(got.body) != 4 {
		t.Errorf("answer %s", got.text)
	}
	refused(t, s, token(back.Get("code")), "the code is spent")
	old := code()
	c.add(11 * time.Minute)
	refused(t, s, token(old), "the code has expired")
	whose(t, s, got.string("access_token"), "ada")
	c.add(2 * time.Hour)
	if _, err := s.Whose(got.string("access_token")); err == nil {
		t.Error("the token does not expire")
	}

	refresh := func(token string) call {
		return call{method: "POST", path: "/oauth/token", header: http.Header{}, query: []string{
			"client_id=app", "client_secret=s%20ecret", "refresh_token=" + token, "grant_type=refresh_token"}}
	}
	wrongs{
		"no refresh_token": {without("refresh_token"), "refresh_token is missing"},
		"in the body":      {elsewhere, "must be in the query"},
		"unknown":          {set("refresh_token=unknown"), "not issued to this client"},
	}.check(t, s, func() call { return refresh(got.string("refresh_token")) })
	next := fine(t, s, refresh(got.string("refresh_token")))
	if next.string("refresh_token") == got.string("refresh_token") || !hex64.MatchString(next.string("refresh_token")) {
		t.Errorf("the refresh token does not rotate: %s", next.text)
	}
	refused(t, s, refresh(got.string("refresh_token")), "it is spent")
	whose(t, s, next.string("access_token"), "ada")
	if s.Granted("refresh_token") != 1 || s.Granted("authorization_code") != 1 {
		t.Errorf("%d refreshes, %d codes", s.Granted("refresh_token"), s.Granted("authorization_code"))
	}
}

func TestMetamapsDisplaysTheCodeOutOfBand(t *testing.T) {
	m := simtest.NewMetamaps(t, simtest.Options{})
	m.AddClient(simtest.Client{ID: "app", Secret: "secret"})
	m.AddUser(simtest.User{Name: "ada"})
	page := fine(t, m.Server, get("/oauth/authorize", "client_id=app", "redirect_uri="+url.QueryEscape(simtest.OutOfBand), "response_type=code"))
	code := regexp.MustCompile(`<code id="authorization_code">([A-Z0-9]+)</code>`).FindStringSubmatch(page.text)
	if code == nil {
		t.Fatalf("no code on %s", page.text)
	}
	got := fine(t, m.Server, call{method: "POST", path: "/oauth/token", header: http.Header{}, query: []string{
		"client_id=app", "client_secret=secret", "code=" + code[1], "grant_type=authorization_code", "redirect_uri=" + simtest.OutOfBand}})
	whose(t, m.Server, got.string("access_token"), "ada")
}

func TestBreakOut(t *testing.T) {
	b := simtest.NewBreakOut(t, simtest.Options{})
	s := b.Server
	s.AddClient(simtest.Client{ID: "app", Secret: "s:ecret", Scopes: []string{"read", "write"}})
	s.AddUser(simtest.User{Name: "ada@example.com", Password: "pass word", Members: map[string]any{"email": "ada@example.com"}})

	token := post("/oauth/token", "username=ada%40example.com", "password=pass+word", "grant_type=password", "scope=read+write").
		with(basic("app", "s%3Aecret"), header("Accept", "application/json"))
	wrongs{
		"no username":      {without("username"), "username is missing"},
		"no password":      {without("password"), "password is missing"},
		"no scope":         {without("scope"), "scope is missing"},
		"other scope":      {set("scope=admin"), "may not ask for the scope admin"},
		"%20":              {set("scope=read%20write"), "must be +"},
		"no grant_type":    {without("grant_type"), "grant_type is missing"},
		"other grant_type": {set("grant_type=client_credentials"), "not documented"},
		"in the query":     {elsewhere, "there is a query"},
		"JSON":             {header("Content-Type", "application/json"), "not application/x-www-form-urlencoded"},
		"no Accept":        {header("Accept", ""), "Accept must be"},
		"no Basic":         {header("Authorization", ""), "must authenticate by HTTP Basic"},
		"by form": {func(c *call) {
			header("Authorization", "")(c)
			add("client_id=app")(c)
			add("client_secret=s%3Aecret")(c)
		}, "must authenticate by HTTP Basic"},
		"both":            {add("client_secret=s%3Aecret"), "must not authenticate by parameters"},
		"wrong secret":    {basic("app", "other"), "another secret"},
		"other client_id": {add("client_id=other"), "client_id names another client"},
		"GET":             {method("GET"), "method must be POST"},
		"authorize":       {path("/oauth/authorize"), "no such address"},
	}.check(t, s, func() call { return token })

	before := len(s.Errors())
	for _, wrong := range []string{"password=other", "username=eve%40example.com"} {
		if got := send(t, s, token.with(set(wrong))); got.status != 400 || got.body["error"] != "invalid_grant" {
			t.Errorf("%s: %d %s", wrong, got.status, got.text)
		}
	}
	if len(s.Errors()) != before {
		t.Error("a wrong password is counted as a protocol error")
	}

	got := fine(t, s, token)
	first := got.string("refresh_token")
	if got.body["token_type"] != "bearer" || got.body["expires_in"] != 42961.0 || got.body["scope"] != "read write" || first == "" {
		t.Errorf("answer %s", got.text)
	}
	whose(t, s, got.string("access_token"), "ada@example.com")
	me := get("/me/").with(header("Authorization", "Bearer "+got.string("access_token")))
	if got := fine(t, s, me); !cmp.Equal(got.body, map[string]any{"id": 7.0, "email": "ada@example.com"}) {
		t.Errorf("/me/ says %s", got.text)
	}
	wrongs{
		"no token":    {header("Authorization", ""), "no Authorization: Bearer"},
		"other token": {header("Authorization", "Bearer other"), "was not issued here"},
		"no slash":    {path("/me"), "no such address"},
	}.check(t, s, func() call { return me })

	refresh := post("/oauth/token", "refresh_token="+first, "grant_type=refresh_token").with(basic("app", "s%3Aecret"))
	wrongs{
		"no refresh_token": {without("refresh_token"), "refresh_token is missing"},
		"by form": {func(c *call) {
			header("Authorization", "")(c)
			add("client_id=app")(c)
			add("client_secret=s%3Aecret")(c)
		}, "must authenticate by HTTP Basic"},
		"unknown": {set("refresh_token=unknown"), "not issued to this client"},
	}.check(t, s, func() call { return refresh })
	if next := fine(t, s, refresh); next.body["refresh_token"] != nil || next.string("access_token") == got.string("access_token") {
		t.Errorf("answer %s", next.text)
	}
	b.SendRefreshTokenAgain(true)
	if next := fine(t, s, refresh); next.string("refresh_token") != first {
		t.Errorf("answer %s", next.text)
	}
	s.RevokeUser("ada@example.com")
	refused(t, s, refresh, "the person revoked it")
}

func TestGearCode(t *testing.T) {
	c := newClock()
	g := simtest.NewGearCode(t, simtest.Options{Now: c.Now})
	s := g.Server
	s.AddClient(simtest.Client{ID: "app", Secret: "secret", RedirectURIs: []string{callback}})
	s.AddUser(simtest.User{Name: "ada", Members: map[string]any{"name": "Ada"}})

	authorize := get("/oauth/authorize", "redirect_uri="+url.QueryEscape(callback), "client_id=app", "response_type=code")
	wrongs{
		"no client_id":       {without("client_id"), "client_id is missing"},
		"no redirect_uri":    {without("redirect_uri"), "redirect_uri is missing"},
		"no response_type":   {without("response_type"), "response_type is missing"},
		"other redirect_uri": {set("redirect_uri=https%3A%2F%2Fapp.test%2Foauth2%2Fcallback%2F"), "redirect_uri is not registered"},
	}.check(t, s, func() call { return authorize })
	code := func() string { return fine(t, s, authorize).back.Get("code") }
	token := func() call {
		return post("/oauth/token", "code="+code(), "grant_type=authorization_code", "client_id=app", "client_secret=secret", "resource_id=app")
	}
	wrongs{
		"no code":           {without("code"), "code is missing"},
		"no resource_id":    {without("resource_id"), "resource_id is missing"},
		"other resource_id": {set("resource_id=other"), "resource_id must be the client id"},
		"no client_secret":  {without("client_secret"), "client_secret is missing"},
		"in the query":      {elsewhere, "there is a query"},
		"one in the query":  {func(c *call) { without("resource_id")(c); c.query = []string{"resource_id=app"} }, "resource_id must be in the body"},
		"Basic":             {func(c *call) { without("client_secret")(c); basic("app", "secret")(c) }, "must not authenticate in a header"},
		"both":              {basic("app", "secret"), "must not authenticate in a header"},
		"other redirect":    {add("redirect_uri=https%3A%2F%2Fother.test"), "not that of the authorization request"},
	}.check(t, s, token)

	got := fine(t, s, token().with(add("redirect_uri="+url.QueryEscape(callback))))
	if got.body["token_type"] != "bearer" || got.body["expires_in"] != 899.0 {
		t.Errorf("answer %s", got.text)
	}
	claims := claimsOf(t, got.string("access_token"))
	if claims["sub"] != "ada" || claims["name"] != "Ada" || claims["exp"] != float64(c.Now().Add(899*time.Second).Unix()) {
		t.Errorf("claims %v", claims)
	}
	whose(t, s, got.string("access_token"), "ada")

	refresh := func(token string) call {
		return post("/oauth/token", "grant_type=refresh_token", "refresh_token="+token, "client_id=app", "resource_id=app", "client_secret=secret")
	}
	wrongs{
		"no refresh_token": {without("refresh_token"), "refresh_token is missing"},
		"no resource_id":   {without("resource_id"), "resource_id is missing"},
		"no client_id":     {without("client_id"), "client_id is missing"},
	}.check(t, s, func() call { return refresh(got.string("refresh_token")) })
	c.add(899 * time.Second)
	if _, err := s.Whose(got.string("access_token")); err == nil {
		t.Error("the token does not expire")
	}
	next := fine(t, s, refresh(got.string("refresh_token")))
	if next.body["expires_in"] != 899.0 || next.string("refresh_token") == got.string("refresh_token") {
		t.Errorf("answer %s", next.text)
	}
	refused(t, s, refresh(got.string("refresh_token")), "it is spent")
	whose(t, s, next.string("access_token"), "ada")

	g.LeaveOutSub(true)
	if sub, has := claimsOf(t, fine(t, s, token()).string("access_token"))["sub"]; has {
		t.Errorf("sub is %v", sub)
	}
	s.Refuse(true)
	if back := send(t, s, authorize.with(add("state=st"))).back; back.Get("error") != "access_denied" || back.Get("state") != "st" {
		t.Errorf("a refusal is %v", back)
	}
}

func TestMetafy(t *testing.T) {
	m := simtest.NewMetafy(t, simtest.Options{})
	s := m.Server
	s.AddClient(simtest.Client{ID: "app", Secret: "secret", RedirectURIs: []string{callback}, Scopes: []string{"profile", "email"}, Owner: "owner"})
	s.AddClient(simtest.Client{ID: "other", Secret: "other-secret"})
	s.AddUser(simtest.User{Name: "ada"})
	s.AddUser(simtest.User{Name: "owner"})

	authorize := get("/auth/authorize", "client_id=app", "redirect_uri="+url.QueryEscape(callback), "scope=profile%20email", "state=st")
	wrongs{
		"no client_id": {without("client_id"), "client_id is missing"},
		"no scope":     {without("scope"), "scope is missing"},
		"no state":     {without("state"), "state is missing"},
		"plus":         {set("scope=profile+email"), "must be %20, not +"},
		"other scope":  {set("scope=admin"), "may not ask for the scope admin"},
		"commas":       {set("scope=profile,email"), "may not ask for the scope profile,email"},
	}.check(t, s, func() call { return authorize })
	code := func() string { return fine(t, s, authorize).back.Get("code") }
	token := func() call {
		return post("/irk/oauth/token", "grant_type=authorization_code", "code="+code(), "redirect_uri="+url.QueryEscape(callback), "client_id=app", "client_secret=secret")
	}
	wrongs{
		"no code":         {without("code"), "code is missing"},
		"no redirect_uri": {without("redirect_uri"), "redirect_uri is missing"},
		"no client_id":    {without("client_id"), "client_id is missing"},
		"in the query":    {elsewhere, "there is a query"},
		"Basic":           {func(c *call) { without("client_secret")(c); basic("app", "secret")(c) }, "must not authenticate in a header"},
		"both":            {basic("app", "secret"), "must not authenticate in a header"},
		"other client":    {func(c *call) { set("client_id=other")(c); set("client_secret=other-secret")(c) }, "not issued to this client"},
		"derived path":    {path("/auth/token"), "no such address"},
	}.check(t, s, token)
	got := fine(t, s, token().with(add("response_type=code")))
	whose(t, s, got.string("access_token"), "ada")
	refresh := post("/irk/oauth/token", "grant_type=refresh_token", "refresh_token="+got.string("refresh_token"), "client_id=app", "client_secret=secret")
	next := fine(t, s, refresh)
	refused(t, s, refresh, "it is spent")

	credentials := post("/irk/oauth/token", "grant_type=client_credentials", "scope=profile", "client_id=app", "client_secret=secret")
	own := fine(t, s, credentials)
	if own.body["refresh_token"] != nil {
		t.Errorf("answer %s", own.text)
	}
	whose(t, s, own.string("access_token"), "owner")
	fine(t, s, credentials.with(without("scope")))
	refused(t, s, credentials.with(set("scope=admin")), "may not ask for the scope admin")

	revoke := func(token, hint string) call {
		return post("/irk/oauth/revoke", "token="+token, "token_type_hint="+hint, "client_id=app", "client_secret=secret")
	}
	wrongs{
		"no token":     {without("token"), "token is missing"},
		"no secret":    {without("client_secret"), "client_secret is missing"},
		"unknown hint": {set("token_type_hint=any"), "token_type_hint must be"},
		"other hint":   {set("token_type_hint=access_token"), "other kind of token"},
		"Basic":        {func(c *call) { without("client_secret")(c); basic("app", "secret")(c) }, "must not authenticate in a header"},
		"in the query": {elsewhere, "there is a query"},
		"other client": {func(c *call) { set("client_id=other")(c); set("client_secret=other-secret")(c) }, "not issued to this client"},
	}.check(t, s, func() call { return revoke(next.string("refresh_token"), "refresh_token") })
	whose(t, s, next.string("access_token"), "ada")
	another := fine(t, s, token()).string("access_token")
	fine(t, s, revoke(next.string("refresh_token"), "refresh_token"))
	whose(t, s, another, "ada") // of another sign-in
	if _, err := s.Whose(next.string("access_token")); err == nil {
		t.Error("the access token outlives its refresh token")
	}
	fine(t, s, revoke(next.string("access_token"), "access_token"))
	fine(t, s, revoke(own.string("access_token"), "access_token").with(without("token_type_hint")))
	if _, err := s.Whose(own.string("access_token")); err == nil {
		t.Error("a revoked token works")
	}
	fine(t, s, revoke("unknown", "refresh_token")) // RFC 7009 section 2.2
	refused(t, s, refresh.with(set("refresh_token="+next.string("refresh_token"))), "the client revoked it")
}

func TestLikeCoin(t *testing.T) {
	c := newClock()
	l := simtest.NewLikeCoin(t, simtest.Options{Now: c.Now})
	s := l.Server
	s.AddClient(simtest.Client{ID: "app", Secret: "secret", RedirectURIs: []string{callback}, Scopes: []string{"profile", "read:like.info"}})
	s.AddUser(simtest.User{Name: "ada", Members: map[string]any{"displayName": "Ada L.", "avatar": "https://like.co/ada.png"}})
	s.AddUser(simtest.User{Name: "bob"})

	authorize := get("/in/oauth/", "client_id=app", "scope=profile%20read%3Alike.info", "redirect_uri="+url.QueryEscape(callback), "state=st")
	wrongs{
		"no client_id":    {without("client_id"), "client_id is missing"},
		"no scope":        {without("scope"), "scope is missing"},
		"no redirect_uri": {without("redirect_uri"), "redirect_uri is missing"},
		"no state":        {without("state"), "state is missing"},
		"other scope":     {set("scope=email"), "may not ask for the scope email"},
		"plus":            {set("scope=profile+read%3Alike.info"), "must be %20, not +"},
		"no slash":        {path("/in/oauth"), "no such address"},
	}.check(t, s, func() call { return authorize })
	back := fine(t, s, authorize.with(add("response_type=code"))).back
	if back.Get("auth_code") == "" || back.Has("code") || back.Get("state") != "st" {
		t.Errorf("back came %v", back)
	}
	code := func() string { return fine(t, s, authorize).back.Get("auth_code") }
	token := func() call {
		return post("/oauth/access_token", "client_id=app", "client_secret=secret", "grant_type=authorization_code", "code="+code(), "redirect_uri="+url.QueryEscape(callback))
	}
	wrongs{
		"no code":         {without("code"), "code is missing"},
		"auth_code":       {func(c *call) { without("code")(c); add("auth_code=x")(c) }, "code is missing"},
		"no redirect_uri": {without("redirect_uri"), "redirect_uri is missing"},
		"no secret":       {without("client_secret"), "client_secret is missing"},
		"in the query":    {elsewhere, "there is a query"},
		"Basic":           {func(c *call) { without("client_secret")(c); basic("app", "secret")(c) }, "must not authenticate in a header"},
		"both":            {basic("app", "secret"), "must not authenticate in a header"},
	}.check(t, s, token)

	got := fine(t, s, token())
	if got.body["user"] != "ada" || got.body["displayName"] != "Ada L." || got.body["avatar"] != "https://like.co/ada.png" || len(got.body) != 5 {
		t.Errorf("answer %s", got.text)
	}
	claims := claimsOf(t, got.string("access_token"))
	if jti, _ := claims["jti"].(string); jti == "" {
		t.Error("no jti")
	}
	delete(claims, "jti")
	want := map[string]any{
		"user": "ada", "scope": []any{"profile", "read:like.info"}, "azp": "app", "aud": "like.co", "iss": "like.co",
		"iat": float64(c.Now().Unix()), "exp": float64(c.Now().Add(time.Hour).Unix()),
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	whose(t, s, got.string("access_token"), "ada")

	refresh := func(token string) call {
		return post("/oauth/access_token", "grant_type=refresh_token", "refresh_token="+token, "client_id=app", "client_secret=secret")
	}
	first := got.string("refresh_token")
	c.add(1000 * time.Hour)
	if next := fine(t, s, refresh(first)); len(next.body) != 1 {
		t.Errorf("answer %s", next.text)
	}
	fine(t, s, refresh(first)) // it does not expire
	l.TellPersonAgain(true)
	if next := fine(t, s, refresh(first)); next.body["user"] != "ada" {
		t.Errorf("answer %s", next.text)
	}

	s.SignInAs("bob")
	fine(t, s, token())
	fine(t, s, refresh(first)) // another person's sign-in
	s.SignInAs("ada")
	second := fine(t, s, token()).string("refresh_token")
	refused(t, s, refresh(first), "another one was issued for the same client and person")
	l.Rotate(true)
	third := fine(t, s, refresh(second)).string("refresh_token")
	if third == "" || third == second {
		t.Errorf("the refresh token does not rotate")
	}
	refused(t, s, refresh(second), "it is spent")
	fine(t, s, refresh(third))

	s.Refuse(true)
	if back := fine(t, s, authorize).back; !cmp.Equal(back, url.Values{"error": {"denied"}}) {
		t.Errorf("a refusal is %v", back)
	}
	l.RefuseBy("result", true)
	if back := fine(t, s, authorize).back; !cmp.Equal(back, url.Values{"result": {"denied"}, "state": {"st"}}) {
		t.Errorf("a refusal is %v", back)
	}
}

func TestScript(t *testing.T) {
	m := simtest.NewMetafy(t, simtest.Options{})
	m.AddClient(simtest.Client{ID: "app", Secret: "secret", Owner: "owner"})
	credentials := post("/irk/oauth/token", "grant_type=client_credentials", "client_id=app", "client_secret=secret")
	m.Fail(simtest.Token, 503, 1, "Retry-After", "3")
	if got := send(t, m.Server, credentials); got.status != 503 || len(m.Errors()) != 0 {
		t.Errorf("%d %v", got.status, m.Errors())
	}
	fine(t, m.Server, credentials)

	held := m.Hold(simtest.Token)
	answered := make(chan reply)
	go func() { answered <- send(t, m.Server, credentials) }()
	<-held.Processed()
	if m.Granted("client_credentials") != 2 {
		t.Error("the request is not processed yet")
	}
	select {
	case <-answered:
		t.Error("the answer was not held")
	default:
	}
	held.Release()
	held.Release()
	if got := <-answered; got.string("access_token") == "" {
		t.Errorf("the answer is %v", got)
	}
	m.Down()
	if _, err := http.Get(m.URL); err == nil { //nolint:noctx // an address of this test
		t.Error("it answers while it is down")
	}
	m.Up(t)
	fine(t, m.Server, credentials)
	if m.Calls(simtest.Token) != 4 {
		t.Errorf("%d calls", m.Calls(simtest.Token))
	}
}

// claimsOf reads a JWT without its signature.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	var head, claims map[string]any
	for i, into := range []*map[string]any{&head, &claims} {
		plain, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(plain, into); err != nil {
			t.Fatal(err)
		}
	}
	if head["alg"] != "HS256" {
		t.Errorf("header %v", head)
	}
	return claims
}

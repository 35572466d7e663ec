package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session/memstore"
)

const adminConfig = `
server: {listen: "${LISTEN}", admin: {token: admin-canary-token}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - upstream: ${UPSTREAM}
`

// asked is an answer of the admin listener.
type asked struct {
	Status   int
	Header   http.Header
	Text     string
	Sessions []map[string]any
	Next     string
	Ended    int
	Code     string
	Param    string `json:"parameter"`
}

// ask asks the admin listener as an operator with the token would; header is name, value.
func ask(t *testing.T, s *proxytest.Stack, method, target string, header ...string) (a asked) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9090"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:40000"
	r.Header.Set("Authorization", "Bearer admin-canary-token")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	w := newRecorder()
	s.Proxy.Admin().ServeHTTP(w, r)
	a.Status, a.Header, a.Text = w.Code, w.Header(), w.Body.String()
	if strings.Contains(a.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v", a.Text, err)
		}
	}
	return a
}

func TestOperatorsFindSessionsByUserSubjectAndSID(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: adminConfig})
	s.Provider.MutateIDToken(func(_, claims map[string]any) { claims["sid"] = "sid of " + claims["sub"].(string) })
	signedIn(t, s, 2)
	s.Provider.SignInAs("bob")
	signedIn(t, s, 1)
	for query, want := range map[string]int{"user=alice": 2, "sub=alice": 2, "sid=sid+of+bob": 1, "user=bob&provider=corp": 1, "user=carol": 0, "sub=ALICE": 0, "user=ALICE": 0, "sub=*": 0} {
		a := ask(t, s, "GET", "/sessions?"+query)
		if a.Status != 200 || len(a.Sessions) != want || a.Next != "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", query, a.Status, a.Text)
		}
	}
	one := ask(t, s, "GET", "/sessions?user=bob").Sessions[0]
	for name, want := range map[string]any{"provider": "corp", "user": "bob", "sub": "bob", "sid": "sid of bob", "browser": "Firefox"} {
		if one[name] != want {
			t.Errorf("%s = %v", name, one[name])
		}
	}
	for _, name := range []string{"id", "session", "created", "seen", "ends"} {
		if text, _ := one[name].(string); text == "" {
			t.Errorf("%s = %v", name, one[name])
		}
	}
}

func TestOperatorsEndOneSessionOrAllOfAPerson(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: adminConfig})
	all := signedIn(t, s, 3)
	s.Provider.SignInAs("bob")
	bob := signedIn(t, s, 1)[0]
	id := ask(t, s, "GET", "/sessions?user=alice").Sessions[0]["id"].(string)
	if a := ask(t, s, "DELETE", "/sessions/"+id); a.Status != 200 || a.Ended != 1 {
		t.Errorf("one: %d %s", a.Status, a.Text)
	}
	if a := ask(t, s, "DELETE", "/sessions/"+id); a.Status != 404 || a.Code != "no_session" {
		t.Errorf("again: %d %s", a.Status, a.Text)
	}
	left := 0
	for _, b := range all {
		if alive(b) {
			left++
		}
	}
	if left != 2 {
		t.Errorf("%d of 3 are left", left)
	}
	if a := ask(t, s, "DELETE", "/sessions?user=alice"); a.Status != 200 || a.Ended != 2 {
		t.Errorf("all: %d %s", a.Status, a.Text)
	}
	for _, b := range all {
		if a := b.Fetch("/"); a.StatusCode != 401 || !strings.Contains(a.Text, `"ended":"admin"`) {
			t.Errorf("%s %s", a.Status, a.Text)
		}
	}
	if !alive(bob) {
		t.Error("someone else's session ended")
	}
	lines := audited(t, s, "admin_end")
	if len(lines) != 2 || lines[0]["id"] != id || lines[1]["user"] != "alice" || lines[1]["count"] != 2.0 || lines[1]["client"] != "127.0.0.1" || lines[1]["complete"] != true {
		t.Errorf("audit: %v", lines)
	}
	oneAudited(t, s, "admin_list", map[string]any{"user": "alice", "count": 3.0})
}

// A selection that is misspelled, doubled or empty must never be taken for a wider one.
func TestOperatorsMistakesEndNothing(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: adminConfig})
	b := signedIn(t, s, 1)[0]
	for query, parameter := range map[string]string{
		"":                       "user, sub or sid",
		"?":                      "user, sub or sid",
		"?provider=corp":         "user, sub or sid",
		"?user=":                 "user",
		"?user=alice&sub=alice":  "user, sub or sid",
		"?user=alice&user=bob":   "user",
		"?usr=alice":             "usr",
		"?user=alice&provider=x": "provider",
		"?user=alice&all=1":      "all",
		"?user=%zz":              "query",
		"?user=alice&after=x":    "after",
		"?user=alice&limit=1":    "limit",
	} {
		a := ask(t, s, "DELETE", "/sessions"+query)
		if a.Status != 400 || a.Param != parameter || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("DELETE %s: %d %s", query, a.Status, a.Text)
		}
	}
	for query, parameter := range map[string]string{
		"?user=alice&limit=0": "limit", "?user=alice&limit=1001": "limit", "?user=alice&limit=x": "limit",
		"?user=alice&after=x": "after", "?user=alice&after=other:": "after", "?user=alice&after=corp:nonsense": "after",
	} {
		if a := ask(t, s, "GET", "/sessions"+query); a.Status != 400 || a.Param != parameter {
			t.Errorf("GET %s: %d %s", query, a.Status, a.Text)
		}
	}
	for _, id := range []string{"x", "*", "%2e%2e", strings.Repeat("a", 4000), "x?user=alice"} {
		if a := ask(t, s, "DELETE", "/sessions/"+id); a.Status != 404 && a.Status != 400 {
			t.Errorf("DELETE %.10s: %d %s", id, a.Status, a.Text)
		}
	}
	for _, method := range []string{"HEAD", "POST", "PUT", "OPTIONS"} {
		if a := ask(t, s, method, "/sessions?user=alice"); a.Status != 405 || a.Header.Get("Allow") != "GET, DELETE" {
			t.Errorf("%s: %d %v", method, a.Status, a.Header)
		}
		if a := ask(t, s, method, "/sessions/x"); a.Status != 405 || a.Header.Get("Allow") != "DELETE" {
			t.Errorf("%s: %d %v", method, a.Status, a.Header)
		}
	}
	if !alive(b) {
		t.Error("a session ended")
	}
}

func TestOperatorsPagesCoverEachSessionOfEachProviderOnce(t *testing.T) {
	other := idptest.NewServer(t)
	other.AddUser(idptest.User{Sub: "alice"})
	other.SignInAs("alice")
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}", admin: {token: admin-canary-token}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
  club: {issuer: "${OTHER}", client_id: wiki, client_secret: canary-client-secret}
  again: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, provider: corp, upstream: "${UPSTREAM}"}
  - {path: /club/, provider: club, upstream: "${UPSTREAM}"}
`, Env: map[string]string{"OTHER": other.URL}})
	other.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic", RedirectURIs: []string{s.URL + "/oauth2/callback"}})
	proxytest.Eventually(t, func() bool { return ask(t, s, "GET", "/readyz?strict=1").Status == http.StatusOK }) // both providers are discovered
	for _, b := range signedIn(t, s, 5) {
		b.Go("/club/").Received(t)
	}
	var seen map[string]string
	for _, limit := range []string{"3", "5", "1000"} { // with 5, a page ends where a provider's sessions do
		pages := 0
		seen = map[string]string{}
		for after := ""; pages == 0 || after != ""; pages++ {
			query := url.Values{"user": {"alice"}, "limit": {limit}}
			if after != "" {
				query.Set("after", after)
			}
			a := ask(t, s, "GET", "/sessions?"+query.Encode())
			if most, _ := strconv.Atoi(limit); a.Status != 200 || len(a.Sessions) > most || pages > 6 {
				t.Fatalf("page %d: %d %s", pages, a.Status, a.Text)
			}
			for _, one := range a.Sessions {
				id := one["id"].(string)
				if seen[id] != "" {
					t.Errorf("%s is there twice", id)
				}
				seen[id] = one["provider"].(string)
			}
			after = a.Next
		}
		if len(seen) != 10 {
			t.Errorf("%d sessions on %d pages of %s: %v", len(seen), pages, limit, seen)
		}
	}
	if a := ask(t, s, "GET", "/sessions?user=alice&provider=club"); len(a.Sessions) != 5 {
		t.Errorf("of one provider: %s", a.Text)
	}
	if a := ask(t, s, "DELETE", "/sessions?user=alice&provider=club"); a.Ended != 5 {
		t.Errorf("ended: %s", a.Text)
	}
	for id, provider := range seen {
		want := 200
		if provider == "club" {
			want = 404
		}
		if a := ask(t, s, "DELETE", "/sessions/"+id); a.Status != want {
			t.Errorf("one of %s: %d %s", provider, a.Status, a.Text)
		}
	}
}

func TestOperatorsLearnThatTheStoreIsDown(t *testing.T) {
	store := &listless{Store: memstore.New(memstore.Options{})}
	s := proxytest.New(t, proxytest.Options{Config: adminConfig, Store: store})
	b := signedIn(t, s, 1)[0]
	id := ask(t, s, "GET", "/sessions?user=alice").Sessions[0]["id"].(string)
	store.down.Store(true)
	for _, c := range [][2]string{{"GET", "?user=alice"}, {"DELETE", "?user=alice"}, {"DELETE", "/" + id}} {
		a := ask(t, s, c[0], "/sessions"+c[1])
		if a.Status != 503 || a.Code != "store_unavailable" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", c[0], c[1], a.Status, a.Text)
		}
	}
	store.down.Store(false)
	b.Post("/oauth2/logout", nil)
}

// A121: the sessions API is not there unless it is asked for, never on the public listener, and never for a browser.
func TestA121_SessionsAPIIsForOperatorsAlone(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: adminConfig})
	b := signedIn(t, s, 1)[0]
	for name, c := range map[string]struct {
		header []string
		want   int
	}{
		"no token":    {[]string{"Authorization", ""}, 401},
		"wrong token": {[]string{"Authorization", "Bearer admin-canary-tokem"}, 401},
		"basic":       {[]string{"Authorization", "Basic admin-canary-token"}, 401},
		"cookie":      {[]string{"Authorization", "", "Cookie", "token=admin-canary-token"}, 401},
		"browser":     {[]string{"Origin", "http://127.0.0.1:9090"}, 403},
		"null origin": {[]string{"Origin", "null"}, 403},
		"rebinding":   {[]string{"Host", "evil.com:9090"}, 403},
		"localhost":   {[]string{"Host", "localhost:9090"}, 200},
	} {
		for _, target := range []string{"/sessions?user=nobody", "/sessions/x"} {
			method, want := "GET", c.want
			if target == "/sessions/x" {
				method = "DELETE"
				if want == 200 {
					want = 404
				}
			}
			a := ask(t, s, method, target, c.header...)
			if a.Status != want || want == 401 && a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s, %s: %d %s", name, target, a.Status, a.Text)
			}
		}
	}
	if n := len(audited(t, s, "admin_refused")); n != 14 {
		t.Errorf("%d refusals in the audit log", n)
	}
	if strings.Contains(s.Audit.String(), "canary") || strings.Contains(s.Log.String(), "admin-canary") {
		t.Error("a token was logged")
	}
	if a := b.Do("GET", "/sessions?user=alice", nil, map[string]string{"Authorization": "Bearer admin-canary-token"}); strings.Contains(a.Text, `"sessions"`) {
		t.Errorf("on the public listener: %s", a.Text)
	}
	closed := proxytest.New(t, proxytest.Options{})
	for _, target := range []string{"/sessions?user=alice", "/sessions/x"} {
		if a := ask(t, closed, "GET", target); a.Status != 404 {
			t.Errorf("without server.admin: %s: %d", target, a.Status)
		}
	}
}

// Nothing that opens anything is in the API's answers.
func TestSessionsAPITellsNoToken(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: adminConfig})
	b := s.Browser()
	token := strings.TrimPrefix(b.Go("/").Received(t).Header.Get("Authorization"), "Bearer ")
	a := ask(t, s, "GET", "/sessions?user=alice")
	if len(a.Sessions) != 1 || token == "" || strings.Contains(a.Text, token) || strings.Contains(a.Text, b.Cookie(sessionCookie).Value) {
		t.Errorf("%s", a.Text)
	}
	id := a.Sessions[0]["id"].(string)
	thief := s.Browser()
	thief.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: id[1:], Path: "/"}})
	if alive(thief) {
		t.Error("the id opens the session")
	}
}

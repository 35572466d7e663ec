package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

const frontChannel = "/oauth2/logout/frontchannel"

// frame loads an address as an iframe of the provider's page does: cross-site, so without our Lax cookies.
func frame(s *proxytest.Stack, query url.Values) proxytest.Answer {
	return s.Browser().Do("GET", frontChannel+"?"+query.Encode(), nil, map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"})
}

// -rp-frontchannel-rpinitlogout and -opinitlogout, S41: iss and sid end the session, without any cookie, in a page that the provider alone may frame.
func TestFrontChannelLogoutEndsTheSession(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.MutateMetadata(func(m map[string]any) {
		m["authorization_endpoint"] = strings.Replace(m["authorization_endpoint"].(string), "127.0.0.1", "localhost", 1)
	})
	s.Restart(proxytest.Options{}) // and learn it
	sid := recordSIDs(s)
	b, other := s.Browser(), s.Browser()
	b.Go("/").Received(t)
	first := sid()
	other.Go("/").Received(t)
	a := frame(s, url.Values{"iss": {s.Provider.URL}, "sid": {first}, "unknown": {"x", "y"}})
	if a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || len(a.Cookies()) > 0 {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	var ancestors []string
	for _, d := range strings.Split(a.Header.Get("Content-Security-Policy"), "; ") {
		if rest, ok := strings.CutPrefix(d, "frame-ancestors "); ok {
			ancestors = strings.Fields(rest)
		}
	}
	port := s.Provider.URL[strings.LastIndex(s.Provider.URL, ":"):]
	if strings.Join(ancestors, " ") != "http://127.0.0.1"+port+" http://localhost"+port || a.Header.Get("X-Frame-Options") != "" {
		t.Errorf("may be framed by %v, X-Frame-Options %q", ancestors, a.Header.Get("X-Frame-Options"))
	}
	if isSignedIn(t, b) || !isSignedIn(t, other) {
		t.Error("want the named session alone to be over")
	}
	if a := b.Step("/oauth2"); a.Header.Get("X-Frame-Options") != "DENY" {
		t.Error("another page may be framed")
	}
	if log := s.Log.String(); !strings.Contains(log, `"reason":"front_channel_logout"`) || !strings.Contains(log, `"sessions":1`) || strings.Contains(log, first) {
		t.Error("the log is not as it should be")
	}
	oneAudited(t, s, "session_end", map[string]any{"reason": "front_channel", "actor": "provider"})
	s.Stop()
	if n := s.Provider.Calls(idptest.Revoke); n != 0 {
		t.Errorf("%d calls to revoke for what anyone could have sent", n)
	}
}

// Whoever looks at a WebSocket sees the same words as after a back-channel logout.
func TestFrontChannelLogoutTellsStreamsWhy(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{App: http.HandlerFunc(streamApp)})
	sid := recordSIDs(s)
	b := s.Browser()
	b.Go("/")
	c := dial(t, s, b, "/ws")
	waitForTied(t, s, 1)
	if a := frame(s, url.Values{"iss": {s.Provider.URL}, "sid": {sid()}}); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status)
	}
	closedWith(t, c, websocket.StatusPolicyViolation, "signed out at the identity provider")
	_ = c.CloseNow()
	proxytest.Eventually(t, func() bool { return strings.Contains(s.Log.String(), `"reason":"session_ended_front_channel"`) })
}

// A88, S41: what a foreign page can send ends nothing: a guessed sid, the right sid with another issuer, a sid alone, an image. Whoever
// knows a sid can end that session; no token is revoked for it.
func TestA88_ForgedFrontChannelLogoutEndsNothing(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "client_secret: canary-client-secret", "client_secret: canary-client-secret, scopes: [openid]", 1) + "session: {revoke_without_cookie: true}\n"})
	s.Provider.SetRefresh(idptest.RefreshAlways)
	sid := recordSIDs(s)
	b := s.Browser()
	b.Go("/").Received(t)
	iss := s.Provider.URL
	for name, tt := range map[string]struct {
		query  url.Values
		status int
	}{
		"guessed sid":        {url.Values{"iss": {iss}, "sid": {"guessed"}}, http.StatusOK},
		"wrong iss":          {url.Values{"iss": {iss + "/"}, "sid": {sid()}}, http.StatusBadRequest},
		"iss of nobody":      {url.Values{"iss": {"https://evil.example"}, "sid": {sid()}}, http.StatusBadRequest},
		"sid alone":          {url.Values{"sid": {sid()}}, http.StatusBadRequest},
		"iss alone":          {url.Values{"iss": {iss}}, http.StatusBadRequest},
		"neither":            {url.Values{}, http.StatusBadRequest},
		"empty sid":          {url.Values{"iss": {iss}, "sid": {""}}, http.StatusBadRequest},
		"A11 two sids":       {url.Values{"iss": {iss}, "sid": {sid(), sid()}}, http.StatusBadRequest},
		"A11 two issuers":    {url.Values{"iss": {iss, "https://evil.example"}, "sid": {sid()}}, http.StatusBadRequest},
		"sid of 3 KiB":       {url.Values{"iss": {iss}, "sid": {strings.Repeat("s", 3<<10)}}, http.StatusBadRequest},
		"sub in sid's place": {url.Values{"iss": {iss}, "sid": {"alice"}}, http.StatusOK},
	} {
		if a := frame(s, tt.query); a.StatusCode != tt.status || strings.Contains(a.Text, "alice") {
			t.Errorf("%s: %s", name, a.Status)
		}
		if !isSignedIn(t, b) {
			t.Fatalf("%s: the session ended", name)
		}
	}
	right := url.Values{"iss": {iss}, "sid": {sid()}}.Encode()
	for _, dest := range []string{"image", "script", "empty", "style"} {
		a := b.Do("GET", frontChannel+"?"+right, nil, map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": dest})
		if a.StatusCode != http.StatusBadRequest || !isSignedIn(t, b) {
			t.Errorf("%s: %s", dest, a.Status)
		}
	}
	for _, method := range []string{"POST", "HEAD"} {
		if a := b.Do(method, frontChannel+"?"+right, nil, nil); a.StatusCode != http.StatusMethodNotAllowed || !isSignedIn(t, b) {
			t.Errorf("%s: %s", method, a.Status)
		}
	}
	// A cookie that comes along names a live session: a forged sid does not take it away. The right one does.
	if a := b.Do("GET", frontChannel+"?"+url.Values{"iss": {iss}, "sid": {"guessed"}}.Encode(), nil, map[string]string{"Sec-Fetch-Dest": "iframe"}); len(a.Cookies()) > 0 {
		t.Errorf("a guess: %v", a.Cookies())
	}
	a := b.Do("GET", frontChannel+"?"+right, nil, map[string]string{"Sec-Fetch-Dest": "iframe"})
	if a.StatusCode != http.StatusOK || len(a.Cookies()) != 1 || a.Cookies()[0].Name != sessionCookie || a.Cookies()[0].MaxAge >= 0 {
		t.Errorf("with the cookie: %s %v", a.Status, a.Cookies())
	}
	if isSignedIn(t, b) {
		t.Error("the session lives")
	}
	s.Stop()
	if n := s.Provider.Calls(idptest.Revoke); n != 0 {
		t.Errorf("%d calls to revoke", n)
	}
}

func TestFrontChannelLogoutWhileTheStoreIsDown(t *testing.T) {
	f := newFailingStore()
	s := proxytest.New(t, proxytest.Options{Store: f})
	sid := recordSIDs(s)
	b := s.Browser()
	b.Go("/").Received(t)
	f.index.Store(true)
	if a := frame(s, url.Values{"iss": {s.Provider.URL}, "sid": {sid()}}); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("%s", a.Status)
	}
	f.index.Store(false)
	if !isSignedIn(t, b) {
		t.Error("the session ended")
	}
}

// A87: guessing sids is cut short.
func TestA87_FloodOfFrontChannelLogouts(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Browser().Go("/").Received(t)
	statuses := map[int]int{}
	for range 400 {
		statuses[frame(s, url.Values{"iss": {s.Provider.URL}, "sid": {"guess"}}).StatusCode]++
	}
	if statuses[http.StatusOK] < 200 || statuses[http.StatusTooManyRequests] < 50 || statuses[http.StatusOK]+statuses[http.StatusTooManyRequests] != 400 {
		t.Errorf("%v", statuses)
	}
}

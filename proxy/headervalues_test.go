package proxy_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

const valued = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - path: /erp
    upstream: "${UPSTREAM}"
    bearer: none
    headers:
      X-Remote-User: user
      X-Remote-Groups: groups.join(";")
      X-List: claims.roles
      X-Dept: claims.dept
      X-Absent: claims.absent
      X-Broken: claims.broken
      X-Profile: 'json({"user": user, "dept": claims.dept})'
      Legacy_User: user
      authorization: basic(user, access_token)
    headers_response:
      X-Who: user
      X-App: claims.absent
  - {path: /id, upstream: "${UPSTREAM}", bearer: id_token}
  - {path: /none, upstream: "${UPSTREAM}", bearer: none, headers: {}}
  - {path: /open, upstream: "${UPSTREAM}", access: public, headers: {X-Remote-User: user, X-Host: request.host}}
  - {path: /own, upstream: "${UPSTREAM}", access: public, bearer: none}
  - {path: /api, upstream: "${UPSTREAM}", unauthenticated: deny}
  - {path: /always, upstream: "${UPSTREAM}", unauthenticated: login}
`

func person(claims map[string]any) idptest.User {
	all := map[string]any{"email": "alice@example.com", "email_verified": true, "groups": []string{"erp", "a;b"}}
	for name, v := range claims {
		all[name] = v
	}
	return idptest.User{Sub: "alice", Claims: all}
}

// A50, A51, A52: what clients send under the names of a route's own headers, or of the default ones, never arrives.
func TestA50_HeadersReplaceTheDefaultSet(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: valued})
	s.Provider.AddUser(person(map[string]any{"roles": []string{"x,y", "é"}, "dept": "100% Grün", "broken": "a\r\nX-Evil: 1"}))
	b := s.Browser()
	b.Go("/erp")
	spoofed := map[string]string{
		"X-Forwarded-User": "root", "X-Forwarded-Email": "root@x", "x_remote_user": "root", "X.List": "root", "X_ABSENT": "root", "X-Absent": "root",
		"Legacy-User": "root", "legacy.user": "root", "X-Broken": "root", "Authorization": "Basic cm9vdDpyb290", "X-Other": "mine",
	}
	got := b.Do("GET", "/erp", nil, spoofed).Received(t).Header
	token := ""
	for name, want := range map[string]string{
		"X-Remote-User": "alice", "X-Remote-Groups": "erp;a;b", "X-List": "x%2Cy,é", "X-Dept": "100%25 Grün", "Legacy_user": "alice",
		"X-Profile": `{"dept":"100\u0025 Gr\u00fcn","user":"alice"}`, "X-Other": "mine",
	} {
		if values := got[name]; len(values) != 1 || values[0] != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
	for name := range got {
		switch folded := strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "").Replace(name)); folded {
		case "xforwardeduser", "xforwardedemail", "xforwardedgroups", "xabsent", "xbroken", "xevil":
			t.Errorf("%s: %q", name, got[name])
		case "legacyuser", "xremoteuser", "xlist":
			if got[name][0] == "root" {
				t.Errorf("%s: %q", name, got[name])
			}
		}
	}
	if credentials, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(got.Get("Authorization"), "Basic ")); err != nil || !strings.HasPrefix(string(credentials), "alice:") || len(credentials) < 20 {
		t.Errorf("Authorization: %q", got["Authorization"])
	} else {
		token = strings.TrimPrefix(string(credentials), "alice:")
	}
	// On routes that do not set them, those names are stripped too.
	for _, path := range []string{"/id", "/open", "/own"} {
		h := b.Do("GET", path, nil, spoofed).Received(t).Header
		for name, values := range h {
			if strings.Contains(strings.Join(values, ""), "root") {
				t.Errorf("%s: %s: %q", path, name, values)
			}
		}
	}
	if strings.Contains(s.Log.String(), token) || !strings.Contains(s.Log.String(), `"header":"X-Broken"`) {
		t.Error("the log holds a token, or does not tell of the value that was left out")
	}
}

func TestHeadersOfTheResponse(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: valued, App: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Who", "the application")
		w.Header().Set("X-App", "the application")
		w.Header().Set("X-Kept", "the application")
	})})
	b := s.Browser()
	b.Go("/erp")
	a := b.Go("/erp")
	if got := a.Header; strings.Join(got["X-Who"], "|") != "alice" || got["X-App"] != nil || got.Get("X-Kept") == "" || got.Get("Cache-Control") != "private" {
		t.Errorf("%v", got)
	}
}

func TestBearerWords(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: valued})
	b := s.Browser()
	id := b.Go("/id").Received(t).Header.Get("Authorization")
	if strings.Count(id, ".") != 2 || !strings.HasPrefix(id, "Bearer ey") {
		t.Errorf("id_token: %q", id)
	}
	h := b.Go("/none").Received(t).Header
	if h.Get("Authorization") != "" || h.Get("X-Forwarded-User") != "" {
		t.Errorf("none, and no headers: %v", h)
	}
	stranger := s.Browser()
	h = stranger.Do("GET", "/open", nil, map[string]string{"Authorization": "Basic own", "X-Remote-User": "root"}).Received(t).Header
	if h.Get("Authorization") != "Basic own" || h.Get("X-Remote-User") != "" || h.Get("X-Host") != "127.0.0.1" {
		t.Errorf("public: %v", h)
	}
	if h = stranger.Do("GET", "/own", nil, map[string]string{"Authorization": "Basic own"}).Received(t).Header; h.Get("Authorization") != "" {
		t.Errorf("public with bearer: none lets %q through", h.Get("Authorization"))
	}
}

func TestUnauthenticatedSaysWhatAStrangerGets(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: valued})
	curl := map[string]string{"Sec-Fetch-Mode": "", "Sec-Fetch-Dest": "", "Sec-Fetch-Site": "", "Accept": "*/*"}
	script := map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*"}
	for _, c := range []struct {
		name, method, path string
		header             map[string]string
		want               int
	}{
		{"deny, a person", "GET", "/api", nil, 401}, {"deny, a program", "GET", "/api", curl, 401}, {"deny, a form", "POST", "/api", nil, 401},
		{"login, a person", "GET", "/always", nil, 303}, {"login, a program", "GET", "/always", curl, 303}, {"login, a script of a page", "GET", "/always", script, 401},
		{"login, a program that sends", "POST", "/always", curl, 401},
		{"auto, a program", "GET", "/id", curl, 401},
	} {
		a := s.Browser().Do(c.method, c.path, nil, c.header)
		if a.StatusCode != c.want || c.want == 401 && (len(a.Cookies()) > 0 || a.Header.Get("WWW-Authenticate") == "") {
			t.Errorf("%s: %s %v", c.name, a.Status, a.Header)
		}
	}
}

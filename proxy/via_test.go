package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

// S52: a route whose application is, after some others, Postern itself answers once instead of for ever. A chain of routes is no loop.
func TestARequestThatComesBackIsALoop(t *testing.T) {
	var s *proxytest.Stack
	hops := 0
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hops++
		target, err := url.Parse(s.URL)
		if err != nil {
			t.Error(err)
			return
		}
		if r.URL.Path == "/chain" && hops == 1 {
			r.URL.Path = "/app/"
		}
		(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(target) }}).ServeHTTP(w, r)
	}))
	defer back.Close()
	s = proxytest.New(t, proxytest.Options{
		Config: proxytest.Minimal + "    path: /app/\n    access: public\n  - {path: /, upstream: \"${BACK}\", access: public}\n",
		Env:    map[string]string{"BACK": back.URL},
	})
	if a := s.Browser().Do("GET", "/loop", nil, nil); a.StatusCode != http.StatusLoopDetected {
		t.Errorf("a loop: %s", a.Status)
	}
	if hops != 1 {
		t.Errorf("the request went round %d times", hops)
	}
	hops = 0
	a := s.Browser().Do("GET", "/chain", nil, map[string]string{"Via": "1.0 fred"})
	if a.StatusCode != http.StatusOK {
		t.Fatalf("a chain: %s", a.Status)
	}
	if via := strings.Join(s.App.Requests()[0].Header["Via"], ", "); strings.Count(via, "postern-") != 2 || !strings.HasPrefix(via, "1.0 fred, 1.1 postern-") {
		t.Errorf("the application sees Via: %s", via)
	}
}

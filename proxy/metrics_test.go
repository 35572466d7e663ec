package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

// Metrics are the operators': the public listener does not have them.
func TestA121_MetricsOnTheAdminListenerAlone(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "upstream: ${UPSTREAM}", "upstream: ${UPSTREAM}\n    access: public", 1)})
	w := httptest.NewRecorder()
	s.Proxy.Admin().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `,version="test"} 1`) {
		t.Errorf("scrape: %d\n%s", w.Code, w.Body)
	}
	for _, path := range []string{"/metrics", "/oauth2/metrics"} {
		res, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 4096)
		n, _ := res.Body.Read(body)
		res.Body.Close()
		if strings.Contains(string(body[:n]), "postern_build_info") {
			t.Errorf("%s of the public listener answers %d with metrics", path, res.StatusCode)
		}
	}
}

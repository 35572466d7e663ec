package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"postern/proxy/metrics"
)

func scrape(t *testing.T, m *metrics.Metrics) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Code, w.Body.String()
}

func TestScrapeTellsWhatWasCounted(t *testing.T) {
	m := metrics.New("1.2.3")
	m.OpenStreams(func() int { return 7 })
	m.SessionEnded("corp", "idle")
	m.SessionEnded("corp", "idle")
	m.SessionEnded("partners", "admin")
	_, body := scrape(t, m)
	for _, want := range []string{
		`postern_sessions_ended_total{provider="corp",reason="idle"} 2`,
		`postern_sessions_ended_total{provider="partners",reason="admin"} 1`,
		`postern_build_info{version="1.2.3"} 1`,
		"postern_open_streams 7",
		"go_goroutines ",
	} {
		if !strings.Contains(body, want+"\n") && !strings.Contains(body, "\n"+want) {
			t.Errorf("the scrape lacks %s:\n%s", want, body)
		}
	}
}

func TestNilCountsNothing(t *testing.T) {
	var m *metrics.Metrics
	m.SessionEnded("corp", "idle")
	m.OpenStreams(func() int { t.Error("asked"); return 0 })
	if code, _ := scrape(t, m); code != 404 {
		t.Errorf("a scrape of nothing is %d, want 404", code)
	}
}

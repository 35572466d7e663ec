package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/metrics"
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

// scrape is what Prometheus gets.
func scrape(t *testing.T, s *proxytest.Stack) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.Proxy.Admin().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d\n%s", w.Code, w.Body)
	}
	return w.Body.String()
}

var (
	tableLine  = regexp.MustCompile("(?m)^\\| `(postern_[a-z_]+)` \\| ([a-z]+) \\| (.*?) \\|")
	typeLine   = regexp.MustCompile(`(?m)^# TYPE (postern_[a-z_]+) ([a-z]+)$`)
	seriesLine = regexp.MustCompile(`(?m)^(postern_[a-z_]+)(?:\{(.*?)\})? `)
	labelName  = regexp.MustCompile(`([a-z]+)="`)
	bucket     = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// What the README says is what a stack that does everything tells, and the other way round: names, types and labels.
func TestScrapeOfALiveStackIsAsDocumented(t *testing.T) {
	m := metrics.New("test")
	m.StoreStatus(func() (string, uint64) { return "closed", 0 })
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", "nginx", 1), Metrics: m})
	alice := s.Browser()
	alice.Go("/page")
	s.Clock.Add(20 * time.Minute) // the token is over: the request waits for another
	alice.Go("/page")
	method, target, header := question("nginx", "GET", "/page", strings.TrimPrefix(s.URL, "http://"))
	alice.Do(method, target, nil, header)
	alice.Do("GET", "/page", nil, map[string]string{"X-Large": strings.Repeat("x", 70<<10)})
	alice.Post("/oauth2/logout", nil)

	got := map[string]string{}
	body := scrape(t, s)
	for _, match := range typeLine.FindAllStringSubmatch(body, -1) {
		got[match[1]] = match[2]
	}
	labels := map[string][]string{}
	for _, match := range seriesLine.FindAllStringSubmatch(body, -1) {
		name := match[1]
		if got[name] == "" {
			name = bucket.ReplaceAllString(name, "")
		}
		labels[name] = nil
		for _, label := range labelName.FindAllStringSubmatch(match[2], -1) {
			if label[1] != "le" {
				labels[name] = append(labels[name], "`"+label[1]+"`")
			}
		}
	}
	for name, list := range labels {
		got[name] += " " + strings.Join(list, ", ")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, match := range tableLine.FindAllStringSubmatch(string(readme), -1) {
		want[match[1]] = match[2] + " " + match[3]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("README.md and the scrape (-documented +told):\n%s\n%s", diff, body)
	}
	for _, line := range []string{
		`postern_requests_total{code="200",route="/",verdict="allow"} 3`,
		`postern_requests_total{code="431",route="",verdict="own"} 1`,
		`postern_sign_ins_total{outcome="signed_in",provider="corp"} 1`,
		`postern_refreshes_total{outcome="refreshed",provider="corp"} 1`,
		`postern_refresh_wait_seconds_count{provider="corp"} 1`,
		`postern_forward_auth_answers_total{verdict="allow"} 1`,
		`postern_rejected_total{limit="header"} 1`,
		`postern_sessions_ended_total{provider="corp",reason="signed_out"} 1`,
		`postern_store_operations_total{operation="create",outcome="ok"} 1`,
		`postern_provider_calls_total{endpoint="token",outcome="2xx",provider="corp"} 2`,
		`postern_provider_calls_total{endpoint="jwks",outcome="2xx",provider="corp"} 1`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("the scrape lacks %s:\n%s", line, body)
		}
	}
}

// What strangers, signed-in people, applications and providers make up makes no new series: each would take memory here and in Prometheus.
func TestMadeUpRequestsMakeNoNewSeries(t *testing.T) {
	const config = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}", access: public}
  - {path: /own, upstream: "${UPSTREAM}"}
`
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, err := strconv.Atoi(r.Header.Get("X-Status")); err == nil {
			w.WriteHeader(status)
		}
	})
	s := proxytest.New(t, proxytest.Options{Config: config, App: app})
	anyone := &http.Client{Transport: s.Transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(i int) {
		n := strconv.Itoa(i)
		for _, c := range []struct {
			method, path string
			header       []string
		}{
			{"GET", "/" + n, []string{"X-Status", strconv.Itoa(600 + i*7%400)}},
			{"M" + n, "/", nil},
			{"GET", "/own/" + n, []string{"Host", n + ".evil.example", "Cookie", "postern=" + n, "X-Request-Id", n, "User-Agent", n}},
			{"GET", "/oauth2/callback/" + n, nil},
			{"GET", "/oauth2/callback?code=" + n + "&state=" + n + "&error=" + n, nil},
			{"GET", "/oauth2/start?provider=" + n, []string{"Sec-Fetch-Mode", "navigate"}},
			{"POST", "/oauth2/logout/backchannel?" + n, nil},
			{"GET", "/oauth2/logout/frontchannel?iss=" + n + "&sid=" + n, nil},
			{"GET", "/oauth2/" + n, nil},
			{"GET", "/own/%2e%2e/" + n, nil},
		} {
			r, err := http.NewRequest(c.method, s.URL+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k := 0; k < len(c.header); k += 2 {
				r.Header.Set(c.header[k], c.header[k+1])
			}
			if host := r.Header.Get("Host"); host != "" {
				r.Host = host
			}
			res, err := anyone.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
	}
	for i := range 300 { // until the limits for strangers have been met, too
		ask(i)
	}
	before := scrape(t, s)
	for i := range 1000 {
		ask(1000 + i)
	}
	after := scrape(t, s)
	if diff := cmp.Diff(seriesOf(before), seriesOf(after)); diff != "" {
		t.Errorf("10,000 requests have changed what is told (-before +after):\n%s", diff)
	}
	if strings.Contains(after, "evil") {
		t.Errorf("the scrape holds a made-up host:\n%s", after)
	}
}

// seriesOf is a scrape without its numbers.
func seriesOf(body string) (series []string) {
	for _, match := range seriesLine.FindAllString(body, -1) {
		series = append(series, strings.TrimSpace(match))
	}
	return series
}

// Two Proxies on the same metrics, as while a reload is under way: the streams of both are open, and what was counted stays.
func TestProxiesShareMetrics(t *testing.T) {
	m := metrics.New("test")
	release := make(chan struct{})
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	o := proxytest.Options{Config: strings.Replace(proxytest.Minimal, "upstream: ${UPSTREAM}", "upstream: ${UPSTREAM}\n    access: public", 1), App: app, Metrics: m}
	old, next := proxytest.New(t, o), proxytest.New(t, o)
	for _, s := range []*proxytest.Stack{old, next} {
		res, err := http.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
	}
	if body := scrape(t, next); !strings.Contains(body, "postern_open_streams 2\n") {
		t.Errorf("two streams are open:\n%s", body)
	}
	close(release)
	proxytest.Eventually(t, func() bool {
		body := scrape(t, old)
		return strings.Contains(body, "postern_open_streams 0\n") && strings.Contains(body, `postern_requests_total{code="200",route="/",verdict="allow"} 2`)
	})
}

// The time that an application takes is not ours.
func TestAddedLatencyIsWithoutTheApplication(t *testing.T) {
	clock := &proxytest.Clock{}
	clock.Stop()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clock.Add(time.Minute)
	})
	s := proxytest.New(t, proxytest.Options{Clock: clock, App: app})
	res := s.Browser().Go("/")
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	body := scrape(t, s)
	if want := "postern_added_latency_seconds_sum{verdict=\"allow\"} 0\n"; !strings.Contains(body, want) {
		t.Errorf("the scrape lacks %s:\n%s", want, body)
	}
}

package check

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	promqlparser "github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

const grafana = "../grafana"

// alertRules are the rules of alerts.yaml, which Prometheus' own code has judged, templates of annotations included.
func alertRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(grafana+"/alerts.yaml", false, model.UTF8Validation)
	for _, err := range errs {
		t.Error(err)
	}
	var rules []rulefmt.Rule
	for _, group := range groups.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

func TestAlertsTellWhatToDo(t *testing.T) {
	metrics := metricNames(t)
	seen := map[string]bool{}
	for _, rule := range alertRules(t) {
		if seen[rule.Alert] || rule.Alert == "" {
			t.Errorf("alert %q is there twice, or has no name", rule.Alert)
		}
		seen[rule.Alert] = true
		if !slices.Contains([]string{"critical", "warning"}, rule.Labels["severity"]) {
			t.Errorf("%s has severity %q", rule.Alert, rule.Labels["severity"])
		}
		for _, key := range []string{"summary", "runbook"} {
			if rule.Annotations[key] == "" {
				t.Errorf("%s has no %s", rule.Alert, key)
			}
		}
		usesKnownMetrics(t, rule.Alert, rule.Expr, metrics)
	}
}

// A dashboard is what is looked at of Grafana's JSON.
type dashboard struct {
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID      int    `json:"id"`
		Type    string `json:"type"`
		Title   string `json:"title"`
		GridPos struct{ X, Y, W, H int }
		Targets []struct {
			RefID      string `json:"refId"`
			Expr       string `json:"expr"`
			Datasource struct {
				UID string `json:"uid"`
			} `json:"datasource"`
		} `json:"targets"`
	} `json:"panels"`
}

func TestDashboardAsksForWhatThereIs(t *testing.T) {
	text, err := os.ReadFile(grafana + "/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type
	}
	if variables["datasource"] != "datasource" {
		t.Error("there is no variable for the data source")
	}
	metrics := metricNames(t)
	ids, titles, taken := map[int]bool{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || titles[p.Title] || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %d, %q, has no id or title of its own", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies on %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q asks %q, not the chosen data source", p.Title, target.Datasource.UID)
			}
			usesKnownMetrics(t, p.Title, withVariables(t, target.Expr, variables), metrics)
		}
	}
}

// variable is one in a query: $name or $__name.
var variable = regexp.MustCompile(`\$(\w+)`)

// withVariables fills in a query's variables as Grafana would.
func withVariables(t *testing.T, expr string, variables map[string]string) string {
	t.Helper()
	return variable.ReplaceAllStringFunc(expr, func(v string) string {
		if v == "$__rate_interval" {
			return "1m"
		}
		if variables[v[1:]] == "" {
			t.Errorf("%s is not a variable of the dashboard", v)
		}
		return ".*"
	})
}

// usesKnownMetrics parses an expression and looks its metrics up.
func usesKnownMetrics(t *testing.T, where, expr string, metrics map[string]bool) {
	t.Helper()
	parsed, err := promqlparser.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	promqlparser.Inspect(parsed, func(node promqlparser.Node, _ []promqlparser.Node) error {
		selector, ok := node.(*promqlparser.VectorSelector)
		if !ok {
			return nil
		}
		name := selector.Name
		if base, cut := strings.CutSuffix(name, "_bucket"); cut {
			name = base
		}
		if !metrics[name] {
			t.Errorf("%s: Postern has no metric %s", where, name)
		}
		return nil
	})
}

// metricNames are those that the program's source names, those of the Go runtime and the process, and Prometheus' own.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true}
	files, err := filepath.Glob("../../proxy/metrics/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if text, _ := strconv.Unquote(literal.Value); regexp.MustCompile(`^postern_[a-z_]+$`).MatchString(text) {
					names[text] = true
				}
			}
			return true
		})
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		names[family.GetName()] = true
	}
	return names
}

// Each alert fires for its own trouble, and not where all is well. The times of `for` are Prometheus' own affair.
func TestAlertsFireForTheirTrouble(t *testing.T) {
	const (
		well = `
  up{job="postern",instance="a"} 1x60
  postern_requests_total{job="postern",instance="a",verdict="allow",code="200"} 0+600x60
  postern_requests_total{job="postern",instance="a",verdict="allow",code="502"} 0+6x60
  postern_store_operations_total{job="postern",instance="a",operation="get",outcome="ok"} 0+600x60
  postern_store_operations_total{job="postern",instance="a",operation="get",outcome="none"} 0+60x60
  postern_store_breaker_state{job="postern",instance="a",state="open"} 0x60
  postern_store_breaker_state{job="postern",instance="a",state="closed"} 1x60
  postern_store_unconfirmed_writes_total{job="postern",instance="a"} 7x60
  postern_sign_ins_total{job="postern",instance="a",provider="corp",outcome="signed_in"} 0+60x60
  postern_sign_ins_total{job="postern",instance="a",provider="corp",outcome="access_denied"} 0+60x60
  postern_refreshes_total{job="postern",instance="a",provider="corp",outcome="refreshed"} 0+60x60
  postern_provider_calls_total{job="postern",instance="a",provider="corp",endpoint="token",outcome="2xx"} 0+60x60
  postern_provider_calls_total{job="postern",instance="a",provider="corp",endpoint="token",outcome="4xx"} 0+60x60
  postern_added_latency_seconds_bucket{job="postern",instance="a",verdict="allow",le="0.1"} 0+600x60
  postern_added_latency_seconds_bucket{job="postern",instance="a",verdict="allow",le="1"} 0+600x60
  postern_added_latency_seconds_bucket{job="postern",instance="a",verdict="allow",le="+Inf"} 0+600x60
  postern_sessions_ended_total{job="postern",instance="a",provider="corp",reason="idle"} 0+60x60
  postern_config_last_reload_successful{job="postern",instance="a"} 1x60
  postern_log_lines_dropped_total{job="postern",instance="a"} 3x60
  process_open_fds{job="postern",instance="a"} 100x60
  process_max_fds{job="postern",instance="a"} 1000x60
`
		in = `{job="postern",instance="b",`
	)
	trouble := map[string]string{
		"PosternDown":                   `up{job="apps/postern",instance="b"} 0x60`,
		"PosternErrors":                 `postern_requests_total` + in + `verdict="allow",code="502"} 0+60x60`,
		"PosternUnavailable":            `postern_requests_total` + in + `verdict="unavailable",code="503"} 0+12x60`,
		"PosternStoreErrors":            `postern_store_operations_total` + in + `operation="ping",outcome="timeout"} 0+30x60`,
		"PosternStoreBreakerOpen":       `postern_store_breaker_state` + in + `state="open"} 1x60`,
		"PosternStoreFull":              `postern_store_operations_total` + in + `operation="keep",outcome="full"} 0+1x60`,
		"PosternStoreWritesUnconfirmed": `postern_store_unconfirmed_writes_total{job="postern",instance="b"} 0+1x60`,
		"PosternSignInsFail":            `postern_sign_ins_total` + in + `provider="corp",outcome="bad_provider_answer"} 0+60x60`,
		"PosternRefreshesRejected":      `postern_refreshes_total` + in + `provider="corp",outcome="rejected"} 0+60x60`,
		"PosternRefreshesFail":          `postern_refreshes_total` + in + `provider="corp",outcome="unknown"} 0+60x60`,
		"PosternProviderErrors":         `postern_provider_calls_total` + in + `provider="corp",endpoint="token",outcome="timeout"} 0+60x60`,
		"PosternSlow":                   `postern_added_latency_seconds_bucket` + in + `verdict="allow",le="+Inf"} 0+60x60`,
		"PosternSessionsLost":           `postern_sessions_ended_total` + in + `provider="corp",reason="key_unknown"} 0+60x60`,
		"PosternConfigBad":              `postern_config_last_reload_successful{job="postern",instance="b"} 0x60`,
		"PosternLogLinesDropped":        `postern_log_lines_dropped_total{job="postern",instance="b"} 0+1x60`,
		"PosternFilesRunningOut":        `process_open_fds{job="postern",instance="b"} 900x60` + "\n  " + `process_max_fds{job="postern",instance="b"} 1000x60`,
	}
	upright, _, _ := strings.Cut(strings.TrimSpace(well), "\n")
	quiet := loaded(t, well)
	for _, rule := range alertRules(t) {
		if firing(t, quiet, rule.Expr) {
			t.Errorf("%s fires where all is well", rule.Alert)
		}
		if rule.Alert == "PosternGone" { // its trouble is that something is not there
			if !firing(t, loaded(t, strings.Replace(well, upright, "", 1)), rule.Expr) {
				t.Errorf("%s does not fire without %s", rule.Alert, upright)
			}
			continue
		}
		if trouble[rule.Alert] == "" {
			t.Errorf("%s has no trouble to fire for here", rule.Alert)
			continue
		}
		if !firing(t, loaded(t, well+"  "+trouble[rule.Alert]+"\n"), rule.Expr) {
			t.Errorf("%s does not fire for %s", rule.Alert, trouble[rule.Alert])
		}
	}
}

// loaded is a storage with series in the notation of promtool's tests, a sample a minute.
func loaded(t *testing.T, text string) storage.Queryable {
	t.Helper()
	var all []promql.Series
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		metric, values, err := promqlparser.ParseSeriesDesc(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		one := promql.Series{Metric: metric}
		for i, v := range values {
			one.Floats = append(one.Floats, promql.FPoint{T: int64(i) * time.Minute.Milliseconds(), F: v.Value})
		}
		all = append(all, one)
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			selected := &seriesSet{}
			for _, one := range all {
				if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(one.Metric.Get(m.Name)) }) {
					selected.left = append(selected.left, one)
				}
			}
			return selected
		},
	}}
}

// A seriesSet goes through series one after the other.
type seriesSet struct {
	at   promql.Series
	left []promql.Series
}

func (s *seriesSet) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}

func (s *seriesSet) At() storage.Series              { return promql.NewStorageSeries(s.at) }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// firing evaluates a rule at the end of the loaded hour.
func firing(t *testing.T, series storage.Queryable, expr string) bool {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000, Timeout: time.Minute})
	query, err := engine.NewInstantQuery(t.Context(), series, nil, expr, time.Unix(0, 0).Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	found, err := query.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}

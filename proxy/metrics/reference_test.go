package metrics_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"postern/proxy/metrics"
)

var update = flag.Bool("update", false, "write the README's table of metrics anew")

// described is the name in a description, which prometheus shows in no other way.
var described = regexp.MustCompile(`fqName: "([^"]+)"`)

// TestReference holds the README's table against the code. `go test ./proxy/metrics -run Reference -update` writes it anew.
func TestReference(t *testing.T) {
	const file, begin, end = "../../README.md", "<!-- metrics:begin -->\n", "<!-- metrics:end -->"
	m := metrics.New("1")
	countAll(m)
	want := table(t, m.Registry())
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(readme), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no block between %q and %q", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the metrics in README.md are not up to date; run go test ./proxy/metrics -run Reference -update (-want +got):\n%s", diff)
	}
}

// table writes a line for each metric of ours, and fails for one in which nothing was counted.
func table(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	out.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
		if !strings.HasPrefix(f.GetName(), "postern_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		meaning := strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(f.GetHelp())
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), meaning)
	}
	descriptions := make(chan *prometheus.Desc)
	go func() { r.Describe(descriptions); close(descriptions) }()
	for d := range descriptions {
		if name := described.FindStringSubmatch(d.String())[1]; strings.HasPrefix(name, "postern_") && !slices.Contains(names, name) {
			t.Errorf("countAll counts nothing in %s", name)
		}
	}
	return out.String()
}

// The names are as Prometheus wants them.
func TestNamesFollowTheConventions(t *testing.T) {
	m := metrics.New("1")
	countAll(m)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

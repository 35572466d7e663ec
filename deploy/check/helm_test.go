package check

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	yamlv3 "go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

const chartFolder = "../helm/postern"

var update = flag.Bool("update", false, "write generated parts of documentation")

// modes are the chart's two modes; each has a file of values that people begin with.
var modes = []string{"gateway", "sidecar"}

func loadChart(t *testing.T) *chartv2.Chart {
	t.Helper()
	chart, err := loader.LoadDir(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// values are those of the mode's file, changed by further ones in YAML.
func values(t *testing.T, mode, changes string) map[string]any {
	t.Helper()
	base, err := os.ReadFile(chartFolder + "/ci/" + mode + "-values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	merged := map[string]any{}
	for _, text := range []string{string(base), changes} {
		one, err := loader.LoadValues(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		merged = loader.MergeMaps(merged, one)
	}
	return merged
}

// render does what `helm template` does, the schema included, and returns each template's output by its name.
func render(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	chart := loadChart(t)
	release := common.ReleaseOptions{Name: "wiki", Namespace: "apps", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, all)
}

// install renders what must be possible to render, and decodes it.
func install(t *testing.T, values map[string]any) []metav1.Object {
	t.Helper()
	rendered, err := render(t, values)
	if err != nil {
		t.Fatal(err)
	}
	var found []metav1.Object
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		if path.Ext(name) == ".yaml" {
			found = append(found, objects(t, []byte(rendered[name]))...)
		}
	}
	return found
}

func TestChartPassesHelmsLint(t *testing.T) {
	for _, mode := range modes {
		linter := lint.RunAll(chartFolder, values(t, mode, ""), "apps")
		for _, message := range linter.Messages {
			if message.Severity > support.InfoSev {
				t.Errorf("%s: %v", mode, message)
			}
		}
	}
}

func TestChartHoldsTheRules(t *testing.T) {
	cases := map[string]string{
		"as its file says":  "",
		"names":             "{nameOverride: door, fullnameOverride: front-door}",
		"a long name":       "{fullnameOverride: " + strings.Repeat("a", 70) + "}",
		"image by digest":   "{image: {digest: 'sha256:" + strings.Repeat("0", 64) + "', pullPolicy: Always}, imagePullSecrets: [{name: registry}]}",
		"secret by values":  "{existingSecret: '', secretFiles: {session-key: abc, client-secret: def}}",
		"no secret at all":  "{existingSecret: ''}",
		"further env":       "{envFrom: [{secretRef: {name: more}}], env: [{name: REDIS_PASSWORD, value: x}]}",
		"further volumes":   "{extraVolumes: [{name: ca, configMap: {name: wiki-postern}}], extraVolumeMounts: [{name: ca, mountPath: /etc/ca}]}",
		"no autoscaling":    "{autoscaling: {enabled: false}, replicaCount: 3}",
		"autoscaling":       "{autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 30, cpu: '1'}}",
		"no budget":         "{podDisruptionBudget: {enabled: false}}",
		"budget in percent": "{podDisruptionBudget: {maxUnavailable: 25%}}",
		"ingress":           "{ingress: {enabled: true, hosts: [a.example.com, '*.b.example.com'], className: nginx, annotations: {a/b: c}, tlsSecret: ''}}",
		"no ingress":        "{ingress: {enabled: false}, httpRoute: {enabled: false}}",
		"HTTPRoute":         "{httpRoute: {enabled: true, parentRefs: [{name: public}], hostnames: []}}",
		"monitoring":        "{serviceMonitor: {enabled: true, labels: {release: prometheus}}, prometheusRule: {enabled: true, labels: {release: prometheus}}, dashboard: {enabled: true}}",
		"no monitoring":     "{serviceMonitor: {enabled: false}, prometheusRule: {enabled: false}, dashboard: {enabled: false}}",
		"peers of anyone":   "{networkPolicy: {from: [], metricsFrom: []}}",
		"service":           "{service: {type: LoadBalancer, port: 8080, annotations: {a/b: c}}, ingress: {enabled: true, hosts: [a.example.com]}, httpRoute: {enabled: true, parentRefs: [{name: public}]}}",
		"service account":   "{serviceAccount: {create: false, name: other}}",
		"memory in Gi":      "{resources: {requests: {memory: 1Gi}, limits: {memory: 1Gi}}}",
		"scheduling": "{podLabels: {team: a}, podAnnotations: {a/b: c}, nodeSelector: {a/b: c}, tolerations: [{key: a, operator: Exists}], priorityClassName: high, " +
			"affinity: {podAntiAffinity: {}}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, " +
			"labelSelector: {matchLabels: {app.kubernetes.io/component: proxy}}}]}",
		"OpenShift": "{podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}}",
	}
	for _, mode := range modes {
		for name, changes := range cases {
			t.Run(mode+"/"+name, func(t *testing.T) { holdRules(t, install(t, values(t, mode, changes))) })
		}
	}
}

func TestValuesToBeginWithHaveGoodConfigurations(t *testing.T) {
	for _, mode := range modes {
		checkConfig(t, install(t, values(t, mode, "")))
	}
}

// The chart reads ports and durations out of the configuration, so that they are written once.
func TestChartFollowsTheConfiguration(t *testing.T) {
	for _, server := range []string{
		`{listen: ":8443", admin_listen: "0.0.0.0:9999", drain_delay: 1m5s, shutdown_timeout: 2m}`,
		`{listen: "[::]:4180", admin_listen: ":9090"}`,
	} {
		rendered := install(t, values(t, "sidecar", yamlText(t, map[string]any{"config": "server: " + server + "\nproviders: {}\n"})))
		_, config := posternConfig(t, rendered)
		p := pods(rendered)[0]
		if grace := config.drainDelay(t) + config.shutdownTimeout(t) + 2*refreshGrace; *p.spec.TerminationGracePeriodSeconds != int64(grace.Seconds()) {
			t.Errorf("%s gives %d seconds to stop, want %v", server, *p.spec.TerminationGracePeriodSeconds, grace)
		}
		stoppingHasTime(t, p, rendered)
		for name, address := range map[string]string{"http": config.Server.Listen, "admin": config.Server.AdminListen} {
			for _, port := range p.container("postern").Ports {
				if port.Name == name && !strings.HasSuffix(address, fmt.Sprintf(":%d", port.ContainerPort)) {
					t.Errorf("Postern listens on %s, the container names %d", address, port.ContainerPort)
				}
			}
		}
	}
}

func TestProbesSpeakHTTPSWhereTheAdminListenerDoes(t *testing.T) {
	config := `server: {listen: ":4180", admin_listen: ":9090", admin: {client_ca: /run/secrets/postern/ca.pem, tls: {cert_file: a, key_file: b}}}`
	rendered := install(t, values(t, "gateway", yamlText(t, map[string]any{"config": config})))
	postern := pods(rendered)[0].container("postern")
	for _, probe := range []*corev1.Probe{postern.StartupProbe, postern.LivenessProbe, postern.ReadinessProbe} {
		if probe.HTTPGet.Scheme != corev1.URISchemeHTTPS {
			t.Errorf("the probe of %s speaks %s", probe.HTTPGet.Path, probe.HTTPGet.Scheme)
		}
	}
	if scheme := all[*monitoringv1.ServiceMonitor](rendered)[0].Spec.Endpoints[0].Scheme; scheme != "https" {
		t.Errorf("the ServiceMonitor speaks %s", scheme)
	}
}

// What names a secret, but holds none, may stand in the configuration.
func TestVariablesAreNoSecrets(t *testing.T) {
	for _, text := range []string{
		"session: {store: {redis: {url: 'rediss://postern:${PASSWORD}@redis:6379/0'}}}",
		"session: {store: {redis: {url: 'redis://redis:6379/0', password: '${PASSWORD}'}}}",
		"session: {store: {redis: {url: 'redis://postern@[::1]:6379/0'}}}",
		"session: {store: {redis: {url: '${REDIS}'}}}",
		"providers: {corp: {token_params: {api_key: '${API_KEY}'}, client_secret: {file: x}}, other: }",
	} {
		config := "server: {listen: ':4180', admin_listen: ':9090'}\n" + text
		if _, err := render(t, values(t, "gateway", yamlText(t, map[string]any{"config": config}))); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The alerts know Postern by the job, and the operator must know how the admin listener's TLS is spoken.
func TestServiceMonitorIsWhatTheAlertsAndTLSNeed(t *testing.T) {
	rendered := install(t, values(t, "gateway", `{nameOverride: door, serviceMonitor: {tlsConfig: {serverName: postern, ca: {secret: {name: ca, key: ca.pem}}}}}`))
	endpoint := all[*monitoringv1.ServiceMonitor](rendered)[0].Spec.Endpoints[0]
	if c := endpoint.TLSConfig; c == nil || c.ServerName == nil || *c.ServerName != "postern" || c.CA.Secret == nil || c.CA.Secret.Key != "ca.pem" {
		t.Errorf("TLS is spoken as %s", asJSON(t, c))
	}
	if !slices.ContainsFunc(endpoint.RelabelConfigs, func(r monitoringv1.RelabelConfig) bool {
		return r.TargetLabel == "job" && r.Replacement != nil && *r.Replacement == "postern" && r.Action == "" && len(r.SourceLabels) == 0
	}) {
		t.Error("the job is not postern")
	}
}

func TestWhatIsTurnedOffIsAbsent(t *testing.T) {
	rendered := install(t, values(t, "gateway", `{networkPolicy: {enabled: false}, podDisruptionBudget: {enabled: false}, autoscaling: {enabled: false},
		httpRoute: {enabled: false}, serviceMonitor: {enabled: false}, prometheusRule: {enabled: false}, dashboard: {enabled: false}, serviceAccount: {create: false}}`))
	if n := len(all[*networkingv1.NetworkPolicy](rendered)) + len(all[*policyv1.PodDisruptionBudget](rendered)); n != 0 {
		t.Errorf("%d policies are left", n)
	}
	// ConfigMap, Deployment, two Services and the pod of helm test.
	if len(rendered) != 5 {
		t.Errorf("%d objects are left, want 5", len(rendered))
	}
}

func TestConfigurationArrivesByteForByte(t *testing.T) {
	const config = "# a comment\nserver: {listen: \":4180\", admin_listen: \":9090\"}\nproviders:\n  z: {n: 1000000, t: '{{ .Release.Name }}', v: \"${X}\"}\n  a: {}\n"
	rendered := install(t, values(t, "gateway", yamlText(t, map[string]any{"config": config})))
	if got, _ := posternConfig(t, rendered); got != config {
		t.Errorf("got\n%s\nwant\n%s", got, config)
	}
}

func TestRulesAndDashboardAreTheFilesOfGrafana(t *testing.T) {
	rendered := install(t, values(t, "gateway", ""))
	rules, err := os.ReadFile("../grafana/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(rules, &want); err != nil {
		t.Fatal(err)
	}
	if got := all[*monitoringv1.PrometheusRule](rendered)[0].Spec; asJSON(t, got) != asJSON(t, want) {
		t.Errorf("got %s\nwant %s", asJSON(t, got), asJSON(t, want))
	}
	dashboard, err := os.ReadFile("../grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all[*corev1.ConfigMap](rendered), func(c *corev1.ConfigMap) bool { return c.Data["postern.json"] == string(dashboard) }) {
		t.Error("no ConfigMap holds the dashboard")
	}
}

func TestBadValuesAreRefused(t *testing.T) {
	config := func(text string) string { return yamlText(t, map[string]any{"config": text}) }
	const listen = "server: {listen: ':4180', admin_listen: ':9090'}\n"
	for name, c := range map[string]struct{ mode, changes, want string }{
		"a key that is unknown":          {"gateway", "{replicas: 3}", "replicas"},
		"a nested one":                   {"gateway", "{image: {name: x}}", "name"},
		"a mode that is unknown":         {"gateway", "{mode: both}", "mode"},
		"no configuration":               {"gateway", "{config: ''}", "config"},
		"a configuration as a mapping":   {"gateway", "{config: {server: {}}}", "config"},
		"a sidecar without application":  {"sidecar", "{application: {image: ''}}", "image"},
		"replicas as text":               {"gateway", "{replicaCount: two}", "replicaCount"},
		"a port that is none":            {"gateway", "{service: {port: 70000}}", "port"},
		"a digest that is none":          {"gateway", "{image: {digest: latest}}", "digest"},
		"a service of an unknown type":   {"gateway", "{service: {type: ExternalName}}", "type"},
		"a budget of nothing":            {"gateway", "{podDisruptionBudget: {maxUnavailable: 0}}", "maxUnavailable"},
		"an ingress without hosts":       {"gateway", "{ingress: {enabled: true}}", "hosts"},
		"an HTTPRoute without Gateway":   {"gateway", "{httpRoute: {parentRefs: []}}", "parentRefs"},
		"a host that is an address":      {"gateway", "{ingress: {enabled: true, hosts: ['https://a.example.com']}}", "hosts"},
		"an interval without unit":       {"gateway", "{serviceMonitor: {interval: '30'}}", "interval"},
		"a label that is no text":        {"gateway", "{podLabels: {a: 1}}", "podLabels"},
		"a secret file outside":          {"gateway", "{secretFiles: {../x: y}}", "secretFiles"},
		"two sources of secrets":         {"gateway", "{secretFiles: {client-secret: abc}}", "existingSecret and secretFiles"},
		"no listen":                      {"gateway", config("routes: []"), `write server.listen: ":4180"`},
		"listen on loopback":             {"gateway", config("server: {listen: '127.0.0.1:4180', admin_listen: ':9090'}"), "server.listen"},
		"the admin listener on loopback": {"gateway", config("server: {listen: ':4180'}"), `write server.admin_listen: ":9090"`},
		"a duration in parts of seconds": {"gateway", config("server: {listen: ':4180', admin_listen: ':9090', drain_delay: 1500ms}"), "whole seconds"},
		"a configuration that is broken": {"gateway", config("server: ["), "not YAML"},
		"a client secret":                {"gateway", config(listen + "providers: {corp: {client_secret: hunter2}}"), "providers.corp.client_secret"},
		"a client key":                   {"gateway", config(listen + "providers: {corp: {client_key: hunter2}}"), "providers.corp.client_key"},
		"a session key":                  {"gateway", config(listen + "session: {keys: [{file: x}, hunter2]}"), "session.keys[1]"},
		"an assertion key":               {"gateway", config("server: {listen: ':1', admin_listen: ':2', assertion_keys: [hunter2]}"), "server.assertion_keys[0]"},
		"an admin token":                 {"gateway", config("server: {listen: ':1', admin_listen: ':2', admin: {token: hunter2}}"), "server.admin.token"},
		"a password":                     {"gateway", config(listen + "session: {store: {redis: {password: hunter2}}}"), "session.store.redis.password"},
		"a password of the sentinels":    {"gateway", config(listen + "session: {store: {redis: {sentinel: {password: hunter2}}}}"), "sentinel.password"},
		"a password of digits":           {"gateway", config(listen + "session: {store: {redis: {password: 12345}}}"), "session.store.redis.password"},
		"a password in Redis' URL":       {"gateway", config(listen + "session: {store: {redis: {url: 'rediss://postern:hunter2@redis:6379/0'}}}"), "session.store.redis.url"},
		"one without a user":             {"gateway", config(listen + "session: {store: {redis: {url: 'redis://:hunter2@redis'}}}"), "session.store.redis.url"},
		"one with signs of a URL":        {"gateway", config(listen + "session: {store: {redis: {url: 'redis://postern:/@:${X}hunter2@redis'}}}"), "session.store.redis.url"},
		"a parameter of token requests":  {"gateway", config(listen + "providers: {corp: {token_params: {a: '${A}', api_key: hunter2}}}"), "providers.corp.token_params.api_key"},
		"one of digits":                  {"gateway", config(listen + "providers: {corp: {token_params: {pin: 4711}}}"), "providers.corp.token_params.pin"},
		"a secret beside a variable":     {"gateway", config(listen + "providers: {corp: {client_secret: 'hunter2${X}'}}"), "providers.corp.client_secret"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := render(t, values(t, c.mode, c.changes))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to name %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the refusal tells the secret: %v", err)
			}
		})
	}
}

// Every value has a default, a description and a place in the schema, and the README has them all.
func TestValuesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(chartFolder + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	var schema valueSchema
	if err := json.Unmarshal(loadChart(t).Schema, &schema); err != nil {
		t.Fatal(err)
	}
	table := "| value | default | meaning |\n| --- | --- | --- |\n" + documented(t, document.Content[0], schema, "")
	replaceTable(t, chartFolder+"/README.md", table)
}

type valueSchema struct {
	Properties           map[string]valueSchema `json:"properties"`
	AdditionalProperties any                    `json:"additionalProperties"`
}

// documented is the table's rows for a mapping; a mapping that the schema describes has rows of its own.
func documented(t *testing.T, mapping *yamlv3.Node, schema valueSchema, prefix string) string {
	t.Helper()
	if schema.AdditionalProperties != false {
		t.Errorf("the schema lets unknown keys pass under %q", prefix)
	}
	var rows strings.Builder
	known := map[string]bool{"global": true} // Helm's own
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		known[key.Value] = true
		inner, ok := schema.Properties[key.Value]
		if !ok {
			t.Errorf("the schema does not know %s", name)
		}
		if inner.Properties != nil {
			rows.WriteString(documented(t, value, inner, name+"."))
			continue
		}
		meaning := strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(key.HeadComment, "# "), "\n# ", " "))
		if meaning == "" {
			t.Errorf("values.yaml does not describe %s", name)
		}
		var plain any
		if err := value.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&rows, "| `%s` | `%s` | %s |\n", name, asJSON(t, plain), strings.ReplaceAll(meaning, "|", `\|`))
	}
	for key := range schema.Properties {
		if !known[key] {
			t.Errorf("values.yaml has no %s%s", prefix, key)
		}
	}
	return rows.String()
}

// replaceTable holds the generated part of a page, or writes it.
func replaceTable(t *testing.T, file, table string) {
	t.Helper()
	const begin, end = "<!-- values:begin -->\n", "<!-- values:end -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", file)
	}
	if old == table {
		return
	}
	if !*update {
		t.Fatalf("%s is not current; run: go test -run=ValuesAreDocumented -update", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func yamlText(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

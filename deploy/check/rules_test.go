package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// refreshGrace is how long Postern may still store a token after everything else has stopped.
const refreshGrace = 10 * time.Second

// A pod is a Deployment's, a StatefulSet's, or one by itself.
type pod struct {
	name     string
	labels   map[string]string
	selector *metav1.LabelSelector // nil for one by itself
	spec     corev1.PodSpec
}

func pods(objects []metav1.Object) []pod {
	var found []pod
	for _, d := range all[*appsv1.Deployment](objects) {
		found = append(found, pod{d.Name, d.Spec.Template.Labels, d.Spec.Selector, d.Spec.Template.Spec})
	}
	for _, s := range all[*appsv1.StatefulSet](objects) {
		found = append(found, pod{s.Name, s.Spec.Template.Labels, s.Spec.Selector, s.Spec.Template.Spec})
	}
	for _, p := range all[*corev1.Pod](objects) {
		found = append(found, pod{p.Name, p.Labels, nil, p.Spec})
	}
	return found
}

// container is the one of that name.
func (p pod) container(name string) *corev1.Container {
	for i, c := range p.spec.Containers {
		if c.Name == name {
			return &p.spec.Containers[i]
		}
	}
	return nil
}

// port finds a container's port by its name or number.
func (p pod) port(want intstr.IntOrString) *corev1.ContainerPort {
	for _, c := range p.spec.Containers {
		for i, port := range c.Ports {
			if want.Type == intstr.String && port.Name == want.StrVal || want.Type == intstr.Int && port.ContainerPort == want.IntVal {
				return &c.Ports[i]
			}
		}
	}
	return nil
}

// holdRules holds everything that is applied together against what every deployment promises.
func holdRules(t *testing.T, objects []metav1.Object) {
	t.Helper()
	for _, p := range pods(objects) {
		podIsRestricted(t, p)
		volumesExist(t, p, objects)
		if p.selector != nil {
			selectorMatches(t, p)
			portsAreClosed(t, p, objects)
		}
		if postern := p.container("postern"); postern != nil {
			posternIsProbed(t, p, postern)
			memoryHasRoom(t, postern)
			stoppingHasTime(t, p, objects)
			portsAreTheConfigured(t, p, objects)
		}
	}
	servicesLeadToPorts(t, objects)
	referencesExist(t, objects)
}

// podIsRestricted asks the code with which Kubernetes enforces the Pod Security Standard, and wants two things more.
func podIsRestricted(t *testing.T, p pod) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	restricted := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(restricted, &metav1.ObjectMeta{Name: p.name}, &p.spec) {
		if !result.Allowed {
			t.Errorf("pod %s is not restricted: %s: %s", p.name, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	if p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken {
		t.Errorf("pod %s gets a token of its service account", p.name)
	}
	for _, c := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
		if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("container %s of pod %s may write to its root file system", c.Name, p.name)
		}
		if c.Resources.Limits.Memory().IsZero() {
			t.Errorf("container %s of pod %s has no memory limit", c.Name, p.name)
		}
	}
}

func volumesExist(t *testing.T, p pod, objects []metav1.Object) {
	t.Helper()
	known := map[string]bool{}
	for _, v := range p.spec.Volumes {
		known[v.Name] = true
		if v.ConfigMap != nil && !slices.ContainsFunc(all[*corev1.ConfigMap](objects), func(c *corev1.ConfigMap) bool { return c.Name == v.ConfigMap.Name }) {
			t.Errorf("pod %s mounts ConfigMap %s, which is not there", p.name, v.ConfigMap.Name)
		}
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o007 != 0) {
			t.Errorf("pod %s mounts Secret %s readable by everyone in the pod", p.name, v.Secret.SecretName)
		}
	}
	for _, s := range all[*appsv1.StatefulSet](objects) {
		for _, claim := range s.Spec.VolumeClaimTemplates {
			known[claim.Name] = known[claim.Name] || s.Name == p.name
		}
	}
	for _, c := range p.spec.Containers {
		for _, mount := range c.VolumeMounts {
			if !known[mount.Name] {
				t.Errorf("container %s of pod %s mounts %s, which is not there", c.Name, p.name, mount.Name)
			}
			if mount.SubPath != "" || mount.SubPathExpr != "" {
				t.Errorf("container %s of pod %s mounts %s by subPath, which never changes", c.Name, p.name, mount.Name)
			}
		}
	}
}

func selects(t *testing.T, selector *metav1.LabelSelector, p pod) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(p.labels))
}

func selectorMatches(t *testing.T, p pod) {
	t.Helper()
	if !selects(t, p.selector, p) {
		t.Errorf("%s does not select its own pods", p.name)
	}
	for _, spread := range p.spec.TopologySpreadConstraints {
		if !selects(t, spread.LabelSelector, p) {
			t.Errorf("%s spreads other pods than its own", p.name)
		}
	}
}

// portsAreClosed wants policies under which nothing but Postern's ports can be reached in a pod with Postern, from wherever. Only Postern's may be open to all.
func portsAreClosed(t *testing.T, p pod, objects []metav1.Object) {
	t.Helper()
	open := map[string]bool{"http": true, "admin": true}
	if p.container("postern") == nil {
		open = map[string]bool{"redis": true}
	}
	selected := false
	for _, n := range all[*networkingv1.NetworkPolicy](objects) {
		if !selects(t, &n.Spec.PodSelector, p) {
			continue
		}
		selected = selected || slices.Contains(n.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
		for _, rule := range n.Spec.Ingress {
			if len(rule.Ports) == 0 {
				t.Errorf("policy %s opens every port of %s", n.Name, p.name)
			}
			for _, port := range rule.Ports {
				switch {
				case port.Port == nil || !open[port.Port.StrVal]:
					t.Errorf("policy %s opens port %v of %s", n.Name, port.Port, p.name)
				case p.port(*port.Port) == nil:
					t.Errorf("policy %s opens port %v, which %s has not", n.Name, port.Port, p.name)
				case len(rule.From) == 0 && port.Port.StrVal != "http":
					t.Errorf("policy %s opens port %v of %s to everyone", n.Name, port.Port, p.name)
				}
			}
		}
	}
	if !selected {
		t.Errorf("no network policy closes the ports of %s", p.name)
	}
}

func posternIsProbed(t *testing.T, p pod, c *corev1.Container) {
	t.Helper()
	for what, probe := range map[string]struct {
		*corev1.Probe
		path string
	}{
		"startup": {c.StartupProbe, "/healthz"}, "liveness": {c.LivenessProbe, "/healthz"}, "readiness": {c.ReadinessProbe, "/readyz"},
	} {
		if probe.Probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != probe.path || probe.HTTPGet.Port.StrVal != "admin" {
			t.Errorf("the %s probe of %s does not ask %s on the admin port", what, p.name, probe.path)
		}
	}
}

// memoryHasRoom: Go's limit is soft and counts Go's memory only.
func memoryHasRoom(t *testing.T, c *corev1.Container) {
	t.Helper()
	limit := c.Resources.Limits.Memory().Value()
	for _, e := range c.Env {
		if e.Name != "GOMEMLIMIT" {
			continue
		}
		soft, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B")) // KiB is Ki here
		if err != nil {
			t.Fatalf("GOMEMLIMIT: %v", err)
		}
		if soft.Value() > limit*9/10 || soft.Value() < limit/2 {
			t.Errorf("GOMEMLIMIT is %s, not a little less than nine tenths of %d", e.Value, limit)
		}
		return
	}
	t.Error("GOMEMLIMIT is not set")
}

// stoppingHasTime adds up what Postern may take to stop.
func stoppingHasTime(t *testing.T, p pod, objects []metav1.Object) {
	t.Helper()
	_, config := posternConfig(t, objects)
	stopping := config.drainDelay(t) + config.shutdownTimeout(t)
	grace := time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second
	if grace <= stopping+refreshGrace {
		t.Errorf("%s is killed after %v, while Postern may take %v", p.name, grace, stopping+refreshGrace)
	}
	application := p.container("application")
	if application == nil {
		return
	}
	if application.Lifecycle == nil || application.Lifecycle.PreStop == nil || application.Lifecycle.PreStop.Sleep == nil {
		t.Fatalf("the application of %s stops before Postern has finished", p.name)
	}
	sleep := time.Duration(application.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if sleep < stopping || sleep+refreshGrace > grace {
		t.Errorf("the application waits %v, Postern needs it for %v, and both are killed after %v", sleep, stopping, grace)
	}
	if len(application.Ports) > 0 {
		t.Errorf("the application of %s names a port: it must be on loopback alone", p.name)
	}
}

func portsAreTheConfigured(t *testing.T, p pod, objects []metav1.Object) {
	t.Helper()
	_, config := posternConfig(t, objects)
	ports := map[string]string{}
	for _, port := range p.container("postern").Ports {
		ports[port.Name] = fmt.Sprintf(":%d", port.ContainerPort)
	}
	if config.Server.Listen != ports["http"] || config.Server.AdminListen != ports["admin"] || len(ports) != 2 {
		t.Errorf("Postern listens on %q and %q, the container names %v", config.Server.Listen, config.Server.AdminListen, slices.Sorted(maps.Values(ports)))
	}
}

// servicesLeadToPorts wants a port behind each Service's, and of Postern's pods only Postern's port, but for the admin Service.
func servicesLeadToPorts(t *testing.T, objects []metav1.Object) {
	t.Helper()
	for _, s := range all[*corev1.Service](objects) {
		selected := 0
		for _, p := range pods(objects) {
			if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.labels)) {
				continue
			}
			selected++
			for _, port := range s.Spec.Ports {
				if p.port(port.TargetPort) == nil {
					t.Errorf("Service %s leads to port %v, which %s has not", s.Name, port.TargetPort, p.name)
				}
				if p.container("postern") == nil {
					continue
				}
				if admin := strings.HasSuffix(s.Name, "-admin"); len(s.Spec.Ports) != 1 || (port.TargetPort.StrVal == "admin") != admin {
					t.Errorf("Service %s leads to %v", s.Name, s.Spec.Ports)
				}
			}
		}
		if selected != 1 {
			t.Errorf("Service %s selects %d kinds of pods, want 1", s.Name, selected)
		}
	}
}

// referencesExist follows names from one object to another.
func referencesExist(t *testing.T, objects []metav1.Object) {
	t.Helper()
	service := func(from, name string, port networkingv1.ServiceBackendPort) {
		for _, s := range all[*corev1.Service](objects) {
			for _, p := range s.Spec.Ports {
				if s.Name == name && (p.Name == port.Name || p.Port == port.Number) {
					return
				}
			}
		}
		t.Errorf("%s leads to Service %s port %v, which is not there", from, name, port)
	}
	for _, i := range all[*networkingv1.Ingress](objects) {
		for _, rule := range i.Spec.Rules {
			for _, path := range rule.HTTP.Paths {
				service("Ingress "+i.Name, path.Backend.Service.Name, path.Backend.Service.Port)
			}
		}
	}
	for _, r := range all[*gatewayv1.HTTPRoute](objects) {
		for _, rule := range r.Spec.Rules {
			for _, backend := range rule.BackendRefs {
				service("HTTPRoute "+r.Name, string(backend.Name), networkingv1.ServiceBackendPort{Number: *backend.Port})
			}
		}
	}
	for _, m := range all[*monitoringv1.ServiceMonitor](objects) {
		if !slices.ContainsFunc(all[*corev1.Service](objects), func(s *corev1.Service) bool {
			return labels.SelectorFromSet(m.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) &&
				s.Spec.Ports[0].Name == m.Spec.Endpoints[0].Port
		}) {
			t.Errorf("ServiceMonitor %s finds nothing", m.Name)
		}
	}
	for _, b := range all[*policyv1.PodDisruptionBudget](objects) {
		if !slices.ContainsFunc(pods(objects), func(p pod) bool { return selects(t, b.Spec.Selector, p) }) {
			t.Errorf("PodDisruptionBudget %s selects nothing", b.Name)
		}
	}
	deployments := all[*appsv1.Deployment](objects)
	for _, h := range all[*autoscalingv2.HorizontalPodAutoscaler](objects) {
		i := slices.IndexFunc(deployments, func(d *appsv1.Deployment) bool { return d.Name == h.Spec.ScaleTargetRef.Name })
		if i < 0 {
			t.Errorf("HorizontalPodAutoscaler %s scales nothing", h.Name)
		} else if deployments[i].Spec.Replicas != nil {
			t.Errorf("Deployment %s undoes what its autoscaler said each time it is applied", h.Name)
		}
	}
}

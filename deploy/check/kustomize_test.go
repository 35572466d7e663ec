package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const kubernetes = "../kubernetes"

// overlays are the folders that people apply.
func overlays(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(kubernetes + "/overlays/*")
	if err != nil || len(found) < 3 {
		t.Fatalf("overlays are %v: %v", found, err)
	}
	return found
}

// kustomize renders a folder as `kubectl kustomize` does.
func kustomize(t *testing.T, folder string) []metav1.Object {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, manifests)
}

func TestOverlaysHoldTheRules(t *testing.T) {
	for _, overlay := range overlays(t) {
		t.Run(filepath.Base(overlay), func(t *testing.T) {
			rendered := kustomize(t, overlay)
			holdRules(t, rendered)
			checkConfig(t, rendered)
			namespacesEnforce(t, rendered)
			for _, s := range all[*corev1.Secret](rendered) {
				t.Errorf("Secret %s is in the repository", s.Name)
			}
		})
	}
}

// namespacesEnforce wants Kubernetes itself to refuse pods that are not restricted, wherever something is put.
func namespacesEnforce(t *testing.T, rendered []metav1.Object) {
	t.Helper()
	enforced := map[string]bool{}
	for _, n := range all[*corev1.Namespace](rendered) {
		enforced[n.Name] = n.Labels["pod-security.kubernetes.io/enforce"] == "restricted"
	}
	for _, object := range rendered {
		if namespace := object.GetNamespace(); namespace != "" && !enforced[namespace] {
			t.Errorf("%s is in namespace %s, which does not enforce the restricted standard", object.GetName(), namespace)
		}
	}
}

// A ConfigMap under a new name for each content would start new pods, where Postern reads it again by itself.
func TestConfigMapsKeepTheirNames(t *testing.T) {
	for _, overlay := range overlays(t) {
		for _, c := range all[*corev1.ConfigMap](kustomize(t, overlay)) {
			if c.Name != "postern" && c.Name != "redis" {
				t.Errorf("%s has ConfigMap %s", overlay, c.Name)
			}
		}
	}
}

func TestReadmeMakesEverySecretFile(t *testing.T) {
	readme, err := os.ReadFile(kubernetes + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range overlays(t) {
		text, _ := posternConfig(t, kustomize(t, overlay))
		for _, name := range secretFiles(text) {
			if !strings.Contains(string(readme), "--from-file="+name+"=") {
				t.Errorf("README.md makes no Secret with %s, which %s needs", name, overlay)
			}
		}
	}
}

func TestApplicationsBehindTheGatewayLetOnlyPosternIn(t *testing.T) {
	const folder = kubernetes + "/overlays/gateway"
	manifest, err := os.ReadFile(folder + "/application-networkpolicy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policies := all[*networkingv1.NetworkPolicy](objects(t, manifest))
	if len(policies) != 1 || len(policies[0].Spec.Ingress) != 1 || len(policies[0].Spec.Ingress[0].From) != 1 {
		t.Fatalf("got %+v, want one way in", policies)
	}
	from := policies[0].Spec.Ingress[0].From[0]
	gateway := pods(kustomize(t, folder))[0]
	if !selects(t, from.PodSelector, gateway) || from.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "postern" {
		t.Errorf("Postern's pods are kept out by %+v", from)
	}
}

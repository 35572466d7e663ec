package check

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// The kinds that the files use, by apiVersion and kind.
var kinds = map[string]func() metav1.Object{
	"v1/Namespace":                            func() metav1.Object { return new(corev1.Namespace) },
	"v1/ServiceAccount":                       func() metav1.Object { return new(corev1.ServiceAccount) },
	"v1/ConfigMap":                            func() metav1.Object { return new(corev1.ConfigMap) },
	"v1/Secret":                               func() metav1.Object { return new(corev1.Secret) },
	"v1/Service":                              func() metav1.Object { return new(corev1.Service) },
	"v1/Pod":                                  func() metav1.Object { return new(corev1.Pod) },
	"apps/v1/Deployment":                      func() metav1.Object { return new(appsv1.Deployment) },
	"apps/v1/StatefulSet":                     func() metav1.Object { return new(appsv1.StatefulSet) },
	"networking.k8s.io/v1/NetworkPolicy":      func() metav1.Object { return new(networkingv1.NetworkPolicy) },
	"networking.k8s.io/v1/Ingress":            func() metav1.Object { return new(networkingv1.Ingress) },
	"policy/v1/PodDisruptionBudget":           func() metav1.Object { return new(policyv1.PodDisruptionBudget) },
	"autoscaling/v2/HorizontalPodAutoscaler":  func() metav1.Object { return new(autoscalingv2.HorizontalPodAutoscaler) },
	"gateway.networking.k8s.io/v1/HTTPRoute":  func() metav1.Object { return new(gatewayv1.HTTPRoute) },
	"monitoring.coreos.com/v1/ServiceMonitor": func() metav1.Object { return new(monitoringv1.ServiceMonitor) },
	"monitoring.coreos.com/v1/PrometheusRule": func() metav1.Object { return new(monitoringv1.PrometheusRule) },
}

// objects decodes a stream of manifests. An unknown field, a field twice and a value of the wrong type are errors.
func objects(t *testing.T, manifests []byte) []metav1.Object {
	t.Helper()
	var found []metav1.Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for {
		document, err := documents.Read()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if kind == (metav1.TypeMeta{}) { // comments alone
			continue
		}
		newObject := kinds[kind.APIVersion+"/"+kind.Kind]
		if newObject == nil {
			t.Fatalf("%s %s is no kind that is known here:\n%s", kind.APIVersion, kind.Kind, document)
		}
		object := newObject()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			t.Fatalf("%s: %v in\n%s", kind.Kind, err, document)
		}
		named(t, kind.Kind, object)
		found = append(found, object)
	}
}

// named holds names and labels against Kubernetes' own rules.
func named(t *testing.T, kind string, object metav1.Object) {
	t.Helper()
	rule := apivalidation.NameIsDNSSubdomain
	if kind == "Service" {
		rule = apivalidation.NameIsDNS1035Label
	}
	problems := metav1validation.ValidateLabels(object.GetLabels(), field.NewPath("labels"))
	for _, problem := range rule(object.GetName(), false) {
		problems = append(problems, field.Invalid(field.NewPath("name"), object.GetName(), problem))
	}
	for _, problem := range problems {
		t.Errorf("%s %s: %v", kind, object.GetName(), problem)
	}
}

// all are the objects of one type.
func all[T metav1.Object](objects []metav1.Object) []T {
	var found []T
	for _, object := range objects {
		if one, ok := object.(T); ok {
			found = append(found, one)
		}
	}
	return found
}

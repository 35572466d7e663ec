// Package check holds the files of deploy/kubernetes, deploy/helm, deploy/grafana, deploy/compose and deploy/systemd to what they promise. It has tests only, and a module of its own, so that
// Postern's module graph has nothing of Kubernetes, Helm or Prometheus in it: `make deploy-check` in the root runs it.
//
// Each overlay and each way to fill in the chart's values is rendered by kustomize's and Helm's own code, decoded strictly into Kubernetes' own types, judged by
// the code with which Kubernetes enforces the Pod Security Standard "restricted", and held against rules of our own (rules_test.go). The configuration in
// each rendered ConfigMap goes through the real `postern check`, and Redis' through the real redis-server. Compose's file is read by Compose's own library and
// its Redis and Postern are run without containers; systemd's units are judged by systemd-analyze.
//
// Not covered: defaults and cross-field rules that only an API server applies, admission of the custom resources beyond their types, pulling images, and
// anything that happens in a cluster.
package check

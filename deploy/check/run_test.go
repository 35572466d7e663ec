package check

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The overlay's Redis is started as its manifests say, with the user that the README makes, and Postern with the overlay's configuration before an
// application. It is asked what the kubelet asks.
func TestRedisOverlayRuns(t *testing.T) {
	rendered := kustomize(t, kubernetes+"/overlays/redis")
	text, config := posternConfig(t, rendered)
	redisPort, port, adminPort := freePort(t), freePort(t), freePort(t)

	var redisConf string
	for _, c := range all[*corev1.ConfigMap](rendered) {
		redisConf += c.Data["redis.conf"]
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "users.acl"), aclOfReadme(t))
	replacer := strings.NewReplacer("/etc/redis-users", dir, "/data", dir)
	write(t, filepath.Join(dir, "redis.conf"), replacer.Replace(redisConf)+"port "+redisPort+"\nbind 127.0.0.1\n")
	start(t, "redis-server", filepath.Join(dir, "redis.conf"))

	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "well") }))
	t.Cleanup(application.Close)
	text = strings.NewReplacer(
		config.Server.Listen+`"`, "127.0.0.1:"+port+`"`, config.Server.AdminListen+`"`, "127.0.0.1:"+adminPort+`"`, "@redis:6379", "@127.0.0.1:"+redisPort,
		"http://127.0.0.1:3000", application.URL,
		"https://id.example.com", "http://127.0.0.1:1", // nobody answers
	).Replace(text)
	start(t, postern, "--config", placeSecrets(t, text))

	eventually(t, func() error {
		_, body, err := get("127.0.0.1:"+adminPort, "/readyz")
		if err == nil && !strings.Contains(body, `"store":"ok"`) {
			err = fmt.Errorf("the store is not well: %s", body)
		}
		return err
	})
	if status, body, err := get("127.0.0.1:"+port, readinessPath(t, rendered)); status != http.StatusOK || body != "well" {
		t.Errorf("the application's readiness probe gets %d %q, %v", status, body, err)
	}
}

// readinessPath is where the kubelet asks the application whether it is ready.
func readinessPath(t *testing.T, rendered []metav1.Object) string {
	t.Helper()
	for _, p := range pods(rendered) {
		if application := p.container("application"); application != nil {
			return application.ReadinessProbe.HTTPGet.Path
		}
	}
	t.Fatal("there is no application")
	return ""
}

// get asks as the kubelet does, which names a pod by its address.
func get(address, path string) (status int, body string, err error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host = "10.1.2.3:4180"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// eventually waits until try succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// aclOfReadme is the users.acl that the README's command makes, with the password of placeSecrets.
func aclOfReadme(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile(kubernetes + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "cat > secrets/users.acl <<EOF\n")
	acl, _, closed := strings.Cut(rest, "\nEOF\n")
	if !found || !closed {
		t.Fatal("README.md makes no users.acl")
	}
	return strings.ReplaceAll(acl, "$(cat secrets/redis-password)", placeholder) + "\n"
}

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	startWith(t, nil, name, args...)
}

// startWith is start with an environment; nil is the test's own.
func startWith(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	program := exec.Command(name, args...)
	program.Env = env
	program.Stdout, program.Stderr = t.Output(), t.Output()
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = program.Process.Kill() // it may have ended by itself
		_ = program.Wait()
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

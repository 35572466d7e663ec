package check

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The overlay's Redis is started as its manifests say, with the user that the README makes, and Postern with the overlay's configuration asks it.
func TestRedisOfTheOverlayServesPostern(t *testing.T) {
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

	text = strings.NewReplacer(
		config.Server.Listen+`"`, "127.0.0.1:"+port+`"`, config.Server.AdminListen+`"`, "127.0.0.1:"+adminPort+`"`, "@redis:6379", "@127.0.0.1:"+redisPort,
		"https://id.example.com", "http://127.0.0.1:1", // nobody answers, and that holds no readiness of the store back
	).Replace(text)
	start(t, postern, "--config", placeSecrets(t, text))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	store := ""
	for store != "ok" {
		if ctx.Err() != nil {
			t.Fatalf("the store is %q", store)
		}
		time.Sleep(50 * time.Millisecond)
		resp, err := http.Get("http://127.0.0.1:" + adminPort + "/readyz")
		if err != nil {
			continue
		}
		var body struct{ Store string }
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
		store = body.Store
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
	program := exec.Command(name, args...)
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

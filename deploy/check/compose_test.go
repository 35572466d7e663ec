package check

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

const compose = "../compose"

// composed is what Compose makes of the file, with every variable that README's command sets.
func composed(t *testing.T) *types.Project {
	t.Helper()
	variables := types.Mapping{"POSTERN_SESSION_KEY": strings.TrimSpace(keygen(t)), "REDIS_PASSWORD": placeholder, "CLIENT_SECRET": placeholder}
	readme, err := os.ReadFile(compose + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range variables {
		if !strings.Contains(string(readme), "\n"+name+"=") {
			t.Errorf("README.md does not set %s", name)
		}
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: compose, ConfigFiles: []types.ConfigFile{{Filename: compose + "/compose.yaml"}}, Environment: variables,
	})
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeServicesAreClosed(t *testing.T) {
	project := composed(t)
	if len(project.Services) != 4 {
		t.Errorf("%d services", len(project.Services))
	}
	for name, s := range project.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			t.Errorf("%s may more than it needs", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s is open to other machines", name)
			}
		}
		if inner := name == "application" || name == "redis"; inner && (len(s.Ports) > 0 || len(s.Networks) != 1 || s.Networks["back"] != nil) {
			t.Errorf("%s can be reached around Postern: %v %v", name, s.Ports, s.NetworksByPriority())
		}
	}
	if !project.Networks["back"].Internal {
		t.Error("the inner network leads outside")
	}
	// The defaults: no drain_delay, 20 s for what runs, and 10 s for refreshes.
	if grace := project.Services["postern"].StopGracePeriod; grace == nil || time.Duration(*grace) < 31*time.Second {
		t.Errorf("Postern is killed after %v", grace)
	}
}

// Redis is started by the service's own command, and Postern with the service's configuration and environment.
func TestComposeConfigurationRuns(t *testing.T) {
	project := composed(t)
	redisPort, port, adminPort, dir := freePort(t), freePort(t), freePort(t), t.TempDir()

	redis := project.Services["redis"]
	command := strings.NewReplacer("/data", dir, "redis-server -", "redis-server - --bind 127.0.0.1 --port "+redisPort).Replace(redis.Command[2])
	startWith(t, environ(redis), redis.Command[0], redis.Command[1], command)

	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "well") }))
	t.Cleanup(application.Close)
	text, err := os.ReadFile(compose + "/postern.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "postern.yaml")
	write(t, file, strings.NewReplacer(`":4180"`, `"127.0.0.1:`+port+`"`, "redis:6379", "127.0.0.1:"+redisPort, "http://application:3000", application.URL,
		"localhost:4180", "localhost:"+port, "http://dex:5556", "http://127.0.0.1:1").Replace(string(text)))
	env := environ(project.Services["postern"])
	check := exec.Command(postern, "check", "--config", file)
	check.Env = env
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	startWith(t, env, postern, "--config", file, "--admin-listen", "127.0.0.1:"+adminPort)
	eventually(t, func() error {
		_, body, err := get("127.0.0.1:"+adminPort, "/readyz")
		if err == nil && !strings.Contains(body, `"store":"ok"`) {
			err = fmt.Errorf("the store is not well: %s", body)
		}
		return err
	})
	if status, _, err := get("127.0.0.1:"+port, "/"); err != nil || status != http.StatusUnauthorized {
		t.Errorf("a stranger gets %d, %v", status, err)
	}
}

// environ is the environment that a service gets.
func environ(s types.ServiceConfig) []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range s.Environment {
		if value != nil {
			env = append(env, name+"="+*value)
		}
	}
	return env
}

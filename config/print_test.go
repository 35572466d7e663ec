package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/config"
)

// What YAML prints is a configuration: it loads, and prints the same again. (A secret that the file writes is lost, and is then the text
// [secret].)
func TestYAMLLoadsAgain(t *testing.T) {
	files := []string{"testdata/good/forms.yaml", "testdata/good/public-client.yaml", "testdata/good/variables.yaml", "testdata/good/providers.yaml",
		"testdata/target/minimal.yaml", "testdata/target/sidecar.yaml", "testdata/target/providers.yaml"}
	o := env("REDIS_PASSWORD", canary, "GEARCODE_SECRET", canary, "METAFY_SECRET", canary, "LIKECOIN_SECRET", canary, "SECRET", canary, "HOST", canary+".example.com", "DELAY", "7s",
		"USER", canary, "PASSWORD", canary, "ID", canary, "BASE", "https://"+strings.ToLower(canary)+".example.com", "DIR", "/run/"+canary)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			first := mustLoad(t, file, o).YAML()
			if strings.Contains(strings.ToLower(first), strings.ToLower(canary)) || strings.Contains(first, "hunter2") || strings.Contains(first, "123456789") {
				t.Errorf("tells a secret, or what a variable holds:\n%s", first)
			}
			c, err := config.Parse("printed.yaml", []byte(first), o)
			if err != nil {
				t.Fatalf("%v\nin:\n%s", err, first)
			}
			if diff := cmp.Diff(first, c.YAML()); diff != "" {
				t.Errorf("prints something else again (-first +second):\n%s", diff)
			}
		})
	}
}

// The golden file shows what an operator sees: every default, the preset, and no secret.
func TestYAML(t *testing.T) {
	const golden = "testdata/print.golden"
	got := mustLoad(t, "testdata/good/providers.yaml", env("USER", canary, "PASSWORD", canary, "ID", canary, "SECRET", canary, "BASE", "https://id.example.com", "DIR", canary)).YAML()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

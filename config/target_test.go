package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/config"
)

// env is a LookupEnv of the given variables alone.
func env(pairs ...string) config.LoadOptions {
	vars := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		vars[pairs[i]] = pairs[i+1]
	}
	return config.LoadOptions{LookupEnv: func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}}
}

// problemsOf is what Load or Parse found, warnings included.
func problemsOf(t *testing.T, c *config.Config, err error) config.Problems {
	t.Helper()
	if err == nil {
		return c.Warnings
	}
	var ps config.Problems
	if !errors.As(err, &ps) {
		t.Fatalf("error is %T, want Problems: %v", err, err)
	}
	if c != nil {
		t.Error("a Config came back with an error")
	}
	return ps
}

// The files that Postern is built towards load as they stand.
func TestTargetFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/target/*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("target files: %v, %v", files, err)
	}
	vars := env("REDIS_PASSWORD", "p", "PARTNERS_SECRET", "p", "GEARCODE_SECRET", "p", "METAFY_SECRET", "p", "LIKECOIN_SECRET", "p")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := config.Load(file, vars)
			problems := slices.DeleteFunc(problemsOf(t, c, err), func(p config.Problem) bool { // meant: a provider that has nothing else
				return p.Warning && p.Path == "providers.breakout.grant"
			})
			if len(problems) > 0 {
				t.Errorf("has problems:\n%v", problems)
			}
		})
	}
}

// Without its variables a file names each one that is missing.
func TestTargetFilesNameMissingVariables(t *testing.T) {
	data, err := os.ReadFile("testdata/target/providers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("providers.yaml", data, env())
	got := problemsOf(t, c, err).Error()
	for _, name := range []string{"GEARCODE_SECRET", "METAFY_SECRET", "LIKECOIN_SECRET"} {
		if !strings.Contains(got, "the environment variable "+name+" is not set") {
			t.Errorf("%s is not named in:\n%s", name, got)
		}
	}
}

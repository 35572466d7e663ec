package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/config"
)

var update = flag.Bool("update", false, "write golden files and the README's reference anew")

// goldenEnv are the variables that files in testdata may name. No golden file may hold the canary.
func goldenEnv() config.LoadOptions {
	return env("CANARY", canary, "EMPTY", "", "NEWLINE", "a\nlisten: b", "SECRET", canary, "HOST", "wiki.example.com", "DELAY", "7s",
		"USER", canary, "PASSWORD", canary, "ID", canary, "BASE", "https://id.example.com", "DIR", "/run")
}

// Each file in testdata/bad makes one mistake and yields exactly the problems in the .golden file beside it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Parse(filepath.Base(file), data, goldenEnv())
			if err == nil && len(c.Warnings) == 0 {
				t.Fatal("no problem was found")
			}
			problems := problemsOf(t, c, err)
			for _, p := range problems {
				if p.Line < 1 || p.Column < 1 || p.Mend == "" {
					t.Errorf("no place or no mend: %#v", p)
				}
				if strings.Contains(p.Excerpt, canary) || strings.Contains(p.Excerpt, "hunter2") {
					t.Errorf("the excerpt tells a secret:\n%s", p.Excerpt)
				}
			}
			got := problems.Error() + "\n"
			if strings.Contains(got, canary) || strings.Contains(got, "hunter2") {
				t.Errorf("tells a secret:\n%s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
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
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// Each file in testdata/good loads without a problem or warning.
func TestGoodFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d good files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := config.Load(file, goldenEnv())
			if problems := problemsOf(t, c, err); len(problems) > 0 {
				t.Errorf("problems:\n%v", problems)
			}
		})
	}
}

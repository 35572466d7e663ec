package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/config"
)

// canary stands for whatever an environment variable may hold. No problem may repeat it.
const canary = "cAnArY-7f3a"

// Whatever the file holds, Parse returns, and every error has a place, a sentence, and no variable's value.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/target/*.yaml", "testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o := config.LoadOptions{LookupEnv: func(string) (string, bool) { return canary, true }}
		c, err := config.Parse("fuzz.yaml", data, o)
		problems := problemsOf(t, c, err)
		if err != nil && len(problems.Errors()) == 0 {
			t.Error("refused without an error")
		}
		if err == nil && !strings.Contains(strings.ToLower(string(data)), strings.ToLower(canary)) && strings.Contains(strings.ToLower(c.YAML()), strings.ToLower(canary)) {
			t.Errorf("prints a variable's value:\n%s", c.YAML())
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.What == "" || p.File != "fuzz.yaml" {
				t.Errorf("incomplete problem: %#v", p)
			}
			if strings.ContainsFunc(p.String(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("control characters in %q", p.String())
			}
			if strings.Contains(p.String(), canary) && !strings.Contains(string(data), canary) {
				t.Errorf("tells a variable's value: %v", p)
			}
		}
	})
}

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/config"
)

const pagesFile = `
pages: {logo: "${DIR}/logo.svg", templates: "${DIR}/pages"}
providers:
  corp: {issuer: "https://id.example.com", client_id: a, client_secret: b}
routes:
  - upstream: http://127.0.0.1:3000
`

func TestCheckFilesOfPages(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(dir string) error
	}{
		{"all well", "", func(string) error { return nil }},
		{"logo missing", "pages.logo|cannot be read", func(dir string) error { return os.Remove(dir + "/logo.svg") }},
		{"logo empty", "pages.logo|is empty", func(dir string) error { return os.Truncate(dir+"/logo.svg", 0) }},
		{"logo of 64 KiB", "", func(dir string) error { return os.Truncate(dir+"/logo.svg", 64<<10) }},
		{"logo larger", "pages.logo|is larger than 64KiB", func(dir string) error { return os.Truncate(dir+"/logo.svg", 64<<10+1) }},
		{"logo is a folder", "pages.logo|is not a regular file", func(dir string) error {
			return replace(dir+"/logo.svg", func(name string) error { return os.Mkdir(name, 0o755) })
		}},
		{"logo is a pipe", "pages.logo|is not a regular file", func(dir string) error {
			return replace(dir+"/logo.svg", func(name string) error { return syscall.Mkfifo(name, 0o644) })
		}},
		{"folder missing", "pages.templates|cannot be read", func(dir string) error { return os.Remove(dir + "/pages") }},
		{"folder is a file", "pages.templates|is not a folder", func(dir string) error {
			return replace(dir+"/pages", func(name string) error { return os.WriteFile(name, nil, 0o644) })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "logo.svg"), "<svg/>")
			if err := os.Mkdir(filepath.Join(dir, "pages"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			c, err := config.Parse("x.yaml", []byte(pagesFile), env("DIR", dir))
			if err != nil {
				t.Fatal(err) // Parse never looks at the files
			}
			problems := c.CheckFiles()
			path, what, _ := strings.Cut(tt.want, "|")
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("problems:\n%v", problems)
			case tt.want != "" && (len(problems) != 1 || problems[0].Path != path || !strings.Contains(problems[0].What, what) || problems[0].Line == 0):
				t.Errorf("problems:\n%v\nwant one at %s: …%s…", problems, path, what)
			}
			if strings.Contains(problems.Error(), dir) {
				t.Errorf("tells what the variable holds: %v", problems)
			}
		})
	}
}

// replace puts something else where a file was.
func replace(name string, by func(name string) error) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return by(name)
}

package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"postern/config"
)

const secretText = "correct-horse-battery"

// holder has a Secret where fmt may not call methods.
type holder struct {
	Public config.Secret
	hidden config.Secret
	list   []config.Secret
	named  map[string]config.Secret
	ptr    *config.Secret
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := config.NewSecret(secretText)
	in := holder{s, s, []config.Secret{s}, map[string]config.Secret{"a": s}, &s}
	provider := config.Provider{Name: "corp", ClientSecret: s}
	var out bytes.Buffer
	for _, value := range []any{s, &s, in, &in, []config.Secret{s}, map[string]config.Secret{"a": s}, provider, config.Providers{provider}} {
		for _, flag := range []string{"", "+", "#", "-", " ", "0", "20", ".3", "+#"} {
			for verb := '!'; verb < 0x7f; verb++ {
				if verb != '%' && verb != '*' && verb != '[' {
					fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", value)
				}
			}
		}
		fmt.Fprintln(&out, value)
		js, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(js)
		ym, err := yaml.Marshal(value)
		if err == nil { // a map's nil pointer is not YAML's matter
			out.Write(ym)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("x", "value", value, slog.Group("g", "value", value))
		}
	}
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	fmt.Fprint(&out, s.String(), s.GoString(), s.LogValue(), fmt.Errorf("wrap: %v", s), s.File())
	for _, part := range []string{secretText, "correct", "battery", fmt.Sprintf("%x", secretText), fmt.Sprintf("%X", secretText), "Y29ycmVjd"} {
		if i := strings.Index(out.String(), part); i >= 0 {
			t.Errorf("prints %q: …%s…", part, out.String()[max(0, i-80):i+40])
		}
	}
	if !strings.Contains(out.String(), "[hidden]") {
		t.Error("does not even say that something is hidden")
	}
	if got, err := s.Value(); got != secretText || err != nil {
		t.Errorf("Value() = %q, %v", got, err)
	}
}

func TestSecretZero(t *testing.T) {
	var s config.Secret
	if !s.IsZero() || s.String() != "" {
		t.Errorf("zero Secret: IsZero %v, String %q", s.IsZero(), s)
	}
	if _, err := s.Value(); err == nil {
		t.Error("a Secret that was not set has a value")
	}
	if !config.NewSecret("").IsZero() {
		t.Error("an empty secret is set")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t *testing.T, s config.Secret, want string) {
	t.Helper()
	if got, err := s.Value(); got != want || err != nil {
		t.Errorf("Value() = %q, %v; want %q", got, err, want)
	}
}

func TestSecretFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	tick := time.Now()
	inTick := func(text string) { // as two writes within one tick of the file system's clock look
		t.Helper()
		write(t, path, text)
		if err := os.Chtimes(path, tick, tick); err != nil {
			t.Fatal(err)
		}
	}
	inTick("first\r\n")
	s := config.NewSecretFile(path)
	wantValue(t, s, "first")
	inTick("other\n\n") // the same size, time and inode
	wantValue(t, s, "other")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	wantValue(t, s, "other")
	wantValue(t, s, "other")
	write(t, path, "  third ")
	wantValue(t, s, "  third ") // spaces may belong to the secret
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Value(); err == nil || got != "" {
		t.Errorf("a file that is gone yields %q, %v", got, err)
	}
	write(t, path, "fourth")
	wantValue(t, s, "fourth")
}

// A file that has not changed for a while is not read again, only looked at.
func TestSecretFileIsCached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "aaaaa")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	s := config.NewSecretFile(path)
	wantValue(t, s, "aaaaa")
	write(t, path, "bbbbb")
	if err := os.Chtimes(path, old, old); err != nil { // hides the change from stat
		t.Fatal(err)
	}
	wantValue(t, s, "aaaaa")
}

// Kubernetes swaps the symlink ..data: same path, size and even time, another file.
func TestSecretFileSymlinkSwap(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, v := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, "..v"+v), 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "..v"+v, "secret")
		write(t, file, "value"+v)
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	point := func(to string) {
		t.Helper()
		tmp := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(to, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	point("..v1")
	if err := os.Symlink("..data/secret", filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	s := config.NewSecretFile(filepath.Join(dir, "secret"))
	wantValue(t, s, "value1")
	point("..v2")
	wantValue(t, s, "value2")
}

func TestSecretFileErrors(t *testing.T) {
	dir := t.TempDir()
	empty, large := filepath.Join(dir, "empty"), filepath.Join(dir, "large")
	write(t, empty, "\n\n")
	write(t, large, strings.Repeat(secretText, 10_000))
	for _, path := range []string{empty, large, dir, filepath.Join(dir, "missing")} {
		got, err := config.NewSecretFile(path).Value()
		if err == nil || got != "" {
			t.Errorf("%s: %d bytes, %v; want an error", path, len(got), err)
			continue
		}
		if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secretText) {
			t.Errorf("error does not name the file, or tells its contents: %.200v", err)
		}
	}
}

package check

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// placeholder is every secret that needs no form of its own.
const placeholder = "correct-horse-battery-staple"

// postern is the program, built once.
var postern string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "deploy-check-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	postern = filepath.Join(dir, "postern")
	build := exec.Command("go", "build", "-trimpath", "-o", postern, "./cmd/postern") // as `make build` does, so that it is compiled once
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A configuration is what the manifests must agree with.
type configuration struct {
	Server struct {
		Listen          string `json:"listen"`
		AdminListen     string `json:"admin_listen"`
		DrainDelay      string `json:"drain_delay"`
		ShutdownTimeout string `json:"shutdown_timeout"`
	} `json:"server"`
}

func (c configuration) drainDelay(t *testing.T) time.Duration {
	return duration(t, c.Server.DrainDelay, 0)
}

func (c configuration) shutdownTimeout(t *testing.T) time.Duration {
	return duration(t, c.Server.ShutdownTimeout, 20*time.Second)
}

func duration(t *testing.T, text string, otherwise time.Duration) time.Duration {
	t.Helper()
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// posternConfig finds postern.yaml in the one ConfigMap that has it.
func posternConfig(t *testing.T, objects []metav1.Object) (string, configuration) {
	t.Helper()
	var config configuration
	for _, c := range all[*corev1.ConfigMap](objects) {
		if text, ok := c.Data["postern.yaml"]; ok {
			if err := yaml.Unmarshal([]byte(text), &config); err != nil {
				t.Fatal(err)
			}
			return text, config
		}
	}
	t.Fatal("no ConfigMap has postern.yaml")
	return "", config
}

// secretFile finds where a configuration names a file of the mounted Secret.
var secretFile = regexp.MustCompile(`/run/secrets/postern/([-\w.]+)`)

// environment is a whole value from the environment; only secrets come from there.
var environment = regexp.MustCompile(`\$\{(\w+)\}`)

// secretFiles are the names of those files.
func secretFiles(text string) []string {
	var names []string
	for _, match := range secretFile.FindAllStringSubmatch(text, -1) {
		names = append(names, match[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkConfig runs the real `postern check` on the rendered configuration, with secrets made for it, and sees that none stands in the file.
func checkConfig(t *testing.T, objects []metav1.Object) {
	t.Helper()
	text, _ := posternConfig(t, objects)
	file := placeSecrets(t, text)
	check := exec.Command(postern, "check", "--print", "--config", file)
	var problems strings.Builder
	check.Stderr = &problems
	printed, err := check.Output()
	if err != nil || problems.Len() > 0 {
		t.Fatalf("postern check: %v\n%s\nof\n%s", err, problems.String(), text)
	}
	if strings.Contains(string(printed), "[secret]") {
		t.Errorf("a secret stands in the ConfigMap:\n%s", printed)
	}
}

// placeSecrets writes the configuration, with files of its own in place of the mounted ones and of the environment.
func placeSecrets(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	text = environment.ReplaceAllString(text, "{file: /run/secrets/postern/$1}")
	for _, name := range secretFiles(text) {
		content := placeholder
		switch {
		case strings.HasPrefix(name, "session-key"):
			content = keygen(t)
		case strings.HasSuffix(name, ".pem"):
			content = certificate(t)
		}
		write(t, filepath.Join(dir, name), content)
	}
	file := filepath.Join(dir, "postern.yaml")
	write(t, file, strings.ReplaceAll(text, "/run/secrets/postern", dir))
	return file
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keygen(t *testing.T) string {
	t.Helper()
	key, err := exec.Command(postern, "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

// certificate is one that signs itself.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

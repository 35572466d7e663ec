package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

// A log collector that dies must not take Postern along: a write to standard output that nobody reads is SIGPIPE.
func TestAuditLogOutlivesItsReader(t *testing.T) {
	public, admin := freePort(t), freePort(t)
	file := filepath.Join(t.TempDir(), "postern.yaml")
	text := fmt.Sprintf("server: {listen: %q, admin_listen: %q, audit: {stdout: true}, admin: {token: admin-canary-token}}\n"+
		"providers:\n  corp: {issuer: 'http://127.0.0.1:1', client_id: wiki, client_secret: secret}\nroutes: [{access: public, upstream: 'http://127.0.0.1:2'}]\n", public, admin)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("postern") // testscript puts this test's own there
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	notes, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	complained := make(chan bool, 1)
	go func() {
		told := false
		for lines := bufio.NewScanner(notes); lines.Scan(); {
			if !told && strings.Contains(lines.Text(), "audit log") && strings.Contains(lines.Text(), "broken pipe") {
				told = true
				complained <- true
			}
		}
		close(complained)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	proxytest.Eventually(t, func() bool { code, _ := get("http://" + admin + "/healthz"); return code == http.StatusOK })

	refused := func() { // is audited
		if code, _ := get("http://" + admin + "/sessions?user=alice"); code != http.StatusUnauthorized {
			t.Fatalf("without token: %d", code)
		}
	}
	refused()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, `"event":"admin_refused"`) {
		t.Fatalf("%q, %v", line, err)
	}
	if err := out.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	refused()
	if !<-complained {
		t.Fatal("Postern ended, or did not say that the audit log is broken")
	}
	refused()
}

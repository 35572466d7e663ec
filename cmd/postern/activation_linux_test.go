package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
)

// activated runs Postern with a socket as systemd hands it over, under a name.
func activated(t *testing.T, name string) (p *proctest.Process, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	config := proctest.WriteFile(t, t.TempDir(), "postern.yaml", fmt.Appendf(nil, `
server: {listen: "127.0.0.1:1", admin_listen: %q}
providers:
  corp: {issuer: "http://127.0.0.1:1", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {access: public, upstream: "http://127.0.0.1:2"}
`, freePort(t)))
	postern, err := exec.LookPath("postern") // testscript puts this test's own there
	if err != nil {
		t.Fatal(err)
	}
	// Only the process itself knows its number.
	return proctest.Start(t, proctest.Options{Env: []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=" + name}, Files: []*os.File{socket}},
		"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, filepath.Base(postern), postern, "--config", config), l.Addr().String()
}

func TestSocketOfSystemdIsServed(t *testing.T) {
	p, address := activated(t, "listen")
	proctest.Eventually(t, "the socket is served", func() error {
		if code, _ := get("http://" + address + "/oauth2/session"); code != http.StatusUnauthorized {
			return fmt.Errorf("status %d", code)
		}
		return nil
	})
	p.Terminate(t)
	if code := p.ExitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSocketOfSystemdWithAnotherNameIsRefused(t *testing.T) {
	p, _ := activated(t, "http")
	<-p.Done()
	if code := p.ExitCode(t); code == 0 {
		t.Error("it served")
	}
	if said := p.Printed(); strings.Contains(said, "serving") {
		t.Error(said)
	}
}

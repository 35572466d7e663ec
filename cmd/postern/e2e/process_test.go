//go:build e2e

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
)

// patience bounds every wait.
const patience = proctest.Patience

// programs is the folder of the built programs.
var programs string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "postern-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	programs = dir
	if err := proctest.Build(dir, "./cmd/postern", "./cmd/demo"); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// The tests of this package call these all the time.

type process = proctest.Process

func start(t *testing.T, dir string, env []string, onLine func(string), program string, args ...string) *process {
	t.Helper()
	return proctest.Start(t, proctest.Options{Dir: dir, Env: env, Out: onLine}, program, args...)
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	proctest.Eventually(t, what, try)
}

func passes(t *testing.T, moment time.Time) {
	t.Helper()
	proctest.Passes(t, moment)
}

func freePort(t *testing.T) int {
	t.Helper()
	return proctest.FreePort(t)
}

func address(port int) string { return proctest.Address(port) }

func writeFile(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	return proctest.WriteFile(t, dir, name, content)
}

// adapt replaces the addresses of an example file by those of this test. A text that the file does not have is a mistake.
func adapt(t *testing.T, file string, oldNew ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldNew); i += 2 {
		if !bytes.Contains(content, []byte(oldNew[i])) {
			t.Fatalf("%s has no %q", file, oldNew[i])
		}
		content = bytes.ReplaceAll(content, []byte(oldNew[i]), []byte(oldNew[i+1]))
	}
	return content
}

var errNotYet = errors.New("not yet")

//go:build e2e

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait: long enough for a busy machine, since a test that passes never waits it out.
const patience = 30 * time.Second

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
	build := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./cmd/postern", "./cmd/demo")
	build.Dir = "../../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// A process is a running program of a test. It ends with the test at the latest.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended and all its output is in

	mu    sync.Mutex
	lines []string // its standard output
}

// start runs a program. What it prints goes to the test's log, and line by line to onLine when that is not nil.
func start(t *testing.T, dir string, env []string, onLine func(string), program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	// It does not outlive a test that is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	name := filepath.Base(program)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		eachLine(stdout, func(line string) {
			p.mu.Lock()
			p.lines = append(p.lines, line)
			p.mu.Unlock()
			if onLine != nil {
				onLine(line)
			} else {
				fmt.Fprintf(t.Output(), "%s: %s\n", name, line)
			}
		})
	})
	reading.Go(func() {
		eachLine(stderr, func(line string) { fmt.Fprintf(t.Output(), "%s: %s\n", name, line) })
	})
	go func() {
		reading.Wait()
		_ = p.cmd.Wait() // the exit status is asked for by exitCode
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

// eachLine calls f for each line of r, however long.
func eachLine(r io.Reader, f func(string)) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			f(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

// kill ends the process as `kill -9` does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// terminate sends SIGTERM.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("terminate %s: %v", p.cmd.Path, err)
	}
}

// exitCode waits for the end of the process.
func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s does not end", p.cmd.Path)
		return -1
	}
}

// printed is its standard output so far.
func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// eventually asks again until try has no complaint, and fails the test with the last one when patience is over.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: after %v still: %v", what, patience, err)
		case <-again.C:
		}
	}
}

// passes waits for a moment that no event announces, such as the expiry of a token.
func passes(t *testing.T, moment time.Time) {
	t.Helper()
	select {
	case <-time.After(time.Until(moment)):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// freePort finds a port of 127.0.0.1 below those that the kernel gives to outgoing connections, so that it stays free while
// the server that it is for is stopped and started.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port")
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// accepting waits until a server takes connections.
func accepting(t *testing.T, p *process, addr string) {
	t.Helper()
	eventually(t, p.cmd.Path+" listens", func() error {
		if p.ended() {
			t.Fatalf("%s ended at once", p.cmd.Path)
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// writeFile makes a file of one test's and returns its path.
func writeFile(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
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

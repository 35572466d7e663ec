// Package proctest runs programs for tests: it builds them, starts them as processes of their own that never outlive the test, and
// waits for what they do. Nothing here knows what the programs are.
//
// Start at [Build] and [Start].
package proctest

import (
	"bufio"
	"context"
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

// Patience bounds every wait: long enough for a busy machine, since a test that passes never waits it out.
const Patience = 30 * time.Second

// Build builds packages of this module into dir. It may be called from anywhere in the module.
func Build(dir string, packages ...string) error {
	if out, err := BuildCommand(dir, packages...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// BuildCommand is what [Build] runs: go build without cgo, from the module's root, with the environment of the test.
func BuildCommand(dir string, packages ...string) *exec.Cmd {
	build := exec.Command("go", append([]string{"build", "-trimpath", "-o", dir + "/"}, packages...)...)
	root, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		build.Err = fmt.Errorf("find the module: %w", err)
	}
	build.Dir = filepath.Dir(strings.TrimSpace(string(root)))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build
}

// Options say how a program is started. The zero value is good.
type Options struct {
	// Dir is where it runs; empty is here.
	Dir string
	// Env is added to PATH and an empty HOME. Nothing else is handed on.
	Env []string
	// Files are open in it from descriptor 3 on.
	Files []*os.File
	// Out and Err get the lines of its standard output and standard error; nil is the test's log.
	Out, Err func(line string)
}

// A Process is a running program of a test. It ends with the test at the latest.
type Process struct {
	path string
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	lines []string // its standard output, when that goes to the test's log
}

// Start runs a program.
func Start(t testing.TB, o Options, program string, args ...string) *Process {
	t.Helper()
	p := &Process{path: program, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Dir = o.Dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, o.Env...)
	p.cmd.ExtraFiles = o.Files
	// It does not outlive a test that is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
	name := filepath.Base(program)
	toLog := func(line string) { fmt.Fprintf(t.Output(), "%s: %s\n", name, line) }
	if o.Err == nil {
		o.Err = toLog
	}
	if o.Out == nil {
		o.Out = func(line string) {
			p.mu.Lock()
			p.lines = append(p.lines, line)
			p.mu.Unlock()
			toLog(line)
		}
	}
	var reading sync.WaitGroup
	reading.Go(func() { eachLine(stdout, o.Out) })
	reading.Go(func() { eachLine(stderr, o.Err) })
	go func() { // ends with the process
		reading.Wait()
		_ = p.cmd.Wait() // the exit status is asked for by ExitCode
		close(p.done)
	}()
	t.Cleanup(p.Kill)
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

// Path is the program's.
func (p *Process) Path() string { return p.path }

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended and all its output is in.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Kill ends the process as `kill -9` does, also one that is frozen, and waits for it. To kill one that has ended is no error.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// Signal sends a signal to a process that runs.
func (p *Process) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal %v to %s: %v", sig, p.path, err)
	}
}

// Terminate sends SIGTERM.
func (p *Process) Terminate(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGTERM)
}

// ExitCode waits for the end of the process.
func (p *Process) ExitCode(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		t.Fatalf("%s does not end", p.path)
		return -1
	}
}

// Printed is its standard output so far, unless that goes elsewhere.
func (p *Process) Printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// Accepting waits until a server takes connections.
func (p *Process) Accepting(t testing.TB, addr string) {
	t.Helper()
	Eventually(t, p.path+" listens", func() error {
		if p.Ended() {
			t.Fatalf("%s ended at once", p.path)
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Eventually asks again until try has no complaint, and fails the test with the last one when [Patience] is over.
func Eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
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
			t.Fatalf("%s: after %v still: %v", what, Patience, err)
		case <-again.C:
		}
	}
}

// Passes waits for a moment that no event announces, such as the expiry of a token.
func Passes(t testing.TB, moment time.Time) {
	t.Helper()
	select {
	case <-time.After(time.Until(moment)):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// FreePort finds a port of 127.0.0.1 below those that the kernel gives to outgoing connections, so that it stays free while the
// server that it is for is stopped and started. Until the test ends nobody else gets it here: it is taken at 127.0.0.2.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		mark, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", Address(port))
		if err != nil {
			mark.Close()
			continue
		}
		t.Cleanup(func() { mark.Close() })
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port")
	return 0
}

// Address is a port of 127.0.0.1.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// WriteFile makes a file of one test's and returns its path.
func WriteFile(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

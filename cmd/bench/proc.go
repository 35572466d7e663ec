package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A group is the processes of one run.
type group struct{ processes []*process }

// wait waits for all of them, which the end of their context ends.
func (g *group) wait() {
	for _, p := range g.processes {
		<-p.ends
	}
}

// A process is one that bench started. It ends with the context that it was started with.
type process struct {
	cmd  *exec.Cmd
	ends chan struct{}
	log  *tail
}

// start runs a program. Its standard output is out; of what it says on standard error the end is kept.
func (g *group) start(ctx context.Context, out io.Writer, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, program, args...), ends: make(chan struct{}), log: &tail{}}
	p.cmd.Stdout, p.cmd.Stderr = out, p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 10 * time.Second
	// It does not outlive a bench that is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	g.processes = append(g.processes, p)
	go func() { // ends with the process
		_ = p.cmd.Wait() // that it ended is all that matters
		close(p.ends)
	}()
	return p, nil
}

// startPart runs this program again as one of its parts, and returns the URL that the part prints first.
func (g *group) startPart(ctx context.Context, args ...string) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer r.Close() // the part prints no more than that line
	p, err := g.start(ctx, w, self, args...)
	w.Close()
	if err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w: %s", args[0], err, p.log)
	}
	return p, strings.TrimSpace(line), nil
}

// listening waits until a process takes connections.
func (p *process) listening(ctx context.Context, address string) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-again.C:
		case <-p.ends:
			return fmt.Errorf("%s ended: %s", filepath.Base(p.cmd.Path), p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w", filepath.Base(p.cmd.Path), ctx.Err())
		}
	}
}

// clockTick is the unit of /proc/PID/stat on Linux, whatever the kernel's own.
const clockTick = 10 * time.Millisecond

// cpu is the user and system time of a process so far, that of its ended threads included.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name of the program, the second field, may hold anything: the fields are counted from its end.
	_, rest, ok := bytes.Cut(stat[max(bytes.LastIndexByte(stat, ')'), 0):], []byte(") "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("unexpected /proc/PID/stat: %q", stat)
	}
	user, err := strconv.Atoi(string(fields[11]))
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(string(fields[12]))
	return time.Duration(user+system) * clockTick, err
}

// memory is the resident memory of a process in MiB.
func (p *process) memory() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/PID/status")
}

// tail keeps the last bytes of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 4<<10 {
		t.b = append([]byte{}, t.b[len(t.b)-2<<10:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// freePort finds a port below those that the kernel gives to outgoing connections.
func freePort() (int, error) {
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		if l, err := net.Listen("tcp", address(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port")
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// machine describes where the figures come from.
func machine() string {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	load := "?"
	if l, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(l))[:3], " ")
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("?")
	}
	return fmt.Sprintf("%d × %s, Linux %s, load average before %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), load)
}

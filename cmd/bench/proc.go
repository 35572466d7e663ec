package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// start starts what c says. Of what it says on standard error the end is kept, unless c sends it elsewhere.
func (g *group) start(c *exec.Cmd) (*process, error) {
	p := &process{cmd: c, ends: make(chan struct{}), log: &tail{}}
	if c.Stderr == nil {
		c.Stderr = p.log
	}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	// It does not outlive a bench that is killed.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return nil, err
	}
	g.processes = append(g.processes, p)
	go func() { // ends with the process
		_ = c.Wait() // that it ended is all that matters
		close(p.ends)
	}()
	return p, nil
}

// stop ends it before its context does.
func (p *process) stop() {
	_ = p.cmd.Cancel() // it may have ended
	<-p.ends
}

// startPart runs this program again as one of its parts, and returns the line that the part prints first: where it serves.
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
	c := exec.CommandContext(ctx, self, args...)
	c.Stdout = w
	p, err := g.start(c)
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
	return p.until(ctx, 20*time.Millisecond, func(ctx context.Context) bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// until waits for what a process is to bring about.
func (p *process) until(ctx context.Context, every time.Duration, happened func(context.Context) bool) error {
	again := time.NewTicker(every)
	defer again.Stop()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !happened(ctx) {
		select {
		case <-again.C:
		case <-p.ends:
			return fmt.Errorf("%s ended: %s", filepath.Base(p.cmd.Path), p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not get there: %w", filepath.Base(p.cmd.Path), ctx.Err())
		}
	}
	return nil
}

// within bounds what should take a moment.
const within = 20 * time.Second

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

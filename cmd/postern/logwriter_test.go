package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/config"
	"postern/proxy/metrics"
	"postern/proxy/proxytest"
)

// reader is who reads the log: it takes each write as take says.
type reader struct {
	mu     sync.Mutex
	writes []string
	take   func(b []byte) (int, error) // nil: all of it
}

func (r *reader) Write(b []byte) (n int, err error) {
	n = len(b)
	if r.take != nil {
		n, err = r.take(b)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, string(b[:n]))
	return n, err
}

func (r *reader) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

// dropped is what metrics tell of lines that are lost.
func dropped(m *metrics.Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	_, n, _ := strings.Cut(w.Body.String(), "\npostern_log_lines_dropped_total ")
	n, _, _ = strings.Cut(n, "\n")
	return n
}

func testLog(t *testing.T, r *reader) (*slog.Logger, func(), *metrics.Metrics) {
	t.Helper()
	m := metrics.New("1")
	log, closeLog := newLogger(r, config.Log{Format: "json", Level: "info"}, new(slog.LevelVar), m)
	return log, closeLog, m
}

func TestLogLinesAreWrittenTogetherAndSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		log, closeLog, _ := testLog(t, r)
		defer closeLog()
		for i := range 3 {
			log.Info("line", "number", i)
		}
		synctest.Wait()
		if got := r.got(); len(got) != 0 {
			t.Errorf("written at once: %q", got)
		}
		time.Sleep(logDelay)
		synctest.Wait()
		if got := r.got(); len(got) != 1 || strings.Count(got[0], "\n") != 3 {
			t.Errorf("after the delay: %q", got)
		}
		log.With("part", "x").Warn("at once")
		synctest.Wait()
		if got := r.got(); len(got) != 2 || !strings.Contains(got[1], "at once") {
			t.Errorf("a warning: %q", got)
		}
		for range 1000 {
			log.Info(strings.Repeat("x", 100))
		}
		synctest.Wait()
		if got := r.got(); len(got) < 3 || len(got) > 1000/2 {
			t.Errorf("%d writes for 1000 lines", len(got))
		}
	})
}

func TestTheLastLogLinesAreWritten(t *testing.T) {
	r := &reader{}
	log, closeLog, _ := testLog(t, r)
	log.Info("the last")
	closeLog()
	if got := strings.Join(r.got(), ""); !strings.Contains(got, "the last") {
		t.Errorf("written: %q", got)
	}
}

// A pipe that nobody empties: whoever logs goes on, memory is bounded, and the gap is told.
func TestABlockedLogBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty := make(chan struct{})
		r := &reader{take: func(b []byte) (int, error) { <-empty; return len(b), nil }}
		log, closeLog, m := testLog(t, r)
		log.Error("the pipe is full from here")
		synctest.Wait()
		const lines = 3 * logQueue / 1000
		for range lines {
			log.Info(strings.Repeat("x", 1000))
		}
		closed := make(chan struct{})
		go func() { closeLog(); close(closed) }()
		<-closed // although nobody reads
		lost := dropped(m)
		close(empty)
		synctest.Wait()
		all := strings.Join(r.got(), "")
		if len(all) > logQueue+4096 {
			t.Errorf("%d bytes waited", len(all))
		}
		if want := fmt.Sprintf(`"lines_lost":%s}`, lost); lost == "0" || !strings.Contains(all, want) {
			t.Errorf("%s lines were counted as lost; the log ends in %q", lost, all[len(all)-300:])
		}
	})
}

// A full disk: a line that was written in part does not spoil the next, and the gap is told when there is room.
func TestAFullDiskTearsNoLineApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := true
		r := &reader{take: func(b []byte) (int, error) {
			if full {
				return min(10, len(b)), errors.New("no space left on device")
			}
			return len(b), nil
		}}
		log, closeLog, m := testLog(t, r)
		defer closeLog()
		log.Error("one")
		synctest.Wait()
		full = false
		log.Error("two")
		synctest.Wait()
		lines := strings.Split(strings.Join(r.got(), ""), "\n")
		if len(lines) != 4 || !strings.Contains(lines[1], `"two"`) || !strings.Contains(lines[2], `"lines_lost":1`) {
			t.Errorf("lines: %q", lines)
		}
		if n := dropped(m); n != "1" {
			t.Errorf("%s lines were counted", n)
		}
	})
}

// A log collector that dies must not take Postern along: a write to standard error that nobody reads is SIGPIPE.
func TestLogOutlivesItsReader(t *testing.T) {
	public, admin := freePort(t), freePort(t)
	file := filepath.Join(t.TempDir(), "postern.yaml")
	text := fmt.Sprintf("server: {listen: %q, admin_listen: %q}\nproviders:\n  corp: {issuer: 'http://127.0.0.1:1', client_id: wiki, client_secret: secret}\n"+
		"routes: [{access: public, upstream: 'http://127.0.0.1:2'}]\n", public, admin)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("postern") // testscript puts this test's own there
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config", file)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(log).ReadString('\n'); err != nil || line == "" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := log.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	proxytest.Eventually(t, func() bool { code, _ := get("http://" + admin + "/healthz"); return code == http.StatusOK })
	proxytest.Eventually(t, func() bool {
		if code, _ := get("http://" + public + "/"); code != http.StatusBadGateway { // has its line
			t.Fatalf("/ is %d", code)
		}
		_, body := get("http://" + admin + "/metrics")
		return strings.Contains(body, "\npostern_log_lines_dropped_total ") && !strings.Contains(body, "\npostern_log_lines_dropped_total 0\n")
	})
}

func BenchmarkLogWriter(b *testing.B) {
	out, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	log, closeLog := newLogger(out, config.Log{Format: "json"}, new(slog.LevelVar), nil)
	defer closeLog()
	line := bytes.Repeat([]byte("x"), 400)
	w := log.Handler().(promptly).w
	b.ReportAllocs()
	for b.Loop() {
		_, _ = w.Write(line)
	}
}

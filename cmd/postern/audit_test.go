package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/config"
)

func TestAuditLogSurvivesRotationAndIsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "audit.jsonl")
		var complaints bytes.Buffer
		audit, closeAudit, err := openAudit(&config.Audit{File: name}, slog.New(slog.NewTextHandler(&complaints, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		audit.Info("one")
		synctest.Wait()
		if err := os.Rename(name, name+".1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(auditRecheck)
		audit.Info("two")
		synctest.Wait()
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(auditRecheck)
		audit.Info("three")
		audit.Info("four")
		closeAudit()
		for file, want := range map[string]string{name + ".1": "one", name: "three four"} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"one", "two", "three", "four"} {
				if strings.Contains(want, word) != strings.Contains(string(text), word) {
					t.Errorf("%s holds\n%s", filepath.Base(file), text)
				}
			}
		}
		if complaints.Len() > 0 {
			t.Errorf("complaints: %s", &complaints)
		}
	})
}

// flakyDisk fails as often as told, after it has taken half a line.
type flakyDisk struct {
	bytes.Buffer
	full bool
}

func (d *flakyDisk) Write(b []byte) (int, error) {
	if d.full {
		n, _ := d.Buffer.Write(b[:len(b)/2])
		return n, errors.New("no space left on device")
	}
	return d.Buffer.Write(b)
}

func newAuditWriter(out io.Writer, log io.Writer) *auditWriter {
	return &auditWriter{out: out, log: slog.New(slog.NewTextHandler(log, nil)), now: time.Now,
		lines: make(chan []byte, auditQueue), stop: make(chan struct{}), done: make(chan struct{})}
}

func TestAuditLogOnAFullDiskComplainsOnceAMinuteAndKeepsLinesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, complaints := &flakyDisk{full: true}, &bytes.Buffer{}
		w := newAuditWriter(disk, complaints)
		go w.run()
		for range 50 {
			_, _ = w.Write([]byte(`{"lost":1}` + "\n"))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		if n := strings.Count(complaints.String(), "no space left"); n != 1 {
			t.Errorf("%d complaints: %s", n, complaints)
		}
		disk.full = false
		time.Sleep(auditComplaint)
		_, _ = w.Write([]byte(`{"kept":1}` + "\n"))
		w.close()
		if n := strings.Count(complaints.String(), "lines_lost=49"); n != 1 {
			t.Errorf("not told how many were lost: %s", complaints)
		}
		if !strings.HasSuffix(disk.String(), "\n{\"kept\":1}\n") {
			t.Errorf("the line after the torn one does not stand alone: %q", disk.String()[max(0, disk.Len()-60):])
		}
	})
}

// stuckDisk takes nothing until it is let go.
type stuckDisk struct {
	free chan struct{}
	mu   sync.Mutex
	n    int
}

func (d *stuckDisk) Write(b []byte) (int, error) {
	<-d.free
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	return len(b), nil
}

func TestAuditLogOnAHangingDiskStopsNoRequestAndTakesBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, complaints := &stuckDisk{free: make(chan struct{})}, &bytes.Buffer{}
		w := newAuditWriter(disk, complaints)
		go w.run()
		for range auditQueue + 100 {
			_, _ = w.Write([]byte("{}\n")) // would hang the test
		}
		if len(w.lines) > auditQueue {
			t.Errorf("%d lines wait", len(w.lines))
		}
		if n := strings.Count(complaints.String(), "are lost"); n != 1 {
			t.Errorf("%d complaints while it hangs: %s", n, complaints)
		}
		close(disk.free)
		w.close()
		if disk.n < auditQueue || !strings.Contains(complaints.String(), "lines_lost=") {
			t.Errorf("%d written, complaints: %s", disk.n, complaints)
		}
		_, _ = w.Write([]byte("{}\n")) // after close: lost, no panic
	})
}

func TestAuditLogThatCannotBeMadeStopsTheStart(t *testing.T) {
	_, _, err := openAudit(&config.Audit{File: filepath.Join(t.TempDir(), "missing", "audit.jsonl")}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "server.audit.file") {
		t.Errorf("error %v", err)
	}
	if audit, closeAudit, err := openAudit(nil, nil); audit != nil || err != nil {
		t.Errorf("off: %v, %v", audit, err)
	} else {
		closeAudit()
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"postern/config"
)

const (
	auditQueue     = 8192            // lines that wait for a slow disk; some 3 MB
	auditRecheck   = time.Second     // how often a file is looked at that may have been moved away
	auditComplaint = time.Minute     // at most one complaint of one kind in this time
	auditFlush     = 5 * time.Second // for what waits at the end
)

// openAudit opens the audit log; without one configured its logger is nil. The caller calls closeAudit when nothing writes any more: it
// waits a while for what is still to be written.
func openAudit(c *config.Audit, log *slog.Logger) (audit *slog.Logger, closeAudit func(), err error) {
	if c == nil {
		return nil, func() {}, nil
	}
	w := &auditWriter{log: log, lines: make(chan []byte, auditQueue), stop: make(chan struct{}), done: make(chan struct{}), now: time.Now}
	if c.Stdout {
		signal.Ignore(syscall.SIGPIPE) // a reader that went away must not end Postern: the write fails instead
		w.out = os.Stdout
	} else {
		w.name = c.File
		if err := w.reopen(); err != nil {
			return nil, nil, fmt.Errorf("server.audit.file: %w; let Postern's user make and add to it", err)
		}
	}
	go w.run() // ends with close
	return slog.New(slog.NewJSONHandler(w, nil)), w.close, nil
}

// auditWriter takes lines without ever making a request wait: a goroutine writes them. What cannot be written is counted and complained about
// in the log, at most once a minute.
type auditWriter struct {
	log   *slog.Logger
	now   func() time.Time
	name  string // of the file; empty: standard output
	lines chan []byte
	stop  chan struct{} // closed by close
	done  chan struct{} // closed when the last line was written
	lost  atomic.Int64  // lines that found the queue full

	// The rest belongs to run.
	out        io.Writer
	info       os.FileInfo // of the open file
	checked    time.Time
	torn       bool // the last line was written in part
	unwritten  int64
	complained time.Time
}

// Write queues one line. It never fails and never waits. What comes after close is lost.
func (w *auditWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		if w.lost.Add(1) == 1 { // run tells how many, once its disk goes on; while that hangs it can tell nothing
			w.log.Error("audit log", "error", "lines are lost: they wait for a disk or reader that is too slow, or hangs")
		}
	}
	return len(line), nil
}

func (w *auditWriter) run() {
	defer close(w.done)
	for more := true; more; {
		select {
		case line := <-w.lines:
			w.write(line)
		case <-w.stop:
			for range len(w.lines) {
				w.write(<-w.lines)
			}
			more = false
		}
	}
	w.complained = time.Time{} // the last chance to say it
	w.complain(nil)
	if f, ok := w.out.(*os.File); ok && w.name != "" {
		_ = f.Close() // each line is with the system already
	}
}

func (w *auditWriter) write(line []byte) {
	var problem error
	if now := w.now(); w.name != "" && now.Sub(w.checked) >= auditRecheck {
		w.checked = now
		problem = w.reopen() // the old file goes on until the new one opens
	}
	if w.torn {
		line = append([]byte("\n"), line...) // the next line stands alone again
	}
	n, err := w.out.Write(line)
	if err != nil {
		problem = err
		w.unwritten++
		w.torn = w.torn && n == 0 || n > 0
	} else {
		w.torn = false
	}
	w.complain(problem)
}

// reopen opens the file if the one that is open no longer stands under its name.
func (w *auditWriter) reopen() error {
	info, err := os.Stat(w.name)
	if err == nil && w.info != nil && os.SameFile(info, w.info) {
		return nil
	}
	if err == nil && !info.Mode().IsRegular() { // opening a pipe could wait for ever
		return fmt.Errorf("%s is not a regular file", w.name)
	}
	f, err := os.OpenFile(w.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if info, err = f.Stat(); err != nil {
		_ = f.Close()
		return err
	}
	if old, ok := w.out.(*os.File); ok {
		_ = old.Close() // nothing is buffered
	}
	w.out, w.info, w.torn = f, info, false
	return nil
}

// complain says what is wrong, and how many lines are missing since it was last said.
func (w *auditWriter) complain(problem error) {
	if now := w.now(); now.Sub(w.complained) >= auditComplaint {
		lost := w.lost.Swap(0) + w.unwritten
		w.unwritten = 0
		if problem == nil && lost == 0 {
			return
		}
		if problem == nil {
			problem = errors.New("lines could not be written, or came faster than they could be")
		}
		w.complained = now
		w.log.Error("audit log", "error", problem, "lines_lost", lost)
	}
}

// close waits until everything is written, for a while.
func (w *auditWriter) close() {
	close(w.stop)
	timer := time.NewTimer(auditFlush)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
		w.log.Error("audit log", "error", "it was not written in time", "lines_lost", len(w.lines))
	}
}

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"postern/config"
	"postern/proxy/metrics"
)

const (
	logDelay = 100 * time.Millisecond // that a line waits for others, to be written together
	logBatch = 32 << 10               // bytes that wait no longer
	logQueue = 1 << 20                // bytes that wait for a slow reader; more is lost
	logFlush = 2 * time.Second        // for what waits at the end
)

// newLogger makes the log that is written to out. The caller calls closeLog when nothing writes any more: it waits a while for what is still to be written.
func newLogger(out io.Writer, c config.Log, level *slog.LevelVar, m *metrics.Metrics) (log *slog.Logger, closeLog func()) {
	signal.Ignore(syscall.SIGPIPE) // a reader of standard error that went away must not end Postern: the write fails instead
	setLevel(level, c)
	w := &logWriter{out: out, metrics: m, filled: make(chan struct{}, 1), urgent: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	ho := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		w.log = slog.New(promptly{slog.NewTextHandler(w, ho), w})
	} else {
		w.log = slog.New(promptly{slog.NewJSONHandler(w, ho), w})
	}
	go w.run() // ends with close
	return w.log, w.close
}

// setLevel makes level the configuration's.
func setLevel(level *slog.LevelVar, c config.Log) {
	_ = level.UnmarshalText([]byte(c.Level)) // checked by config
}

// promptly lets warnings and errors, and all that waits, be written at once.
type promptly struct {
	slog.Handler
	w *logWriter
}

// Handle implements slog.Handler.
func (h promptly) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level > slog.LevelInfo {
		signalTo(h.w.urgent)
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h promptly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptly{h.Handler.WithAttrs(attrs), h.w}
}

// WithGroup implements slog.Handler.
func (h promptly) WithGroup(name string) slog.Handler {
	return promptly{h.Handler.WithGroup(name), h.w}
}

// logWriter takes lines without ever making a request wait: a goroutine writes them, several at once. What cannot be written is counted, and
// said in the log once that works again.
type logWriter struct {
	out     io.Writer
	log     *slog.Logger // that writes here
	metrics *metrics.Metrics
	filled  chan struct{} // has something when lines wait
	urgent  chan struct{} // has something when they are to wait no longer
	stop    chan struct{} // closed by close
	done    chan struct{} // closed when the last line was written

	mu      sync.Mutex
	waiting []byte // guarded by mu
	lost    int    // lines that found no room, since it was said; guarded by mu

	// The rest belongs to run.
	written []byte // what was waiting before, for use again
	torn    bool   // the last line was written in part
}

// Write takes one line. It never fails and never waits.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	fits := len(w.waiting)+len(line) <= logQueue
	if fits {
		w.waiting = append(w.waiting, line...)
	} else {
		w.lost++
	}
	size := len(w.waiting)
	w.mu.Unlock()
	switch {
	case !fits:
		w.metrics.LogLinesDropped(1)
	case size == len(line):
		signalTo(w.filled)
	case size >= logBatch:
		signalTo(w.urgent)
	}
	return len(line), nil
}

func signalTo(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been said
	}
}

func (w *logWriter) run() {
	defer close(w.done)
	delay := time.NewTimer(logDelay)
	defer delay.Stop()
	for {
		select {
		case <-w.filled:
		case <-w.stop:
			w.flush()
			w.flush() // what that had to say
			return
		}
		delay.Reset(logDelay)
		select {
		case <-delay.C:
		case <-w.urgent:
		case <-w.stop:
		}
		w.flush()
	}
}

// flush writes what waits.
func (w *logWriter) flush() {
	w.mu.Lock()
	if len(w.waiting) == 0 {
		w.mu.Unlock()
		return
	}
	lines, lost := w.waiting, w.lost
	w.waiting, w.lost = w.written[:0], 0
	w.mu.Unlock()
	w.written = lines
	if w.torn {
		lines = append([]byte("\n"), lines...) // the next line stands alone again
	}
	n, err := w.out.Write(lines)
	if err != nil {
		unwritten := bytes.Count(lines[n:], []byte("\n"))
		if w.torn && n == 0 {
			unwritten-- // ends no line of this batch
		}
		w.torn = n > 0 && lines[n-1] != '\n' || n == 0 && w.torn
		w.metrics.LogLinesDropped(unwritten)
		w.mu.Lock()
		w.lost += lost + unwritten
		w.mu.Unlock()
		return
	}
	w.torn = false
	if lost > 0 {
		w.log.Error("log lines are lost: the reader or the disk of the log was too slow, or did not take them", "lines_lost", lost)
	}
}

// close waits until everything is written, for a while.
func (w *logWriter) close() {
	close(w.stop)
	timer := time.NewTimer(logFlush)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C: // nobody reads what could be said about it
	}
}

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxLine bounds a line that is typed or pasted; a callback address can be long.
const maxLine = 64 << 10

// errWaited says that the person did not do what was asked in time.
var errWaited = errors.New("nothing came in time (--timeout)")

// terminal is where the person sits. Any part of it may be a pipe.
type terminal struct {
	in         io.Reader
	lines      *bufio.Reader // of in
	out, notes io.Writer     // the result; questions and what goes on
}

func newTerminal(in io.Reader, out, notes io.Writer) terminal {
	return terminal{in: in, lines: bufio.NewReaderSize(in, maxLine), out: out, notes: notes}
}

// typed is what one read gave.
type typed struct {
	text string
	err  error
}

// line reads a line. When ctx ends first its read is left behind, and no other may follow: the command is over then.
func (t *terminal) line(ctx context.Context) (string, error) {
	return await(ctx, func() typed {
		line, err := t.lines.ReadSlice('\n')
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return typed{err: errors.New("the line is too long")}
		case errors.Is(err, io.EOF) && text != "": // the last line of a pipe
			return typed{text: text}
		}
		return typed{text, err}
	})
}

// hidden reads a line that a terminal does not show.
func (t *terminal) hidden(ctx context.Context) (string, error) {
	f, ok := t.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return t.line(ctx)
	}
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	// Whatever ends this, the terminal shows again what is typed.
	defer func() {
		_ = term.Restore(fd, before)
		_, _ = io.WriteString(t.notes, "\n")
	}()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return await(ctx, func() typed {
		b, err := term.ReadPassword(fd)
		return typed{string(b), err}
	})
}

// await gives up a read when ctx ends; it tells why ctx ended.
func await(ctx context.Context, read func() typed) (string, error) {
	done := make(chan typed, 1)
	go func() { done <- read() }() // ends with the line or with the process
	select {
	case r := <-done:
		if errors.Is(r.err, io.EOF) {
			return "", errors.New("the input has ended")
		}
		return r.text, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A loadOrder is what the load process reads from its standard input.
type loadOrder struct {
	Address     string        // host:port
	Path        string        // of the request
	Cookie      string        // its Cookie header; "" for none
	Connections int           // each sends the next request once it has the answer
	Duration    time.Duration // how long new requests begin
	Body        string        // of every right answer
}

// A loadResult is what it prints.
type loadResult struct {
	Requests int
	Elapsed  time.Duration
	P50, P99 time.Duration
	Wrong    int    // answers that were not as ordered
	Example  string // one of them
}

// sendLoad is the process that sends requests. It speaks just enough HTTP/1.1 to cost little beside what is measured.
func sendLoad(ctx context.Context, _ []string) error {
	var o loadOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	result, err := send(ctx, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func send(ctx context.Context, o loadOrder) (loadResult, error) {
	request := "GET " + o.Path + " HTTP/1.1\r\nHost: " + o.Address + "\r\nUser-Agent: bench\r\nAccept: */*\r\n"
	if o.Cookie != "" {
		request += "Cookie: " + o.Cookie + "\r\n"
	}
	request += "\r\n"
	conns := make([]*connection, o.Connections)
	for i := range conns {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.Address)
		if err != nil {
			return loadResult{}, err
		}
		defer conn.Close()
		conns[i] = &connection{conn: conn, r: bufio.NewReaderSize(conn, 8<<10)}
	}
	start := time.Now()
	end := start.Add(o.Duration)
	var sending sync.WaitGroup
	for _, c := range conns {
		sending.Go(func() {
			c.err = c.send(ctx, []byte(request), []byte(o.Body), end)
		})
	}
	sending.Wait()
	result := loadResult{Elapsed: time.Since(start)}
	var times []time.Duration
	for _, c := range conns {
		if c.err != nil {
			return loadResult{}, c.err
		}
		times = append(times, c.times...)
		result.Wrong += c.wrong
		if c.example != "" {
			result.Example = c.example
		}
	}
	slices.Sort(times)
	result.Requests = len(times)
	result.P50, result.P99 = quantile(times, 0.50), quantile(times, 0.99)
	return result, nil
}

// quantile of sorted values; zero when there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// A connection is one client.
type connection struct {
	conn    net.Conn
	r       *bufio.Reader
	times   []time.Duration
	wrong   int
	example string
	err     error
}

// answerTimeout bounds one answer, so that a run always ends.
const answerTimeout = 10 * time.Second

func (c *connection) send(ctx context.Context, request, want []byte, end time.Time) error {
	body := make([]byte, 0, len(want)+1024)
	for start := time.Now(); start.Before(end) && ctx.Err() == nil; start = time.Now() {
		if err := c.conn.SetDeadline(start.Add(answerTimeout)); err != nil {
			return err
		}
		if _, err := c.conn.Write(request); err != nil {
			return fmt.Errorf("send a request: %w", err)
		}
		status, got, err := readAnswer(c.r, body)
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		c.times = append(c.times, time.Since(start))
		if status != 200 || !bytes.Equal(got, want) {
			c.wrong++
			c.example = fmt.Sprintf("%d %.200q", status, got)
		}
	}
	return ctx.Err()
}

// readAnswer reads one answer with a Content-Length, into buf where that is large enough.
func readAnswer(r *bufio.Reader, buf []byte) (status int, body []byte, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < len("HTTP/1.1 200") || string(line[:9]) != "HTTP/1.1 " {
		return 0, nil, fmt.Errorf("no HTTP/1.1 answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("no status: %q", line)
	}
	length := -1
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, nil, fmt.Errorf("bad length: %q", line)
			}
		}
	}
	if length < 0 {
		return 0, nil, errors.New("an answer without Content-Length")
	}
	body = slices.Grow(buf[:0], length)[:length]
	_, err = io.ReadFull(r, body)
	return status, body, err
}

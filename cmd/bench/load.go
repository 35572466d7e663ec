package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// A loadOrder is what the load process reads from its standard input.
type loadOrder struct {
	Address     string        // host:port
	Path        string        // of the request; the visitor's name is its query
	Visitors    []visitor     // who asks; of many each request takes any
	EachOnce    bool          // each of them asks once, whatever Duration says
	Connections int           // each has one request at a time
	Rate        float64       // requests a second, over all connections; 0: each connection sends the next once it has the answer
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

// load has the load process carry out an order. An answer that is not as it should be is an error.
func load(ctx context.Context, o loadOrder) (loadResult, error) {
	self, err := os.Executable()
	if err != nil {
		return loadResult{}, err
	}
	order, err := json.Marshal(o)
	if err != nil {
		return loadResult{}, err
	}
	cmd := exec.CommandContext(ctx, self, "load")
	cmd.Stdin = bytes.NewReader(order)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return loadResult{}, err
	}
	var result loadResult
	if err := json.Unmarshal(out, &result); err != nil {
		return loadResult{}, err
	}
	if result.Wrong > 0 || result.Requests == 0 {
		return loadResult{}, fmt.Errorf("%d of %d answers were wrong, such as %s", result.Wrong, result.Requests, result.Example)
	}
	return result, nil
}

// sendLoad is the process that sends requests. It speaks just enough HTTP/1.1 to cost little beside what is measured.
func sendLoad(ctx context.Context, _ []string) error {
	var o loadOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	result, err := o.send(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func (o *loadOrder) send(ctx context.Context) (loadResult, error) {
	conns := make([]*connection, o.Connections)
	for i := range conns {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.Address)
		if err != nil {
			return loadResult{}, err
		}
		defer conn.Close()
		conns[i] = &connection{order: o, number: i, conn: conn, r: bufio.NewReaderSize(conn, 8<<10)}
	}
	start := time.Now()
	var sending sync.WaitGroup
	for _, c := range conns {
		sending.Go(func() { c.err = c.send(ctx, start) })
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

// A connection is one client, or many that take turns.
type connection struct {
	order   *loadOrder
	number  int
	conn    net.Conn
	r       *bufio.Reader
	request []byte // kept for its room
	body    []byte // as well
	times   []time.Duration
	wrong   int
	example string
	err     error
}

// send sends one request after the other.
func (c *connection) send(ctx context.Context, start time.Time) error {
	for n := 0; ctx.Err() == nil; n++ {
		v, begin, ok := c.next(start, n)
		if !ok {
			return nil
		}
		if err := c.ask(v); err != nil {
			return err
		}
		c.times = append(c.times, time.Since(begin))
	}
	return ctx.Err()
}

// next is who asks next, and from when the answer is waited for; it waits until then. At a fixed rate a request that could not be sent in time, because
// the answer before it was late, has been waiting since it was due: else a slow server would be asked less, and look fast.
func (c *connection) next(start time.Time, n int) (v visitor, begin time.Time, ok bool) {
	o := c.order
	if o.EachOnce {
		i := c.number + n*o.Connections
		if i >= len(o.Visitors) {
			return v, begin, false
		}
		return o.Visitors[i], time.Now(), true
	}
	begin = time.Now()
	if o.Rate > 0 {
		due := start.Add(time.Duration(float64(n*o.Connections+c.number) / o.Rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
			begin = time.Now() // that this process woke late is not the server's doing
		} else {
			begin = due
		}
	}
	return o.Visitors[rand.IntN(len(o.Visitors))], begin, begin.Sub(start) < o.Duration
}

// answerTimeout bounds one answer, so that a run always ends.
const answerTimeout = 10 * time.Second

// ask sends one request and looks at its answer.
func (c *connection) ask(v visitor) error {
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if len(c.order.Visitors) > 1 || len(c.request) == 0 {
		c.request = appendRequest(c.request[:0], c.order, v)
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	status, body, err := readAnswer(c.r, c.body)
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	c.body = body
	if status != 200 || string(body) != c.order.Body {
		c.wrong++
		c.example = fmt.Sprintf("%d %.200q", status, body)
	}
	return nil
}

func appendRequest(b []byte, o *loadOrder, v visitor) []byte {
	b = fmt.Appendf(b, "GET %s?%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n", o.Path, v.User, o.Address)
	if v.Cookie != "" {
		b = append(append(append(b, "Cookie: "...), v.Cookie...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

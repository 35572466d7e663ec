package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"
)

// bench starts everything, measures, and prints.
func bench(ctx context.Context, out io.Writer, o options) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("CPU time is read from /proc, which %s does not have", runtime.GOOS)
	}
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stack{options: o, dir: dir}
	defer s.wait()
	ctx, down := context.WithCancel(ctx)
	defer down()
	where := machine()
	fmt.Fprintln(out, "building and starting …")
	if err := s.up(ctx); err != nil {
		return err
	}
	results, err := s.measureRows(ctx, out)
	if err != nil {
		return err
	}
	lines := results.lines()
	for _, f := range figures {
		if !o.wants(f.name) || o.quick && f.slow {
			continue
		}
		fmt.Fprintln(out, f.name, "…")
		more, err := f.measure(s, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		lines = append(lines, more...)
	}
	fmt.Fprintf(out, "\n%s\n", where)
	for _, v := range append(s.versions, runtime.Version()) {
		fmt.Fprintln(out, v)
	}
	fmt.Fprintf(out, "%d rounds of %v, %d keep-alive connections, 1 KiB answers, HTTP/1.1 on loopback; load, application and Redis share the cores\n\n",
		o.rounds, o.duration, o.connections)
	if err := results.print(out); err != nil {
		return err
	}
	return printLines(out, lines)
}

// A measurement is what one round gave for one row.
type measurement struct {
	perSecond float64
	p50, p99  time.Duration
	cpu       float64 // seconds of the proxy per 100,000 requests
	redis     float64 // seconds of Redis per 100,000 requests
	memory    float64 // MiB of the proxy after it
}

// A result is a row with its measurements, one a round.
type result struct {
	row
	*target
	rounds []measurement
}

type results []*result

// measureRows measures every row once a round, in an order of its own each round.
func (s *stack) measureRows(ctx context.Context, out io.Writer) (results, error) {
	var all results
	for _, r := range rows {
		// The others are nothing without the bare proxy.
		if !s.wants(r.name) && r.name != bareRow || s.quick && r.peer {
			continue
		}
		t, err := r.target(s, ctx)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", r.name, err)
		case t == nil:
			fmt.Fprintln(out, "left out, because it is not installed:", r.name)
		default:
			all = append(all, &result{row: r, target: t})
		}
	}
	for round := range s.rounds {
		order := slices.Clone(all)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, r := range order {
			if round == 0 {
				if _, err := s.measure(ctx, r.target, s.duration/4); err != nil {
					return nil, fmt.Errorf("%s: %w", r.name, err)
				}
			}
			m, err := s.measure(ctx, r.target, s.duration)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			r.rounds = append(r.rounds, m)
		}
		fmt.Fprintf(out, "round %d of %d\n", round+1, s.rounds)
	}
	return all, nil
}

// measure sends load to one target.
func (s *stack) measure(ctx context.Context, t *target, d time.Duration) (measurement, error) {
	before, err := s.spent(t)
	if err != nil {
		return measurement{}, err
	}
	stop := scrape(ctx, t.scrape)
	r, err := load(ctx, loadOrder{Address: t.address, Path: t.path, Visitors: t.visitors, Connections: s.connections, Duration: d, Body: page})
	if err := errors.Join(err, stop()); err != nil {
		return measurement{}, err
	}
	after, err := s.spent(t)
	if err != nil {
		return measurement{}, err
	}
	per100k := 100_000 / float64(r.Requests)
	return measurement{
		perSecond: float64(r.Requests) / r.Elapsed.Seconds(),
		p50:       r.P50, p99: r.P99,
		cpu:    (after.proxy - before.proxy).Seconds() * per100k,
		redis:  (after.redis - before.redis).Seconds() * per100k,
		memory: after.memory,
	}, nil
}

// scrape asks for a page now and then each second, until it is stopped. Without a URL it does nothing.
func scrape(ctx context.Context, url string) (stop func() error) {
	if url == "" {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() { failed <- scraping(ctx, url) }() // ends when it is stopped
	return func() error {
		cancel()
		return <-failed
	}
}

func scraping(ctx context.Context, url string) error {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		status, err := get(ctx, url)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%s: status %d, %v", url, status, err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// spent is what the processes behind a target have used so far.
type spent struct {
	proxy, redis time.Duration
	memory       float64
}

func (s *stack) spent(t *target) (used spent, err error) {
	if used.redis, err = s.redis.cpu(); err != nil || t.proxy == nil {
		return used, err
	}
	if used.proxy, err = t.proxy.cpu(); err != nil {
		return used, err
	}
	used.memory, err = t.proxy.memory()
	return used, err
}

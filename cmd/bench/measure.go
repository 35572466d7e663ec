package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// A measurement is what one round gave for one row.
type measurement struct {
	perSecond float64
	p50, p99  time.Duration
	cpu       float64 // seconds of the proxy per 100,000 requests
	redis     float64 // seconds of Redis per 100,000 requests
	memory    float64 // MiB of the proxy after it
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

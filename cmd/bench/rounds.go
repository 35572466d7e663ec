package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// A figure is what one measurement gave.
type figure struct {
	perSecond float64
	p50, p99  time.Duration
	cpu       float64 // seconds of the proxy per 100,000 requests
	redis     float64 // seconds of Redis per 100,000 requests
	memory    float64 // MiB of the proxy after it
}

// bench starts everything, measures every target once a round, in an order of its own each round, and prints the table.
func bench(ctx context.Context, out io.Writer, o options) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("CPU time is read from /proc, which %s does not have", runtime.GOOS)
	}
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stack{}
	defer s.wait()
	ctx, down := context.WithCancel(ctx)
	defer down()
	where := machine()
	fmt.Fprintln(out, "building and starting …")
	if err := s.up(ctx, dir, o); err != nil {
		return err
	}
	targets := s.targets
	if o.quick {
		targets = slices.DeleteFunc(targets, func(t *target) bool { return !t.quick })
	}
	figures := map[*target][]figure{}
	for round := range o.rounds {
		order := slices.Clone(targets)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, t := range order {
			if round == 0 {
				if _, err := s.measure(ctx, t, o, min(time.Second, o.duration)); err != nil {
					return err
				}
			}
			f, err := s.measure(ctx, t, o, o.duration)
			if err != nil {
				return err
			}
			figures[t] = append(figures[t], f)
		}
		fmt.Fprintf(out, "round %d of %d\n", round+1, o.rounds)
	}
	fmt.Fprintf(out, "\n%s, %s\n%s\n", s.versions, runtime.Version(), where)
	fmt.Fprintf(out, "%d rounds of %v, %d keep-alive connections, 1 KiB answers, HTTP/1.1 on loopback; load, application and Redis share the cores\n\n",
		o.rounds, o.duration, o.connections)
	return printTable(out, targets, figures)
}

// measure sends load to one target. An answer that is not as it should be is an error.
func (s *stack) measure(ctx context.Context, t *target, o options, d time.Duration) (figure, error) {
	before, err := s.spent(t)
	if err != nil {
		return figure{}, err
	}
	result, err := load(ctx, loadOrder{
		Address: t.address, Path: t.path, Cookie: t.cookie, Connections: o.connections, Duration: d, Body: page,
	})
	if err != nil {
		return figure{}, fmt.Errorf("%s: %w", t.name, err)
	}
	if result.Wrong > 0 || result.Requests == 0 {
		return figure{}, fmt.Errorf("%s: %d of %d answers were wrong, such as %s", t.name, result.Wrong, result.Requests, result.Example)
	}
	after, err := s.spent(t)
	if err != nil {
		return figure{}, err
	}
	per100k := 100_000 / float64(result.Requests)
	return figure{
		perSecond: float64(result.Requests) / result.Elapsed.Seconds(),
		p50:       result.P50, p99: result.P99,
		cpu:    (after.proxy - before.proxy).Seconds() * per100k,
		redis:  (after.redis - before.redis).Seconds() * per100k,
		memory: after.memory,
	}, nil
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

// printTable prints medians over the rounds. Ratios are taken to the bare proxy of the same round, before the median.
func printTable(out io.Writer, targets []*target, figures map[*target][]figure) error {
	yardstick := figures[targets[slices.IndexFunc(targets, func(t *target) bool { return t.name == bare })]]
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\treq/s\t÷ bare\tp50 ms\tp99 ms\tCPU s/100k\t÷ bare\tmin–max\tRedis s/100k\tRSS MiB\t")
	for _, t := range targets {
		fs := figures[t]
		value := func(of func(figure) float64) float64 {
			var vs []float64
			for _, f := range fs {
				vs = append(vs, of(f))
			}
			return median(vs)
		}
		ratios := func(of func(figure) float64) (rs []float64) {
			for i, f := range fs {
				if base := of(yardstick[i]); base > 0 {
					rs = append(rs, of(f)/base)
				}
			}
			return rs
		}
		cpu := func(f figure) float64 { return f.cpu }
		perSecond := func(f figure) float64 { return f.perSecond }
		fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.1f\t%.1f\t", t.name, value(perSecond), median(ratios(perSecond)),
			value(func(f figure) float64 { return f.p50.Seconds() * 1000 }), value(func(f figure) float64 { return f.p99.Seconds() * 1000 }))
		if t.proxy == nil {
			fmt.Fprintln(w, "–\t–\t–\t–\t–\t")
			continue
		}
		cpuRatios := ratios(cpu)
		fmt.Fprintf(w, "%.2f\t%.2f\t", value(cpu), median(cpuRatios))
		if len(cpuRatios) > 0 {
			fmt.Fprintf(w, "%.2f–%.2f\t", slices.Min(cpuRatios), slices.Max(cpuRatios))
		} else {
			fmt.Fprint(w, "–\t")
		}
		fmt.Fprintf(w, "%.2f\t%.0f\t\n", value(func(f figure) float64 { return f.redis }), value(func(f figure) float64 { return f.memory }))
	}
	return w.Flush()
}

// median of values; zero when there are none.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	if n := len(vs); n%2 == 0 {
		return (vs[n/2-1] + vs[n/2]) / 2
	}
	return vs[len(vs)/2]
}

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
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
	fmt.Fprintf(out, "%d rounds of %v, %d keep-alive connections, 1 KiB answers, HTTP/1.1 on loopback; load, application and Redis share the cores; many sessions are %d\n\n",
		o.rounds, o.duration, o.connections, o.sessions)
	if err := results.print(out); err != nil {
		return err
	}
	return printLines(out, lines)
}

// A result is a row with its measurements, one a round.
type result struct {
	row
	*target
	rounds []measurement
}

type results []*result

// measureRows measures every row once a round, in an order of its own each round. There may be none to measure.
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
	if len(all) == 1 && !s.wants(bareRow) {
		return nil, nil
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

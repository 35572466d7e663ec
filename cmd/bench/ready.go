package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// startSeveral starts Postern several times, with nothing to do.
func (s *stack) startSeveral(ctx context.Context) ([]line, error) {
	program, err := os.Stat(s.program)
	if err != nil {
		return nil, err
	}
	var ready, idle []float64
	for range s.rounds {
		in, err := s.startPostern(ctx, plain)
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(s.duration / 4):
		case <-ctx.Done():
		}
		mib, err := in.proxy.memory()
		in.proxy.stop()
		if err != nil {
			return nil, err
		}
		ready, idle = append(ready, in.readyAfter.Seconds()*1000), append(idle, mib)
	}
	return []line{
		{"start to ready", "200 ms", spread("%.0f ms", ready)},
		{"memory of an idle process", "25 MiB", spread("%.0f MiB", idle)},
		{"the program", "30 MB", fmt.Sprintf("%.1f MB", float64(program.Size())/1e6)},
	}, nil
}

// cacheMany is the memory of a process that has everyone's session in its cache.
func (s *stack) cacheMany(ctx context.Context) ([]line, error) {
	in, err := s.crowdAt(ctx, crowdedCalm)
	if err != nil {
		return nil, err
	}
	mib, err := in.proxy.memory()
	return []line{{fmt.Sprintf("memory of a process with %d cached sessions", s.sessions), "300 MiB", fmt.Sprintf("%.0f MiB", mib)}}, err
}

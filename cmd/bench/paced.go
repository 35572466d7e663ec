package main

import (
	"context"
	"fmt"
	"time"
)

// halfOfPeak asks at half of the rate at which the bare proxy could answer just before, and compares how long the slowest hundredth takes.
func (s *stack) halfOfPeak(ctx context.Context) ([]line, error) {
	in, err := s.postern(ctx, plain)
	if err != nil {
		return nil, err
	}
	bare, at, err := s.startPart(ctx, "bare", s.app)
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	order := loadOrder{Visitors: []visitor{s.alice}, Connections: s.connections, Duration: s.duration, Body: page}
	p99 := func(address, path string) (time.Duration, error) {
		order.Address, order.Path = address, path
		r, err := load(ctx, order)
		return r.P99, err
	}
	order.Address, order.Path = at, plainPath
	peak, err := load(ctx, order)
	if err != nil {
		return nil, err
	}
	order.Rate = float64(peak.Requests) / peak.Elapsed.Seconds() / 2
	var toBare, toDirect []float64
	for range s.rounds {
		var times [3]time.Duration
		for i, to := range []struct{ address, path string }{{s.app, plainPath}, {at, plainPath}, {in.address, signedPath}} {
			if times[i], err = p99(to.address, to.path); err != nil {
				return nil, err
			}
		}
		toDirect = append(toDirect, (times[2]-times[0]).Seconds()*1000)
		toBare = append(toBare, (times[2]-times[1]).Seconds()*1000)
	}
	what := fmt.Sprintf("p99 at %.0f requests/s, half of bare's peak, above ", order.Rate)
	return []line{
		{what + "bare", "1 ms", spread("%.2f ms", toBare)},
		{what + "the application alone", "", spread("%.2f ms", toDirect)},
	}, nil
}

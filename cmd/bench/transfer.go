package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// transfers is how often each body is sent; every other time the bare proxy begins.
	transfers = 3
	// transferLimit bounds one of them.
	transferLimit = 2 * time.Minute
)

// sendLargeBodies sends a large body down and up, through the bare proxy and through Postern in turn.
func (s *stack) sendLargeBodies(ctx context.Context) ([]line, error) {
	bare, at, err := s.startPart(ctx, "bare", s.app)
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	in, err := s.startPostern(ctx, plain)
	if err != nil {
		return nil, err
	}
	defer in.proxy.stop()
	before, err := in.proxy.memory()
	if err != nil {
		return nil, err
	}
	if err := in.proxy.forgetPeak(); err != nil {
		return nil, err
	}
	what := fmt.Sprintf("%d MiB", s.transfer>>20)
	var lines []line
	for _, direction := range []struct {
		name string
		send func(*stack, context.Context, string) error
	}{{" down", (*stack).download}, {" up", (*stack).upload}} {
		var ratios []float64
		for i := range transfers {
			order := []string{at, in.address}
			took := map[string]time.Duration{}
			for j := range order {
				to := order[(i+j)%2]
				begin := time.Now()
				if err := direction.send(s, ctx, to); err != nil {
					return nil, fmt.Errorf("%s%s: %w", what, direction.name, err)
				}
				took[to] = time.Since(begin)
			}
			ratios = append(ratios, took[at].Seconds()/took[in.address].Seconds())
		}
		lines = append(lines, line{what + direction.name + ", throughput to bare", "(at least) 0.95 ×", spread("%.2f", ratios)})
	}
	peak, err := in.proxy.peak()
	return append(lines, line{what + ", memory meanwhile", "flat", fmt.Sprintf("%.0f MiB more at its peak", peak-before)}), err
}

func (s *stack) download(ctx context.Context, at string) error {
	n, err := s.exchange(ctx, http.MethodGet, "http://"+at+downPath+"?"+strconv.FormatInt(s.transfer, 10), nil, func(answer io.Reader) (int64, error) {
		return io.Copy(io.Discard, answer)
	})
	return s.whole(n, err)
}

func (s *stack) upload(ctx context.Context, at string) error {
	n, err := s.exchange(ctx, http.MethodPut, "http://"+at+upPath, io.LimitReader(zeros{}, s.transfer), func(answer io.Reader) (int64, error) {
		text, err := io.ReadAll(answer)
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(string(text), 10, 64)
	})
	return s.whole(n, err)
}

// exchange sends a body of s.transfer bytes, or none, and has the answer read: how many bytes arrived.
func (s *stack) exchange(ctx context.Context, method, url string, body io.Reader, read func(io.Reader) (int64, error)) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	if body != nil {
		r.ContentLength = s.transfer
	}
	r.Header.Set("Cookie", s.alice.Cookie)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	return read(resp.Body)
}

func (s *stack) whole(n int64, err error) error {
	if err == nil && n != s.transfer {
		return fmt.Errorf("%d bytes arrived of %d", n, s.transfer)
	}
	return err
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// reload changes a file with many routes, and waits until a Postern that was told of it answers at a route that is new.
func (s *stack) reload(ctx context.Context) ([]line, error) {
	set := &setup{name: "reload", log: "{level: warn}", cache: "{}", routes: func(app string) string {
		var b strings.Builder
		for i := range s.routes {
			fmt.Fprintf(&b, "  - {path: /app%[1]d/, upstream: 'http://%[2]s', access: {groups: [app%[1]d]}}\n", i, app)
		}
		return b.String()
	}}
	in, err := s.startPostern(ctx, set)
	if err != nil {
		return nil, err
	}
	defer in.proxy.stop()
	config, err := os.ReadFile(in.config)
	if err != nil {
		return nil, err
	}
	var took []float64
	for i := range s.rounds {
		added := fmt.Sprintf("/added%d", i)
		config = fmt.Appendf(config, "  - {path: %s/, upstream: 'http://%s', access: public}\n", added, s.app)
		if err := os.WriteFile(in.config, config, 0o600); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := in.proxy.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return nil, err
		}
		if err := in.proxy.until(ctx, 2*time.Millisecond, func(ctx context.Context) bool {
			status, err := get(ctx, "http://"+in.address+added+plainPath)
			return err == nil && status == http.StatusOK
		}); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin).Seconds()*1000)
	}
	return []line{{fmt.Sprintf("reload with %d routes", s.routes), "500 ms", spread("%.0f ms", took)}}, nil
}

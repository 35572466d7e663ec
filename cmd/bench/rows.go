package main

import "context"

// A row is one line of the first table.
type row struct {
	name string
	peer bool // not ours: --quick leaves it out
	// target starts what is measured. It is nil where that is not installed.
	target func(s *stack, ctx context.Context) (*target, error)
}

// The names of the rows that others are compared with.
const (
	bareRow        = "bare ReverseProxy"
	signedInRow    = "Postern, signed in"
	scrapedRow     = "… metrics read each second"
	cacheOffRow    = "… cache off"
	publicRow      = "… public route"
	loggedRow      = "… request log to a file"
	crowdRow       = "… many sessions"
	calmCrowdRow   = "… many sessions, max_stale 1h"
	rulesRow       = "… 1,000 routes with rules"
	oauth2ProxyRow = "oauth2-proxy"
)

// rows are measured in each round. All requests are those of somebody who is signed in, with the cookie even where nobody reads it; strangers alone ask
// without one.
var rows = []row{
	{name: "direct", target: func(s *stack, _ context.Context) (*target, error) {
		return &target{address: s.app, path: plainPath, visitors: []visitor{s.alice}}, nil
	}},
	{name: bareRow, target: (*stack).bare},
	{name: "bare again (noise)", target: (*stack).bare},
	{name: signedInRow, target: asAlice(plain, signedPath)},
	{name: "… in another process (noise)", target: asAlice(again, signedPath)},
	{name: scrapedRow, target: (*stack).scraped},
	{name: cacheOffRow, target: asAlice(cacheOff, signedPath)},
	{name: publicRow, target: (*stack).strangers},
	{name: loggedRow, target: asAlice(logged, signedPath)},
	{name: crowdRow, target: byCrowd(crowded)},
	{name: calmCrowdRow, target: byCrowd(crowdedCalm)},
	{name: rulesRow, target: asAlice(ruled, lastRulePath)},
	{name: "Apache, mod_auth_openidc", peer: true, target: (*stack).apache},
	{name: oauth2ProxyRow, peer: true, target: (*stack).oauth2Proxy},
	{name: "nginx, 1 worker", peer: true, target: (*stack).nginx},
}

// A target is where the requests of a row go.
type target struct {
	address  string // host:port
	path     string
	visitors []visitor
	proxy    *process // whose CPU time counts; nil for the application itself
	scrape   string   // a URL that is asked for each second meanwhile
}

func (s *stack) bare(ctx context.Context) (*target, error) {
	p, at, err := s.startPart(ctx, "bare", s.app)
	return &target{address: at, path: plainPath, visitors: []visitor{s.alice}, proxy: p}, err
}

func asAlice(set *setup, path string) func(*stack, context.Context) (*target, error) {
	return func(s *stack, ctx context.Context) (*target, error) {
		in, err := s.postern(ctx, set)
		if err != nil {
			return nil, err
		}
		return &target{address: in.address, path: path, visitors: []visitor{s.alice}, proxy: in.proxy}, nil
	}
}

// scraped is the same Postern while Prometheus reads its metrics. Counting cannot be switched off: every row has it.
func (s *stack) scraped(ctx context.Context) (*target, error) {
	in, err := s.postern(ctx, plain)
	if err != nil {
		return nil, err
	}
	return &target{address: in.address, path: signedPath, visitors: []visitor{s.alice}, proxy: in.proxy, scrape: "http://" + in.admin + "/metrics"}, nil
}

func (s *stack) strangers(ctx context.Context) (*target, error) {
	in, err := s.postern(ctx, plain)
	if err != nil {
		return nil, err
	}
	return &target{address: in.address, path: openPath, visitors: []visitor{{}}, proxy: in.proxy}, nil
}

func byCrowd(set *setup) func(*stack, context.Context) (*target, error) {
	return func(s *stack, ctx context.Context) (*target, error) {
		in, err := s.crowdAt(ctx, set)
		if err != nil {
			return nil, err
		}
		return &target{address: in.address, path: signedPath, visitors: s.crowd, proxy: in.proxy}, nil
	}
}

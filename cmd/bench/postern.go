package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A setup is a configuration of Postern. Beside what it says they are all alike, and they share their sessions.
type setup struct {
	name   string                  // of its files
	log    string                  // server.log
	logged bool                    // the log goes to a file
	cache  string                  // session.cache
	routes func(app string) string // nil: simpleRoutes
}

// The setups of the rows. All but logged write no line for a request.
var (
	plain    = &setup{name: "plain", log: "{level: warn}", cache: "{}"}
	again    = &setup{name: "again", log: "{level: warn}", cache: "{}"} // two processes that do the same differ, too
	cacheOff = &setup{name: "cache-off", log: "{level: warn}", cache: "{max_stale: 0s}"}
	logged   = &setup{name: "logged", log: "{format: json}", logged: true, cache: "{}"}
	ruled    = &setup{name: "ruled", log: "{level: warn}", cache: "{}", routes: ruledRoutes}
	// A copy is used for five seconds before Redis is asked again. Few of a hundred thousand sessions come back that soon, so the second says for longer.
	crowded     = &setup{name: "crowded", log: "{level: warn}", cache: "{max_size: 1GiB}"}
	crowdedCalm = &setup{name: "crowded-calm", log: "{level: warn}", cache: "{max_size: 1GiB, max_stale: 1h}"}
)

// Paths beside the application's own.
const (
	openPath     = "/open" + plainPath // public, of simpleRoutes
	manyRoutes   = 1000                // of ruledRoutes
	lastRulePath = "/app999" + signedPath
)

func simpleRoutes(app string) string {
	return fmt.Sprintf("  - {upstream: 'http://%[1]s'}\n  - {path: /open/, upstream: 'http://%[1]s', access: public}\n", app)
}

// ruledRoutes are routes whose rules read the session and the request, so that no answer holds for the next request.
func ruledRoutes(app string) string {
	var b strings.Builder
	for i := range manyRoutes {
		fmt.Fprintf(&b, "  - {path: /app%[1]d/, upstream: 'http://%[2]s', access: {rule: '(\"app%[1]d\" in groups || \"wiki-users\" in groups) && request.method == \"GET\"'}}\n", i, app)
	}
	return b.String()
}

// write writes the configuration and returns its path. Redis has longer to answer than by default: a busy machine is no wrong answer.
func (set *setup) write(s *stack) (string, error) {
	routes := set.routes
	if routes == nil {
		routes = simpleRoutes
	}
	content := fmt.Sprintf(`server: {log: %s}
session:
  keys: [%s]
  cache: %s
  store: {redis: {url: 'redis://%s/0', key_prefix: '%s', timeout: 5s}}
providers:
  %s: {issuer: '%s', client_id: %s, client_secret: %s}
routes:
%s`, set.log, s.place.key, set.cache, s.place.redis, s.place.prefix, providerName, s.place.issuer, clientID, clientSecret, routes(s.app))
	path := filepath.Join(s.dir, set.name+".yaml")
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// An instance is a Postern that runs.
type instance struct {
	proxy          *process
	config         string        // its file
	address, admin string        // host:port
	readyAfter     time.Duration // its start
	warm           bool          // the crowd's sessions are in its cache
}

// postern is the instance of a setup that the rows share.
func (s *stack) postern(ctx context.Context, set *setup) (*instance, error) {
	if in := s.instances[set]; in != nil {
		return in, nil
	}
	in, err := s.startPostern(ctx, set)
	if err != nil {
		return nil, err
	}
	s.instances[set] = in
	return in, nil
}

// startPostern starts another instance and waits until it is ready. Only the first can be signed in to; the others know its sessions.
func (s *stack) startPostern(ctx context.Context, set *setup) (*instance, error) {
	config, err := set.write(s)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if set == plain && s.instances[plain] == nil {
		port = s.takeCallback()
	}
	admin, err := freePort()
	if err != nil {
		return nil, err
	}
	in := &instance{config: config, address: address(port), admin: address(admin)}
	cmd := exec.CommandContext(ctx, s.program, "--config", config, "--listen", in.address, "--admin-listen", in.admin)
	if set.logged {
		file, err := os.Create(filepath.Join(s.dir, set.name+".log"))
		if err != nil {
			return nil, err
		}
		defer file.Close() // the process has it
		cmd.Stderr = file
	}
	began := time.Now()
	if in.proxy, err = s.start(cmd); err != nil {
		return nil, err
	}
	if err := in.ready(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", set.name, err, in.proxy.log)
	}
	in.readyAfter = time.Since(began)
	return in, nil
}

// ready waits until it says so.
func (in *instance) ready(ctx context.Context) error {
	return in.proxy.until(ctx, 2*time.Millisecond, func(ctx context.Context) bool {
		status, err := get(ctx, "http://"+in.admin+"/readyz")
		return err == nil && status == http.StatusOK
	})
}

// get asks for a page that nobody reads.
func get(ctx context.Context, url string) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// crowdAt is the instance of a setup after everyone of the crowd has been there once.
func (s *stack) crowdAt(ctx context.Context, set *setup) (*instance, error) {
	in, err := s.postern(ctx, set)
	if err != nil || in.warm {
		return in, err
	}
	if s.crowd == nil {
		if s.crowd, err = mint(ctx, s.place, s.sessions); err != nil {
			return nil, fmt.Errorf("write %d sessions: %w", s.sessions, err)
		}
	}
	_, err = load(ctx, loadOrder{Address: in.address, Path: signedPath, Visitors: s.crowd, EachOnce: true, Connections: s.connections, Body: page})
	in.warm = err == nil
	return in, err
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A target is one thing that is measured.
type target struct {
	name    string
	address string
	path    string
	cookie  string
	proxy   *process // whose CPU time counts; nil for the application itself
	quick   bool     // measured with --quick too
}

// The names of the targets that others are compared with.
const (
	direct = "direct"
	bare   = "bare ReverseProxy"
)

// A stack is all that runs while bench measures.
type stack struct {
	group
	targets  []*target
	redis    *process
	versions string
}

// variants of Postern: what differs in the configuration and on the command line.
var variants = []struct {
	name   string
	config string
	args   []string
	quick  bool
}{
	{"Postern", "", nil, true},
	{"Postern, no request log", "", []string{"--log-level=warn"}, false},
	{"Postern, cache off", "  cache: {max_stale: 0s}\n", nil, true},
}

// up starts everything and signs in. All of it ends with ctx.
func (s *stack) up(ctx context.Context, dir string, o options) error {
	program, version, err := build(ctx, dir)
	if err != nil {
		return err
	}
	_, app, err := s.startPart(ctx, "upstream")
	if err != nil {
		return err
	}
	s.targets = append(s.targets, &target{name: direct, address: host(app), path: plainPath, quick: true})
	for _, name := range []string{bare, "bare again (noise)"} {
		p, at, err := s.startPart(ctx, "bare", app)
		if err != nil {
			return err
		}
		s.targets = append(s.targets, &target{name: name, address: host(at), path: plainPath, proxy: p, quick: name == bare})
	}

	redis, redisVersion, err := s.startRedis(ctx, dir)
	if err != nil {
		return err
	}
	s.versions = version + ", redis-server " + redisVersion
	ports := make([]int, len(variants)+1)
	var callbacks []string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return err
		}
		callbacks = append(callbacks, "http://"+address(ports[i])+"/oauth2/callback")
	}
	_, issuer, err := s.startPart(ctx, "provider", "--listen="+address(ports[len(variants)]), "--callbacks="+strings.Join(callbacks, ","))
	if err != nil {
		return err
	}
	key, err := exec.CommandContext(ctx, program, "keygen").Output()
	if err != nil {
		return fmt.Errorf("postern keygen: %w", err)
	}
	for i, v := range variants {
		if o.quick && !v.quick {
			continue
		}
		config := filepath.Join(dir, fmt.Sprintf("postern%d.yaml", i))
		content := fmt.Sprintf("session:\n  keys: [%s]\n  store: {redis: {url: redis://%s/0, key_prefix: 'bench%d:'}}\n%s"+
			"providers:\n  corp: {issuer: '%s', client_id: bench, client_secret: secret}\nroutes:\n  - upstream: %s\n",
			strings.TrimSpace(string(key)), redis, i, v.config, issuer, app)
		if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
			return err
		}
		admin, err := freePort()
		if err != nil {
			return err
		}
		at := address(ports[i])
		p, err := s.start(ctx, io.Discard, program, append([]string{"--config", config, "--listen", at, "--admin-listen", address(admin)}, v.args...)...)
		if err != nil {
			return err
		}
		if err := p.listening(ctx, at); err != nil {
			return err
		}
		cookie, err := signIn(ctx, "http://"+at+signedPath)
		if err != nil {
			return fmt.Errorf("sign in to %s: %w: %s", v.name, err, p.log)
		}
		s.targets = append(s.targets, &target{name: v.name, address: at, path: signedPath, cookie: cookie, proxy: p, quick: v.quick})
		// The yardstick carries the same request as what is measured against it.
		for _, t := range s.targets[:3] {
			t.cookie = cookie
		}
	}
	return s.startNginx(ctx, dir, app)
}

// build makes the program as `make build` does.
func build(ctx context.Context, dir string) (program, version string, err error) {
	program = filepath.Join(dir, "postern")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "postern/cmd/postern")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build postern: %w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return "", "", fmt.Errorf("postern version: %w", err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return program, first, nil
}

// startRedis starts a Redis that writes nothing to disk.
func (s *stack) startRedis(ctx context.Context, dir string) (addr, version string, err error) {
	out, err := exec.CommandContext(ctx, "redis-server", "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("redis-server is needed (.ci/install test installs it): %w", err)
	}
	version = "?"
	for _, word := range strings.Fields(string(out)) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			version = v
		}
	}
	port, err := freePort()
	if err != nil {
		return "", "", err
	}
	s.redis, err = s.start(ctx, io.Discard, "redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--save", "", "--appendonly", "no", "--dir", dir)
	if err != nil {
		return "", "", err
	}
	return address(port), version, s.redis.listening(ctx, address(port))
}

// startNginx adds nginx as a proxy that knows nothing of sessions, where it is installed: what a proxy in C costs.
func (s *stack) startNginx(ctx context.Context, dir, app string) error {
	program, err := exec.LookPath("nginx")
	if err != nil {
		return nil // it is not needed
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "nginx.conf")
	content := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	upstream app { server %[2]s; keepalive 128; }
	server {
		listen %[3]s; keepalive_requests 1000000000;
		location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; }
	}
}
`, dir, host(app), address(port))
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return err
	}
	p, err := s.start(ctx, io.Discard, program, "-c", config, "-p", dir)
	if err != nil {
		return err
	}
	if err := p.listening(ctx, address(port)); err != nil {
		return err
	}
	s.targets = append(s.targets, &target{name: "nginx, 1 worker", address: address(port), path: plainPath, cookie: s.targets[0].cookie, proxy: p})
	return nil
}

// signIn goes through the provider as a browser does and returns the session's Cookie header.
func signIn(ctx context.Context, page string) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Jar: jar, Timeout: 20 * time.Second}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
		if err != nil {
			return "", err
		}
		r.Header.Set("Accept", "text/html")
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return "", err
		}
		if resp.StatusCode == http.StatusOK {
			var cookies []string
			for _, c := range jar.Cookies(r.URL) {
				cookies = append(cookies, c.Name+"="+c.Value)
			}
			return strings.Join(cookies, "; "), nil
		}
		// Right after its start it may not know the provider yet.
		select {
		case <-again.C:
		case <-ctx.Done():
			return "", fmt.Errorf("%s: %d %.300s", resp.Request.URL.Path, resp.StatusCode, body)
		}
	}
}

// load has the load process carry out an order.
func load(ctx context.Context, o loadOrder) (loadResult, error) {
	self, err := os.Executable()
	if err != nil {
		return loadResult{}, err
	}
	order, err := json.Marshal(o)
	if err != nil {
		return loadResult{}, err
	}
	cmd := exec.CommandContext(ctx, self, "load")
	cmd.Stdin = strings.NewReader(string(order))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return loadResult{}, err
	}
	var result loadResult
	return result, json.Unmarshal(out, &result)
}

func host(url string) string { return strings.TrimPrefix(url, "http://") }

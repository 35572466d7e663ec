package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A stack is all that runs while bench measures.
type stack struct {
	group
	options
	dir       string // for configurations and logs
	program   string // the built postern
	versions  []string
	app       string // host:port of the application
	redis     *process
	place     place                // where sessions are kept
	callbacks []int                // ports that the provider sends browsers back to, and that nobody has taken
	instances map[*setup]*instance // see postern.go
	alice     visitor              // signed in, for real, to every Postern: they share their sessions
	crowd     []visitor            // the same of many; see postern.go
}

// up starts what everything needs, and signs in. All of it ends with ctx.
func (s *stack) up(ctx context.Context) error {
	if err := s.build(ctx); err != nil {
		return err
	}
	var err error
	if _, s.app, err = s.startPart(ctx, "app"); err != nil {
		return err
	}
	if err := s.startRedis(ctx); err != nil {
		return err
	}
	var uris []string
	for range 3 { // Postern, Apache and oauth2-proxy
		port, err := freePort()
		if err != nil {
			return err
		}
		s.callbacks = append(s.callbacks, port)
		uris = append(uris, "http://"+address(port)+callbackPath)
	}
	if _, s.place.issuer, err = s.startPart(ctx, "provider", "--callbacks="+strings.Join(uris, ",")); err != nil {
		return err
	}
	key, err := exec.CommandContext(ctx, s.program, "keygen").Output()
	if err != nil {
		return fmt.Errorf("postern keygen: %w", err)
	}
	s.place.key = strings.TrimSpace(string(key))
	s.instances = map[*setup]*instance{}
	in, err := s.postern(ctx, plain)
	if err != nil {
		return err
	}
	if s.alice, err = signIn(ctx, in.address); err != nil {
		return fmt.Errorf("sign in to Postern: %w: %s", err, in.proxy.log)
	}
	return nil
}

// build makes the program as `make build` does.
func (s *stack) build(ctx context.Context) error {
	s.program = filepath.Join(s.dir, "postern")
	cmd := exec.CommandContext(ctx, "go", "build", "-pgo=auto", "-trimpath", "-ldflags=-s -w", "-o", s.program, "postern/cmd/postern")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build postern: %w\n%s", err, out)
	}
	return s.addVersion(ctx, s.program, "version")
}

// addVersion notes the first line of what a program says of itself.
func (s *stack) addVersion(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	s.versions = append(s.versions, first)
	return nil
}

// startRedis starts a Redis that writes nothing to disk.
func (s *stack) startRedis(ctx context.Context) error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("redis-server is needed (.ci/install test installs it): %w", err)
	}
	if err := s.addVersion(ctx, program, "--version"); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	s.place.redis, s.place.prefix = address(port), "bench:"
	s.redis, err = s.start(exec.CommandContext(ctx, program, "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--save", "", "--appendonly", "no", "--dir", s.dir))
	if err != nil {
		return err
	}
	return s.redis.listening(ctx, s.place.redis)
}

// takeCallback is a port that the provider sends browsers back to.
func (s *stack) takeCallback() int {
	port := s.callbacks[0]
	s.callbacks = s.callbacks[1:]
	return port
}

package redistest_test

import (
	"strings"
	"testing"
	"time"

	"postern/session/redistest"
)

func TestServerKeepsDataOverRestartAndKill(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	if err := s.Client().Set(t.Context(), "k", "v", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	address := s.Address()
	s.Restart()
	s.Kill()
	s.Start()
	if got := s.Client().Get(t.Context(), "k").Val(); got != "v" || s.Address() != address {
		t.Errorf("after restart: %q at %s, want v at %s", got, s.Address(), address)
	}
	if !strings.Contains(s.Dump(), "k\n") {
		t.Error("dump lacks the key")
	}
}

func TestServerKinds(t *testing.T) {
	for name, o := range map[string]redistest.Options{
		"unix":      {Unix: true, Password: "p w"},
		"tls":       {TLS: true, Password: "p/w"},
		"forgetful": {Forgetful: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t, o)
			if err := s.Client().Ping(t.Context()).Err(); err != nil {
				t.Error(err)
			}
			s.Restart()
			if err := s.Client().Ping(t.Context()).Err(); err != nil {
				t.Error("after restart:", err)
			}
		})
	}
}

func TestPauseAndResume(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	s.Pause()
	answered := make(chan error, 1)
	go func() { answered <- s.Client().Ping(t.Context()).Err() }()
	select {
	case err := <-answered:
		t.Error("a frozen server answered:", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Resume()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

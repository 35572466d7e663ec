package canary_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"postern/proxy/proxytest/canary"
)

// reports is a test that fails on purpose.
type reports []string

func (*reports) Helper() {}

func (r *reports) Errorf(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }

func TestSearchFindsSecretsInEverySpelling(t *testing.T) {
	var s canary.Secrets
	const secret = "s3cr:t/+% & more"
	s.Add("password", secret)
	other := s.New("token")
	s.Add("short", "short")
	for name, spelling := range map[string]string{
		"plain": secret, "query": url.QueryEscape(secret), "path": url.PathEscape(secret),
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64url": base64.RawURLEncoding.EncodeToString([]byte(secret)),
	} {
		for _, text := range []string{spelling, "x" + spelling, spelling + "x", strings.Repeat("s3cr:t/+% & mor ", 1000) + spelling} {
			var got reports
			s.Search(&got, "the log", text)
			if len(got) != 1 || !strings.HasPrefix(got[0], "the log holds the password: ") || !canary.Holds(text, secret) {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	var got reports
	s.Search(&got, "the log", secret+other+secret+other)
	if len(got) != 2 {
		t.Errorf("two secrets, twice each: %q", got)
	}
	got = nil
	s.Search(&got, "the log", "short "+secret[1:]+" "+other[:len(other)-1])
	if len(got) != 0 {
		t.Errorf("parts of secrets: %q", got)
	}
}

func TestPagesMayHoldWhatTheyLinkTo(t *testing.T) {
	var s canary.Secrets
	s.AddQuery(&url.URL{RawQuery: "state=canary-of-the-state&client_id=canary-of-nothing"})
	token := s.New("token")
	s.Page("canary-of-the-state canary-of-nothing")
	var got reports
	if s.SearchPages(&got); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	s.Page("a page with " + token)
	if s.SearchPages(&got); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	got = nil
	if s.Search(&got, "the log", "canary-of-the-state"); len(got) != 1 {
		t.Errorf("a log may not hold it: %q", got)
	}
}

func TestProcessIsSearched(t *testing.T) {
	var s canary.Secrets
	secret := s.New("password")
	for name, c := range map[string]struct {
		args, env, known []string
		want             string
	}{
		"argument":               {args: []string{"--password=" + secret}, want: "cmdline"},
		"environment":            {env: []string{"PASSWORD=" + secret}, want: "environ"},
		"what is known to be":    {env: []string{"PASSWORD=" + secret}, known: []string{"PASSWORD=" + secret}},
		"known, and once more":   {env: []string{"PASSWORD=" + secret, "OTHER=" + secret}, known: []string{"PASSWORD=" + secret}, want: "environ"},
		"nothing of it anywhere": {},
	} {
		cmd := exec.CommandContext(t.Context(), "cat", append([]string{"-", "--"}, c.args...)...) // waits for its input
		cmd.Env = append([]string{"LANG=C"}, c.env...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var got reports
		s.SearchProcess(&got, cmd.Process.Pid, c.known...)
		in.Close()
		_ = cmd.Wait() // there is no such file
		if (len(got) > 0) != (c.want != "") || c.want != "" && !strings.HasPrefix(got[0], "/proc/PID/"+c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

package proxytest

import (
	"fmt"
	"strings"
	"testing"

	"postern/proxy/proxytest/canary"
)

// leaks is a test that fails on purpose.
type leaks []string

func (*leaks) Helper() {}

func (l *leaks) Errorf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Every test with a stack ends in a search; this one sees that it finds what stands in each of the places, and that it knows what passes.
func TestSearchLooksEverywhere(t *testing.T) {
	s := New(t, Options{})
	b := s.Browser()
	token := strings.TrimPrefix(b.Go("/planted-in-the-path").Received(t).Header.Get("Authorization"), "Bearer ")
	b.Go("/oauth2") // a page of ours
	for kind, value := range map[string]string{"access token": token, "cookie": b.Cookies()[0].Value, "client secret": "canary-client-secret", "verifier": s.Provider.TokenRequests()[0].Form.Get("code_verifier")} {
		var found leaks
		if s.Secrets.Search(&found, "a text", "x"+value); value == "" || len(found) != 1 {
			t.Errorf("the stack does not know the %s %q: %q", kind, value, found)
		}
	}
	known := s.Secrets
	defer func() { s.Secrets = known }()
	for where, value := range map[string]string{"the log": "/planted-in-the-path", "the audit log": `"audit":true`, "the metrics": "postern_build_info"} {
		s.Secrets = &canary.Secrets{}
		s.Secrets.Add("planted value", value)
		var found leaks
		s.search(&found)
		s.searchMetrics(&found)
		if len(found) == 0 || !strings.HasPrefix(found[0], where+" holds the planted value") {
			t.Errorf("%s in %s: %q", value, where, found)
		}
	}
	const onThePage = "<!DOCTYPE html>"
	known.Add("planted value", onThePage)
	var found leaks
	if known.SearchPages(&found); len(found) != 1 {
		t.Errorf("what is on a page is not found: %q", found)
	}
	known.MayShow(onThePage)
}

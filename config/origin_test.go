package config_test

import (
	"net/url"
	"testing"

	"postern/config"
)

func TestOrigin(t *testing.T) {
	public := &url.URL{Scheme: "https", Host: "wiki.example.com"}
	for _, tt := range []struct {
		name   string
		server config.Server
		host   string
		want   string // "" means none
	}{
		{"public_url wins", config.Server{Listen: ":443", PublicURL: public}, "other.example.com", "https://wiki.example.com"},
		{"route's host", config.Server{Listen: ":443"}, "erp.example.com", "https://erp.example.com"},
		{"route's host, loopback", config.Server{Listen: "127.0.0.1:4180"}, "erp.example.com", "https://erp.example.com"},
		{"loopback", config.Server{Listen: "127.0.0.1:4180"}, "", "http://127.0.0.1:4180"},
		{"loopback IPv6", config.Server{Listen: "[::1]:4180"}, "", "http://[::1]:4180"},
		{"localhost", config.Server{Listen: "localhost:4180"}, "", "http://localhost:4180"},
		{"loopback with TLS", config.Server{Listen: "127.0.0.1:4180", TLS: &config.TLS{}}, "", ""},
		{"every interface", config.Server{Listen: ":4180"}, "", ""},
		{"other address", config.Server{Listen: "10.0.0.1:4180"}, "", ""},
		{"looks like loopback", config.Server{Listen: "127.0.0.1.example.com:80"}, "", ""},
		{"wildcard", config.Server{Listen: "127.0.0.1:4180"}, "*.example.com", ""},
	} {
		got := ""
		if u := tt.server.Origin(tt.host); u != nil {
			got = u.String()
		}
		if got != tt.want {
			t.Errorf("%s: origin = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCookieName(t *testing.T) {
	c := mustLoad(t, "testdata/good/forms.yaml", env())
	if got := c.CookieName("corp"); got != "__Host-postern" {
		t.Errorf("first provider: %q", got)
	}
	if got := c.CookieName("google"); got != "__Host-postern-google" {
		t.Errorf("second provider: %q", got)
	}
	if c := mustLoad(t, "testdata/target/minimal.yaml", env()); c.CookieName("corp") != "postern" || c.Secure() {
		t.Errorf("plain http: %q, secure %v", c.CookieName("corp"), c.Secure())
	}
	c.Session.Cookie.Name = "s"
	if got := c.CookieName("google"); got != "s-google" {
		t.Errorf("named: %q", got)
	}
}

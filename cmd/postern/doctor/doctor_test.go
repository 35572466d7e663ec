package doctor

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"postern/config"
)

// A probe that breaks off takes no other with it, and tells nothing of what it held.
func TestABrokenProbeIsAFinding(t *testing.T) {
	found := probe(func(context.Context) []Finding { panic("canary") }).findings(t.Context())
	if len(found) != 1 || found[0].Result != Fail || strings.Contains(found[0].Found+found[0].Mend, "canary") {
		t.Errorf("%+v", found)
	}
}

func TestAPortThatThisUserMayNotOpen(t *testing.T) {
	refused := os.NewSyscallError("bind", syscall.EACCES)
	for running, want := range map[bool]Result{true: Pass, false: Warn} {
		l := list{subject: ":443"}
		l.notFree("listen.public", "server.listen", refused, running)
		if f := l.all[0]; f.Result != want || !running && !(strings.Contains(f.Mend, "postern.socket") && strings.Contains(f.Mend, "CAP_NET_BIND_SERVICE")) {
			t.Errorf("running %v: %+v", running, f)
		}
	}
}

// What a trusted proxy sends is judged as Postern reads it.
func TestForwardedIsReadAsPosternDoes(t *testing.T) {
	const address = "203.0.113.7"
	for name, c := range map[string]struct {
		origin, host string
		header       http.Header
		tls          bool
		want         map[string]Result
	}{
		"all is said":                     {"https://wiki.example.com", "wiki.example.com", http.Header{"X-Forwarded-For": {address}, "X-Forwarded-Proto": {"https"}}, false, map[string]Result{"public.forwarded": Pass}},
		"https is not said":               {"https://wiki.example.com", "wiki.example.com", http.Header{"X-Forwarded-For": {address}}, false, map[string]Result{"public.forwarded": Fail}},
		"https is spoken with Postern":    {"https://wiki.example.com", "wiki.example.com", http.Header{"X-Forwarded-For": {address}}, true, map[string]Result{"public.forwarded": Pass}},
		"plain http is meant":             {"http://wiki.example.com", "wiki.example.com", http.Header{"X-Forwarded-For": {address}}, false, map[string]Result{"public.forwarded": Pass}},
		"Forwarded alone":                 {"https://wiki.example.com", "wiki.example.com", http.Header{"Forwarded": {`for=` + address + `;proto="https"`}}, false, map[string]Result{"public.forwarded": Pass}},
		"Forwarded without https":         {"https://wiki.example.com", "wiki.example.com", http.Header{"Forwarded": {"for=" + address}}, false, map[string]Result{"public.forwarded": Fail}},
		"Forwarded that is not looked at": {"https://wiki.example.com", "wiki.example.com", http.Header{"Forwarded": {"proto=https"}, "X-Forwarded-For": {address}}, false, map[string]Result{"public.forwarded": Fail}},
		"the last of two lines":           {"https://wiki.example.com", "wiki.example.com", http.Header{"X-Forwarded-For": {address}, "X-Forwarded-Proto": {"https", "http"}}, false, map[string]Result{"public.forwarded": Fail}},
		"a list of hosts":                 {"https://wiki.example.com", "app:8080", http.Header{"X-Forwarded-For": {address}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"inner, wiki.example.com"}}, false, map[string]Result{"public.forwarded": Pass}},
		"another host":                    {"https://wiki.example.com", "wiki.example.com", http.Header{"X-Forwarded-For": {address}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"wiki.example.com, inner"}}, false, map[string]Result{"public.forwarded": Pass, "public.host": Fail}},
		"an IPv6 host":                    {"https://[2001:db8::1]", "[2001:db8::1]:443", http.Header{"X-Forwarded-For": {address}, "X-Forwarded-Proto": {"https"}}, false, map[string]Result{"public.forwarded": Pass}},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Config: &config.Config{Server: config.Server{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}}
			origin, err := url.Parse(c.origin)
			if err != nil {
				t.Fatal(err)
			}
			r := &http.Request{Host: c.host, Header: c.header, RemoteAddr: "127.0.0.1:5000"}
			if c.tls {
				r.TLS = new(tls.ConnectionState)
			}
			var l list
			o.forwarded(&l, origin, r)
			if len(l.all) != len(c.want) {
				t.Errorf("%+v", l.all)
			}
			for _, f := range l.all {
				if f.Result != c.want[f.Check] {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

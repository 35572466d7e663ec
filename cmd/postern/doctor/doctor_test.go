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
	const xff, proto, host, wiki = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "wiki.example.com"
	address, https := []string{"203.0.113.7"}, []string{"https"}
	pass, fail := map[string]Result{"public.forwarded": Pass}, map[string]Result{"public.forwarded": Fail}
	for name, c := range map[string]struct {
		origin, host string
		header       http.Header
		tls          bool
		want         map[string]Result
	}{
		"all is said":                     {"https://" + wiki, wiki, http.Header{xff: address, proto: https}, false, pass},
		"https is not said":               {"https://" + wiki, wiki, http.Header{xff: address}, false, fail},
		"https is spoken with Postern":    {"https://" + wiki, wiki, http.Header{xff: address}, true, pass},
		"plain http is meant":             {"http://" + wiki, wiki, http.Header{xff: address}, false, pass},
		"Forwarded alone":                 {"https://" + wiki, wiki, http.Header{"Forwarded": {`for=203.0.113.7;proto="https"`}}, false, pass},
		"Forwarded without https":         {"https://" + wiki, wiki, http.Header{"Forwarded": {"for=203.0.113.7"}}, false, fail},
		"Forwarded that is not looked at": {"https://" + wiki, wiki, http.Header{"Forwarded": {"proto=https"}, xff: address}, false, fail},
		"the last of two lines":           {"https://" + wiki, wiki, http.Header{xff: address, proto: {"https", "http"}}, false, fail},
		"a list of hosts":                 {"https://" + wiki, "app:8080", http.Header{xff: address, proto: https, host: {"inner, " + wiki}}, false, pass},
		"another host": {"https://" + wiki, wiki, http.Header{xff: address, proto: https, host: {wiki + ", inner"}}, false,
			map[string]Result{"public.forwarded": Pass, "public.host": Fail}},
		"an IPv6 host": {"https://[2001:db8::1]", "[2001:db8::1]:443", http.Header{xff: address, proto: https}, false, pass},
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

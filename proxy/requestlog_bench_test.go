package proxy

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"time"

	"postern/session"
	"postern/session/seal"
)

// signedInRequest is what is known of a request of alice when it is over.
func signedInRequest(tb testing.TB) (*Proxy, *exchange) {
	tb.Helper()
	key, err := seal.ParseKey(seal.NewKey())
	if err != nil {
		tb.Fatal(err)
	}
	ring, err := seal.NewRing(key)
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{now: time.Now, logShare: 1, logNames: newLogNames(), keys: &keyring{Ring: ring}, log: slog.New(slog.DiscardHandler)}
	r := httptest.NewRequest("GET", "/wiki/page", nil).WithContext(context.Background())
	x := &exchange{r: r, now: time.Now, start: time.Now(), path: "/wiki/page", status: 200, bytes: 1024, upstream: time.Millisecond,
		client: clientInfo{RequestID: "0123456789abcdef0123456789abcdef", Host: "wiki.example.com", Addr: netip.MustParseAddr("192.0.2.9")},
		route:  &route{name: "wiki.example.com/wiki/"}, verdict: verdict{Kind: verdictAllow, Reason: "signed_in", Session: &session.Session{Grant: session.Grant{Subject: "alice"}}},
	}
	return p, x
}

func BenchmarkRequestLine(b *testing.B) {
	file, err := os.Create(b.TempDir() + "/log")
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for name, h := range map[string]slog.Handler{
		"discard": discardAll{},
		"json":    slog.NewJSONHandler(file, nil),
		"text":    slog.NewTextHandler(file, nil),
	} {
		b.Run(name, func(b *testing.B) {
			p, x := signedInRequest(b)
			p.log = slog.New(h)
			b.ReportAllocs()
			for b.Loop() {
				p.logRequest(x)
			}
		})
	}
}

// discardAll takes records and does nothing with them: what is left is the making of a line.
type discardAll struct{}

func (discardAll) Enabled(context.Context, slog.Level) bool  { return true }
func (discardAll) Handle(context.Context, slog.Record) error { return nil }
func (d discardAll) WithAttrs([]slog.Attr) slog.Handler      { return d }
func (d discardAll) WithGroup(string) slog.Handler           { return d }

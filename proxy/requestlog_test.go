package proxy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"postern/session"
	"postern/session/memstore"
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
	sessions, err := session.NewManager(session.Options{
		Provider: "corp", ClientID: "postern", Ring: ring, Store: memstore.New(memstore.Options{}), Cookie: session.Cookie{Name: "__Host-postern", Secure: true},
		IdleTimeout: time.Hour, Lifetime: time.Hour,
	})
	if err != nil {
		tb.Fatal(err)
	}
	s, _, err := sessions.Create(context.Background(), session.Grant{Issuer: "https://id.example.com", Subject: "alice", Tokens: session.Tokens{Access: "a"}}, session.CreateOptions{}) // one with a name
	if err != nil {
		tb.Fatal(err)
	}
	if err := sessions.Close(context.Background()); err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{now: time.Now, logShare: 1, logNames: newLogNames(), lasting: &lasting{ring: ring}, log: slog.New(slog.DiscardHandler)}
	r := httptest.NewRequest("GET", "/wiki/page", nil).WithContext(context.Background())
	x := &exchange{r: r, now: time.Now, start: time.Now(), path: "/wiki/page", status: 200, bytes: 1024, upstream: time.Millisecond,
		client: clientInfo{RequestID: "0123456789abcdef0123456789abcdef", Host: "wiki.example.com", Addr: netip.MustParseAddr("192.0.2.9")},
		route:  &route{name: "wiki.example.com/wiki/"}, verdict: verdict{Kind: verdictAllow, Reason: "signed_in", Session: s},
	}
	return p, x
}

// What a client sends cannot look like a line of ours, move a terminal's cursor, or fill the disk.
func TestA119_RequestLinesCannotBeForged(t *testing.T) {
	evil := "/\n{\"level\":\"ERROR\"}\r\ntime=now level=ERROR msg=forged \x1b[2J\u2028\x00" + strings.Repeat("x", 60<<10)
	for name, handler := range map[string]func(out *bytes.Buffer) slog.Handler{
		"json": func(out *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(out, nil) },
		"text": func(out *bytes.Buffer) slog.Handler { return slog.NewTextHandler(out, nil) },
	} {
		var out bytes.Buffer
		p, x := signedInRequest(t)
		p.log = slog.New(handler(&out))
		x.path, x.client.Host, x.r.Method, x.err, x.verdict.Detail = evil, evil, evil, errors.New(evil), evil
		p.logRequest(x)
		line, ok := strings.CutSuffix(out.String(), "\n")
		if !ok || strings.ContainsFunc(line, unicode.IsControl) || strings.Contains(line, "\u2028") {
			t.Errorf("%s: %.3000q", name, line)
		}
		if len(line) > 8<<10 {
			t.Errorf("%s: a line of %d bytes", name, len(line))
		}
	}
}

func TestBriefKeepsCharactersWhole(t *testing.T) {
	if got := brief(strings.Repeat("x", maxLogged-1) + "żółw"); got != strings.Repeat("x", maxLogged-1)+"…" {
		t.Errorf("the end is %q", got[maxLogged-4:])
	}
	if got := brief("żółw"); got != "żółw" {
		t.Errorf("%q", got)
	}
}

func TestARequestWithoutALineCostsNothing(t *testing.T) {
	p, x := signedInRequest(t)
	p.log, p.logShare = slog.New(discardAll{}), 0
	if n := testing.AllocsPerRun(1000, func() { p.logRequest(x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// About a share of them has a line: which is left to chance, so that no pattern in requests hides some.
func TestLogShare(t *testing.T) {
	var out bytes.Buffer
	p, x := signedInRequest(t)
	p.log, p.logShare = slog.New(slog.NewTextHandler(&out, nil)), 0.1
	for range 10_000 {
		p.logRequest(x)
	}
	if n := strings.Count(out.String(), "\n"); n < 700 || n > 1300 { // ten standard deviations
		t.Errorf("%d lines of 10,000", n)
	}
}

// Names follow session.keys soon.
func TestLogNamesAreForgotten(t *testing.T) {
	p, x := signedInRequest(t)
	p.now = func() time.Time { return x.start }
	named := func() *logName { return p.logNames.of(x.verdict.Session, p.now(), p.userHash) }
	was := named()
	if was.user != p.userHash("alice") {
		t.Errorf("alice is %s", was.user)
	}
	key, err := seal.ParseKey(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	if p.ring, err = seal.NewRing(key); err != nil {
		t.Fatal(err)
	}
	x.start = x.start.Add(logNameFor)
	if now := named(); now.user == was.user || now.user != p.userHash("alice") {
		t.Errorf("under another key alice is %s, was %s", now.user, was.user)
	}
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

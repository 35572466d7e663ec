//go:build mutants

package attack_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A mutant is the source with one defence broken: in the folder, one text is replaced by another. The test of the row must turn red.
type mutant struct {
	row, broken, folder, from, to string
}

// mutants is the list. `make mutants` tries each.
var mutants = []mutant{
	{"A50", "identity headers of clients are not taken off", "proxy", `if claims(name) || len(extra) > 0`, `if len(extra) > 0`},
	{"A51", "only the hyphen is folded away in header names", "proxy", `if !isAlphanumeric(c) {`, `if c == '-' {`},
	{"A53", "a comma in a group's name is not encoded", "proxy", `encodeClaim(g, true)`, `encodeClaim(g, false)`},
	{"A56", "request trailers are announced to the application", "proxy", `out.Trailer = nil`, `_ = out.Trailer`},
	{"A57", "everybody is a trusted proxy", "proxy", `c.Trusted = f.trusts(c.Peer)`, `c.Trusted = true`},
	{"A58", "the chain of proxies is followed beyond those that are trusted", "proxy", `if !f.trusts(next) || len(c.hops) == maxHops {`, `if len(c.hops) == maxHops {`},
	{"A61", "an absolute target may name any host", "proxy", `host != "" && !p.ownHost(host)`, `host == "?" && !p.ownHost(host)`},
	{"A62", "a host need not be one", "proxy", `host != "" && !isHost(host)`, `host == "?" && !isHost(host)`},
	{"A66", "a token that is not good is passed over", "proxy", `} else if v, ok := p.presented(ctx, x); ok {`, `} else if v, ok := p.presented(ctx, x); ok && v.Kind == verdictAllow {`},
	{"A90", "connections are reused after chunks", "proxy", `(len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)`, `r.ProtoMinor == 0`},
	{"A93", "a broken body is taken for a client that left", "proxy", `return failure{http.StatusBadRequest, "bad_body", cause}`, `return failure{http.StatusOK, "bad_body", cause}`},
	{"A96", "any upgrade is passed on", "proxy", `if !l.websocket {`, `if false {`},
	{"A100", "encoded slashes pass", "proxy", `case c == '/' || c == '\\':`, `case c == '\\':`},
	{"A102", "methods may be written in any case", "proxy", `'a' <= c && c <= 'z' {
			return true`, `'a' <= c && c <= 'z' {
			return false`},
	{"A103", "a preflight carries credentials", "proxy", `Reason: "preflight", Bare: true`, `Reason: "preflight"`},
	{"A104", "a path's route may end within a segment", "proxy", `path = path[:strings.LastIndexByte(path, '/')]`, `path = path[:len(path)-1]`},
	{"A110", "answers of ours may be kept", "proxy", `h.Set("Cache-Control", "no-store")`, `h.Set("Cache-Control", "no-cache")`},
	{"A111", "what is for one person is public", "proxy", `[]string{"private"}`, `[]string{"public"}`},
	{"A130", "any site opens WebSockets", "proxy", `case crossOriginUpgrade(x.r, x.client) &&`, `case x.r == nil &&`},
	{"A134", "the guard against other sites' forms is off", "proxy", `if err := rt.csrf.Check(x.r); err != nil {`, `if err := rt.csrf.Check(x.r); err != nil && x.r == nil {`},
	{"A141", "any number of cookies is taken", "proxy", `if size <= maxHeader && cookies <= maxCookies {`, `if size <= maxHeader {`},
	{"A141", "any site may delete the cookies", "proxy", `if err := p.crossOrigin.Check(x.r); err != nil { // else`, `if err := p.crossOrigin.Check(x.r); err != nil && x.r == nil { // else`},
	{"A144", "applications get our cookies", "proxy", `cutCookies(h, l.u.o.Ours)`, `_ = cutCookies`},
	{"A145", "applications set our cookies", "proxy", `filterSetCookie(h, o.Ours)`, `_ = filterSetCookie`},
	{"A145", "applications set our cookies in 1xx answers", "proxy", `filterSetCookie(l.interim, l.u.o.Ours)`, `_ = filterSetCookie`},
	{"A145", "applications clear all cookies of the site", "proxy", `filterClearSiteData(h)
`, `_ = filterClearSiteData
`},
	{"A150", "certificates of applications are not verified", "proxy", `config.MinVersion = tls.VersionTLS12`, `config.MinVersion, config.InsecureSkipVerify = tls.VersionTLS12, true`},
	{"A191", "a header may take minutes", "cmd/postern", `ReadHeaderTimeout: readHeaderTimeout,`, `ReadHeaderTimeout: 30 * readHeaderTimeout,`},
	{"A191", "connections of one client are not counted", "cmd/postern", `if l.open[client] >= limit {`, `if limit == 0 {`},
	{"A2", "a callback works again", "proxy", `if f := generation[id]; f != nil {`, `if f := generation[id]; f != nil && id == "" {`},
	{"A4", "attempts of another client are taken", "proxy", `pr.name + "\x00" + pr.clientID + "\x00" + origin`, `pr.name + "\x00" + origin`},
	{"A5", "the session of before lives on", "proxy", `old, _ := pr.sessions.Load(ctx, x.r.Header)`, `old, _ := pr.sessions.Load(ctx, nil)`},
	{"A7", "the nonce is not compared", "proxy/idp", `if want.nonce != "" &&`, `if want.nonce == "?" &&`},
	{"A9", "an answer of another issuer is taken", "proxy/idp", `f.Params.Has("iss") && iss != p.issuer, slices.Contains(p.o.OtherIssuers, iss) &&`, `f.Params.Has("iss") && iss == "?", slices.Contains(p.o.OtherIssuers, iss) && iss == "?" &&`},
	{"A9", "an answer may come to another provider's address", "proxy", `if pr.callback != endpoint {`, `if pr.callback != endpoint && endpoint == "" {`},
	{"A10", "an answer of an issuer that nobody knows is taken", "proxy/idp", `f.Params.Has("iss") && iss != p.issuer`, `f.Params.Has("iss") && iss == "?"`},
	{"A10", "an answer need not name its issuer", "proxy/idp", `iss == "" && m.issRequired`, `iss == "?" && m.issRequired`},
	{"A11", "a parameter may stand twice", "proxy/idp", `case len(v) > 1: // RFC 6749`, `case len(v) > 9: // RFC 6749`},
	{"A13", "callbacks come by any method", "proxy/idp", `if f.Posted != (p.o.ResponseMode == modeFormPost) {`, `if f.Params == nil {`},
	{"A22", "backslashes may stand in an address to return to", "proxy", `r < ' ' || r == 0x7f || r == '\\'`, `r < ' ' || r == 0x7f`},
	{"A24", "control characters may stand in an address to return to", "proxy", `r < ' ' || r == 0x7f || r == '\\'`, `r == 0x7f || r == '\\'`},
	{"A27", "hosts that end as a listed one are taken", "proxy", `slices.Contains(hosts, strings.ToLower(host))`, `slices.ContainsFunc(hosts, func(h string) bool { return strings.HasSuffix(host, h) })`},
	{"A37", "sign-in may lead to sign-out", "proxy", `canonical == prefix || strings.HasPrefix(canonical, prefix+"/")`, `canonical == prefix`},
	{"A70", "signatures are not verified", "proxy/idp", `jws.Verify(keys[i].Key); err == nil`, `jws.UnsafePayloadWithoutVerification(), error(nil); err == nil`},
	{"A78", "ID tokens may be of the future", "proxy/idp", `if iat.After(now.Add(p.leeway)) {`, `if iat.After(now.Add(p.leeway * 1_000_000)) {`},
	{"A79", "ID tokens may be for another party", "proxy/idp", `if c.has("azp") && c["azp"] != p.clientID {`, `if c.has("azp") && p.clientID == "" {`},
	{"A84", "logout tokens may be old", "proxy/idp", `p.checkTimes(logoutToken, c, maxLogoutAge)`, `p.checkTimes(logoutToken, c, 0)`},
	{"A85", "logout tokens are carried out again", "proxy", `return 0, errReplayed`, `continue`},
	{"A87", "strangers may send any number of logout tokens", "proxy", `if c.count >= maxMisses {`, `if c.count < 0 {`},
	{"A88", "an image signs out", "proxy", `dest != "" && dest != "iframe"`, `dest == "?" && dest != "iframe"`},
	{"A89", "another site's form signs out", "proxy", `x.r.Method == http.MethodPost && err != nil`, `x.r.Method == "?" && err != nil`},
	{"A163", "each unknown key is asked for", "proxy/idp", `case k.fruitless && now.Sub(k.fetched) < fruitlessGap:`, `case k.fruitless && now.Before(k.fetched):`},
	{"A167", "a refused refresh token is sent again", "proxy/idp", `e.Kind = session.Rejected`, `e.Kind = session.Again`},
	{"A180", "without store people are sent to sign in", "proxy", `verdict{Kind: verdictUnavailable, Reason: "store_unavailable"}`, `verdict{Kind: verdictSignIn, Reason: "store_unavailable"}`},
	{"A194", "sign-ins without cookies go on and on", "proxy", `if count < maxSignInsInARow {`, `if count < 9*maxSignInsInARow {`},
	{"A196", "a sign-in goes on at another provider of that name", "proxy", `"attempt\x00" + pr.idp.Issuer() + "\x00"`, `"attempt\x00"`},
	{"A195", "nobody is warned of a secret that all can read", "config", `info.Mode().Perm()&0o006 != 0`, `info.Mode().Perm()&0 != 0`},
}

// redTest is how a test that failed is printed.
var redTest = regexp.MustCompile(`--- FAIL: Test\S+`)

// TestMutants breaks one defence after the other in a copy of the source and runs the row's test against it.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tests := filepath.Join(dir, "attack.test")
	run(t, ".", "go", "test", "-tags=attack", "-c", "-o", tests, ".")
	copied := filepath.Join(dir, "postern")
	if err := os.CopyFS(copied, sources{os.DirFS(root)}); err != nil {
		t.Fatal(err)
	}
	whole, program := filepath.Join(dir, "whole"), filepath.Join(dir, "program")
	run(t, copied, "go", "build", "-ldflags=-s -w", "-o", whole, "./cmd/postern")
	green := map[string]bool{}
	for _, m := range mutants {
		t.Run(m.row+" "+m.broken, func(t *testing.T) {
			if !green[m.row] {
				if out, err := attackWith(tests, whole, m.row); err != nil {
					t.Fatalf("red before anything is broken: %v\n%s", err, out)
				}
				green[m.row] = true
			}
			restore := m.apply(t, copied)
			defer restore()
			run(t, copied, "go", "build", "-ldflags=-s -w", "-o", program, "./cmd/postern")
			out, err := attackWith(tests, program, m.row)
			var exit *exec.ExitError
			red := redTest.FindAllString(out, -1)
			if !errors.As(err, &exit) || len(red) == 0 {
				t.Fatalf("nobody noticed: %v\n%s", err, out)
			}
			t.Logf("%q", red)
		})
	}
}

// attackWith runs the tests of one row against a program.
func attackWith(tests, program, row string) (out string, err error) {
	c := exec.Command(tests, "-test.run=^Test"+row+"_", "-test.timeout=3m", "-program="+program)
	text, err := c.CombinedOutput()
	return string(text), err
}

// apply replaces the text, which stands exactly once in the folder, and returns what puts it back.
func (m mutant) apply(t *testing.T, root string) (restore func()) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, m.folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	places, changed := 0, ""
	var before []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.from); n > 0 && !strings.HasSuffix(file, "_test.go") {
			places += n
			changed, before = file, text
		}
	}
	if places != 1 {
		t.Fatalf("%q stands %d times in %s, want once: the list is behind the source", m.from, places, m.folder)
	}
	write(t, changed, strings.Replace(string(before), m.from, m.to, 1))
	return func() { write(t, changed, string(before)) }
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	c := exec.Command(program, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprint(c.Args), err, out)
	}
}

// sources leaves out what is no source and may be large.
type sources struct{ fs.FS }

// ReadDir implements fs.ReadDirFS.
func (s sources) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(s.FS, name)
	kept := entries[:0]
	for _, e := range entries {
		if e.Name() != "node_modules" && e.Name() != ".git" && e.Type()&fs.ModeSymlink == 0 {
			kept = append(kept, e)
		}
	}
	return kept, err
}

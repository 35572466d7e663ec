package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postern/session"
)

// A51, V-04: every spelling that some application folds onto a claim is removed.
func TestStripIdentityKnowsEverySpelling(t *testing.T) {
	for _, name := range []string{
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "X-Forwarded-Access-Token",
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Uri", "X-Forwarded-Method",
		"X-Forwarded-Ssl", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded", "Forwarded", "Forwarded-For",
		"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Redirect", "Remote-User", "Remote-Groups", "X-Remote-User", "X-Remote-Addr",
		"X-Webauth-User", "X-Authentik-Username", "X-Goog-Authenticated-User-Email", "X-Ms-Client-Principal", "X-Amzn-Oidc-Data", "Cf-Access-Authenticated-User-Email",
		"X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip", "Cf-Pseudo-Ipv4", "Oidc-Claim-Sub", "Tailscale-User-Login", "Auth-User", "X-Cluster-Client-Ip", "X-Host", "X-Scheme", "Front-End-Https",
		"X-Original-Url", "X-Original-Uri", "X-Original-Method", "X-Rewrite-Url", "X-Http-Method-Override", "X-Method-Override", "X-Http-Method",
		"Client-Cert", "Client-Cert-Chain", "X-Ssl-Client-Verify", "X-Ssl-Cert", "Ssl-Client-Cert", "X-Client-Cert", "X-Client-Verify", "X-Client-Dn", "X-Arr-Clientcert",
		"Proxy", "Proxy-Authorization", "Proxy-Connection", "X-Request-Id", "Http2-Settings",
	} {
		for _, spelled := range []string{
			name, strings.ToLower(name), strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."),
			strings.ReplaceAll(name, "-", "--"), strings.ReplaceAll(name, "-", "~"), "_" + name, name + "_", "." + strings.ToLower(name) + "!",
			strings.ReplaceAll(name, "-", strings.Repeat("_", 80)),
		} {
			if strings.ContainsFunc(spelled, func(r rune) bool { return !isTokenByte(byte(r)) }) {
				t.Fatalf("%q is no header name", spelled)
			}
			h := http.Header{spelled: {"root"}}
			stripIdentity(h, nil)
			if len(h) != 0 {
				t.Errorf("%q passes", spelled)
			}
		}
	}
}

func TestStripIdentityOtherSpellingsOfSpecialHeaders(t *testing.T) {
	h := http.Header{"Author-Ization": {"x"}, "Authorization_": {"x"}, "Content_Length": {"1"}, "Transfer.Encoding": {"x"}, "Authorization": {"Basic x"}, "Content-Length": {"1"}}
	stripIdentity(h, nil)
	if diff := cmp.Diff(http.Header{"Authorization": {"Basic x"}, "Content-Length": {"1"}}, h); diff != "" {
		t.Error(diff)
	}
}

func TestStripIdentityLeavesHarmlessHeaders(t *testing.T) {
	want := http.Header{}
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Method", "Authorization", "Cache-Control", "Content-Length", "Content-Type",
		"Cookie", "Date", "Dnt", "Expect", "From", "Hx-Request", "If-Match", "If-None-Match", "Origin", "Pragma", "Priority", "Range", "Referer", "Sec-Fetch-Mode",
		"Sec-Websocket-Key", "Soapaction", "Te", "Traceparent", "Tracestate", "Transfer-Encoding", "User-Agent", "Via", "Warning", "X-Api-Key", "X-Correlation-Id", "X-Csrf-Token",
		"X-Requested-With", "X-Tenant", "X-B3-Traceid", "X-Auth-Token", "X-User-Id", "X-Access-Token", "X-Hub-Signature", "X-Gitlab-Token", "X-Client-Version", "X-Amz-Date", "X-Source", "Content-Md5",
	} {
		want[name] = []string{"v"}
	}
	got := want.Clone()
	stripIdentity(got, nil)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStripIdentityExtra(t *testing.T) {
	h := http.Header{"x_tenant.id": {"1"}, "X-Tenant": {"2"}}
	stripIdentity(h, []string{"X-Tenant-Id"})
	if diff := cmp.Diff(http.Header{"X-Tenant": {"2"}}, h); diff != "" {
		t.Error(diff)
	}
}

func TestLongestClaimIsTheBuffer(t *testing.T) {
	// Names longer than the buffer are compared by their family alone; each family fits.
	for _, families := range [][]string{xFamilies[:], otherFamilies[:]} {
		for _, f := range families {
			if len(f) > longestClaim {
				t.Errorf("%q is longer than the buffer", f)
			}
			if !claims(f) || !claims(f+"-whatever") || !claims("_"+strings.ToUpper(f)) {
				t.Errorf("%q is no claim", f)
			}
		}
	}
}

func signedInAs(i session.Identity, token string) *session.Session {
	return &session.Session{Grant: session.Grant{Identity: i, Tokens: session.Tokens{Access: token}}}
}

func TestSetIdentity(t *testing.T) {
	stale := http.Header{headerUser: {"old"}, headerEmail: {"old"}, headerPreferred: {"old"}, headerGroups: {"old"}, "Authorization": {"Basic old"}, "Accept": {"*/*"}}
	for _, tt := range []struct {
		name string
		s    *session.Session
		want http.Header
	}{
		{"nobody", nil, http.Header{}},
		{"everything", signedInAs(session.Identity{User: "u1", Email: "a@b.c", PreferredUsername: "alice", Groups: []string{"g1", "g2"}}, "tok"), http.Header{
			headerUser: {"u1"}, headerEmail: {"a@b.c"}, headerPreferred: {"alice"}, headerGroups: {"g1,g2"}, "Authorization": {"Bearer tok"},
		}},
		{"absent claims are absent", signedInAs(session.Identity{User: "u1"}, ""), http.Header{headerUser: {"u1"}}},
		{"a token that would break the header", signedInAs(session.Identity{User: "u1"}, "a\r\nX-Evil: 1"), http.Header{headerUser: {"u1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := stale.Clone()
			token := ""
			if tt.s != nil {
				token = tt.s.Tokens.Access
			}
			setIdentity(h, tt.s, token)
			tt.want["Accept"] = []string{"*/*"}
			if diff := cmp.Diff(tt.want, h); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A53, S51.
func TestClaimEncoding(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"alice", "alice"}, {"a b", "a b"}, {"José Ñ", "José Ñ"}, {`quote"d`, `quote"d`}, {"a,b", "a,b"},
		{"100%", "100%25"}, {"a\r\nX: y", "a%0D%0AX: y"}, {"a\x00", "a%00"}, {" a ", "%20a%20"}, {"a\u00a0", "a%C2%A0"}, {"\u0085", "%C2%85"}, {"\xff", "%FF"}, {"  ", "%20%20"},
	} {
		if got := encodeClaim(tt.in, false); got != tt.want {
			t.Errorf("encodeClaim(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	for _, tt := range []struct {
		in   []string
		want string
	}{
		{nil, ""}, {[]string{""}, ""}, {[]string{"a"}, "a"}, {[]string{"a,admin"}, "a%2Cadmin"}, {[]string{"a", "admin"}, "a,admin"},
		{[]string{"a%2Cadmin"}, "a%252Cadmin"}, {[]string{"x\ny", "", "/é"}, "x%0Ay,/é"},
	} {
		if got := joinGroups(tt.in); got != tt.want {
			t.Errorf("joinGroups(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzClaimEncodingIsReversible(f *testing.F) {
	f.Add("a,admin", "100%\n")
	f.Add(" ", "\xff\u00a0")
	f.Fuzz(func(t *testing.T, a, b string) {
		value := encodeClaim(a, false)
		if strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value) || strings.TrimSpace(value) != value {
			t.Errorf("%q is encoded to %q", a, value)
		}
		if back, err := url.PathUnescape(value); err != nil || back != a {
			t.Errorf("%q is encoded to %q, which is %q, %v", a, value, back, err)
		}
		if a == "" || b == "" {
			return
		}
		parts := strings.Split(joinGroups([]string{a, b}), ",")
		if len(parts) != 2 {
			t.Fatalf("two groups become %d", len(parts))
		}
		for i, want := range []string{a, b} {
			if back, err := url.PathUnescape(parts[i]); err != nil || back != want {
				t.Errorf("group %q becomes %q, %v", want, back, err)
			}
		}
	})
}

func TestStripIdentityDoesNotAllocate(t *testing.T) {
	h := browserHeader()
	if n := testing.AllocsPerRun(100, func() { stripIdentity(h, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func browserHeader() http.Header {
	return http.Header{
		"Accept": {"text/html"}, "Accept-Encoding": {"gzip"}, "Accept-Language": {"en"}, "User-Agent": {"Mozilla/5.0"}, "Cookie": {"a=1"}, "Referer": {"https://x/"},
		"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"document"}, "Upgrade-Insecure-Requests": {"1"},
		"X-Requested-With": {"XMLHttpRequest"}, "Content-Type": {"text/plain"}, "Cache-Control": {"no-cache"},
	}
}

func BenchmarkStripIdentity(b *testing.B) {
	h := browserHeader()
	b.ReportAllocs()
	for b.Loop() {
		stripIdentity(h, nil)
	}
}

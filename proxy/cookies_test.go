package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func oursForTest(name string) bool {
	return name == "__Host-postern" || strings.HasPrefix(name, "__Host-postern-login-")
}

func TestCutCookies(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want []string
	}{
		{"none", nil, nil},
		{"foreign only", []string{"a=1; b=2"}, []string{"a=1; b=2"}},
		{"alone", []string{"__Host-postern=x"}, nil},
		{"first", []string{"__Host-postern=x; a=1"}, []string{"a=1"}},
		{"middle", []string{"a=1; __Host-postern=x; b=2"}, []string{"a=1; b=2"}},
		{"last", []string{"a=1; __Host-postern=x"}, []string{"a=1"}},
		{"twice", []string{"__Host-postern=x; a=1; __Host-postern=y; b=2; __Host-postern=z"}, []string{"a=1; b=2"}},
		{"attempt cookies too", []string{"a=1; __Host-postern-login-abc=x;__Host-postern=y"}, []string{"a=1"}},
		{"no space", []string{"a=1;__Host-postern=x;b=2"}, []string{"a=1;b=2"}},
		{"odd spaces stay", []string{"a=1 ;  b = 2;__Host-postern = x;\tc=3"}, []string{"a=1 ;  b = 2;\tc=3"}},
		{"json, quotes, Latin-1 stay", []string{"j={\"x\":1,\"y\":[2]}; __Host-postern=x; q=\"a b\"; l=\xe9"}, []string{"j={\"x\":1,\"y\":[2]}; q=\"a b\"; l=\xe9"}},
		{"cookie sandwich", []string{`a="x; __Host-postern=x; b=y"`}, []string{`a="x; b=y"`}},
		{"without value", []string{"a; __Host-postern; b"}, []string{"a; b"}},
		{"nameless with our name", []string{"a=1; =__Host-postern=x"}, []string{"a=1"}},
		{"empty pairs stay", []string{";;a=1;;__Host-postern=x;;"}, []string{";;a=1;;;"}},
		{"several lines", []string{"a=1", "__Host-postern=x", "b=2; __Host-postern=x"}, []string{"a=1", "b=2"}},
		{"similar names stay", []string{"__Host-postern2=x; x__Host-postern=y; __Host-postern-loginx=z"}, []string{"__Host-postern2=x; x__Host-postern=y; __Host-postern-loginx=z"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			if tt.in != nil {
				h["Cookie"] = tt.in
			}
			cutCookies(h, oursForTest)
			if diff := cmp.Diff(tt.want, h["Cookie"]); diff != "" {
				t.Error(diff)
			}
			if _, ok := h["Cookie"]; ok != (tt.want != nil) {
				t.Error("an empty Cookie header is left")
			}
		})
	}
}

// A141: net/http stops parsing at 3,000 cookies, and a proxy that parses then sends the session cookie on.
func TestCutCookiesHasNoLimit(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "c%d=%d; ", i, i)
	}
	foreign := b.String() + "z=1"
	h := http.Header{"Cookie": {b.String() + "__Host-postern=secret; z=1"}}
	cutCookies(h, oursForTest)
	if got := h.Get("Cookie"); got != foreign {
		t.Errorf("got %d bytes, want %d", len(got), len(foreign))
	}
}

func TestFilterSetCookie(t *testing.T) {
	h := http.Header{"Set-Cookie": {
		"a=1; Path=/", "__Host-postern=evil; Path=/", " __Host-postern =evil", "=__Host-postern=evil", "__Host-postern; Max-Age=0", "b=2; X=__Host-postern=1",
		"__Host-postern-login-1=x",
	}}
	filterSetCookie(h, oursForTest)
	if diff := cmp.Diff([]string{"a=1; Path=/", "b=2; X=__Host-postern=1"}, h["Set-Cookie"]); diff != "" {
		t.Error(diff)
	}
	h = http.Header{"Set-Cookie": {"__Host-postern=evil"}}
	filterSetCookie(h, oursForTest)
	if len(h) != 0 {
		t.Error(h)
	}
}

func FuzzCutCookiesKeepsForeignBytes(f *testing.F) {
	f.Add("a=1; __Host-postern=x; b=2")
	f.Add(";;__Host-postern=x;;a")
	f.Add(" __Host-postern = x ;\t=__Host-postern; y=\xff")
	f.Fuzz(func(t *testing.T, line string) {
		var foreign []string
		found := false
		for pair := range strings.SplitSeq(line, ";") {
			if oursForTest(cookieName(pair)) {
				found = true
				continue
			}
			foreign = append(foreign, pair)
		}
		want := line
		if found {
			want = strings.Trim(strings.Join(foreign, ";"), " \t")
		}
		if got := cutCookieLine(line, oursForTest); got != want {
			t.Errorf("cutCookieLine(%q) = %q, want %q", line, got, want)
		}
		h := http.Header{"Cookie": {line, "k=v"}}
		cutCookies(h, oursForTest)
		for _, l := range h["Cookie"] {
			for pair := range strings.SplitSeq(l, ";") {
				if oursForTest(cookieName(pair)) {
					t.Errorf("our cookie is left in %q", l)
				}
			}
		}
		r := http.Request{Header: h}
		for _, c := range r.Cookies() {
			if oursForTest(c.Name) {
				t.Errorf("net/http finds our cookie in %q", h["Cookie"])
			}
		}
	})
}

func BenchmarkCutCookies(b *testing.B) {
	line := "theme=dark; __Host-postern=" + strings.Repeat("x", 200) + "; lang=en"
	h := http.Header{}
	lines := []string{""}
	b.ReportAllocs()
	for b.Loop() {
		lines[0] = line
		h["Cookie"] = lines
		cutCookies(h, oursForTest)
	}
}

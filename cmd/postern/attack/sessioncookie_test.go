//go:build attack

package attack_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestA140_CookiesOfOurNameFromElsewhere(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	good, bad := w.cookie+"="+b.session(), w.cookie+"="+strings.Repeat("A", 190)
	w.provider.SignInAs("mallory")
	attacker := w.browser()
	attacker.signIn("/")
	for name, tt := range map[string]struct {
		cookie string
		status int
		user   string
	}{
		"good first": {good + "; " + bad, 200, "alice"}, "good last": {bad + "; " + good, 200, "alice"}, "twice the same": {good + "; " + good, 200, "alice"}, "in two lines": {bad + "\r\nCookie: " + good, 200, "alice"},
		"in quotes": {w.cookie + `="` + b.session() + `"`, 401, ""}, "without name": {"=" + good, 401, ""}, "another case": {strings.ToLower(w.cookie) + "=" + b.session(), 401, ""}, "all bad": {bad + "; " + bad, 401, ""},
		"good after many": {strings.Repeat(bad+"; ", 20) + good, 401, ""}, "space in the name": {w.cookie + " =" + b.session(), 200, "alice"}, "without prefix": {"postern=" + b.session(), 401, ""},
	} {
		w.app.forget()
		a := w.ask(w.get("/", "Cookie: "+tt.cookie))
		if tt.status == 200 && name == "space in the name" && a != nil && a.status == 401 {
			continue // refused is as good
		}
		if a == nil || a.status != tt.status {
			t.Errorf("%s: %+v", name, a)
			continue
		}
		if tt.status != 200 {
			w.app.none(t)
			continue
		}
		got := w.app.one(t)
		if user := strings.Join(got.folded("X-Forwarded-User"), "|"); user != tt.user {
			t.Errorf("%s: user %q", name, user)
		}
		if strings.Contains(got.raw, b.session()) || strings.Contains(got.raw, "AAAAAAAA") {
			t.Errorf("%s: the application gets a cookie of ours: %q", name, got.raw)
		}
	}
	// Of two good ones it is one person, never a mixture.
	for _, cookie := range []string{good + "; " + w.cookie + "=" + attacker.session(), w.cookie + "=" + attacker.session() + "; " + good} {
		w.app.forget()
		w.ask(w.get("/", "Cookie: "+cookie))
		raw := w.app.one(t).raw
		if strings.Contains(raw, "alice") == strings.Contains(raw, "mallory") {
			t.Errorf("the application gets %q", raw)
		}
	}
}

// shape is what an answer tells: all but what is different in each.
func shape(a *answer) string {
	h := a.header.Clone()
	for _, name := range []string{"Date", "X-Request-Id"} {
		h.Del(name)
	}
	id := a.header.Get("X-Request-Id")
	body := a.body
	if id != "" {
		body = strings.ReplaceAll(body, id, "")
	} else if at := strings.Index(body, `"request_id":"`); at >= 0 {
		end := strings.Index(body[at+14:], `"`)
		body = body[:at] + body[at+14+end:]
	}
	return fmt.Sprint(a.status, h, body)
}

func TestA143_DamagedCookiesTellNothing(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{publicURL: "-", routes: "  - {host: app.example.com, upstream: {app}}\n  - {host: b.example.com, upstream: {app}}\n"})
	b := w.browser()
	b.signIn("/")
	value := b.session()
	login := b.callback("/oauth2/start?rd=/")
	var attempt string
	for _, c := range b.all() {
		if strings.Contains(c.Name, "-login-") && !strings.HasSuffix(c.Name, "loop") {
			attempt = c.Value
		}
	}
	if attempt == "" {
		t.Fatal("no attempt")
	}
	w.app.forget()
	begin := time.Now()
	none := shape(w.ask(w.get("/", "Cookie: "+w.cookie+"="+strings.Repeat("A", len(value)))))
	t.Logf("an answer takes %v", time.Since(begin))
	damaged := map[string]string{
		"empty": "", "a letter less": value[:len(value)-1], "a letter more": value + "A", "half": value[:len(value)/2], "twice": value + value, "padding": value + "==", "upper case": strings.ToUpper(value), "binary": "\x80\xff\x01",
		"long": strings.Repeat("A", 4000), "escaped": "%41" + value[1:], "of an attempt": attempt, "of a state": login.Query().Get("state"), "space": " " + strings.Repeat("A", 180),
	}
	for i := range value {
		damaged[fmt.Sprint("letter ", i)] = value[:i] + flip(value[i]) + value[i+1:]
	}
	// The last letter of base64 may carry bits that nobody reads.
	for name, cookie := range damaged {
		a := w.ask(w.get("/", "Cookie: "+w.cookie+"="+cookie))
		if name == "binary" && a.status == http.StatusBadRequest {
			continue // no header
		}
		if got := shape(a); got != none {
			t.Errorf("%s: %s\nwant %s", name, got, none)
		}
	}
	w.app.none(t)
	if got := w.ask(w.get("/", "Cookie: "+w.cookie+"-x="+value)); got.status != http.StatusUnauthorized {
		t.Errorf("under another name: %d", got.status)
	}
	for name, line := range map[string]string{"attempt": w.cookie + "-login-0123456789abcdef=" + value, "loop": w.cookie + "-login-loop=" + value} {
		if got := w.ask(w.get("/", "Cookie: "+line)); got.status != http.StatusUnauthorized {
			t.Errorf("as the cookie of the %s: %d", name, got.status)
		}
	}
	if got := w.presents(value); got != http.StatusOK {
		t.Fatalf("the good one: %d", got)
	}
	w.app.forget()
	w.otherKey()
	w.restart()
	if got := w.ask(w.get("/", "Cookie: "+w.cookie+"="+value)); shape(got) != none {
		t.Errorf("after the key has gone: %s\nwant %s", shape(got), none)
	}
	w.app.none(t)
	n := 0
	for _, e := range w.log.entries() {
		if e["msg"] != "request" && strings.Contains(fmt.Sprint(e), "key_unknown") {
			n++
		}
	}
	if n > 20 {
		t.Errorf("%d lines about strange cookies, beside those of the requests", n)
	}
}

// What sets cookies: their attributes are those that browsers hold to one host, over https, out of reach of scripts (S20, S44).
func TestCookiesAreHostBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	b := w.browser()
	var all []*http.Cookie
	first := b.navigate("/x")
	back := b.navigate(first.header.Get("Location")).header.Get("Location")
	for _, h := range []http.Header{first.header, b.navigate(back).header} {
		all = append(all, (&http.Response{Header: h}).Cookies()...)
	}
	if len(all) < 3 || !slices.ContainsFunc(all, func(c *http.Cookie) bool { return c.Name == w.cookie }) {
		t.Fatalf("cookies %v", all)
	}
	for _, c := range all {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode || len(c.Name)+len(c.Value) > 4096 || c.MaxAge > 400*86400 {
			t.Errorf("%s", c.Raw)
		}
	}
}

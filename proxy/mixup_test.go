package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// mixConfig has an honest provider, corp, and one that turns hostile, partners. The marks stand for further keys of each.
const mixConfig = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret HONEST}
  partners: {client_id: wiki, client_secret: canary-client-secret HOSTILE}
routes:
  - {upstream: "${UPSTREAM}"}
`

const (
	openID = `, issuer: "${PARTNERS}"`
	plain  = `, oauth2: {authorize_url: "${PARTNERS_AUTHORIZE}", token_url: "${PARTNERS_TOKEN}", userinfo_url: "${PARTNERS_USERINFO}"}, identity: userinfo`
	own    = `, own_callback: true`
)

// attack plays the mix-up of RFC 9700 section 4.4.1: the person begins to sign in at the hostile provider, which sends the browser on to the honest one
// with the state of its own attempt, and waits for the honest one's code at its token endpoint.
func (w *two) attack(t *testing.T, b *proxytest.Browser, redirectURI string) proxytest.Answer {
	t.Helper()
	begun := mustURL(t, b.Step("/oauth2/start?rd=/&provider=partners").Header.Get("Location")).Query()
	if begun.Get("state") == "" {
		t.Fatal("no sign-in has begun")
	}
	q := url.Values{"response_type": {"code"}, "client_id": {"wiki"}, "scope": {"openid"}, "redirect_uri": {redirectURI}, "state": {begun.Get("state")}}
	for _, name := range []string{"nonce", "code_challenge", "code_challenge_method"} {
		if begun.Has(name) {
			q.Set(name, begun.Get(name))
		}
	}
	a := b.Step(w.Provider.EndpointURL(idptest.Authorize) + "?" + q.Encode())
	back := a.Header.Get("Location")
	if !strings.HasPrefix(back, w.URL) || mustURL(t, back).Query().Get("code") == "" {
		t.Fatalf("the honest provider gave no code: %s %s %s", a.Status, back, a.Text)
	}
	return b.Step(back)
}

// A9: the honest provider's code never reaches the hostile one's token endpoint, and nobody is signed in.
func TestA9_S7_MixUp(t *testing.T) {
	for name, c := range map[string]struct {
		honest, hostile string
		redirect        string // where the hostile provider has the honest one answer: what is registered there
	}{
		"the honest one names itself":                         {"", openID, "/oauth2/callback"},
		"the hostile one is no OpenID provider":               {"", plain, "/oauth2/callback"},
		"the honest one has its own callback":                 {own, openID, "/oauth2/callback/corp"},
		"own callback, hostile one without issuer":            {own, plain, "/oauth2/callback/corp"},
		"the hostile one has its own callback":                {"", openID + own, "/oauth2/callback"},
		"the hostile one without issuer has its own callback": {"", plain + own, "/oauth2/callback"},
		"both have their own":                                 {own, openID + own, "/oauth2/callback/corp"},
	} {
		for _, names := range []bool{true, false} {
			if !names && !strings.Contains(c.honest+c.hostile, own) {
				continue // without either defence it cannot be seen: that is what check and the log warn of
			}
			w := newTwo(t, strings.NewReplacer("HONEST", c.honest, "HOSTILE", c.hostile).Replace(mixConfig), "/oauth2/callback/corp", "/oauth2/callback/partners")
			w.partners.SetIssParameter(false) // a hostile provider says what suits it
			w.Provider.SetIssParameter(names)
			b := w.Browser()
			a := w.attack(t, b, w.URL+c.redirect)
			if a.StatusCode < 400 || b.Cookie(corpCookie) != nil || b.Cookie(otherCookie) != nil {
				t.Errorf("%s (iss %v): %s, cookies %v", name, names, a.Status, b.Cookies())
			}
			if n, m := w.partners.Calls(idptest.Token), w.Provider.Calls(idptest.Token); n+m != 0 || w.store.made() != 0 {
				t.Errorf("%s (iss %v): the code reached %d hostile and %d honest token endpoints, %d sessions", name, names, n, m, w.store.made())
			}
		}
	}
}

// An answer counts only at its provider's own address, and no other answers there.
func TestOwnCallback(t *testing.T) {
	w := newTwo(t, strings.NewReplacer("HONEST", own, "HOSTILE", openID).Replace(mixConfig), "/oauth2/callback/corp")
	b := w.Browser()
	if got := b.Go("/oauth2/start?rd=/&provider=corp").Received(t); got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("signed in as %v", got.Header)
	}
	if !strings.HasPrefix(b.Trail[2], w.URL+"/oauth2/callback/corp?") {
		t.Errorf("the way in: %v", b.Trail)
	}
	if got := w.Browser().Go("/oauth2/start?rd=/&provider=partners").Received(t); got.Header.Get("X-Forwarded-User") != "carol" {
		t.Errorf("signed in as %v", got.Header)
	}
	tokens := w.Provider.Calls(idptest.Token) + w.partners.Calls(idptest.Token)
	for provider, elsewhere := range map[string]string{"corp": "/oauth2/callback", "partners": "/oauth2/callback/corp"} {
		b := w.Browser()
		there := b.Step(b.Step("/oauth2/start?rd=/&provider=" + provider).Header.Get("Location")).Header.Get("Location")
		if a := b.Step(w.URL + elsewhere + "?" + mustURL(t, there).RawQuery); a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s answers at %s: %s", provider, elsewhere, a.Status)
		}
		if got := b.Go(there).Received(t); got.Header.Get("X-Forwarded-User") == "" { // the attempt was not spent by that
			t.Errorf("%s at its own address: %v", provider, got.Header)
		}
	}
	if n := w.Provider.Calls(idptest.Token) + w.partners.Calls(idptest.Token) - tokens; n != 2 {
		t.Errorf("%d codes were exchanged, want 2", n)
	}
	if a := b.Step("/oauth2/callback/partners?code=a&state=b"); a.StatusCode != http.StatusNotFound {
		t.Errorf("a callback that no provider has: %s", a.Status)
	}
}

// RFC 9207: a provider that says that it names itself always does, in errors too.
func TestS25_AnswersNameTheirIssuer(t *testing.T) {
	w := newTwo(t, strings.NewReplacer("HONEST", "", "HOSTILE", openID).Replace(mixConfig))
	for _, iss := range [][]string{nil, {""}, {w.partners.URL}, {w.Provider.URL + "/"}, {w.Provider.URL, w.Provider.URL}} {
		w.Provider.MutateAuthorizeAnswer(func(q url.Values) { q["iss"] = iss })
		if a := w.Browser().Go("/oauth2/start?rd=/&provider=corp"); a.StatusCode != http.StatusBadRequest || w.Provider.Calls(idptest.Token) != 0 {
			t.Errorf("iss %q: %s", iss, a.Status)
		}
	}
	w.Provider.MutateAuthorizeAnswer(nil)
	w.Browser().Go("/oauth2/start?rd=/&provider=corp").Received(t)
}

// The operator is told once of a provider whose answers cannot be told from another's.
func TestTheLogNamesProvidersThatDoNotNameThemselves(t *testing.T) {
	const doubt = "does not name itself in its answers"
	silent := idptest.NewServer(t)
	silent.SetIssParameter(false)
	for text, want := range map[string]int{
		strings.NewReplacer("HONEST", "", "HOSTILE", `, issuer: "${SILENT}"`).Replace(mixConfig):     1,
		strings.NewReplacer("HONEST", "", "HOSTILE", `, issuer: "${SILENT}"`+own).Replace(mixConfig): 0,
		strings.NewReplacer("HONEST", own, "HOSTILE", `, issuer: "${SILENT}"`).Replace(mixConfig):    0,
		strings.Replace(proxytest.Minimal, "${ISSUER}", "${SILENT}", 1):                              0,
	} {
		s := proxytest.New(t, proxytest.Options{Config: text, Env: map[string]string{"SILENT": silent.URL}})
		proxytest.Eventually(t, func() bool { return strings.Contains(s.Log.String(), `"issuer":"`+silent.URL+`"`) })
		s.Stop()
		if n := strings.Count(s.Log.String(), doubt); n != want {
			t.Errorf("told %d times, want %d:\n%s", n, want, text)
		}
	}
}

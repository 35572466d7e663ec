package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

const stepUpConfig = `
server: {listen: "${LISTEN}"}
session: {idle_timeout: 4h, lifetime: 10h}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}"}
  - {path: /strong, access: {acr: [gold, "urn:example:mfa"]}, upstream: "${UPSTREAM}"}
  - {path: /recent, access: {max_age: 15m}, upstream: "${UPSTREAM}"}
  - {path: /both, access: {groups: [wiki-users], acr: gold, max_age: 15m}, upstream: "${UPSTREAM}"}
  - {path: /closed, access: {groups: [nobody], acr: gold}, upstream: "${UPSTREAM}"}
  - {path: /form, methods: [POST], access: {acr: gold}, upstream: "${UPSTREAM}"}
  - {path: /form, upstream: "${UPSTREAM}"}
`

// strength is how the provider signs people in, and what it was asked for.
type strength struct {
	mu       sync.Mutex
	obeys    bool   // signs in as it is asked; else always as acr
	acr      string // of the next ID tokens
	authTime func() (time.Time, bool)
	asked    []url.Values
}

// newStrength makes the provider of s sign people in with the strength that is asked for, and with pwd where none is.
func newStrength(s *proxytest.Stack) *strength {
	p := &strength{obeys: true}
	s.Provider.On(idptest.Authorize, func(_ http.ResponseWriter, r *http.Request) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked = append(p.asked, r.Form)
		if p.obeys {
			p.acr = "pwd"
			if first, _, _ := strings.Cut(r.Form.Get("acr_values"), " "); first != "" {
				p.acr = first
			}
		}
		return false
	})
	s.Provider.MutateIDToken(func(_, claims map[string]any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		claims["acr"] = p.acr
		if p.authTime == nil {
			return
		}
		delete(claims, "auth_time")
		if at, ok := p.authTime(); ok {
			claims["auth_time"] = at.Unix()
		}
	})
	return p
}

// always makes the provider sign in like that whatever it is asked. A nil authTime leaves that as it is.
func (p *strength) always(acr string, authTime func() (time.Time, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.obeys, p.acr, p.authTime = false, acr, authTime
}

// requests are the authorization requests since it was asked last.
func (p *strength) requests() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.asked
	p.asked = nil
	return all
}

// S34, A6: whoever is signed in too weakly goes to the provider with the demand, and comes back to a new session with a new id and key.
func TestS34_A6_AWeakSessionStepsUp(t *testing.T) {
	store := &partialStore{Store: newCountingStore()}
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig, Store: store})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/").Received(t)
	weak := b.Cookie(sessionCookie).Value
	p.requests()
	got := b.Go("/strong/page?x=1").Received(t)
	if got.Target != "/strong/page?x=1" || got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("came back to %s as %v", got.Target, got.Header)
	}
	asked := p.requests()
	if len(asked) != 1 || asked[0].Get("acr_values") != "gold urn:example:mfa" || asked[0].Has("max_age") || asked[0].Has("prompt") {
		t.Errorf("the provider was asked %v", asked)
	}
	strong := b.Cookie(sessionCookie).Value
	if strong == weak || store.made() != 2 || store.keys[0] == store.keys[1] {
		t.Errorf("the session has the same id or key: %v", store.keys)
	}
	thief := s.Browser()
	thief.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: weak, Path: "/"}})
	if a := thief.Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `"ended":"replaced"`) {
		t.Errorf("the weak session lives on: %s %s", a.Status, a.Text)
	}
	if b.Go("/strong").Received(t); len(p.requests()) != 0 {
		t.Error("a strong session stepped up again")
	}
	if b.Go("/").Received(t); len(p.requests()) != 0 {
		t.Error("a strong session is not enough where any is")
	}
}

func TestS34_AnOldSessionSignsInAgain(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/recent").Received(t)
	first := p.requests()
	if len(first) != 1 || first[0].Get("max_age") != "900" || first[0].Has("acr_values") {
		t.Errorf("the first sign-in asks %v", first)
	}
	s.Clock.Add(14 * time.Minute)
	if b.Go("/recent").Received(t); len(p.requests()) != 0 {
		t.Error("asked before max_age")
	}
	s.Clock.Add(2 * time.Minute)
	b.Go("/").Received(t)
	b.Go("/recent").Received(t)
	if again := p.requests(); len(again) != 1 || again[0].Get("max_age") != "900" {
		t.Errorf("asks %v", again)
	}
}

// A first sign-in for a route that demands something asks for it at once, by whatever way it is begun.
func TestAFirstSignInIsStrongEnoughAtOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	for _, address := range []string{"/both/x", "/oauth2/start?rd=/both/x", "/oauth2/start?rd=" + url.QueryEscape(s.URL+"/both/x")} {
		if got := s.Browser().Go(address).Received(t); got.Target != "/both/x" {
			t.Errorf("%s led to %s", address, got.Target)
		}
		if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != "gold" || asked[0].Get("max_age") != "900" {
			t.Errorf("%s: the provider was asked %v", address, asked)
		}
	}
}

// RFC 9470 section 3: programs are told what is wanted, and where a person can do it.
func TestS34_ProgramsAreToldToStepUp(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/").Received(t)
	s.Clock.Add(time.Hour)
	a := b.Do("GET", "/both/api", nil, map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "application/json", "Referer": s.URL + "/app?tab=2"})
	want := `Bearer realm="127.0.0.1", error="insufficient_user_authentication", error_description="A stronger or more recent sign-in is required", acr_values="gold", max_age="900"`
	if got := a.Header.Get("WWW-Authenticate"); a.StatusCode != http.StatusUnauthorized || got != want {
		t.Errorf("%s, WWW-Authenticate %s", a.Status, got)
	}
	var problem struct {
		Code      string
		LoginURL  string   `json:"login_url"`
		ACRValues []string `json:"acr_values"`
		MaxAge    int      `json:"max_age"`
	}
	if err := json.Unmarshal([]byte(a.Text), &problem); err != nil || problem.Code != "insufficient_user_authentication" || len(problem.ACRValues) != 1 || problem.MaxAge != 900 {
		t.Errorf("%v: %s", err, a.Text)
	}
	if len(a.Cookies()) > 0 || len(p.requests()) != 1 {
		t.Error("a program began a sign-in")
	}
	// The page that it leads back to demands nothing itself.
	if got := b.Go(problem.LoginURL).Received(t); got.Target != "/app?tab=2" {
		t.Errorf("login_url led to %s", got.Target)
	}
	if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != "gold" || asked[0].Get("max_age") != "900" {
		t.Errorf("login_url asked %v", asked)
	}
	if a := b.Fetch("/both/api"); a.StatusCode != 200 {
		t.Errorf("after login_url: %s %s", a.Status, a.Text)
	}
}

func TestAFormToAStrongRouteIsNotSentAndLeadsToTheStepUp(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/form").Received(t)
	n := len(s.App.Requests())
	p.requests()
	a := b.Do("POST", "/form", strings.NewReader("a=b"), map[string]string{"Referer": s.URL + "/form", "Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"})
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, "Nothing was sent") || len(s.App.Requests()) != n {
		t.Fatalf("%s %s", a.Status, a.Text)
	}
	if got := b.Go(linkTo(t, a, "Sign in")).Received(t); got.Target != "/form" {
		t.Errorf("led to %s", got.Target)
	}
	if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != "gold" {
		t.Errorf("asked %v", asked)
	}
	if a := b.Do("POST", "/form", strings.NewReader("a=b"), nil); a.StatusCode != 200 {
		t.Errorf("after the step-up: %s", a.Status)
	}
}

// How strong a sign-in must be is not for whoever makes a link to say.
func TestALinkCannotDemandOrSoften(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/").Received(t)
	other := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	foreign := other.Browser()
	foreign.Go("/").Received(t)
	newStrength(other)
	login := foreign.Fetch("/strong").Text
	sealed, _, _ := strings.Cut(login[strings.Index(login, "step_up=")+len("step_up="):], `\u0026`) // as JSON writes &
	for _, more := range []string{"&acr_values=evil&max_age=1", "&step_up=evil", "&step_up=", "&step_up=" + sealed} {
		p.requests()
		b.Go("/oauth2/start?rd=/" + more).Received(t)
		if asked := p.requests(); len(asked) != 1 || asked[0].Has("acr_values") || asked[0].Has("max_age") {
			t.Errorf("%.40s: asked %v", more, asked)
		}
		b.Go("/oauth2/start?rd=/strong" + more).Received(t)
		if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != "gold urn:example:mfa" {
			t.Errorf("%.40s to the strong route: asked %v", more, asked)
		}
	}
}

// What the provider says afterwards counts, not what it was asked: a sign-in that does not meet the demand makes no session, ends none, and does not loop.
func TestS34_A_ProviderThatPassesOverTheDemand(t *testing.T) {
	ago := func(s *proxytest.Stack, d time.Duration) func() (time.Time, bool) {
		return func() (time.Time, bool) { return s.Clock.Now().Add(-d), true }
	}
	for name, c := range map[string]struct {
		path     string
		acr      string
		authTime func(*proxytest.Stack) func() (time.Time, bool)
		asked    int // authorization requests
		status   int
	}{
		"weak":                {"/strong", "pwd", nil, 1, 403},
		"acr missing":         {"/strong", "", nil, 1, 403},
		"acr in another case": {"/strong", "GOLD", nil, 1, 403},
		"stale":               {"/recent", "pwd", func(s *proxytest.Stack) func() (time.Time, bool) { return ago(s, time.Hour) }, 2, 403},
		"auth_time missing": {"/recent", "pwd", func(*proxytest.Stack) func() (time.Time, bool) {
			return func() (time.Time, bool) { return time.Time{}, false }
		}, 1, 403},
		"auth_time tomorrow":       {"/recent", "pwd", func(s *proxytest.Stack) func() (time.Time, bool) { return ago(s, -24*time.Hour) }, 1, 502},
		"a second within leeway":   {"/recent", "pwd", func(s *proxytest.Stack) func() (time.Time, bool) { return ago(s, 14*time.Minute) }, 1, 200},
		"strong enough, but stale": {"/both", "gold", func(s *proxytest.Stack) func() (time.Time, bool) { return ago(s, time.Hour) }, 2, 403},
	} {
		for _, signedIn := range []bool{true, false} {
			store := &partialStore{Store: newCountingStore()}
			s := proxytest.New(t, proxytest.Options{Config: stepUpConfig, Store: store})
			p := newStrength(s)
			b := s.Browser()
			var cookie string
			if signedIn {
				b.Go("/").Received(t)
				cookie = b.Cookie(sessionCookie).Value
				s.Clock.Add(time.Hour)
			}
			n := store.made()
			var authTime func() (time.Time, bool)
			if c.authTime != nil {
				authTime = c.authTime(s)
			}
			p.always(c.acr, authTime)
			p.requests()
			a := b.Go(c.path)
			asked := p.requests()
			if a.StatusCode != c.status || len(asked) != c.asked {
				t.Errorf("%s: %s after %d requests, want %d after %d: %s", name, a.Status, len(asked), c.status, c.asked, a.Text)
				continue
			}
			if len(asked) == 2 && (asked[0].Has("prompt") || asked[1].Get("prompt") != "login" || asked[1].Get("max_age") != "900") {
				t.Errorf("%s: asked %v", name, asked)
			}
			if c.status == 200 {
				continue
			}
			if c.status == 403 && !strings.Contains(a.Text, "not as strongly or as recently") {
				t.Errorf("%s: the page does not say why: %s", name, a.Text)
			}
			if store.made() != n {
				t.Errorf("%s: a session was made", name)
			}
			if signedIn && (b.Cookie(sessionCookie) == nil || b.Cookie(sessionCookie).Value != cookie || b.Fetch("/").StatusCode != 200) {
				t.Errorf("%s: the session before it has ended", name)
			}
			if !signedIn && b.Cookie(sessionCookie) != nil {
				t.Errorf("%s: signed in", name)
			}
			if c.status == 403 { // the page leads to one more try
				p.always("gold", nil)
				if got := b.Go(linkTo(t, a, "Sign in")).Received(t); got.Target != c.path {
					t.Errorf("%s: the way on led to %s", name, got.Target)
				}
			}
		}
	}
}

// A provider that obeys prompt=login but not max_age: the second try succeeds by itself.
func TestAStaleSignInIsTriedOnceMore(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	p.always("pwd", func() (time.Time, bool) {
		if p.asked[len(p.asked)-1].Get("prompt") == "login" { // under the lock
			return s.Clock.Now(), true
		}
		return s.Clock.Now().Add(-time.Hour), true
	})
	b := s.Browser()
	if got := b.Go("/recent/x").Received(t); got.Target != "/recent/x" {
		t.Errorf("came back to %s", got.Target)
	}
	if asked := p.requests(); len(asked) != 2 {
		t.Errorf("asked %v", asked)
	}
}

// A17: the demand fits into the cookie of the sign-in, whatever else is in there.
func TestA17_TheCookieOfAStepUpIsBounded(t *testing.T) {
	acr := strings.Repeat("x", 256)
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(stepUpConfig, "acr: gold, max_age: 15m", "acr: "+acr+", max_age: 15m", 1)})
	p := newStrength(s)
	b := s.Browser()
	for _, more := range []string{"", "?q=" + strings.Repeat("x", 1000), "/" + strings.Repeat("y", 1500)} {
		a := b.Step("/both/page" + more)
		for _, c := range a.Cookies() {
			if len(c.Name)+len(c.Value) > 700 {
				t.Errorf("%.20s: a cookie of %d bytes", more, len(c.Name)+len(c.Value))
			}
		}
		b.Go(a.Header.Get("Location"))
		if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != acr {
			t.Errorf("%.20s: asked %v", more, asked)
		}
		if a := b.Fetch("/both"); a.StatusCode != 200 {
			t.Errorf("%.20s: %s", more, a.Status)
		}
		b.Forget(sessionCookie)
	}
}

// OpenID Connect's own word for "not as strongly as that".
func TestAProviderThatCannotStepUpSaysSo(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.RefuseSignIn("unmet_authentication_requirements", "")
	if a := b.Go("/strong"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.Text, "not as strongly") {
		t.Errorf("%s %s", a.Status, a.Text)
	}
	if a := b.Fetch("/"); a.StatusCode != 200 {
		t.Errorf("the session has ended: %s", a.Status)
	}
}

// Whom the other conditions keep out is not sent to the provider in vain.
func TestOtherConditionsAreDecidedBeforeTheStepUp(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	b := s.Browser()
	b.Go("/").Received(t)
	if a := b.Step("/closed"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.Text, "may not open this page") {
		t.Errorf("%s %s", a.Status, a.Header.Get("Location"))
	}
}

// A session that is strong enough at one of two providers counts; where none is, one of them steps up.
func TestStepUpWithSeveralProviders(t *testing.T) {
	w := newTwo(t, chooseConfig+`  - {path: /strong, access: {acr: gold}, upstream: "${UPSTREAM}"}`+"\n")
	p := newStrength(w.Stack)
	b := w.Browser()
	b.Go("/partners").Received(t)
	if a := b.Step("/strong"); !strings.HasPrefix(a.Header.Get("Location"), w.partners.URL) {
		t.Errorf("the only session does not step up: %s to %s", a.Status, a.Header.Get("Location"))
	}
	p.always("gold", nil)
	b.Go("/corp").Received(t)
	if got := b.Go("/strong").Received(t); got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("the strong one does not count: %v", got.Header)
	}
	w.store.lose(1)
	if a := b.Step("/strong"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the strong one is not known now: %s to %s", a.Status, a.Header.Get("Location"))
	}
}

// Each dialect renders the same step-up.
func TestStepUpByForwardAuth(t *testing.T) {
	for _, dialect := range dialects {
		s := proxytest.New(t, proxytest.Options{Config: strings.Replace(stepUpConfig, `"${LISTEN}"}`, `"${LISTEN}", trusted_proxies: [127.0.0.1/32]}`+"\nforward_auth: {dialect: "+dialect+"}", 1)})
		p := newStrength(s)
		b := s.Browser()
		b.Go("/").Received(t)
		p.requests()
		method, target, header := question(dialect, "GET", "/strong/page", strings.TrimPrefix(s.URL, "http://"))
		a := b.Do(method, target, nil, header)
		there, want := a.Header.Get("Location"), http.StatusSeeOther
		if dialect == "nginx" {
			there, want = a.Header.Get("X-Postern-Redirect"), http.StatusUnauthorized
			if !strings.Contains(a.Header.Get("WWW-Authenticate"), `acr_values="gold urn:example:mfa"`) {
				t.Errorf("nginx: WWW-Authenticate %s", a.Header.Get("WWW-Authenticate"))
			}
		}
		if a.StatusCode != want || a.Header.Get("X-Postern-Verdict") != "sign_in" {
			t.Errorf("%s: %s, verdict %s", dialect, a.Status, a.Header.Get("X-Postern-Verdict"))
		}
		b.Go(there)
		if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != "gold urn:example:mfa" {
			t.Errorf("%s: %q asked %v", dialect, there, asked)
		}
		if a := b.Do(method, target, nil, header); a.StatusCode != 200 {
			t.Errorf("%s: after the step-up %s", dialect, a.Status)
		}
		header["Sec-Fetch-Mode"], header["Sec-Fetch-Dest"] = "cors", "empty"
		s.Clock.Add(time.Hour)
		method, target, recent := question(dialect, "GET", "/recent", strings.TrimPrefix(s.URL, "http://"))
		recent["Sec-Fetch-Mode"], recent["Sec-Fetch-Dest"], recent["Accept"] = "cors", "empty", "application/json"
		if a := b.Do(method, target, nil, recent); a.StatusCode != 401 || !strings.Contains(a.Header.Get("WWW-Authenticate"), `max_age="900"`) {
			t.Errorf("%s: a script gets %s, %s", dialect, a.Status, a.Header.Get("WWW-Authenticate"))
		}
	}
}

// demanding is an application that wants gold on /vault and below, by its own challenge, and never has enough on /never.
func demanding(w http.ResponseWriter, r *http.Request) {
	strong := strings.Contains(r.Header.Get("X-Acr"), "gold")
	if strings.HasPrefix(r.URL.Path, "/vault") && !strong || strings.HasPrefix(r.URL.Path, "/never") {
		w.Header().Set("Set-Cookie", "app=1")
		w.Header().Set("WWW-Authenticate", r.Header.Get("X-Challenge"))
		if r.Header.Get("X-Challenge") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_user_authentication", error_description="no, \"gold\"", acr_values="gold", max_age=0`)
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprint(w, "the application's own answer")
		return
	}
	_, _ = fmt.Fprint(w, "served ", r.URL.Path)
}

const demandingConfig = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}", headers: {X-Acr: session.acr}}
  - {path: /vault/401, unauthenticated: deny, upstream: "${UPSTREAM}", headers: {X-Acr: session.acr}}
  - {path: /vault/open, access: public, upstream: "${UPSTREAM}"}
`

// S34: an application's own 401 with that challenge starts the step-up for navigations; everybody else gets it as it is.
func TestS34_TheApplicationDemandsAStepUp(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: demandingConfig, App: http.HandlerFunc(demanding)})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/")
	p.requests()
	for name, a := range map[string]proxytest.Answer{
		"script":            b.Fetch("/vault/x"),
		"form":              b.Do("POST", "/vault/x", strings.NewReader("a=b"), nil),
		"frame":             b.Do("GET", "/vault/x", nil, map[string]string{"Sec-Fetch-Dest": "iframe"}),
		"route that denies": b.Step("/vault/401"),
		"public route":      b.Step("/vault/open"),
		"no demand":         b.Do("GET", "/vault/x", nil, map[string]string{"X-Challenge": `Bearer error="insufficient_user_authentication"`}),
		"another error":     b.Do("GET", "/vault/x", nil, map[string]string{"X-Challenge": `Bearer error="invalid_token", acr_values="gold"`}),
		"a header in acr":   b.Do("GET", "/vault/x", nil, map[string]string{"X-Challenge": `Bearer error="insufficient_user_authentication", acr_values="a\"b"`}),
		"endless":           b.Do("GET", "/vault/x", nil, map[string]string{"X-Challenge": `Bearer error="insufficient_user_authentication", acr_values="` + strings.Repeat("x", 300) + `"`}),
		"negative age":      b.Do("GET", "/vault/x", nil, map[string]string{"X-Challenge": `Bearer error="insufficient_user_authentication", max_age=-1`}),
	} {
		if a.StatusCode != http.StatusUnauthorized || a.Text != "the application's own answer" || a.Header.Get("WWW-Authenticate") == "" || !strings.Contains(a.Header.Get("Set-Cookie"), "app=1") {
			t.Errorf("%s: %s %v %s", name, a.Status, a.Header, a.Text)
		}
	}
	if n := len(p.requests()); n != 0 {
		t.Errorf("%d sign-ins", n)
	}

	old := b.Cookie(sessionCookie).Value
	a := b.Go("/vault/x?y=1")
	if a.Text != "served /vault/x" || a.URL != s.URL+"/vault/x?y=1" || b.Cookie(sessionCookie).Value == old {
		t.Errorf("%s %s at %s", a.Status, a.Text, a.URL)
	}
	if asked := p.requests(); len(asked) != 1 || asked[0].Get("acr_values") != "gold" || asked[0].Get("max_age") != "1" {
		t.Errorf("the provider was asked %v", asked)
	}
	if b.Cookie("app") != nil {
		t.Error("a cookie of the dropped answer reached the browser")
	}
	if !strings.Contains(s.Log.String(), "application_demands_step_up") {
		t.Error("the log does not say why")
	}
}

// An application that never has enough ends in a page, not in a loop.
func TestS34_AnApplicationThatNeverHasEnoughDoesNotLoop(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: demandingConfig, App: http.HandlerFunc(demanding)})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/")
	p.requests()
	a := b.Go("/never") // follows up to 20 redirects, as browsers do
	if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "not enough here") {
		t.Errorf("%s %s", a.Status, a.Text)
	}
	if n := len(p.requests()); n > 3 {
		t.Errorf("%d sign-ins in a row", n)
	}
	if a := b.Step("/"); a.StatusCode != 200 {
		t.Errorf("the rest of the application: %s", a.Status)
	}
}

// A refresh leaves when and how the person signed in as it was (OpenID Connect Core section 12.2): it does not make a sign-in recent, nor weak or strong.
func TestS36_ARefreshIsNoStepUp(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: stepUpConfig})
	p := newStrength(s)
	b := s.Browser()
	b.Go("/both").Received(t)
	p.always("platinum", func() (time.Time, bool) { return s.Clock.Now(), true })
	s.Clock.Add(10 * time.Minute)
	if a := b.Post("/oauth2/session/refresh", nil); a.StatusCode != 200 {
		t.Fatalf("refresh: %s", a.Status)
	}
	if a := b.Fetch("/both"); a.StatusCode != 200 {
		t.Errorf("another acr in a refresh: %s %s", a.Status, a.Text)
	}
	s.Clock.Add(6 * time.Minute)
	if a := b.Fetch("/both"); a.StatusCode != 401 {
		t.Errorf("a refresh made the sign-in recent: %s", a.Status)
	}
}

// A stream that was opened while the sign-in was recent is not cut because max_age has passed.
func TestMaxAgeDoesNotCutOpenStreams(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{
		Config: stepUpConfig + `  - {path: /staff, access: {groups: [wiki-users]}, upstream: "${UPSTREAM}"}` + "\n", App: http.HandlerFunc(streamApp),
	})
	t.Cleanup(func() { waitForTied(t, s, 0) })
	b := s.Browser()
	b.Go("/recent")
	recent, staff := dial(t, s, b, "/recent/ws"), dial(t, s, b, "/staff/ws")
	waitForTied(t, s, 2)
	s.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"leavers"}}})
	s.Clock.Add(time.Hour)
	if a := b.Post("/oauth2/session/refresh", nil); a.StatusCode != 200 { // both are decided again
		t.Fatalf("refresh: %s", a.Status)
	}
	closedWith(t, staff, websocket.StatusPolicyViolation, "access no longer allowed")
	say1(t, recent)
	if a := b.Fetch("/recent"); a.StatusCode != 401 {
		t.Errorf("a new request: %s", a.Status)
	}
	waitForTied(t, s, 1)
}

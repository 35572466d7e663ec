package proxy_test

import (
	"cmp"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/idp/simtest"
	"postern/proxy/proxytest"
)

// five is the stack of the target file providers.yaml, with a strict simulator in the place of each provider. Browsers visit the hosts of the
// file over https; sessions last long enough for the longest tokens.
type five struct {
	*proxytest.Stack
	metamaps *simtest.Metamaps
	breakout *simtest.BreakOut
	gearcode *simtest.GearCode
	metafy   *simtest.Metafy
	likecoin *simtest.LikeCoin
}

// The hosts of providers.yaml.
const (
	mapsOrigin  = "https://maps.example.com"
	teamOrigin  = "https://team.example.com"
	gearOrigin  = "https://gear.example.com"
	coachOrigin = "https://coach.example.com"
	likeOrigin  = "https://like.example.com"
	jobsOrigin  = "https://jobs.example.com"
)

const (
	ada      = "ada@example.com"
	password = "canary-password of ada"
)

// newFive starts it with further replacements in the file.
func newFive(t *testing.T, oldNew ...string) *five {
	t.Helper()
	clock := &proxytest.Clock{}
	o := simtest.Options{Now: clock.Now}
	f := &five{
		metamaps: simtest.NewMetamaps(t, o), breakout: simtest.NewBreakOut(t, o), gearcode: simtest.NewGearCode(t, o),
		metafy: simtest.NewMetafy(t, o), likecoin: simtest.NewLikeCoin(t, o),
	}
	const gearClient = "sample.webapp.fe9d3e203b164c7e8896369673003291"
	f.metamaps.AddClient(simtest.Client{ID: "THE_ID", Secret: "THE_SECRET", RedirectURIs: []string{mapsOrigin + "/oauth2/callback"}})
	f.breakout.AddClient(simtest.Client{ID: "breakout_app", Secret: "123456789", Scopes: []string{"read", "write"}})
	f.gearcode.AddClient(simtest.Client{ID: gearClient, Secret: "canary-gearcode", RedirectURIs: []string{gearOrigin + "/oauth2/callback"}})
	f.metafy.AddClient(simtest.Client{ID: "ID", Secret: "canary-metafy", RedirectURIs: []string{coachOrigin + "/oauth2/callback"}, Scopes: []string{"profile"}, Owner: "owner"})
	f.likecoin.AddClient(simtest.Client{ID: "CLIENT_ID", Secret: "canary-likecoin", RedirectURIs: []string{likeOrigin + "/oauth2/callback"}, Scopes: []string{"profile", "email", "read:like.info"}})
	for _, s := range f.all() {
		s.AddUser(simtest.User{Name: ada, Password: password})
	}
	f.breakout.AddUser(simtest.User{Name: ada, Password: password, Members: map[string]any{"email": ada}})
	f.likecoin.AddUser(simtest.User{Name: ada, Members: map[string]any{"displayName": "Ada Lovelace", "avatar": "https://like.co/ada.png"}})

	file, err := os.ReadFile("../config/testdata/target/providers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	for pair := range slices.Chunk(append([]string{
		"https://metamaps.cc", "${METAMAPS}", "https://yourdomain.org", "${BREAKOUT}", "https://auth.gearcode.eu", "${GEARCODE}",
		"https://metafy.gg", "${METAFY}", "https://like.co", "${LIKECOIN}", "https://api.like.co", "${LIKECOIN}", "http://127.0.0.1:3000", "${UPSTREAM}",
	}, oldNew...), 2) {
		if !strings.Contains(text, pair[0]) {
			t.Fatalf("providers.yaml has no %q", pair[0])
		}
		text = strings.ReplaceAll(text, pair[0], pair[1])
	}
	if !strings.Contains(text, "\nsession:") {
		text = "session: {idle_timeout: 240h, lifetime: 720h}\n" + text
	}
	f.Stack = proxytest.New(t, proxytest.Options{
		TLS: true, Clock: clock,
		Config: "server: {listen: \"${LISTEN}\"}\n" + text,
		Env: map[string]string{
			"METAMAPS": f.metamaps.URL, "BREAKOUT": f.breakout.URL, "GEARCODE": f.gearcode.URL, "METAFY": f.metafy.URL, "LIKECOIN": f.likecoin.URL,
			"GEARCODE_SECRET": "canary-gearcode", "METAFY_SECRET": "canary-metafy", "LIKECOIN_SECRET": "canary-likecoin",
		},
	})
	return f
}

func (f *five) all() []*simtest.Server {
	return []*simtest.Server{f.metamaps.Server, f.breakout.Server, f.gearcode.Server, f.metafy.Server, f.likecoin.Server}
}

// site is one of the hosts at which a person signs in.
type site struct {
	origin, name string
	provider     *simtest.Server
	life         time.Duration // of an access token
	user         string        // as the application sees it
}

func (f *five) sites() []site {
	return []site{
		{mapsOrigin, "metamaps", f.metamaps.Server, 7200 * time.Second, ""},
		{teamOrigin, "breakout", f.breakout.Server, 42961 * time.Second, ada},
		{gearOrigin, "gearcode", f.gearcode.Server, 899 * time.Second, ada},
		{coachOrigin, "metafy", f.metafy.Server, time.Hour, ""},
		{likeOrigin, "likecoin", f.likecoin.Server, time.Hour, ada},
	}
}

// visit asks for a page, signs in at Postern's own form where there is one, and returns what reached the application.
func visit(t *testing.T, b *proxytest.Browser, address string) proxytest.Received {
	t.Helper()
	a := b.Go(address)
	if strings.Contains(a.Text, `name="password"`) {
		a = b.Submit(a, map[string]string{"username": ada, "password": password})
	}
	return a.Received(t)
}

// bearer is the token that reached the application; it must work now, and be of that person.
func (s site) bearer(t *testing.T, got proxytest.Received) string {
	t.Helper()
	return bearer(t, s.provider, got, ada)
}

func bearer(t *testing.T, provider *simtest.Server, got proxytest.Received, user string) string {
	t.Helper()
	values := got.Header.Values("Authorization")
	token := strings.TrimPrefix(strings.Join(values, ","), "Bearer ")
	if h, err := provider.Whose(token); err != nil || h.User != user || len(values) != 1 {
		t.Errorf("the application received a token of %q: %v; want one of %q", h.User, err, user)
	}
	return token
}

// correct fails the test for each protocol error, and for each secret in the log.
func (f *five) correct(t *testing.T) {
	t.Helper()
	for _, s := range f.all() {
		for _, e := range s.Errors() {
			t.Errorf("protocol error: %s", e)
		}
	}
	f.discreet(t)
}

func (f *five) discreet(t *testing.T) {
	t.Helper()
	log := f.Log.String()
	for _, secret := range []string{"THE_SECRET", "123456789", "canary-", url.QueryEscape(password)} {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("the log has the secret %s: …%s…", secret, log[max(0, i-200):min(len(log), i+50)])
		}
	}
	for _, r := range f.App.Requests() {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if token != "" && strings.Contains(log, token) {
			t.Errorf("the log has an access token")
		}
	}
}

func TestFiveProvidersSignIn(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		t.Run(s.name, func(t *testing.T) {
			b := f.Browser()
			got := visit(t, b, s.origin+"/page?x=1%202")
			s.bearer(t, got)
			if got.Target != "/page?x=1%202" || "https://"+got.Host != s.origin {
				t.Errorf("the application sees %s %s", got.Host, got.Target)
			}
			for name, want := range map[string]string{"X-Forwarded-User": s.user, "X-Forwarded-Groups": ""} {
				if v := strings.Join(got.Header.Values(name), "|"); v != want {
					t.Errorf("%s = %q, want %q", name, v, want)
				}
			}
			first := s.bearer(t, got)
			if again := s.bearer(t, b.Go(s.origin+"/again").Received(t)); again != first {
				t.Error("another page has another token")
			}
			if c := got.Header.Get("Cookie"); c != "" {
				t.Errorf("our cookies reached the application: %s", c)
			}
			if n := s.provider.Granted("authorization_code") + s.provider.Granted("password"); n != 1 {
				t.Errorf("%d grants", n)
			}
		})
	}
	f.correct(t)
}

func TestFiveProvidersIdentity(t *testing.T) {
	f := newFive(t)
	b := f.Browser()
	if got := visit(t, b, likeOrigin+"/"); got.Header.Get("X-Forwarded-User") != ada {
		t.Errorf("LikeCoin's person is %v", got.Header)
	}
	if page := b.Go(likeOrigin + "/oauth2"); !strings.Contains(page.Text, "Ada Lovelace") {
		t.Errorf("the session's page does not tell the name: %s", page.Text)
	}

	// What /me/ tells is the installation's own: without an e-mail address the one that was typed counts.
	f.breakout.AddUser(simtest.User{Name: ada, Password: password, Members: map[string]any{"firstname": "Ada"}})
	if got := visit(t, f.Browser(), teamOrigin+"/"); got.Header.Get("X-Forwarded-User") != ada {
		t.Errorf("BreakOut's person is %v", got.Header)
	}

	// A token without sub names nobody; the person is signed in all the same.
	f.gearcode.LeaveOutSub(true)
	if got := visit(t, f.Browser(), gearOrigin+"/"); len(got.Header.Values("X-Forwarded-User")) > 0 {
		t.Errorf("GearCode's person is %v", got.Header)
	}
	f.correct(t)
}

// refreshed moves the time into the last half minute of a token and waits until the next one has come. Every request is answered.
func (f *five) refreshed(t *testing.T, s site, b *proxytest.Browser, before string) string {
	t.Helper()
	f.Clock.Add(s.life - 30*time.Second)
	var token string
	proxytest.Eventually(t, func() bool {
		token = s.bearer(t, b.Fetch(s.origin+"/").Received(t))
		return token != before
	})
	return token
}

// late moves the time past the end of a token, so that the next request has to wait for a new one.
func (f *five) late(t *testing.T, s site, b *proxytest.Browser) proxytest.Received {
	t.Helper()
	f.Clock.Add(s.life + time.Second)
	return settled(t, s, b)
}

// settled asks for a page right after the time was moved far. A flight that has told its result and is still putting its lease away
// answers 503 then, since its token too has expired at once; outside of tests tokens live longer than that.
func settled(t *testing.T, s site, b *proxytest.Browser) proxytest.Received {
	t.Helper()
	var a proxytest.Answer
	proxytest.Eventually(t, func() bool {
		a = b.Fetch(s.origin + "/")
		return a.StatusCode != http.StatusServiceUnavailable
	})
	return a.Received(t)
}

func TestFiveProvidersRefreshBeforeExpiry(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		t.Run(s.name, func(t *testing.T) {
			b := f.Browser()
			token := s.bearer(t, visit(t, b, s.origin+"/"))
			for range 3 {
				token = f.refreshed(t, s, b, token)
			}
			// Nobody came for longer than the token lives: the next request waits, and is answered.
			got := f.late(t, s, b)
			if next := s.bearer(t, got); next == token {
				t.Error("the token is the old one")
			}
			if n := s.provider.Granted("refresh_token"); n != 4 {
				t.Errorf("%d refreshes, want 4", n)
			}
			if user := got.Header.Get("X-Forwarded-User"); user != s.user {
				t.Errorf("after the refreshes the user is %q", user)
			}
		})
	}
	f.correct(t)
}

func TestFiveProvidersExpiryFromTheJWT(t *testing.T) {
	f := newFive(t, "token_lifetime: 1h ", "token_lifetime: 20h ")
	b := f.Browser()
	s := f.sites()[4]
	f.refreshed(t, s, b, s.bearer(t, visit(t, b, likeOrigin+"/")))
	f.correct(t)
}

func TestFiveProvidersRefreshTokenThatStays(t *testing.T) {
	f := newFive(t)
	s := f.sites()[1]
	b := f.Browser()
	token := s.bearer(t, visit(t, b, teamOrigin+"/"))
	for turn := range 4 {
		f.breakout.SendRefreshTokenAgain(turn%2 == 0)
		token = f.refreshed(t, s, b, token)
	}
	f.correct(t)
}

func TestFiveProvidersManyRequestsAtExpiry(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		b := f.Browser()
		visit(t, b, s.origin+"/")
		f.Clock.Add(s.life + time.Second)
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() { s.bearer(t, b.Fetch(s.origin+"/").Received(t)) })
		}
		wg.Wait()
		if n := s.provider.Granted("refresh_token"); n != 1 {
			t.Errorf("%s: %d refreshes", s.name, n)
		}
	}
	f.correct(t)
}

// refusal is what a person sees after saying no: a page with a way to begin again, no redirect and no session.
func refusal(t *testing.T, a proxytest.Answer, status int) {
	t.Helper()
	if a.StatusCode != status || a.Onward() != "" || !strings.Contains(a.Text, "/oauth2/start?") || !strings.Contains(a.Text, "<h1") {
		t.Errorf("a refusal ends in %s → %q, want the page of %d: %.600s", a.Status, a.Onward(), status, a.Text)
	}
	for _, c := range a.Cookies() {
		if strings.HasPrefix(c.Name, "__Host-postern") && !strings.Contains(c.Name, "login") && c.MaxAge >= 0 {
			t.Errorf("a refusal sets the cookie %s", c.Name)
		}
	}
}

func TestFiveProvidersRefusal(t *testing.T) {
	f := newFive(t)
	f.likecoin.RefuseBy("error", true)
	for _, s := range f.sites() {
		if s.name == "breakout" {
			continue
		}
		s.provider.Refuse(true)
		b := f.Browser()
		refusal(t, b.Go(s.origin+"/page"), http.StatusForbidden)
		s.provider.Refuse(false)
		s.bearer(t, visit(t, b, s.origin+"/page"))
	}
	f.correct(t)
}

// LikeCoin documents neither the name of the parameter that says denied nor whether state comes back with it.
func TestFiveProvidersRefusalWithoutState(t *testing.T) {
	f := newFive(t)
	f.likecoin.Refuse(true)
	for _, c := range []struct {
		name   string
		state  bool
		status int
	}{
		{"error", true, http.StatusForbidden},
		{"error", false, http.StatusBadRequest},
		{"status", true, http.StatusBadRequest},  // nothing says that this is a refusal: no code came, and no error
		{"status", false, http.StatusBadRequest}, // nothing says what this is
	} {
		f.likecoin.RefuseBy(c.name, c.state)
		refusal(t, f.Browser().Go(likeOrigin+"/page"), c.status)
	}
	f.correct(t)

	named := newFive(t, "{code: auth_code}", "{code: auth_code, error: status}")
	named.likecoin.Refuse(true)
	for state, status := range map[bool]int{true: http.StatusForbidden, false: http.StatusBadRequest} {
		named.likecoin.RefuseBy("status", state)
		refusal(t, named.Browser().Go(likeOrigin+"/page"), status)
	}
	named.correct(t)
}

// A person with a session who refuses a second sign-in, without state, still has the session.
func TestFiveProvidersRefusalWithASession(t *testing.T) {
	f := newFive(t)
	b := f.Browser()
	s := f.sites()[4]
	token := s.bearer(t, visit(t, b, likeOrigin+"/"))
	f.likecoin.Refuse(true)
	if a := b.Go(likeOrigin + "/oauth2/start?rd=/"); a.StatusCode >= 500 {
		t.Errorf("%s", a.Status)
	}
	if again := s.bearer(t, b.Fetch(likeOrigin+"/").Received(t)); again != token {
		t.Error("the session has another token")
	}
	f.correct(t)
}

// signOut is a click on a sign-out form of the application.
func signOut(t *testing.T, b *proxytest.Browser, s site) {
	t.Helper()
	a := b.Post(s.origin+"/oauth2/logout", nil)
	if next := a.Onward(); next != "" {
		u, err := a.Request.URL.Parse(next)
		if err != nil {
			t.Fatal(err)
		}
		a = b.Go(u.String())
	}
	if a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "signed out") {
		t.Errorf("%s: signing out ends in %s: %.300s", s.name, a.Status, a.Text)
	}
	if a := b.Fetch(s.origin + "/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s: after signing out a request gets %s", s.name, a.Status)
	}
}

func TestFiveProvidersSignOut(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		b, other := f.Browser(), f.Browser()
		visit(t, b, s.origin+"/")
		visit(t, other, s.origin+"/")
		signOut(t, b, s)
		s.bearer(t, other.Fetch(s.origin+"/").Received(t))
		s.bearer(t, visit(t, b, s.origin+"/"))
	}
	f.correct(t)
}

// People without a name are not one person: neither the limit of sessions nor a shared grant takes them for one.
func TestFiveProvidersNamelessPeopleShareNothing(t *testing.T) {
	f := newFive(t, "providers:\n", "session: {idle_timeout: 240h, lifetime: 720h, max_sessions_per_user: 1}\nproviders:\n")
	for _, s := range f.sites() {
		if s.user != "" {
			continue
		}
		s.provider.AddUser(simtest.User{Name: "bob"})
		one, two := f.Browser(), f.Browser()
		first := s.bearer(t, visit(t, one, s.origin+"/"))
		s.provider.SignInAs("bob")
		bearer(t, s.provider, visit(t, two, s.origin+"/"), "bob")
		if again := s.bearer(t, one.Fetch(s.origin+"/").Received(t)); again != first {
			t.Errorf("%s: another sign-in changed the token", s.name)
		}
		bearer(t, s.provider, f.late(t, s, two), "bob")
		s.bearer(t, settled(t, s, one))
	}
	f.correct(t)
}

// A shared grant is one person's.
func TestFiveProvidersTwoLikeCoinUsersShareNothing(t *testing.T) {
	f := newFive(t)
	f.likecoin.Rotate(true)
	f.likecoin.AddUser(simtest.User{Name: "bob"})
	s := f.sites()[4]
	one, two := f.Browser(), f.Browser()
	s.bearer(t, visit(t, one, likeOrigin+"/"))
	f.likecoin.SignInAs("bob")
	bearer(t, s.provider, visit(t, two, likeOrigin+"/"), "bob")
	for range 3 {
		s.bearer(t, f.late(t, s, one))
		got := settled(t, s, two)
		bearer(t, s.provider, got, "bob")
		if user := got.Header.Get("X-Forwarded-User"); user != "bob" {
			t.Errorf("bob is %q", user)
		}
	}
	f.correct(t)
}

func TestFiveProvidersRevocationAtSignOut(t *testing.T) {
	f := newFive(t)
	s := f.sites()[3]
	works := func(token string) bool { _, err := f.metafy.Whose(token); return err == nil }
	t.Run("revokes", func(t *testing.T) {
		b, other := f.Browser(), f.Browser()
		token := s.bearer(t, visit(t, b, coachOrigin+"/"))
		signOut(t, b, s)
		proxytest.Eventually(t, func() bool { return !works(token) && f.metafy.Calls(simtest.Revoke) == 2 })
		s.bearer(t, visit(t, other, coachOrigin+"/"))
	})
	t.Run("busy", func(t *testing.T) { // the person does not wait, and the tokens end all the same
		b := f.Browser()
		token := s.bearer(t, visit(t, b, coachOrigin+"/"))
		f.metafy.Fail(simtest.Revoke, http.StatusServiceUnavailable, 1, "Retry-After", "1")
		signOut(t, b, s)
		proxytest.Eventually(t, func() bool { return !works(token) })
	})
	t.Run("hanging", func(t *testing.T) {
		b := f.Browser()
		visit(t, b, coachOrigin+"/")
		held := f.metafy.Hold(simtest.Revoke)
		defer held.Release()
		signOut(t, b, s)
		processed(t, held)
	})
	f.correct(t)
}

// processed waits for a request whose answer is held.
func processed(t *testing.T, held *simtest.Held) {
	t.Helper()
	select {
	case <-held.Processed():
	case <-time.After(20 * time.Second):
		t.Fatal("no request came")
	}
}

func TestFiveProvidersTwoBrowsersOfOneLikeCoinUser(t *testing.T) {
	for name, rotate := range map[string]bool{"refresh token stays": false, "rotation": true} {
		t.Run(name, func(t *testing.T) {
			f := newFive(t)
			f.likecoin.Rotate(rotate)
			s := f.sites()[4]
			one, two := f.Browser(), f.Browser()
			s.bearer(t, visit(t, one, likeOrigin+"/"))
			token := s.bearer(t, visit(t, two, likeOrigin+"/")) // this kills the first refresh token at LikeCoin
			for range 3 {
				for _, b := range []*proxytest.Browser{one, two} {
					token = f.refreshed(t, s, b, token)
				}
			}
			a := s.bearer(t, f.late(t, s, one))
			if b := s.bearer(t, two.Fetch(likeOrigin+"/").Received(t)); a != b {
				t.Error("they do not share the newest token")
			}
			// The one leaves; the other stays, and is refreshed.
			signOut(t, one, s)
			f.refreshed(t, s, two, a)
			f.correct(t)
		})
	}
}

// A second sign-in kills the first session's refresh token at LikeCoin before its own write lands. A refresh of the first in that moment is
// refused, and ends nothing.
func TestFiveProvidersRefreshDuringASecondSignIn(t *testing.T) {
	f := newFive(t)
	s := f.sites()[4]
	one, two := f.Browser(), f.Browser()
	first := s.bearer(t, visit(t, one, likeOrigin+"/"))
	f.Clock.Add(s.life + time.Minute)
	held := f.likecoin.Hold(simtest.Token)
	signedIn := make(chan proxytest.Answer, 1)
	go func() { signedIn <- two.Go(likeOrigin + "/") }()
	processed(t, held) // the first session's refresh token is dead, and Postern does not know yet
	answered := make(chan proxytest.Answer, 1)
	go func() { answered <- one.Fetch(likeOrigin + "/") }()
	processed(t, held) // and has been refused
	held.Release()
	second := s.bearer(t, (<-signedIn).Received(t))
	if token := s.bearer(t, (<-answered).Received(t)); token == first || token != second {
		t.Error("the first session does not go on with the newest token")
	}
	if got := f.likecoin.Errors(); len(got) != 1 || !strings.Contains(got[0], "another one was issued") {
		t.Errorf("protocol errors: %q, want the one that could not be helped", got)
	}
}

func TestFiveProvidersPasswordForm(t *testing.T) {
	f := newFive(t)
	s := f.sites()[1]
	b := f.Browser()
	form := b.Go(teamOrigin + "/page?a=b")
	if form.StatusCode != http.StatusOK || !strings.Contains(form.Text, `autocomplete="current-password"`) {
		t.Fatalf("%s: %s", form.Status, form.Text)
	}
	for who, fields := range map[string]map[string]string{
		"wrong password": {"username": ada, "password": "canary-wrong"}, "unknown user": {"username": "eve@example.com", "password": "canary-wrong"},
	} {
		form = b.Submit(form, fields)
		if form.StatusCode != http.StatusUnauthorized || strings.Contains(form.Text, "canary-wrong") || !strings.Contains(form.Text, "wrong") {
			t.Errorf("%s: %s: %s", who, form.Status, form.Text)
		}
	}
	got := b.Submit(form, map[string]string{"username": ada, "password": password}).Received(t)
	s.bearer(t, got)
	if got.Target != "/page?a=b" || got.Method != http.MethodGet || got.Body != "" {
		t.Errorf("the application sees %s %s %q", got.Method, got.Target, got.Body)
	}
	// Another site's form signs nobody in (RFC 9700 section 4.7).
	stranger := f.Browser()
	a := stranger.Do(http.MethodPost, teamOrigin+"/oauth2/start", strings.NewReader("username=ada%40example.com&password=x"), map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example",
	})
	if a.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site gets %s", a.Status)
	}
	f.correct(t)
}

func TestFiveProvidersApplicationToken(t *testing.T) {
	f := newFive(t)
	b := f.Browser()
	own := func() string {
		t.Helper()
		got := b.Fetch(jobsOrigin + "/run").Received(t)
		if len(got.Header.Values("X-Forwarded-User")) > 0 {
			t.Errorf("the application sees the user %q", got.Header.Get("X-Forwarded-User"))
		}
		return bearer(t, f.metafy.Server, got, "owner")
	}
	token := own()
	for range 3 { // kept, and renewed ahead
		if own() != token {
			t.Error("another request has another token")
		}
		f.Clock.Add(time.Hour - 30*time.Second)
		proxytest.Eventually(t, func() bool { return own() != token })
		token = own()
	}
	if n := f.metafy.Granted("client_credentials"); n != 4 {
		t.Errorf("%d tokens, want 4", n)
	}
	// What a client sends itself does not pass for the application's.
	a := b.Do(http.MethodGet, jobsOrigin+"/run", nil, map[string]string{"Authorization": "Bearer stolen"})
	bearer(t, f.metafy.Server, a.Received(t), "owner")

	// The provider is down: the old token while it is good, then 503; and back.
	f.metafy.Down()
	f.Clock.Add(time.Hour - 30*time.Second)
	for range 3 {
		if own() != token {
			t.Error("the token is another one")
		}
	}
	f.Clock.Add(31 * time.Second)
	if a := b.Fetch(jobsOrigin + "/run"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("without a token the answer is %s", a.Status)
	}
	f.metafy.Up(t)
	f.Clock.Add(time.Minute)
	if own() == token {
		t.Error("the token is the old one")
	}
	f.correct(t)
}

// A provider that is down costs nobody the session, and its addresses, one of which carries secrets, reach no log.
func TestFiveProvidersDown(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		t.Run(s.name, func(t *testing.T) {
			b := f.Browser()
			token := s.bearer(t, visit(t, b, s.origin+"/"))
			fresh := f.Browser()
			form := fresh.Step(s.origin + "/")
			s.provider.Down()
			f.Clock.Add(s.life - 30*time.Second)
			if got := s.bearer(t, b.Fetch(s.origin+"/").Received(t)); got != token {
				t.Error("the token is another one")
			}
			f.Clock.Add(31 * time.Second)
			if a := b.Go(s.origin + "/"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || len(a.Cookies()) > 0 {
				t.Errorf("with an expired token the answer is %s %v", a.Status, a.Header)
			}
			// A sign-in ends in a page.
			if s.name == "breakout" {
				a := fresh.Submit(fresh.Go(s.origin+"/"), map[string]string{"username": ada, "password": password})
				if a.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("a sign-in ends in %s", a.Status)
				}
			} else if form.StatusCode != http.StatusSeeOther && form.StatusCode != http.StatusFound {
				t.Errorf("a stranger gets %s", form.Status)
			}
			s.provider.Up(t)
			f.Clock.Add(2 * time.Minute)
			s.bearer(t, settled(t, s, b))
		})
	}
	f.correct(t)
}

// The token request fails after the person has signed in at the provider.
func TestFiveProvidersTokenRequestFails(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		if s.name == "breakout" {
			continue
		}
		s.provider.Fail(simtest.Token, http.StatusInternalServerError, 1)
		a := f.Browser().Go(s.origin + "/")
		if a.StatusCode < 500 || a.Onward() != "" || !strings.Contains(a.Text, "<h1") {
			t.Errorf("%s: %s %.300s", s.name, a.Status, a.Text)
		}
	}
	f.correct(t)
}

// The person revokes everything at the provider: one clean sign-in.
func TestFiveProvidersRevokedAtTheProvider(t *testing.T) {
	f := newFive(t)
	for _, s := range f.sites() {
		b := f.Browser()
		visit(t, b, s.origin+"/")
		s.provider.RevokeUser(ada)
		f.Clock.Add(s.life + time.Second)
		before := len(s.provider.Errors())
		s.bearer(t, visit(t, b, s.origin+"/"))
		if n := len(s.provider.Errors()) - before; n != 1 {
			t.Errorf("%s: the dead refresh token was sent %d times", s.name, n)
		}
	}
	f.discreet(t)
}

// Two people sign in on all hosts with the same browser: sessions of different providers do not touch each other.
func TestFiveProvidersInOneBrowser(t *testing.T) {
	f := newFive(t)
	b := f.Browser()
	tokens := map[string]string{}
	for _, s := range f.sites() {
		tokens[s.name] = s.bearer(t, visit(t, b, s.origin+"/"))
	}
	signOut(t, b, f.sites()[2])
	for _, s := range f.sites() {
		if s.name == "gearcode" {
			continue
		}
		if got := s.bearer(t, b.Fetch(s.origin+"/").Received(t)); got != tokens[s.name] {
			t.Errorf("%s: another token", s.name)
		}
	}
	names := map[string]bool{}
	for _, s := range f.sites() {
		u, err := url.Parse(s.origin)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Jar.Cookies(u) {
			if strings.HasPrefix(c.Name, "__Host-postern") && !strings.Contains(c.Name, "login") {
				names[cmp.Or(strings.TrimPrefix(c.Name, "__Host-postern"), "-")] = true
			}
		}
	}
	if len(names) != 4 {
		t.Errorf("session cookies %v", names)
	}
	f.correct(t)
}

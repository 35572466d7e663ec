package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
)

var endButton = regexp.MustCompile(`<input type="hidden" name="end" value="([^"]+)">\s*<button[^>]*>([^<]*)</button>`)

// buttons are the ids that the page would end, by the text of their button.
func buttons(a proxytest.Answer) map[string][]string {
	ids := map[string][]string{}
	for _, m := range endButton.FindAllStringSubmatch(a.Text, -1) {
		ids[m[2]] = append(ids[m[2]], m[1])
	}
	return ids
}

// end presses a button of the page and follows.
func end(t *testing.T, b *proxytest.Browser, id string) proxytest.Answer {
	t.Helper()
	a := b.Post("/oauth2", url.Values{"end": {id}})
	if a.StatusCode != http.StatusSeeOther {
		return a
	}
	return b.Go(a.Header.Get("Location"))
}

func alive(b *proxytest.Browser) bool { return b.Fetch("/").StatusCode == http.StatusOK }

// signedIn opens browsers of whoever the provider signs in.
func signedIn(t *testing.T, s *proxytest.Stack, n int) (all []*proxytest.Browser) {
	t.Helper()
	for range n {
		b := s.Browser()
		b.Go("/").Received(t)
		all = append(all, b)
	}
	return all
}

func TestSessionPageListsAndEndsThePersonsSessions(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	all := signedIn(t, s, 3)
	page := all[0].Go("/oauth2")
	ids := buttons(page)
	if page.StatusCode != http.StatusOK || len(ids["End"]) != 2 || len(ids["Sign out"]) != 1 || len(ids["End all others"]) != 1 ||
		strings.Count(page.Text, "This one") != 1 || strings.Count(page.Text, "<bdi>Firefox</bdi>") != 3 {
		t.Fatalf("%s %v %s", page.Status, ids, page.Text)
	}
	page = end(t, all[0], ids["End"][0])
	if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "One session has ended.") || len(buttons(page)["End"]) != 1 {
		t.Errorf("after ending one: %s", page.Text)
	}
	if alive(all[1]) == alive(all[2]) || !alive(all[0]) {
		t.Errorf("alive: %v %v %v", alive(all[0]), alive(all[1]), alive(all[2]))
	}
	page = end(t, all[0], ids["End"][0])
	if !strings.Contains(page.Text, "nothing to end") {
		t.Errorf("ending it again: %s", page.Text)
	}
	for _, line := range audited(t, s, "sessions_ended") {
		if line["user"] != "alice" {
			t.Errorf("audit: %v", line)
		}
	}
}

func TestEndAllOthersLeavesThisSessionAndOtherPeople(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	all := signedIn(t, s, 4)
	s.Provider.SignInAs("bob")
	bob := signedIn(t, s, 1)[0]
	page := end(t, all[2], "others")
	if !strings.Contains(page.Text, "3 sessions have ended.") || len(buttons(page)["End"]) != 0 || len(buttons(page)["End all others"]) != 0 {
		t.Errorf("%s", page.Text)
	}
	for i, b := range all {
		if alive(b) != (i == 2) {
			t.Errorf("session %d: alive is %v", i, alive(b))
		}
	}
	if !alive(bob) {
		t.Error("someone else's session ended")
	}
}

// A175: what another browser held is refused at once, also where it was served from the cache a moment ago.
func TestA175_SessionEndedInTheListIsRefusedAtOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	all := signedIn(t, s, 2)
	if !alive(all[1]) {
		t.Fatal("not signed in")
	}
	end(t, all[0], buttons(all[0].Go("/oauth2"))["End"][0])
	if a := all[1].Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `"ended":"signed_out"`) {
		t.Errorf("%s %s", a.Status, a.Text)
	}
}

// The id in the form is a claim, not a right: only a session of the same person ends.
func TestAnotherPersonsSessionIdInTheFormEndsNothing(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	alice := signedIn(t, s, 1)[0]
	id := buttons(alice.Go("/oauth2"))["Sign out"][0]
	s.Provider.SignInAs("bob")
	bob := signedIn(t, s, 1)[0]
	for _, claim := range []string{id, "others", "x", strings.Repeat("a", 5000), "../" + id, "*"} {
		if page := end(t, bob, claim); page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "nothing to end") {
			t.Errorf("%.20s: %s %s", claim, page.Status, page.Text)
		}
	}
	if !alive(alice) || !alive(bob) {
		t.Errorf("alive: alice %v, bob %v", alive(alice), alive(bob))
	}
	if page := bob.Go("/oauth2"); strings.Contains(page.Text, id) || len(buttons(page)["End"]) > 0 {
		t.Error("bob sees alice's session")
	}
}

// Without a subject nobody knows whose the other sessions are: an empty owner must not stand for everybody.
func TestWithoutASubjectThePageKnowsThisSessionAlone(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp:
    oauth2: {authorize_url: "${ISSUER}/connect/authorize", token_url: "${ISSUER}/token"}
    identity: none
    client_id: wiki
    client_secret: canary-client-secret
routes:
  - upstream: ${UPSTREAM}
`})
	all := signedIn(t, s, 2)
	page := all[0].Go("/oauth2")
	if ids := buttons(page); len(ids) != 1 || len(ids["Sign out"]) != 1 {
		t.Fatalf("%v %s", ids, page.Text)
	}
	other := buttons(all[1].Go("/oauth2"))["Sign out"][0]
	end(t, all[0], other)
	end(t, all[0], "others")
	if !alive(all[0]) || !alive(all[1]) {
		t.Error("a session ended")
	}
}

// A89: forms of other sites end no session.
func TestA89_OtherSitesCannotEndSessions(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	all := signedIn(t, s, 2)
	ids := buttons(all[0].Go("/oauth2"))
	for name, header := range map[string]map[string]string{
		"other site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.com"},
		"sibling":    {"Sec-Fetch-Site": "same-site", "Origin": "https://sibling.example.com"},
		"by origin":  {"Sec-Fetch-Site": "", "Origin": "https://evil.com"},
		"null":       {"Sec-Fetch-Site": "", "Origin": "null"},
	} {
		for _, id := range []string{ids["End"][0], ids["Sign out"][0], "others"} {
			header["Content-Type"] = "application/x-www-form-urlencoded"
			a := all[0].Do("POST", "/oauth2", strings.NewReader(url.Values{"end": {id}}.Encode()), header)
			if a.StatusCode != http.StatusForbidden || len(a.Cookies()) > 0 {
				t.Errorf("POST from %s: %s", name, a.Status)
			}
		}
		all[0].Do("GET", "/oauth2?end=others", nil, header)
	}
	if !alive(all[0]) || !alive(all[1]) {
		t.Error("a session ended")
	}
	if a := all[0].Post("/oauth2?end=others", nil); a.StatusCode != http.StatusBadRequest || !alive(all[1]) {
		t.Errorf("an address with end=others: %s", a.Status)
	}
}

func TestEndingThisSessionInTheListIsASignOut(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := signedIn(t, s, 1)[0]
	a := b.Post("/oauth2", url.Values{"end": {buttons(b.Go("/oauth2"))["Sign out"][0]}})
	if onward := a.Onward(); !strings.HasPrefix(onward, s.Provider.URL) || b.Cookie(sessionCookie) != nil {
		t.Errorf("%s, onward to %q, cookie %v", a.Status, onward, b.Cookie(sessionCookie))
	}
	if end := b.Go(a.Onward()); !strings.Contains(end.Text, "You are signed out") {
		t.Errorf("in the end: %s", end.Text)
	}
}

// listless is a memory store whose index does not answer, and that ends nothing, when told.
type listless struct {
	session.Store
	down atomic.Bool
}

var errListless = errors.Join(session.ErrUnavailable, errors.New("test: down"))

func (l *listless) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	if l.down.Load() {
		return nil, errListless
	}
	return l.Store.Index(ctx, name)
}

func (l *listless) End(ctx context.Context, key string, why session.Reason, keep bool, index []session.IndexEntry) (bool, error) {
	if l.down.Load() {
		return false, errListless
	}
	return l.Store.End(ctx, key, why, keep, index)
}

func TestSessionPageWhileTheStoreIsDownShowsThisSessionAndSaysSo(t *testing.T) {
	store := &listless{Store: memstore.New(memstore.Options{})}
	s := proxytest.New(t, proxytest.Options{Store: store})
	all := signedIn(t, s, 2)
	id := buttons(all[0].Go("/oauth2"))["End"][0]
	store.down.Store(true)
	page := all[0].Go("/oauth2")
	if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "not available at the moment") || !strings.Contains(page.Text, "This one") {
		t.Errorf("%s %s", page.Status, page.Text)
	}
	for _, form := range []string{id, "others"} {
		a := all[0].Post("/oauth2", url.Values{"end": {form}})
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(a.Text, "could not be ended") {
			t.Errorf("ending %.8s: %s %s", form, a.Status, a.Text)
		}
	}
	store.down.Store(false)
	end(t, all[0], "others")
}

func TestLongSessionListsArePaged(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	all := signedIn(t, s, 45)
	seen := map[string]bool{}
	address, pages := "/oauth2", 0
	more := regexp.MustCompile(`href="([^"]+)">Show more`)
	for address != "" {
		pages++
		page := all[0].Go(address)
		ids := buttons(page)
		if n := len(ids["End"]) + len(ids["Sign out"]); n > 21 || pages > 5 {
			t.Fatalf("page %d lists %d", pages, n)
		}
		for _, id := range append(ids["End"], ids["Sign out"]...) {
			seen[id] = true
		}
		address = ""
		if m := more.FindStringSubmatch(page.Text); m != nil {
			address = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(seen) != 45 || pages != 3 {
		t.Errorf("%d sessions on %d pages", len(seen), pages)
	}
	if a := all[0].Go("/oauth2?after=nonsense"); a.StatusCode != http.StatusOK {
		t.Errorf("a place that is none: %s", a.Status)
	}
}

// What the page says cannot be put into its mouth by a link, and is not said for ever.
func TestLinksCannotMakeThePageSayThatSessionsEnded(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	all := signedIn(t, s, 2)
	a := all[0].Post("/oauth2", url.Values{"end": {"others"}})
	location := a.Header.Get("Location")
	if page := all[0].Go(location); !strings.Contains(page.Text, "has ended") {
		t.Fatalf("%s", page.Text)
	}
	other := signedIn(t, s, 1)[0]
	for _, address := range []string{"/oauth2?said=1", "/oauth2?said=ended", location} {
		if page := other.Go(address); strings.Contains(page.Text, "has ended") {
			t.Errorf("%s: %s", address, page.Text)
		}
	}
	s.Clock.Add(2 * time.Minute)
	if page := all[0].Go(location); strings.Contains(page.Text, "has ended") {
		t.Error("said for ever")
	}
}

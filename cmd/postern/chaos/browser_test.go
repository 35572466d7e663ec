//go:build chaos

package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	cookieName = "postern" // on a plain http origin
	// revokeSlack is how much later than max_stale an accepted request counts as a broken promise: what the machine may take between our
	// clock and the replica's look at its own.
	revokeSlack = 300 * time.Millisecond
	// failoverSlack is how long after a failover some may still write to the old master, or not have said again what it lost.
	failoverSlack = 5 * time.Second
	// clientLimit bounds one request.
	clientLimit = 40 * time.Second
)

// A browser is one person's, with a cookie jar of its own.
type browser struct {
	w      *world
	name   string
	user   string
	jar    *cookiejar.Jar
	client *http.Client

	mu      sync.Mutex
	session *signedIn // nil: not signed in
}

// signedIn is one session as its owner sees it.
type signedIn struct {
	label  string // of the sign-in; the topic of its events
	user   string
	cookie string
	since  time.Time

	mu       sync.Mutex
	ending   bool      // somebody has asked for its end, which may come or not
	endedAt  time.Time // when that was acknowledged
	lost     bool      // reported already
	together *signedIn // the session of the same sign-in at the provider, if any
}

func (s *signedIn) topics() []string { return []string{s.label} }

// askEnd notes that its end is asked for.
func (s *signedIn) askEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
}

// acknowledge notes that the end was confirmed.
func (s *signedIn) acknowledge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endedAt = time.Now()
}

func (s *signedIn) state() (ending bool, endedAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending, s.endedAt
}

// newBrowser opens a browser without cookies.
func (w *world) newBrowser(name, user string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err)
	}
	b := &browser{w: w, name: name, user: user, jar: jar}
	b.client = &http.Client{Jar: jar, Transport: w, Timeout: clientLimit, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if heard, ok := r.Context().Value(redirectKey{}).(func()); ok && len(via) == 1 {
			heard()
		}
		return nil
	}}
	return b
}

// An answer is what one request got.
type answer struct {
	status  int // 0: the connection was cut
	echo    echo
	body    string
	deletes bool // it deletes the session's cookie
	began   time.Time
	url     *url.URL
	err     error
}

// signIn goes to a page and through the provider.
func (b *browser) signIn(ctx context.Context) answer {
	label := fmt.Sprintf("%s#%d", b.name, b.w.labels.Add(1))
	a := b.do(ctx, http.MethodGet, "/start/"+label, map[string]string{
		"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none",
		browserHeader: b.user + "/" + label,
	})
	if a.status != http.StatusOK || a.echo.User == "" {
		b.w.about([]string{label}, "%s: sign-in of %s: %s", b.name, b.user, a)
		b.w.count(fmt.Sprintf("sign-in %d", a.status))
		return a
	}
	if a.echo.User != b.user {
		b.w.violated([]string{label}, "%s signs in as %s and is taken for %s", b.name, b.user, a.echo.User)
	}
	s := &signedIn{label: a.echo.Label, user: b.user, cookie: b.cookie(), since: a.began}
	b.mu.Lock()
	b.session = s
	b.mu.Unlock()
	b.w.count("sign-ins")
	b.w.about(s.topics(), "%s: %s is signed in", b.name, b.user)
	return a
}

func (b *browser) cookie() string {
	for _, c := range b.jar.Cookies(b.w.origin) {
		if c.Name == cookieName {
			return c.Value
		}
	}
	return ""
}

// current is the browser's session, or nil.
func (b *browser) current() *signedIn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.session
}

func (b *browser) forget(s *signedIn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session == s {
		b.session = nil
	}
}

// get asks for a page as a script does and holds the answer against the promises.
func (b *browser) get(ctx context.Context) answer {
	s := b.current()
	a := b.do(ctx, http.MethodGet, "/page/"+b.name, scriptHeaders)
	b.w.check(s, a, "/page/"+b.name, "answers")
	if s != nil && a.status == http.StatusUnauthorized {
		b.forget(s)
	}
	return a
}

var scriptHeaders = map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Accept": "application/json"}

// check holds the answer to a request with the cookie of s (nil: none) against the promises.
func (w *world) check(s *signedIn, a answer, path, kind string) {
	if s == nil {
		return // what a sign-in that broke off has left is not known
	}
	ending, endedAt := s.state()
	w.count(fmt.Sprint(kind, " ", a.status))
	if a.deletes && !ending && w.provider.over(s.label) == "" {
		w.count("deletes")
		w.violated(s.topics(), "an answer %d deletes the cookie of a live session", a.status)
	}
	switch a.status {
	case http.StatusOK:
		if a.echo.User != s.user || a.echo.Path != path {
			w.violated(s.topics(), "the request of %s for %s is answered as %s for %s", s.user, path, a.echo.User, a.echo.Path)
		}
		if !endedAt.IsZero() && a.began.After(endedAt.Add(w.maxStale+revokeSlack)) {
			// A failover may lose an end; whoever knows of it says so again.
			if since := time.Since(w.store.failedOver()); since < failoverSlack && w.store.failedOver().Add(failoverSlack).After(endedAt) {
				w.count("accepted after an end that a failover had lost for a moment")
				return
			}
			w.violated(s.topics(), "accepted %v after its end was acknowledged", a.began.Sub(endedAt))
		}
	case http.StatusServiceUnavailable:
		w.about(s.topics(), "%s", a)
	case http.StatusUnauthorized:
		w.refusal(s, a)
	case 0:
		if a.err != nil && ctxOver(a.err) {
			w.count("client gave up")
		}
		w.about(s.topics(), "%s", a)
	default:
		w.count("other")
		w.violated(s.topics(), "other answer: %s", a)
	}
}

// refusal judges a 401.
func (w *world) refusal(s *signedIn, a answer) {
	ending, _ := s.state()
	why := w.provider.over(s.label)
	switch {
	case ending:
	case why != "":
		w.count("ended: " + why)
		w.about(s.topics(), "is over, for the provider: %s", why)
	case w.store.failedOver().Add(failoverSlack).After(s.since):
		w.count("lost in a failover")
		w.about(s.topics(), "lost in a failover: %.300s", a.body)
	default:
		s.mu.Lock()
		first := !s.lost
		s.lost = true
		s.mu.Unlock()
		if first {
			w.count("lost")
			w.violated(s.topics(), "lost: 401 though nobody asked for its end and the provider honours it: %.300s", a.body)
		}
	}
}

// refresh asks for new tokens now, as an application of one page does.
func (b *browser) refresh(ctx context.Context) {
	s := b.current()
	a := b.do(ctx, http.MethodPost, "/oauth2/session/refresh", scriptHeaders)
	b.w.count(fmt.Sprint("forced refresh ", a.status))
	switch a.status {
	case http.StatusOK, http.StatusServiceUnavailable, 0:
	case http.StatusUnauthorized:
		b.w.refusal(s, a)
		b.forget(s)
	default:
		b.w.violated(s.topics(), "other answer to a forced refresh: %s", a)
	}
}

// redirectKey is the context key of what is called at the first redirect.
type redirectKey struct{}

// signOut signs out and notes what that promises.
func (b *browser) signOut(ctx context.Context) answer {
	s := b.current()
	if s == nil {
		return answer{}
	}
	for one := s; one != nil; one = one.together {
		one.askEnd()
	}
	b.w.about(s.topics(), "%s: signs out", b.name)
	// Postern's redirect is what promises; the rest of the way is the provider's.
	acknowledged := false
	ctx = context.WithValue(ctx, redirectKey{}, func() {
		acknowledged = true
		for one := s; one != nil; one = one.together {
			one.acknowledge()
			b.w.about(one.topics(), "%s: the end is acknowledged", b.name)
		}
	})
	a := b.do(ctx, http.MethodPost, "/oauth2/logout", map[string]string{
		"Accept": "application/json", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin", "Origin": b.w.origin.String(),
	})
	if acknowledged {
		b.w.count("sign-outs")
		b.forget(s)
	} else {
		b.w.count(fmt.Sprintf("sign-out %d", a.status))
		b.w.about(s.topics(), "%s: sign-out: %s", b.name, a)
	}
	return a
}

// replay asks with a cookie that somebody kept, beside any browser.
func (w *world) replay(ctx context.Context, s *signedIn) answer {
	const path = "/replay"
	b := &browser{w: w, client: &http.Client{Transport: w, Timeout: clientLimit}}
	h := map[string]string{"Cookie": cookieName + "=" + s.cookie}
	for k, v := range scriptHeaders {
		h[k] = v
	}
	a := b.do(ctx, http.MethodGet, path, h)
	w.check(s, a, path, "replays")
	return a
}

func (b *browser) do(ctx context.Context, method, path string, headers map[string]string) answer {
	a := answer{began: time.Now()}
	r, err := http.NewRequestWithContext(ctx, method, b.w.origin.String()+path, nil)
	if err != nil {
		panic(err)
	}
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		a.err = err
		return a
	}
	a.status, a.body, a.url = resp.StatusCode, string(body), resp.Request.URL
	for _, c := range resp.Cookies() {
		if c.Name == cookieName && c.Value != "" {
			b.w.count("session cookies set")
		}
		a.deletes = a.deletes || c.Name == cookieName && (c.MaxAge < 0 || c.Value == "")
	}
	if a.status == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(body, &a.echo); err != nil {
			a.err = err
		}
	}
	if a.echo.User == "" {
		b.w.secrets.Page(a.body)
	}
	return a
}

func (a answer) String() string {
	if a.status == 0 {
		return fmt.Sprintf("no answer after %v: %v", time.Since(a.began).Round(time.Millisecond), a.err)
	}
	body := strings.Join(strings.Fields(a.body), " ")
	return fmt.Sprintf("%d after %v: %.200s", a.status, time.Since(a.began).Round(time.Millisecond), body)
}

func ctxOver(err error) bool {
	return strings.Contains(err.Error(), context.Canceled.Error()) || strings.Contains(err.Error(), context.DeadlineExceeded.Error())
}

package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/proxy/idp"
	"postern/proxy/page"
	"postern/session"
)

// Limits of the sign-in form of `grant: password`.
const (
	maxFormBytes   = 16 << 10
	maxCredential  = 1 << 10          // bytes of a user name or a password
	guessMemory    = 15 * time.Minute // how long a wrong password counts
	maxGuesses     = 20_000           // counters in memory, in two generations
	maxGuessDelay  = 10 * time.Second // for one user from one network
	maxUserDelay   = 2 * time.Second  // for one user from anywhere: nobody can lock another out
	maxWaitingHere = 4                // at once for one user from one network
)

// showForm answers `start` of a provider with grant: password by our own form. It begins an attempt like any other: its sealed cookie binds
// the form to this browser, so that nobody can be signed in by another site's form (RFC 9700 section 4.7).
func (p *Proxy) showForm(x *exchange, pr *provider, rd string, count int) {
	if p.looping(x, rd, count) {
		return
	}
	at := p.newAttempt(pr, rd, count)
	state, err := p.attempts.state(at, x.origin.String())
	if err == nil {
		err = p.attempts.set(x, pr, at)
	}
	if err != nil {
		p.refuse(x, http.StatusInternalServerError, "seal_failed", err)
		return
	}
	// Whoever comes because a session ended is told why.
	_, err = pr.sessions.Load(x.r.Context(), x.r.Header)
	var ended session.Reason
	if err != nil {
		ended = withoutSession(err).Ended
	}
	p.form(x, pr, http.StatusOK, page.SignIn{Fields: map[string]string{"state": state}, Ended: string(ended)})
}

// form writes the sign-in form.
func (p *Proxy) form(x *exchange, pr *provider, status int, s page.SignIn) {
	p.own(x.Header())
	if status == http.StatusUnauthorized {
		p.setChallenge(x)
	}
	s.Status, s.Provider, s.Action, s.RequestID = status, pr.title, p.prefix+"/start", x.client.RequestID
	p.pages.SignIn(x, x.r, s)
}

// passwordSignIn takes the posted form.
//
// Flow: this origin's form → an attempt of this browser → a delay that grows with wrong guesses → the provider decides → session. A wrong
// password keeps the attempt, so that the person can try again; the answer does not tell whether the user exists.
func (p *Proxy) passwordSignIn(x *exchange) {
	if err := p.crossOrigin.Check(x.r); err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_sign_in", err)
		return
	}
	x.r.Body = http.MaxBytesReader(x, x.r.Body, maxFormBytes)
	if err := x.r.ParseForm(); err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_form", errors.New("form is not readable")) // its error could quote the password
		return
	}
	state, user, password := x.r.PostForm.Get("state"), x.r.PostForm.Get("username"), x.r.PostForm.Get("password")
	begun, err := p.attempts.openState(state, x.origin.String())
	pr := p.provider(begun.Provider)
	if err != nil || pr == nil || pr.password == nil {
		p.strayCallback(x, false, errors.Join(errors.New("form is not ours"), err))
		return
	}
	at, err := p.attempts.find(x, pr, begun.ID)
	if err != nil {
		p.lateCallback(x, pr, begun, false, err)
		return
	}
	again := page.SignIn{Fields: map[string]string{"state": state}, User: user}
	if user == "" || password == "" || len(user) > maxCredential || len(password) > maxCredential {
		again.Problem = "missing"
		p.form(x, pr, http.StatusBadRequest, again)
		return
	}
	done, ok := p.guesses.begin(x.r.Context(), user, network(x.client.Addr), p.now())
	if !ok {
		x.reason("too_many_guesses", nil)
		p.auditSession(x, nil, auditSignInRefused, slog.String("method", "password"), slog.String("provider", pr.name), slog.String("reason", "too_many_guesses"))
		x.Header().Set("Retry-After", "10")
		again.Problem = "busy"
		p.form(x, pr, http.StatusTooManyRequests, again)
		return
	}
	told := guessUnanswered
	defer func() { done(told, p.now()) }()
	o := p.storeSession(x, pr, func(ctx context.Context) (session.Grant, error) { return pr.password(ctx, user, password) })
	told = guessOutcomeOf(o.err)
	switch {
	case told == guessWrong:
		x.reason("wrong_password", nil)
		again.Problem = "wrong"
		p.form(x, pr, http.StatusUnauthorized, again)
		return
	case o.err != nil:
		p.attempts.expire(x, p.attempts.name(at.ID))
		p.signInFailed(x, at, o.err)
		return
	}
	p.attempts.expire(x, p.attempts.name(at.ID))
	x.reason(reasonFormSignIn, nil)
	p.welcome(x, at, o)
}

// reasonFormSignIn is the log's word for a sign-in by our own form.
const reasonFormSignIn = "signed_in_by_form"

// network is the part of an address that one guesser is likely to have: /24 of IPv4, /56 of IPv6.
func network(a netip.Addr) string {
	bits := 56
	if a.Unmap().Is4() {
		a, bits = a.Unmap(), 24
	}
	prefix, err := a.Prefix(bits)
	if err != nil {
		return "unknown" // never empty: that is the counter of a user from anywhere
	}
	return prefix.String()
}

// guesses slows down guessing. Counters live in this process, bounded, and tell nothing about whether a user exists.
type guesses struct {
	mu       sync.Mutex
	now, old map[guessKey]*guess
}

// guessKey is a user from a network, or, with an empty network, a user from anywhere. The name is kept as a hash of fixed size.
type guessKey [32]byte

type guess struct {
	wrong   int
	last    time.Time
	waiting int
}

// guessOutcome is what the provider told about a guess.
type guessOutcome int

const (
	guessUnanswered guessOutcome = iota // nothing: neither forgiven nor counted
	guessWrong
	guessRight
)

// guessOutcomeOf reads it from the error of a sign-in. Only a password that the provider took forgives earlier wrong ones: a provider that is down
// or says "too many" must not make guessing fast again.
func guessOutcomeOf(err error) guessOutcome {
	var refused *idp.AuthorizationError
	switch {
	case err == nil, errors.Is(err, errNotStored):
		return guessRight
	case errors.As(err, &refused) && refused.Code == "invalid_grant":
		return guessWrong
	}
	return guessUnanswered
}

// begin waits as long as earlier wrong guesses ask for. It is false when too many of the same user and network wait already, or the client left.
// done says how it went.
func (g *guesses) begin(ctx context.Context, user, network string, now time.Time) (done func(o guessOutcome, now time.Time), ok bool) {
	here, anywhere := guessKeyOf(user, network), guessKeyOf(user, "")
	g.mu.Lock()
	h, a := g.counter(here, now), g.counter(anywhere, now)
	if h.waiting >= maxWaitingHere {
		g.mu.Unlock()
		return nil, false
	}
	// Guesses under way count as wrong, so that many at once are no way around.
	delay := max(hereDelay(h.wrong+h.waiting), userDelay(a.wrong))
	h.waiting++
	g.mu.Unlock()
	done = func(o guessOutcome, now time.Time) {
		g.mu.Lock()
		defer g.mu.Unlock()
		h.waiting--
		switch o {
		case guessRight:
			h.wrong = 0
		case guessWrong:
			h.wrong++
			a.wrong++
			h.last, a.last = now, now
		}
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			done(guessUnanswered, now) // it was never sent
			return nil, false
		}
	}
	return done, true
}

// hereDelay doubles from the third wrong guess on.
func hereDelay(wrong int) time.Duration {
	if wrong < 2 {
		return 0
	}
	return min(250*time.Millisecond<<min(wrong-2, 10), maxGuessDelay)
}

// userDelay grows slowly and stays small, whoever guesses.
func userDelay(wrong int) time.Duration {
	return min(time.Duration(wrong/10)*100*time.Millisecond, maxUserDelay)
}

// guessKeyOf hashes what is counted, parts apart. Case and spaces of a name count as one spelling, since most directories take them for the same.
func guessKeyOf(user, network string) guessKey {
	user = strings.ToLower(strings.Join(strings.Fields(user), " "))
	return sha256.Sum256([]byte(strconv.Itoa(len(user)) + ":" + user + network))
}

// counter finds or makes a counter; the caller holds the lock.
func (g *guesses) counter(key guessKey, now time.Time) *guess {
	c := g.now[key]
	if c == nil {
		if g.now == nil || len(g.now) >= maxGuesses/2 {
			g.old, g.now = g.now, make(map[guessKey]*guess)
		}
		if c = g.old[key]; c == nil {
			c = &guess{}
		}
		g.now[key] = c
	}
	if now.Sub(c.last) > guessMemory {
		c.wrong = 0
	}
	return c
}

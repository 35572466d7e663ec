package proxy

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"postern/config"
	"postern/session"
	"postern/session/seal"
)

const (
	// keptLifetime is how long a request is kept.
	keptLifetime = 10 * time.Minute
	// keptReadTimeout bounds how long its body may take to arrive.
	keptReadTimeout = 30 * time.Second
	// maxKeptAtOnce bounds the kept requests that this process holds in memory at a time, each about three times over.
	maxKeptAtOnce = 8
	// keptEndpoint is the page about it, under our prefix.
	keptEndpoint = "/kept"
)

// keeper says how much is kept.
type keeper struct {
	maxSize, maxTotal int64
	places            chan struct{} // of the process
}

func newKeeper(c config.KeptRequests, places chan struct{}) keeper {
	return keeper{maxSize: int64(c.MaxSize), maxTotal: int64(c.MaxTotal), places: places}
}

// enter takes a place for one request in memory, if there is one.
func (k *keeper) enter() (leave func(), ok bool) {
	select {
	case k.places <- struct{}{}:
		return func() { <-k.places }, true
	default:
		return nil, false
	}
}

// keptTicket is what a browser holds of its kept request, in a sealed cookie: where it is in the store, and the key without which nobody can
// read it there. The numbers stay for good.
type keptTicket struct {
	Provider string   `cbor:"1,keyasint"` // whose session is over
	Session  string   `cbor:"2,keyasint"` // the store key of that, and of what is kept
	Key      [32]byte `cbor:"3,keyasint"`
	Form     bool     `cbor:"4,keyasint,omitempty"` // a person sent it, not a script
}

// marker names this one request in the page's form. It tells nothing about the key.
func (t *keptTicket) marker() string {
	sum := sha256.Sum256(append([]byte("kept request\x00"), t.Key[:]...))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// place binds what is sealed to this origin and this session.
func (t *keptTicket) place(origin string) []byte {
	return []byte("kept request\x00" + origin + "\x00" + t.Session)
}

func (p *Proxy) keptCookie() string { return p.attempts.cookie.Name + "kept" }

// keptTicket opens this browser's ticket.
func (p *Proxy) keptTicket(x *exchange) (t keptTicket, ok bool) {
	for _, c := range x.r.CookiesNamed(p.keptCookie()) {
		b, _, err := p.attempts.ring.Open("kept\x00"+x.origin.String(), c.Value, keptLifetime)
		if err == nil && cbor.Unmarshal(b, &t) == nil {
			return t, true
		}
	}
	return keptTicket{}, false
}

func (p *Proxy) setKeptTicket(x *exchange, t keptTicket) error {
	b, err := cbor.Marshal(t)
	if err != nil {
		return err
	}
	value, err := p.attempts.ring.Seal("kept\x00"+x.origin.String(), b)
	if err != nil {
		return err
	}
	c := p.attempts.cookie
	c.Name, c.Value, c.MaxAge = p.keptCookie(), value, int(keptLifetime.Seconds())
	http.SetCookie(x, &c)
	return nil
}

// The reasons for which a request that might be kept is not, beside errors of the store.
var (
	errKeptBusy = errors.New("too many requests are being kept")
	errKeptForm = errors.New("a form of the same session is kept already")
)

// keep keeps a request that needs a session and whose session is over, so that its person can send it after signing in. It is false, and nothing is
// stored, where that is not possible: then all is as if there were no such thing.
//
// Flow: our own page sent something that can be sent again → the store still knows whose session it was, which it does of nobody who makes cookies
// up → head and body are read, bounded, and sealed under a new key → the store takes it, in place of an earlier one of the same session → the key goes
// to the browser alone.
func (p *Proxy) keep(x *exchange) bool {
	if !p.mayKeep(x) {
		return false
	}
	word := auditKept
	switch err := p.keepNow(x); {
	case err == nil:
	case errors.Is(err, session.ErrNone):
		return false
	case errors.Is(err, session.ErrFull):
		word = "full"
	case errors.Is(err, errKeptBusy):
		word = "busy"
	case errors.Is(err, errKeptForm):
		word = "form_kept_before"
	case errors.Is(err, errKeptSize):
		word = "too_large"
	default:
		word, x.err = "failed", err
	}
	x.more = append(x.more, slog.String("kept", word))
	if word == "full" || word == "busy" || word == "too_large" {
		p.metrics.Rejected("kept_request")
	}
	return word == auditKept
}

// mayKeep tells whether a request is of the kind that is kept.
func (p *Proxy) mayKeep(x *exchange) bool {
	switch {
	case p.keeper.maxSize == 0 || x.asked || x.route.upstream == nil: // who asks for another proxy has no body
	case x.verdict.Ended == "" || x.verdict.Ended == session.ReasonSignedOut: // nobody, or a person who wanted no more of it
	case x.revised.Load() != nil: // it is under way: the application may have it, and its body is read
	case visitorOf(x.r) == framed || isUpgrade(x.r):
	case !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, x.r.Method):
	case x.r.ContentLength > p.keeper.maxSize:
	default:
		return hasKeptType(x.r) && fromOrigin(x.r.Header, x.origin)
	}
	return false
}

// hasKeptType tells forms, and what scripts send in their place, from beacons and streams.
func hasKeptType(r *http.Request) bool {
	types := r.Header["Content-Type"]
	if len(types) != 1 {
		return len(types) == 0 && r.ContentLength == 0
	}
	media, _, err := mime.ParseMediaType(types[0])
	switch {
	case err != nil:
		return false
	case media == "text/plain":
		return visitorOf(r) == formPost
	}
	return media == "application/x-www-form-urlencoded" || media == "multipart/form-data" || media == "application/json" || strings.HasSuffix(media, "+json")
}

// fromOrigin tells whether a browser says that a page of this very origin sends the request. What says nothing is from nowhere.
func fromOrigin(h http.Header, origin *url.URL) bool {
	ours := origin.Scheme + "://" + origin.Host
	site, from := h["Sec-Fetch-Site"], h["Origin"]
	if len(site) > 0 && (len(site) > 1 || site[0] != "same-origin") || len(from) > 0 && (len(from) > 1 || from[0] != ours) {
		return false
	}
	if len(site)+len(from) > 0 {
		return true
	}
	page, err := url.Parse(h.Get("Referer"))
	return err == nil && page.Scheme+"://"+page.Host == ours
}

// whoseEnded finds out with which of the route's providers a session of this browser has ended, and whose it was.
func (x *exchange) whoseEnded() (pr *provider, who session.Whose, err error) {
	err = session.ErrNone
	for _, pr = range x.route.providers {
		if who, err = pr.sessions.WhoseEnded(x.r.Context(), x.r.Header); !errors.Is(err, session.ErrNone) {
			break
		}
	}
	return pr, who, err
}

// keepNow is keep for a request of that kind.
func (p *Proxy) keepNow(x *exchange) error {
	leave, ok := p.keeper.enter()
	if !ok {
		return errKeptBusy
	}
	defer leave()
	ctx := x.r.Context()
	pr, who, err := x.whoseEnded()
	if err != nil {
		return err
	}
	t := keptTicket{Provider: pr.name, Session: who.ID, Form: visitorOf(x.r) == formPost}
	if before, ok := p.keptTicket(x); ok && before.Form && before.Session == t.Session && !t.Form {
		return errKeptForm // a script that goes on by itself must not take the place of what a person typed
	}
	_, _ = rand.Read(t.Key[:]) // never fails since Go 1.24
	k := keptRequest{Issuer: who.Issuer, Subject: who.Subject, Method: x.r.Method, Target: x.target, Header: http.Header{}, At: x.start.Unix()}
	for _, name := range keptHeaders {
		if values := x.r.Header[name]; len(values) > 0 {
			k.Header[name] = values
		}
	}
	if x.body != nil {
		x.body.release() // its bound is for bodies that may take long
	}
	control := http.NewResponseController(x)
	_ = control.SetReadDeadline(time.Now().Add(keptReadTimeout)) // where it cannot be set, the client's own patience is the bound
	plain, err := k.readKept(x.r, p.keeper.maxSize)
	if err != nil {
		return err
	}
	_ = control.SetReadDeadline(time.Time{})
	sealed, err := seal.Encrypt(&t.Key, plain, t.place(x.origin.String()))
	if err != nil {
		return err
	}
	if err := p.store.Keep(ctx, t.Session, sealed, keptLifetime, p.keeper.maxTotal); err != nil {
		return err
	}
	if err := p.setKeptTicket(x, t); err != nil {
		return err
	}
	p.auditSession(x, nil, auditKept, slog.String("provider", pr.name), slog.String("subject", who.Subject), slog.String("session", who.Handle),
		slog.String("method", x.r.Method), slog.String("path", x.path))
	return nil
}

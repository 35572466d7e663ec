package proxy

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"postern/proxy/access"
	"postern/session/seal"
)

// Limits of sign-ins under way. They live in the browser, one sealed cookie each (RFC 9700 section 2.1: bound to the user agent).
const (
	maxAttempts       = 8                // open at once; the oldest go
	maxAttemptBytes   = 700              // name and value of one
	maxAttemptsBytes  = 4096             // names and values of all
	attemptLifetime   = 30 * time.Minute // how long a person may take at the provider
	stateLifetime     = 24 * time.Hour   // how long a lost attempt is recognised and started again
	maxSignInsInARow  = 3                // without a session arriving: then something is wrong with cookies or clocks
	signInsInARowLife = time.Minute
)

// attempt is one sign-in under way. What has a number is in its cookie; the numbers stay for good.
type attempt struct {
	ID       string   `cbor:"-"` // 16 hex digits that sort by time
	Provider string   `cbor:"-"`
	Secret   [32]byte `cbor:"1,keyasint"`           // nonce and PKCE verifier are derived from it
	Count    int      `cbor:"2,keyasint,omitempty"` // sign-ins in a row before this one without a session arriving
	ReturnTo string   `cbor:"3,keyasint"`

	Demand access.Demand `cbor:"10,keyasint,omitzero"`  // how strong and recent the sign-in must be
	Again  bool          `cbor:"11,keyasint,omitempty"` // the provider was asked before, and signed the person in too long ago
}

// attempts seals attempts into cookies and state parameters.
type attempts struct {
	ring   *seal.Ring
	cookie http.Cookie // name, Secure and SameSite of every attempt cookie; the name is a prefix
}

func newAttemptID(now time.Time) string {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:4], uint32(now.Unix()))
	_, _ = rand.Read(b[4:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// purpose binds a cookie to the provider, the client and the origin that it was made for. The issuer is in it because a name of the configuration may come
// to stand for another one while a person is at the first, whose code must not go there.
func (a *attempts) purpose(pr *provider, origin string) string {
	return "attempt\x00" + pr.idp.Issuer() + "\x00" + pr.name + "\x00" + pr.clientID + "\x00" + origin
}

// name is the cookie's name for one attempt.
func (a *attempts) name(id string) string { return a.cookie.Name + id }

// set writes the attempt's cookie, and expires the oldest ones beyond the limits. An address too long for the cookie loses its fragment,
// then its query, then becomes "/".
func (a *attempts) set(x *exchange, pr *provider, at attempt) error {
	var value string
	withoutFragment, _, _ := strings.Cut(at.ReturnTo, "#")
	for _, back := range []string{at.ReturnTo, withoutFragment, pathOnly(at.ReturnTo), "/"} {
		at.ReturnTo = back
		payload, err := cbor.Marshal(at)
		if err != nil {
			return err
		}
		if value, err = a.ring.Seal(a.purpose(pr, x.origin.String()), payload); err != nil {
			return err
		}
		if len(a.name(at.ID))+len(value) <= maxAttemptBytes {
			break
		}
	}
	a.makeRoom(x, len(a.name(at.ID))+len(value))
	c := a.cookie
	c.Name, c.Value, c.MaxAge = a.name(at.ID), value, int(attemptLifetime.Seconds())
	if pr.idp.ResponseMode() == "form_post" {
		c.SameSite = http.SameSiteNoneMode // the provider's page posts the callback from its own site
	}
	http.SetCookie(x, &c)
	return nil
}

func pathOnly(address string) string {
	path, _, _ := strings.Cut(address, "?")
	path, _, _ = strings.Cut(path, "#")
	return path
}

// makeRoom expires the oldest attempts of this browser so that one more of size bytes fits.
func (a *attempts) makeRoom(x *exchange, size int) {
	var open []*http.Cookie
	for _, c := range x.r.Cookies() {
		if id, ok := strings.CutPrefix(c.Name, a.cookie.Name); ok && len(id) == 16 {
			open = append(open, c)
			size += len(c.Name) + len(c.Value)
		}
	}
	slices.SortFunc(open, func(l, r *http.Cookie) int { return cmp.Compare(l.Name, r.Name) })
	for len(open) >= maxAttempts || len(open) > 0 && size > maxAttemptsBytes {
		size -= len(open[0].Name) + len(open[0].Value)
		a.expire(x, open[0].Name)
		open = open[1:]
	}
}

// find opens the cookie of an attempt. The zero error means that this browser began it.
func (a *attempts) find(x *exchange, pr *provider, id string) (attempt, error) {
	for _, c := range x.r.CookiesNamed(a.name(id)) {
		payload, _, err := a.ring.Open(a.purpose(pr, x.origin.String()), c.Value, attemptLifetime)
		at := attempt{ID: id, Provider: pr.name}
		if err != nil || cbor.Unmarshal(payload, &at) != nil || at.ReturnTo == "" {
			continue
		}
		return at, nil
	}
	return attempt{}, errors.New("no cookie of this sign-in attempt")
}

// expire removes a cookie of sign-ins. Name, path and Secure are those that it was set with; SameSite, which is none for form_post, does not count for that.
func (a *attempts) expire(x *exchange, name string) {
	c := a.cookie
	c.Name, c.MaxAge = name, -1
	http.SetCookie(x, &c)
}

// state seals what must be known of an attempt even when its cookie is gone: which provider, and how often it was begun.
func (a *attempts) state(at attempt, origin string) (string, error) {
	id, err := hex.DecodeString(at.ID)
	if err != nil {
		return "", err
	}
	return a.ring.Seal("state\x00"+origin, append(append(id, byte(at.Count)), at.Provider...))
}

// openState is the reverse of state. The secret and the return address are not in it.
func (a *attempts) openState(state, origin string) (attempt, error) {
	b, _, err := a.ring.Open("state\x00"+origin, state, stateLifetime)
	if err != nil {
		return attempt{}, err
	}
	if len(b) < 9 {
		return attempt{}, errors.New("state too short")
	}
	return attempt{ID: hex.EncodeToString(b[:8]), Count: int(b[8]), Provider: string(b[9:])}, nil
}

// signIns counts the sign-ins that this browser has finished in a row without its session arriving.
func (a *attempts) signIns(x *exchange) int {
	for _, c := range x.r.CookiesNamed(a.loopName()) {
		if b, _, err := a.ring.Open("loop\x00"+x.origin.String(), c.Value, signInsInARowLife); err == nil && len(b) == 1 {
			return int(b[0])
		}
	}
	return 0
}

// setSignIns remembers the count for a minute.
func (a *attempts) setSignIns(x *exchange, n int) error {
	value, err := a.ring.Seal("loop\x00"+x.origin.String(), []byte{byte(n)})
	if err != nil {
		return err
	}
	c := a.cookie
	c.Name, c.Value, c.MaxAge = a.loopName(), value, int(signInsInARowLife.Seconds())
	http.SetCookie(x, &c)
	return nil
}

// forgetSignIns ends the count: a session has arrived, or the person was told.
func (a *attempts) forgetSignIns(x *exchange) {
	for _, line := range x.r.Header["Cookie"] {
		if strings.Contains(line, a.loopName()+"=") {
			a.expire(x, a.loopName())
			return
		}
	}
}

func (a *attempts) loopName() string { return a.cookie.Name + "loop" }

// ours tells whether a cookie of this name belongs to sign-ins under way.
func (a *attempts) ours(name string) bool { return strings.HasPrefix(name, a.cookie.Name) }

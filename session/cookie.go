package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"postern/session/seal"
)

const (
	// maxCookie is the longest value that is looked at; ours have about 190 bytes.
	maxCookie = 512
	// maxCookies bounds the cookies of our name that are tried in one request.
	maxCookies = 8

	ticketFormat = 1
	ticketSize   = 1 + idSize + seal.KeySize
	// ticketWeight is about what a remembered ticket costs: its hash, the ticket and the cache's own entry.
	ticketWeight = 320

	idSize = 16
)

// ticket is what a session cookie says: where the session is stored and the key that opens it.
type ticket struct {
	key     string
	dataKey [32]byte
}

// opened is a ticket as the cache has it. It holds for one generation of the ring.
type opened struct {
	ticket
	generation uint64
	old        bool         // opened by another key than the first
	offered    atomic.Int64 // when the browser was last given a better cookie, in Unix milliseconds
}

// newTicket makes the cookie's value for a new session, and the ticket that it opens to.
func (m *Manager) newTicket() (value string, t *ticket, err error) {
	var plain [ticketSize]byte
	plain[0] = ticketFormat
	rand.Read(plain[1:]) // never fails: crypto/rand ends the program instead
	value, err = m.ring.Seal(m.purpose, plain[:])
	if err != nil {
		return "", nil, fmt.Errorf("seal cookie: %w", err)
	}
	return value, parseTicket(plain[:]), nil
}

// openTicket opens a cookie's value. One that we did not seal, for this provider of this deployment, under a key that we still
// have, is ReasonKeyUnknown, whatever is wrong with it.
func (m *Manager) openTicket(value string) (*opened, error) {
	generation := m.ring.Generation()
	plain, key, err := m.ring.Open(m.purpose, value, m.o.Lifetime)
	if errors.Is(err, seal.ErrExpired) {
		return nil, &EndedError{ReasonLifetime}
	}
	if err != nil || len(plain) != ticketSize || plain[0] != ticketFormat {
		return nil, &EndedError{ReasonKeyUnknown}
	}
	return &opened{ticket: *parseTicket(plain), generation: generation, old: key > 0}, nil
}

// ticket is what a cookie's value, whose hash is given, opens to, from the cache if the ring has not changed since.
func (m *Manager) ticket(value string, hash [32]byte) (*opened, error) {
	t, ok := m.tickets.GetIfPresent(hash)
	if ok && t.generation == m.ring.Generation() {
		return t, nil
	}
	t, err := m.openTicket(value)
	if err != nil {
		if ok {
			m.tickets.Invalidate(hash)
		}
		return nil, err
	}
	m.tickets.Set(hash, t)
	return t, nil
}

func parseTicket(plain []byte) *ticket {
	// The store sees only a hash of the id, so that nobody can make a cookie's id from a dump. It is as long as the id: more would
	// only cost room, in each index entry too.
	hash := sha256.Sum256(plain[1 : 1+idSize])
	t := &ticket{key: base64.RawURLEncoding.EncodeToString(hash[:idSize])}
	copy(t.dataKey[:], plain[1+idSize:])
	return t
}

// CookieName is the name of the session cookie.
func (m *Manager) CookieName() string { return m.o.Cookie.Name }

// ExpireCookie removes the session cookie. Its attributes are those of the one that was set, else browsers keep that.
func (m *Manager) ExpireCookie() *http.Cookie {
	c := m.cookie("")
	c.MaxAge = -1
	return c
}

func (m *Manager) cookie(value string) *http.Cookie {
	c := &http.Cookie{
		Name: m.o.Cookie.Name, Value: value, Path: "/",
		HttpOnly: true, Secure: m.o.Cookie.Secure, SameSite: m.o.Cookie.SameSite,
	}
	if m.o.Cookie.Persistent {
		c.MaxAge = int(m.o.Lifetime.Seconds())
	}
	return c
}

// cookieValues fills values with those of the cookies named name and returns how many there are. It works on the text of the
// header: net/http drops all cookies of a request that has more than 3000.
func cookieValues(h http.Header, name string, values *[maxCookies]string) int {
	n := 0
	for _, line := range h["Cookie"] {
		for line != "" && n < len(values) {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			k, v, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
			if !ok || k != name || v == "" || len(v) > maxCookie {
				continue
			}
			values[n] = v
			n++
		}
	}
	return n
}

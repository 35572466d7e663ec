package session

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// Reason says why a session ended. The zero value means that it lives.
type Reason string

// Every end of a session has one of these reasons.
const (
	ReasonIdle            Reason = "idle"             // not used for idle_timeout
	ReasonLifetime        Reason = "lifetime"         // older than lifetime
	ReasonRefreshRejected Reason = "refresh_rejected" // the provider refused the refresh token, or its answer named someone else
	ReasonTokenExpired    Reason = "token_expired"    // the access token ran out and there is no refresh token
	ReasonSignedOut       Reason = "signed_out"       // the person signed out
	ReasonBackChannel     Reason = "back_channel"     // the provider said so
	ReasonFrontChannel    Reason = "front_channel"    // the provider said so, by way of the browser
	ReasonAdmin           Reason = "admin"            // an operator said so
	ReasonLimit           Reason = "limit"            // more than max_sessions_per_user
	ReasonReplaced        Reason = "replaced"         // a new sign-in in the same browser took its place
	ReasonStoreMiss       Reason = "store_miss"       // the store no longer knows it
	ReasonKeyUnknown      Reason = "key_unknown"      // its cookie opens under none of our keys
	ReasonTampered        Reason = "tampered"         // its stored value does not open
)

// Tokens are what the provider gave for a session.
type Tokens struct {
	Access  string
	Refresh string
	ID      string
	// Obtained and Expiry bound the access token; a zero Expiry is unknown.
	Obtained, Expiry time.Time
	Scope            string
}

// Identity is who is signed in, as rules and identity headers use it. Empty members are unknown.
type Identity struct {
	User              string
	Email             string // only an address that the provider vouches for
	Name              string
	PreferredUsername string
	Groups            []string
}

// Grant is what one sign-in or one refresh yields.
type Grant struct {
	// Subject is empty where the provider does not tell who signed in. Such a session is not found by its person.
	Issuer, Subject string
	// SID is the provider's name for its own session, when it tells.
	SID      string
	AuthTime time.Time
	// Issued is when the provider issued the sign-in (the ID token's iat); zero where it does not tell. A refresh keeps it.
	Issued   time.Time
	ACR      string
	Identity Identity
	// Extra holds what else the configuration takes from the provider's claims, by name: at most 16 members of 1 KiB each. More is
	// left out.
	Extra map[string]string
	// Claims are those of the provider's claims that rules and header values read, as they came in JSON with numbers as [json.Number]. Nobody
	// changes them. More than 64 KiB of JSON is left out as a whole.
	Claims map[string]any
	Tokens Tokens
}

// Session is what is remembered about one signed-in browser. It is a snapshot that requests and the cache share:
// nobody changes it, and what changes it (a refresh) makes another one.
type Session struct {
	Grant
	// Provider is the name of the provider in the configuration.
	Provider string
	// Created is when the person signed in, Ends when the session is over whatever happens.
	Created, Ends time.Time
	// Seen is when it was last used, as far as the store knew when it was read.
	Seen time.Time
	// SignIn is shared by the sessions of one sign-in. It stands in for a missing SID and is empty where there is one.
	SignIn string
	// Browser is the browser's family.
	Browser string
	// Version counts the changes of what is stored.
	Version int64

	key     string // of the record in the store
	dataKey [32]byte
	due     time.Time // when to refresh; zero: never
	must    time.Time // from when on requests wait for the refresh
	// unknown counts how often the present refresh token was sent without anyone knowing what became of it.
	unknown int

	// See grant.go. In the store a session that shares its grant has no tokens and no identity of its own, but the places where the
	// grant may lie. As it is used it has both, and the two parts that it was made of.
	shares     bool
	grants     []string
	generation uint64 // of the ring that made grants
	own, grant *Session
	// A grant has these: the order of its writes, and why it has no tokens, if so.
	stamp int64
	gone  Reason
}

// Handle is a short public name of the session for logs. It opens nothing.
func (s *Session) Handle() string { return handle(s.key) }

// ID names the session for [Manager.EndID]. It opens nothing.
func (s *Session) ID() string { return s.key }

// RefreshDue is when the access token is refreshed next. It is zero if there is no refresh token or no known expiry.
func (s *Session) RefreshDue() time.Time { return s.due }

// handle is the beginning of the hash that the store key is.
func handle(key string) string {
	key = strings.TrimPrefix(key, grantPrefix)
	b, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil || len(b) < 6 {
		return ""
	}
	return hex.EncodeToString(b[:6])
}

// BrowserFamily names the browser that sent userAgent: Firefox, Chrome, Safari, Edge or Other.
func BrowserFamily(userAgent string) string {
	// Browsers imitate each other, so the order matters: Edge calls itself Chrome too, and both call themselves Safari.
	for _, f := range []struct{ mark, family string }{
		{"OPR/", "Other"}, {"SamsungBrowser/", "Other"},
		{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},
		{"Chrome/", "Chrome"}, {"CriOS/", "Chrome"}, {"Chromium/", "Chrome"},
		{"Safari/", "Safari"},
	} {
		if strings.Contains(userAgent, f.mark) {
			return f.family
		}
	}
	return "Other"
}

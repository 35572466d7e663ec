package session

import (
	"encoding/binary"
	"fmt"
	"time"

	"postern/session/seal"
)

// A session's record is two sealed parts. The larger one opens with the cookie alone. The other, about it, opens under the
// deployment's keys: it is what operators, owners and logout tokens need to know of a session whose cookie is elsewhere.
//
//	byte  0   recordFormat
//	          length of the second field (uvarint)
//	          about, sealed under a key derived from the deployment's and the session's store key
//	          the session, sealed under the data key that is in its cookie
//
// Both are written by one compare-and-set, so they never contradict each other. And there is one of the first for each session, not
// one for each name under which the session is found: index entries hold nothing but the store key.

// recordFormat is the first byte of what a store keeps for a session. A record with another first byte is another binary's.
const recordFormat = 2

// purposeAbout is the purpose of the keys under which about is sealed, one key for each session.
const purposeAbout = "about"

// about is what is known of a session without its cookie. It holds no access token and no ID token. The numbers are for ever; like in
// a stored session, unknown ones are skipped.
type about struct {
	Subject string `cbor:"1,keyasint,omitempty"`
	User    string `cbor:"2,keyasint,omitempty"` // where it is not the subject
	SID     string `cbor:"3,keyasint,omitempty"`
	SignIn  string `cbor:"4,keyasint,omitempty"` // where there is no SID
	// Provider is the name in the configuration: two of them may be the same client of the same issuer.
	Provider string `cbor:"5,keyasint,omitempty"`
	Browser  string `cbor:"6,keyasint,omitempty"`
	Created  int64  `cbor:"7,keyasint,omitempty"` // Unix seconds
	Life     int64  `cbor:"8,keyasint,omitempty"` // seconds from Created to the end
	Issued   int64  `cbor:"9,keyasint,omitempty"` // Unix seconds at the provider; 0 is not known
	Shares   bool   `cbor:"10,keyasint,omitempty"`

	// With Options.RevokeWithoutCookie alone.
	Refresh packed `cbor:"11,keyasint,omitempty"`
	Scope   string `cbor:"12,keyasint,omitempty"`
}

// aboutOf is what the record of s says about it.
func (m *Manager) aboutOf(s *Session) about {
	a := about{
		Subject: s.Subject, SID: s.SID, Provider: s.Provider, Browser: s.Browser, Shares: s.shares,
		Created: s.Created.Unix(), Life: int64(s.Ends.Sub(s.Created) / time.Second),
	}
	if s.Identity.User != s.Subject {
		a.User = s.Identity.User
	}
	if s.SID == "" {
		a.SignIn = s.SignIn
	}
	if !s.Issued.IsZero() {
		a.Issued = s.Issued.Unix()
	}
	if m.o.RevokeWithoutCookie && s.Tokens.Refresh != "" {
		a.Refresh, a.Scope = pack(s.Tokens.Refresh), s.Tokens.Scope
	}
	return a
}

// user is who is signed in, as [Identity] has it.
func (a *about) user() string {
	if a.User != "" {
		return a.User
	}
	return a.Subject
}

func (a *about) created() time.Time { return time.Unix(a.Created, 0).UTC() }

func (a *about) ends() time.Time { return a.created().Add(time.Duration(a.Life) * time.Second) }

// issued is when the provider says that the sign-in happened, to the second: in its own clock if it told, else in ours.
func (a *about) issued() time.Time {
	if a.Issued != 0 {
		return time.Unix(a.Issued, 0)
	}
	return a.created()
}

// aboutKeys are the keys under which the record of key may say something about it, the sealing one first. Each session has its own,
// so that however often a session is written the nonces of one key stay few.
func (m *Manager) aboutKeys(key string) [][]byte {
	return m.ring.MAC(purposeAbout, m.o.Deployment, m.o.Issuer, m.o.ClientID, key)
}

// frame puts together what the store keeps for s. Sealed is the part that the cookie opens.
func (m *Manager) frame(s *Session, sealed []byte) ([]byte, error) {
	part, err := m.sealAbout(s.key, m.aboutOf(s))
	if err != nil {
		return nil, err
	}
	return joinParts(part, sealed), nil
}

func (m *Manager) sealAbout(key string, a about) ([]byte, error) {
	plain, err := m.codec.enc.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode what is known of a session: %w", err)
	}
	return seal.Encrypt((*[seal.KeySize]byte)(m.aboutKeys(key)[0]), plain, []byte{recordFormat})
}

// joinParts is the reverse of unframe.
func joinParts(part, sealed []byte) []byte {
	b := make([]byte, 0, 1+binary.MaxVarintLen32+len(part)+len(sealed))
	b = append(b, recordFormat)
	b = binary.AppendUvarint(b, uint64(len(part)))
	b = append(b, part...)
	return append(b, sealed...)
}

// rest is what stays behind the tombstone of key when its tokens are taken away: who it was. Its length depends on a alone. Where a could not be
// read (ok is false) it is nothing.
func (m *Manager) rest(key string, a about, ok bool) []byte {
	if !ok {
		return nil
	}
	a.Refresh, a.Scope = nil, ""
	part, err := m.sealAbout(key, a)
	if err != nil {
		return nil
	}
	return joinParts(part, nil)
}

// holdsTokens tells whether a sealed value behind a tombstone is more than rest.
func holdsTokens(value []byte) bool {
	_, sealed, err := unframe(value)
	return len(value) > 0 && (err != nil || len(sealed) > 0)
}

// unframe takes a record's value apart. It is errFormat for a value that this binary does not know how to read.
func unframe(value []byte) (part, sealed []byte, err error) {
	if len(value) == 0 || value[0] != recordFormat {
		return nil, nil, errFormat
	}
	length, n := binary.Uvarint(value[1:])
	if n <= 0 || length > uint64(len(value)-1-n) {
		return nil, nil, seal.ErrInvalid
	}
	rest := value[1+n:]
	return rest[:length], rest[length:], nil
}

// openAbout reads what the record of key says about it, and which key of the ring opened that. It is false where no key of ours opens that: a record of another client,
// another deployment or a newer binary, or one that somebody changed.
func (m *Manager) openAbout(key string, value []byte) (a about, by int, ok bool) {
	part, _, err := unframe(value)
	if err != nil {
		return about{}, 0, false
	}
	for i, k := range m.aboutKeys(key) {
		plain, err := seal.Decrypt((*[seal.KeySize]byte)(k), part, []byte{recordFormat})
		if err != nil {
			continue
		}
		err = m.codec.dec.Unmarshal(plain, &a)
		return a, i, err == nil
	}
	return about{}, 0, false
}

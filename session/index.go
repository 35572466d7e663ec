package session

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// The kinds of things by which sessions are found without their cookie.
const (
	bySID     = "sid"
	bySubject = "sub"
	bySignIn  = "sign_in"
)

// purposeIndex is the purpose of index names and index records.
const purposeIndex = "index"

// nameSize is the length of a name's hash: 128 bits of a keyed hash are beyond guessing and colliding.
const nameSize = 16

// indexed is the sealed part of an index entry. It never holds a token. The numbers are for ever.
type indexed struct {
	// Names are the names of the session's other entries, so that an end without its cookie removes them too.
	Names   [][]byte `cbor:"1,keyasint,omitempty"`
	Created int64    `cbor:"2,keyasint,omitempty"`
	// The rest describes the session to its owner and to operators; only the entry by subject has it.
	Provider string `cbor:"3,keyasint,omitempty"`
	User     string `cbor:"4,keyasint,omitempty"`
	Browser  string `cbor:"5,keyasint,omitempty"`
	Seen     int64  `cbor:"6,keyasint,omitempty"`
	Ends     int64  `cbor:"7,keyasint,omitempty"`
}

// hashes are the names of one kind and value under each key of the ring, the sealing key's first. The store sees only these.
func (m *Manager) hashes(issuer, kind, value string) [][]byte {
	macs := m.ring.MAC(purposeIndex, m.o.Deployment, m.o.ClientID, issuer, kind, value)
	for i := range macs {
		macs[i] = macs[i][:nameSize]
	}
	return macs
}

func indexName(hash []byte) string { return base64.RawURLEncoding.EncodeToString(hash) }

// indexKeys lists the kinds and values under which s is found.
func indexKeys(s *Session) [][2]string {
	var keys [][2]string
	if s.Subject != "" {
		keys = append(keys, [2]string{bySubject, s.Subject})
	}
	keys = append(keys, [2]string{bySignIn, s.SignIn})
	if s.SID != "" {
		keys = append(keys, [2]string{bySID, s.SID})
	}
	return keys
}

// indexEntries makes the entries of a new session.
func (m *Manager) indexEntries(s *Session) ([]IndexEntry, error) {
	keys := indexKeys(s)
	hashes := make([][]byte, len(keys))
	for i, k := range keys {
		hashes[i] = m.hashes(s.Issuer, k[0], k[1])[0]
	}
	entries := make([]IndexEntry, len(keys))
	for i, k := range keys {
		rec := indexed{Created: millis(s.Created)}
		for j, h := range hashes {
			if j != i {
				rec.Names = append(rec.Names, h)
			}
		}
		e := IndexEntry{Name: indexName(hashes[i]), Handle: s.key, Expires: s.Ends}
		if k[0] == bySubject {
			rec.Provider, rec.User, rec.Browser = s.Provider, s.Identity.User, s.Browser
			rec.Seen, rec.Ends = millis(s.Seen), millis(s.Ends)
			e.Max = m.o.MaxPerUser
		}
		plain, err := m.codec.enc.Marshal(rec)
		if err != nil {
			return nil, fmt.Errorf("encode index entry: %w", err)
		}
		e.Sealed = m.ring.SealBytes(purposeIndex, plain, indexPlace(e))
		entries[i] = e
	}
	return entries, nil
}

// indexPlace binds an entry to its name and session.
func indexPlace(e IndexEntry) []byte { return join(e.Name, e.Handle) }

// openEntry opens what an entry says.
func (m *Manager) openEntry(e IndexEntry) (indexed, bool) {
	var rec indexed
	plain, _, err := m.ring.OpenBytes(purposeIndex, e.Sealed, indexPlace(e))
	if err != nil || m.codec.dec.Unmarshal(plain, &rec) != nil {
		return indexed{}, false
	}
	return rec, true
}

// indexNames are the entries that s may have, under each key of the ring: whichever sealed when it was created.
func (m *Manager) indexNames(s *Session) []IndexEntry {
	var entries []IndexEntry
	for _, k := range indexKeys(s) {
		for _, h := range m.hashes(s.Issuer, k[0], k[1]) {
			entries = append(entries, IndexEntry{Name: indexName(h), Handle: s.key})
		}
	}
	return entries
}

// siblings are e and the other entries of its session.
func (m *Manager) siblings(e IndexEntry) []IndexEntry {
	entries := []IndexEntry{{Name: e.Name, Handle: e.Handle}}
	rec, _ := m.openEntry(e)
	for _, h := range rec.Names {
		entries = append(entries, IndexEntry{Name: indexName(h), Handle: e.Handle})
	}
	return entries
}

// has reports whether the session of rec has an entry under one of hashes, too.
func (rec indexed) has(hashes [][]byte) bool {
	for _, n := range rec.Names {
		for _, h := range hashes {
			if bytes.Equal(n, h) {
				return true
			}
		}
	}
	return false
}

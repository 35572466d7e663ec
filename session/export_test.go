package session

import (
	"context"
	"encoding/binary"

	"postern/session/seal"
)

// Codec is what turns sessions into what a store holds behind the seal.
type Codec = codec

// NewCodec makes a Codec.
func NewCodec() (*Codec, error) { return newCodec() }

// Decode decodes payload.
func (c *Codec) Decode(payload []byte) (*Session, error) { return c.decode(payload) }

// Encode is the inverse of Decode.
func (c *Codec) Encode(s *Session) ([]byte, error) { return c.encode(s) }

// MaxTouches is how many touches wait at most.
const MaxTouches = maxTouches

// Key is the store key of s.
func (s *Session) Key() string { return s.key }

// Flights is how many refreshes are under way.
func (m *Manager) Flights() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.flights)
}

// Newer is the record of s as a newer binary might write it.
func (m *Manager) Newer(s *Session) (Record, error) {
	payload, err := m.codec.encode(s)
	if err != nil {
		return Record{}, err
	}
	payload[0] = 99
	n := *s
	n.Version++
	sealed, err := seal.Encrypt(&s.dataKey, payload, m.place(s.key, n.Version))
	if err != nil {
		return Record{}, err
	}
	sealed, err = m.frame(s, sealed)
	return Record{Version: n.Version, Sealed: sealed}, err
}

// Place is what a record under key is bound to.
func (m *Manager) Place(key string, version int64) string { return string(m.place(key, version)) }

// GrantKeys is where the grant that s shares may lie.
func (m *Manager) GrantKeys(s *Session) []string { return m.grantKeys(s.Issuer, s.Subject) }

// StoredGrant is what the store holds under key.
func (m *Manager) StoredGrant(ctx context.Context, key string) *Session {
	g, _, err := m.getGrant(ctx, key)
	if err != nil {
		panic(err)
	}
	return g
}

// Keyed is s as if it lay under another key.
func Keyed(s *Session, key string) *Session {
	c := *s
	c.key = key
	return &c
}

// Gap is a gap in the notices.
func (m *Manager) Gap() { m.gap(true) }

// Names are the names under which s has index entries.
func (m *Manager) Names(s *Session) []string {
	var names []string
	for _, e := range m.indexEntries(s) {
		names = append(names, e.Name)
	}
	return names
}

// WithMore is the record of s as a newer binary might write it that knows more fields than this one, everywhere.
func (m *Manager) WithMore(s *Session) (Record, error) {
	more := func(plain []byte) ([]byte, error) {
		var fields map[uint64]any
		if err := m.codec.dec.Unmarshal(plain, &fields); err != nil {
			return nil, err
		}
		fields[99], fields[100] = map[string]any{"new": []int{1, 2}}, "new"
		return m.codec.enc.Marshal(fields)
	}
	n := *s
	n.Version++
	payload, err := m.codec.encode(&n)
	if err != nil {
		return Record{}, err
	}
	plain, err := m.codec.zdec.DecodeAll(payload[1:], nil)
	if err != nil {
		return Record{}, err
	}
	if plain, err = more(plain); err != nil {
		return Record{}, err
	}
	sealed, err := seal.Encrypt(&s.dataKey, m.codec.zenc.EncodeAll(plain, payload[:1:1]), m.place(s.key, n.Version))
	if err != nil {
		return Record{}, err
	}
	if plain, err = m.codec.enc.Marshal(m.aboutOf(&n)); err != nil {
		return Record{}, err
	}
	if plain, err = more(plain); err != nil {
		return Record{}, err
	}
	part, err := seal.Encrypt((*[seal.KeySize]byte)(m.aboutKeys(s.key)[0]), plain, []byte{recordFormat})
	if err != nil {
		return Record{}, err
	}
	b := binary.AppendUvarint([]byte{recordFormat}, uint64(len(part)))
	return Record{Version: n.Version, Sealed: append(append(b, part...), sealed...)}, nil
}

// Remembered is how many ends and rotations m would look after when the store fails over.
func (m *Manager) Remembered() (ends, rotations int) {
	return len(m.ends.list(m.o.Now())), len(m.rotations.list(m.o.Now()))
}

// EndKey ends a session of which only its store key is known, and that the store does not know.
func (m *Manager) EndKey(ctx context.Context, why Reason) {
	_, t, err := m.newTicket()
	if err != nil {
		panic(err)
	}
	if _, err := m.end(ctx, t.key, why, false, nil); err != nil {
		panic(err)
	}
}

// TokensBehind tells whether tokens are left in the tombstone of key.
func (m *Manager) TokensBehind(key string, rec Record) bool {
	a, _, _ := m.openAbout(key, rec.Sealed)
	return holdsTokens(rec.Sealed) || len(a.Refresh) > 0
}

// Weight is what the cache counts, in bytes.
func (m *Manager) Weight() uint64 { return m.slots.WeightedSize() + m.tickets.WeightedSize() }

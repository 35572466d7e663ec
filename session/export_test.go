package session

import "postern/session/seal"

// Decode decodes what a store would hold behind the seal.
func Decode(payload []byte) (*Session, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	return c.decode(payload)
}

// Encode is the inverse of Decode.
func Encode(s *Session) ([]byte, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	return c.encode(s)
}

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
	payload[0]++
	n := *s
	n.Version++
	sealed, err := seal.Encrypt(&s.dataKey, payload, m.place(s.key, n.Version))
	return Record{Version: n.Version, Sealed: sealed}, err
}

// Place is what a record under key is bound to.
func (m *Manager) Place(key string, version int64) string { return string(m.place(key, version)) }

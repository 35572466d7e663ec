package memstore

// Size is how many things s remembers.
func (s *Store) Size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.records) + len(s.leases)
	for _, entries := range s.indexes {
		n += len(entries)
	}
	return max(n, len(s.expiries))
}

package memstore

import (
	"container/heap"
	"time"
)

// expiry is when something may be over. It is a reminder to look: a renewed lease or record lasts longer, and a thing that was replaced is
// none of the reminder's business.
type expiry struct {
	at     time.Time
	key    string // of record, lease and kept
	record *record
	lease  *lease
	entry  *entry
	kept   *kept
}

// expire forgets what is over.
func (s *Store) expire(now time.Time) {
	for len(s.expiries) > 0 && !now.Before(s.expiries[0].at) {
		x := heap.Pop(&s.expiries).(expiry)
		switch {
		case x.record != nil:
			if s.records[x.key] != x.record {
				continue
			}
			if now.Before(x.record.expires) {
				x.at = x.record.expires
				heap.Push(&s.expiries, x)
				continue
			}
			delete(s.records, x.key)
		case x.lease != nil:
			if s.leases[x.key] != x.lease {
				continue
			}
			if now.Before(x.lease.expires) {
				x.at = x.lease.expires
				heap.Push(&s.expiries, x)
				continue
			}
			delete(s.leases, x.key)
		case x.kept != nil:
			if s.kept[x.key] == x.kept {
				delete(s.kept, x.key)
			}
		case x.entry != nil:
			if s.indexes[x.entry.Name][x.entry.Handle] == x.entry {
				s.removeEntry(x.entry.Name, x.entry.Handle)
			}
		}
	}
}

// expiries is a heap with the soonest first.
type expiries []expiry

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e expiries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *expiries) Push(x any)        { *e = append(*e, x.(expiry)) }

func (e *expiries) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = expiry{} // let go of what it points to
	*e = (*e)[:last]
	return x
}

package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// A small heap may become leastHeap, a large one twice as large as it is.
func TestCollectLess(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	p := newPacer()
	goal := func() (live, goal uint64) {
		runtime.GC()
		p.pace()
		s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/goal:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64(), s[1].Value.Uint64()
	}
	if live, got := goal(); got < leastHeap/2 || got > leastHeap+leastHeap/4 {
		t.Errorf("of %d bytes in use the heap may become %d", live, got)
	}
	large := make([]byte, 2*leastHeap)
	live, got := goal()
	if got < live || got > 2*live+leastHeap/4 {
		t.Errorf("of %d bytes in use the heap may become %d", live, got)
	}
	runtime.KeepAlive(large)
	if live, got := goal(); got < leastHeap/2 || got > leastHeap+leastHeap/4 {
		t.Errorf("again of %d bytes in use the heap may become %d", live, got)
	}
}

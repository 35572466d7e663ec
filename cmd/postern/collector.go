package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// leastHeap is how large the heap may always become before it is collected. What Postern holds is often no more than some megabytes, and every request makes
// garbage: with Go's rule alone, which is to collect when the heap has doubled, it would be collected dozens of times a second.
const (
	leastHeap = 48 << 20
	// Go multiplies a least heap of its own by the percentage, which is then not to come to more than ours.
	goLeastHeap    = 4 << 20
	greatestGrowth = leastHeap / goLeastHeap * 100
)

// collectLess lets the heap become leastHeap before it is collected, and else twice as large as what is in use. A GOGC of the operator's stands instead, and a
// GOMEMLIMIT holds beside it.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		afterCollection(newPacer())
	}
}

// pacer sets the percentage by which the heap may grow.
type pacer struct {
	samples []metrics.Sample
	percent int
}

func newPacer() *pacer {
	return &pacer{samples: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}, percent: 100}
}

// afterCollection has p work at the end of every collection: that is when what nobody holds is cleaned up.
func afterCollection(p *pacer) {
	runtime.AddCleanup(new([16]byte), func(p *pacer) {
		p.pace()
		afterCollection(p)
	}, p)
}

// pace works out the percentage after a collection. The heap grows by it, and by as much of stacks and globals.
func (p *pacer) pace() {
	metrics.Read(p.samples)
	live, others := p.samples[0].Value.Uint64(), p.samples[1].Value.Uint64()+p.samples[2].Value.Uint64()
	percent := 100
	if live < leastHeap {
		percent = max(percent, int(min((leastHeap-live)*100/(live+others+1), greatestGrowth)))
	}
	if percent != p.percent { // setting it stops everything for a moment
		p.percent = percent
		debug.SetGCPercent(percent)
	}
}

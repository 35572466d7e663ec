package main

import (
	"container/list"
	"math"
	"math/rand/v2"
	"time"

	"postern/session"
)

// simulated is how long a replica is simulated.
const simulated = 5 * time.Minute

// counts are what a replica did after it had warmed up.
type counts struct {
	requests, hits, gets, scripts, refreshes, cached int
	took                                             time.Duration
	getsBySecond                                     []int
}

// A copy is what a replica knows of a session.
type copied struct {
	id            int
	read, touched time.Duration // 0 is never
	version       int
}

// replica simulates one of d's replicas for so long, after as long a time in which its cache fills and times spread. At half of it there is a
// gap in the notices when forget is true, so that no copy may be used before it is read again.
func (d deployment) replica(sticky bool, span time.Duration) counts {
	return d.simulate(sticky, span, false)
}

func (d deployment) simulate(sticky bool, span time.Duration, forget bool) counts {
	rnd := rand.New(rand.NewPCG(d.Seed, 1))
	population, pages := d.Active, d.Rate/float64(d.Page)
	here := 1 / float64(d.Replicas) // the share of a page's requests that this replica gets
	if sticky {
		population, pages, here = d.Active/d.Replicas, pages/float64(d.Replicas), 1
	}
	some := 1 - math.Pow(1-here, float64(d.Page)) // the share of pages of which it gets any
	copies, recent := map[int]*list.Element{}, list.New()
	room := int(float64(d.Cache) / costs.cached)
	touchEvery := session.TouchEvery(d.session.IdleTimeout)
	phase := func(id int) time.Duration { return time.Duration(uint64(id) * 0x9E3779B97F4A7C15 % uint64(d.Life)) }
	c := counts{took: span, getsBySecond: make([]int, int(span/time.Second)+2)}
	gap := time.Duration(0)
	for now := time.Duration(1); now < 2*span; now += time.Duration(rnd.ExpFloat64() / (pages * some) * float64(time.Second)) {
		id := rnd.IntN(population)
		if forget && gap == 0 && now >= span+span/2 {
			gap = now
		}
		for at, left := now, d.share(rnd, here); left > 0; left-- {
			e := copies[id]
			var k *copied
			if e == nil {
				k = &copied{id: id}
				copies[id] = recent.PushFront(k)
				if recent.Len() > room {
					delete(copies, recent.Remove(recent.Back()).(*copied).id)
				}
			} else {
				recent.MoveToFront(e)
				k = e.Value.(*copied)
			}
			version := 1 + int((at+phase(id))/d.refreshEvery())
			measured := at >= span && at < 2*span
			if measured {
				c.requests++
			}
			if k.read > 0 && at-k.read < d.session.Cache.MaxStale && k.read > gap && k.version == version {
				if measured {
					c.hits++
				}
			} else {
				if measured {
					c.gets++
					c.getsBySecond[int((at-span)/time.Second)]++
				}
				refreshed := k.version != 0 && k.version != version && sticky
				k.read, k.version = at, version
				if !sticky { // others have touched it, as its people use it all the time
					k.touched = max(k.touched, at-time.Duration(rnd.Float64()*float64(touchEvery)))
				}
				if refreshed {
					k.read = 0 // the notice of it comes here, too
					if measured {
						c.refreshes++
						c.gets++
						c.scripts += 4 // lease, note, tokens, lease again
					}
				}
			}
			if at-k.touched >= touchEvery {
				k.touched = at
				if measured {
					c.scripts++
				}
			}
			at += time.Second / time.Duration(d.Page)
		}
	}
	c.cached = recent.Len()
	if !sticky { // whichever replica is asked first makes it and its touch
		perRequest := d.refreshRate() / d.Rate
		c.refreshes = int(perRequest * float64(c.requests))
		c.gets += c.refreshes
		c.scripts = 4*c.refreshes + int(float64(d.Active)/(touchEvery+d.think()).Seconds()/d.Rate*float64(c.requests))
	}
	return c
}

// share is how many of a page's requests come here, of the pages that come here at all.
func (d deployment) share(rnd *rand.Rand, here float64) int {
	for {
		n := 0
		for range d.Page {
			if rnd.Float64() < here {
				n++
			}
		}
		if n > 0 {
			return n
		}
	}
}

// think is the mean time between two pages of a session.
func (d deployment) think() time.Duration {
	return time.Duration(float64(d.Active) * float64(d.Page) / d.Rate * float64(time.Second))
}

// refreshEvery is the mean time between two refreshes of a session that is used, which waits for its next page.
func (d deployment) refreshEvery() time.Duration {
	start := time.Unix(0, 0)
	due, _ := session.RefreshTimes(session.Tokens{Obtained: start, Expiry: start.Add(d.Life)}, d.session.RefreshBefore, 0.5)
	return due.Sub(start) + d.think()
}

// refreshRate is how many refreshes a second all sessions need.
func (d deployment) refreshRate() float64 { return float64(d.Active) / d.refreshEvery().Seconds() }

func (c counts) refreshesPerSecond(d deployment) float64 {
	return float64(c.refreshes) / float64(c.requests) * d.Rate
}

// noticeCPU is the part of a core that notices of so many refreshes a second cost each master. A cluster hands what is published on one
// node to all, and each passes it to those replicas that listen there; a replica says something on each master once a second, to hear itself.
func (d deployment) noticeCPU(refreshes float64) float64 {
	heard := 2 * refreshes
	beats := float64(d.Replicas * d.Masters)
	listeners := float64(d.Replicas) / float64(d.Masters)
	return (heard+beats)*costs.publish.Seconds() + (heard*listeners+beats/float64(d.Masters))*costs.deliver.Seconds()
}

// failover is how many GETs a second all replicas send before and after a gap in the notices, and how long until the excess has halved.
func (d deployment) failover(sticky bool) (before, peak float64, half time.Duration) {
	c := d.simulate(sticky, simulated, true)
	scale := d.Rate / (float64(c.requests) / c.took.Seconds())
	at := int(simulated/time.Second) / 2
	for _, n := range c.getsBySecond[:at] {
		before += float64(n) * scale / float64(at)
	}
	for i, n := range c.getsBySecond[at:] {
		rate := float64(n) * scale
		peak = max(peak, rate)
		if rate < (before+peak)/2 {
			return before, peak, time.Duration(i) * time.Second
		}
	}
	return before, peak, simulated / 2
}

// looks is how many GETs a second all replicas together send after a gap, to see whether the store has lost a refresh.
func (d deployment) looks() float64 {
	return d.refreshRate() * session.MendFor.Seconds() / session.MendSpread.Seconds()
}

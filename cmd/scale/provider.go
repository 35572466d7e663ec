package main

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"postern/session"
)

// Of a morning: people sign in around nine, and half past eleven the provider is away for ten minutes.
const (
	signIns     = 5 * time.Minute // standard deviation
	outageFrom  = 150 * time.Minute
	outageUntil = 160 * time.Minute
	morning     = 4 * time.Hour
	timeOut     = 15 * time.Second // of a call
)

// A morningCase is what the provider saw. Rates are of ten seconds, since few of the sessions are simulated.
type morningCase struct {
	name            string
	spread, bounded bool
	outage          bool

	peak, later float64       // calls a second: after the first hour or after the outage, and the last time that this echoes
	timedOut    float64       // calls whose outcome nobody knows
	ended       float64       // sessions of which that happened twice, so that their token must not be sent any more
	longest     time.Duration // that somebody waited who came after the outage
}

func (d deployment) provider() []morningCase {
	cases := []morningCase{
		{name: "mass sign-in, all due alike"},
		{name: "mass sign-in, spread over a tenth of the life", spread: true},
		{name: "outage of 10 min, all due alike, any number of calls", outage: true},
		{name: "outage of 10 min, all due alike, 64 calls a replica", outage: true, bounded: true},
		{name: "outage of 10 min, spread, 64 calls a replica", outage: true, bounded: true, spread: true},
	}
	for i := range cases {
		d.simulateMorning(&cases[i])
	}
	return cases
}

const (
	// samples are the sessions that are simulated; the figures are scaled to all of them.
	samples = 100_000
	// capacity is how many calls the provider answers, in parts of what it needs on average.
	capacity = 4
)

// simulateMorning follows each of some sessions from its sign-in on. After the outage the provider answers one call after the other, as fast as it
// can, those that nobody waits for any more too.
func (d deployment) simulateMorning(c *morningCase) {
	rnd := rand.New(rand.NewPCG(d.Seed, 2))
	n := min(samples, d.Active)
	scale := float64(d.Active) / float64(n)
	think := func() time.Duration { return time.Duration(rnd.ExpFloat64() * float64(d.think())) }
	due := func(at time.Duration) time.Duration {
		early := 0.0
		if c.spread {
			early = rnd.Float64()
		}
		start := time.Unix(0, 0)
		when, _ := session.RefreshTimes(session.Tokens{Obtained: start, Expiry: start.Add(d.Life)}, d.session.RefreshBefore, early)
		return at + when.Sub(start) + think()
	}
	var q queue
	for range n {
		heap.Push(&q, refresh{at: due(30*time.Minute + time.Duration(rnd.NormFloat64()*float64(signIns)))})
	}
	bySecond := make([]int, int(morning/time.Second))
	perSecond := capacity * float64(n) / d.Life.Seconds()
	places := float64(d.Replicas*session.MaxExchanges) / scale
	waiting, last := 0.0, outageUntil // calls at the provider
	for len(q) > 0 && q[0].at < morning {
		r := heap.Pop(&q).(refresh)
		if c.outage && r.at >= outageFrom && r.at < outageUntil { // refused at once
			heap.Push(&q, refresh{at: r.at + session.RetryPause(r.tries) + think(), tries: r.tries + 1})
			continue
		}
		if c.outage && r.at >= outageUntil {
			if r.since == 0 {
				r.since = r.at
			}
			waiting, last = max(0, waiting-perSecond*(r.at-last).Seconds()), r.at
			if c.bounded && waiting >= places { // it waits in its replica
				r.at += time.Second
				heap.Push(&q, r)
				continue
			}
			waiting++
		}
		bySecond[int(r.at/time.Second)]++
		answer := time.Duration(waiting / perSecond * float64(time.Second))
		if answer > timeOut {
			c.timedOut += scale
			if r.unknown++; r.unknown == 2 {
				c.ended += scale
				continue
			}
			r.at += timeOut + think()
			heap.Push(&q, r)
			continue
		}
		if r.since > 0 {
			c.longest = max(c.longest, r.at+answer-r.since)
		}
		heap.Push(&q, refresh{at: due(r.at)})
	}
	peak := func(from, until time.Duration) (most float64) {
		ten := 0
		for i := int(from / time.Second); i < int(until/time.Second); i++ {
			if ten += bySecond[i]; i >= int(from/time.Second)+10 {
				ten -= bySecond[i-10]
			}
			most = max(most, float64(ten)/10*scale)
		}
		return most
	}
	if c.outage {
		c.peak, c.later = peak(outageUntil, 190*time.Minute), peak(200*time.Minute, morning)
	} else {
		c.peak, c.later = peak(70*time.Minute, 120*time.Minute), peak(190*time.Minute, morning)
	}
}

// A refresh is the next one of a session.
type refresh struct {
	at      time.Duration
	tries   int           // that the provider refused in a row
	unknown int           // that timed out
	since   time.Duration // when it was first tried after the outage
}

// queue is a heap of refreshes by their time.
type queue []refresh

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(refresh)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	r := (*q)[last]
	*q = (*q)[:last]
	return r
}

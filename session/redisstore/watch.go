package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/session"
)

const (
	// tick and deadAfter bound how long a dead subscription goes unnoticed.
	tick      = time.Second
	deadAfter = 2 * time.Second

	// deafAfter is how long nothing may be heard from one master of a cluster: something should arrive with each tick.
	deafAfter = 1900 * time.Millisecond

	// minWait and maxWait bound the pause before it is tried again.
	minWait = 50 * time.Millisecond
	maxWait = time.Second
)

// Watch implements [session.Store]. It has a connection of its own.
//
// go-redis would reconnect by itself, silently. Here one subscription lives exactly as long as its connection (see withoutDial): the
// first error ends it, that is a gap; the next one begins with a gap, too, because what happened in between was not heard.
//
// Another master is a gap as well, found within about a second. In a cluster any node passes on what is published on any other, over
// connections of their own, whose troubles cannot be seen from here. So once a second something is published on each master, and as long
// as it does not arrive there is a gap every second.
func (s *Store) Watch(ctx context.Context, changed func(key string), gap func(listening bool)) error {
	wait := minWait
	failures, said := 0, ""
	for {
		heard, err := s.subscribe(ctx, changed, gap)
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-s.closed:
			return fmt.Errorf("watch: %w: closed", session.ErrUnavailable)
		default:
		}
		if heard {
			gap(false)
			wait = minWait
			failures, said = 0, ""
		}
		// A connection that was cut seldom says why; the first one that fails after it does.
		if failures++; failures <= 2 && err.Error() != said {
			said = err.Error()
			s.log.WarnContext(ctx, "session notices interrupted", "err", s.unavailable("watch", err))
		}
		v := s.servers.now.Load()
		s.servers.begin(v)
		var other <-chan struct{}
		if v != nil {
			other = v.changed
		}
		// Jitter, or all replicas would come back in the same moment.
		pause := time.NewTimer(wait/2 + mathrand.N(wait/2))
		select {
		case <-ctx.Done():
		case <-s.closed:
		case <-other: // somebody else serves now
		case <-pause.C:
		}
		pause.Stop()
		wait = min(2*wait, maxWait)
	}
}

// subscribe listens until something breaks. heard says that it was subscribed.
func (s *Store) subscribe(ctx context.Context, changed func(key string), gap func(listening bool)) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connecting, stop := context.WithTimeout(ctx, max(s.timeout, minDial))
	defer stop()
	v, err := s.servers.current(connecting)
	if err != nil {
		return false, err
	}
	masters := v.masters()
	if len(masters) == 0 {
		return false, errors.New("no server has any slot")
	}
	w := &subscription{store: s, node: masters[mathrand.IntN(len(masters))], end: cancel}
	var gaps sync.Mutex
	w.gap = func() {
		gaps.Lock()
		defer gaps.Unlock()
		gap(true)
	}
	channels := []string{s.channel()}
	if s.cluster {
		w.beats = s.beats()
		channels = append(channels, w.beats)
	}

	w.sub = w.node.client.Subscribe(ctx) // to nothing yet: it would hide its error
	defer w.sub.Close()
	// Reading obeys no cancelled context, only a closed connection.
	defer context.AfterFunc(ctx, func() { w.sub.Close() })()
	if err := w.sub.Subscribe(connecting, channels...); err != nil {
		return false, err
	}
	var attending sync.WaitGroup
	defer attending.Wait()
	defer cancel()
	attending.Go(func() { w.attend(ctx, v) })

	reading := withoutDial(ctx)
	for confirmed := 0; ; {
		// A time-out is fatal, not a reason to ask: it may have cut a message in two.
		message, err := w.sub.ReceiveTimeout(reading, deadAfter)
		if err != nil {
			return heard, err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			if m.Kind != "subscribe" {
				return heard, errors.New("subscription ended")
			}
			if confirmed++; confirmed < len(channels) {
				continue
			}
			w.gap()
			s.log.InfoContext(ctx, "session notices subscribed", "server", w.node.address)
			heard = true
		case *redis.Message:
			if m.Channel == w.beats {
				w.heard.Store(m.Payload, time.Now())
				continue
			}
			changed(m.Payload)
		}
	}
}

// beats is a channel of one's own, to hear what oneself says in a cluster.
func (s *Store) beats() string { return s.channel() + ":" + rand.Text() }

// subscription is one connection with notices.
type subscription struct {
	store *Store
	node  *node
	sub   *redis.PubSub
	end   func()
	gap   func() // may be called at any time until subscribe returns

	beats string   // in a cluster, the channel on which we hear ourselves; else empty
	heard sync.Map // when something that was published on a master arrived, by the master's address
}

// attend makes the server say something every second and looks whether the servers are still those of v, until ctx ends. If the server
// cannot even be asked, or is not a master any more, it ends the subscription.
func (w *subscription) attend(ctx context.Context, v *view) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	since := time.Now() // when we began to listen to all of v
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.changed:
			v, since = w.store.servers.now.Load(), time.Now()
			if v.nodes[w.node.address] != w.node {
				w.end()
				return
			}
			w.gap()
		case <-ticker.C:
			asking, stop := context.WithTimeout(ctx, tick)
			if err := w.sub.Ping(withoutDial(asking)); err != nil {
				stop()
				w.end()
				return
			}
			w.store.servers.begin(v)
			if w.beats != "" && !w.hears(asking, v, since) {
				w.gap()
			}
			stop()
		}
	}
}

// hears publishes something on each master, and tells whether what was published before has arrived from all.
func (w *subscription) hears(ctx context.Context, v *view, since time.Time) bool {
	all := true
	for _, n := range v.masters() {
		last := since
		if at, ok := w.heard.Load(n.address); ok && at.(time.Time).After(since) {
			last = at.(time.Time)
		}
		all = all && time.Since(last) < deafAfter
	}
	ctx, cancel := context.WithTimeout(ctx, tick/2)
	defer cancel()
	masters := v.masters()
	_ = atOnce(len(masters), func(i int) error {
		return masters[i].client.Publish(ctx, w.beats, masters[i].address).Err()
	})
	return all
}

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/session"
)

const (
	// pingEvery and deadAfter bound how long a dead subscription goes unnoticed.
	pingEvery = time.Second
	deadAfter = 3 * time.Second

	// minWait and maxWait bound the pause before it is tried again.
	minWait = 50 * time.Millisecond
	maxWait = 2 * time.Second
)

// Watch implements [session.Store]. It has a connection of its own.
//
// go-redis would reconnect by itself, silently. Here one subscription lives exactly as long as its connection (see withoutDial): the
// first error ends it, that is a gap; the next one begins with a gap, too, because what happened in between was not heard.
func (s *Store) Watch(ctx context.Context, changed func(key string), gap func()) error {
	wait := minWait
	for broken := false; ; broken = true {
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
			gap()
			wait = minWait
		}
		if heard || !broken {
			s.log.WarnContext(ctx, "session notices interrupted", "err", s.unavailable("watch", err))
		}
		// Jitter, or all replicas would come back in the same moment.
		pause := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
		case <-s.closed:
		case <-pause.C:
		}
		pause.Stop()
		wait = min(2*wait, maxWait)
	}
}

// subscribe listens until something breaks. heard says that it was subscribed.
func (s *Store) subscribe(ctx context.Context, changed func(key string), gap func()) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := s.client.Subscribe(ctx) // to nothing yet: it would hide its error
	defer sub.Close()
	// Reading obeys no cancelled context, only a closed connection.
	defer context.AfterFunc(ctx, func() { sub.Close() })()

	connecting, stop := context.WithTimeout(ctx, max(s.timeout, minDial))
	defer stop()
	if err := sub.Subscribe(connecting, s.channel()); err != nil {
		return false, err
	}
	ctx = withoutDial(ctx)
	go keepAlive(ctx, cancel, sub)

	for {
		// A time-out is fatal, not a reason to ask: it may have cut a message in two.
		message, err := sub.ReceiveTimeout(ctx, deadAfter)
		if err != nil {
			return heard, err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			if m.Kind != "subscribe" {
				return heard, errors.New("subscription ended")
			}
			gap()
			if !heard {
				s.log.InfoContext(ctx, "session notices subscribed")
			}
			heard = true
		case *redis.Message:
			changed(m.Payload)
		}
	}
}

// keepAlive makes the server say something every second, until ctx ends. If it cannot even be asked, it ends the subscription.
func keepAlive(ctx context.Context, end func(), sub *redis.PubSub) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			asking, stop := context.WithTimeout(ctx, pingEvery)
			err := sub.Ping(asking)
			stop()
			if err != nil {
				end()
				return
			}
		}
	}
}

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// slower is how long the other sentinels may take after the first has answered.
const slower = 50 * time.Millisecond

// sentinels find the master of a group.
type sentinels struct {
	name  string
	nodes []*node
}

func newSentinels(o Sentinel, c connector, secrets *secrets) *sentinels {
	c.db, c.mustBeMaster, c.poolSize = 0, false, 2
	c.credentials = secrets.credentials(o.User, o.Password)
	s := &sentinels{name: o.Master}
	for _, address := range withPort(o.Addresses, "26379") {
		s.nodes = append(s.nodes, c.connect(address))
	}
	return s
}

// find asks all sentinels and believes the one that knows the newest failover: one that was cut off or just restarted may still name
// the master of before.
func (s *sentinels) find(ctx context.Context) (layout, error) {
	type answer struct {
		address string
		epoch   int64
		err     error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(s.nodes))
	for _, n := range s.nodes {
		go func() { // ends with ctx
			address, epoch, err := s.ask(ctx, n)
			answers <- answer{address, epoch, err}
		}()
	}
	var best answer
	var errs []error
	var late <-chan time.Time
	for range s.nodes {
		select {
		case a := <-answers:
			if a.err != nil {
				errs = append(errs, a.err)
				continue
			}
			if late == nil {
				late = time.After(slower)
			}
			if best.address == "" || a.epoch > best.epoch {
				best = a
			}
			continue
		case <-late:
		}
		break
	}
	if best.address == "" {
		return layout{}, fmt.Errorf("ask sentinels for master %q: %w", s.name, errors.Join(errs...))
	}
	return layout{spans: []span{{last: lastSlot, address: best.address}}}, nil
}

// ask asks one sentinel for the master and for how new that is.
func (s *sentinels) ask(ctx context.Context, n *node) (address string, epoch int64, err error) {
	pipe := n.client.Pipeline()
	where := pipe.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.name)
	what := pipe.Do(ctx, "SENTINEL", "MASTER", s.name)
	if _, err := pipe.Exec(ctx); errors.Is(err, redis.Nil) {
		return "", 0, fmt.Errorf("%s does not know it", n.address)
	} else if err != nil {
		return "", 0, fmt.Errorf("%s: %w", n.address, err)
	}
	at, err := where.StringSlice()
	if err != nil || len(at) != 2 {
		return "", 0, fmt.Errorf("%s: address is %v", n.address, at)
	}
	about, err := what.StringSlice()
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", n.address, err)
	}
	for i := 0; i+1 < len(about); i += 2 {
		if about[i] == "config-epoch" {
			epoch, _ = strconv.ParseInt(about[i+1], 10, 64)
		}
	}
	return net.JoinHostPort(at[0], at[1]), epoch, nil
}

func (s *sentinels) close() error {
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.client.Close())
	}
	return errors.Join(errs...)
}

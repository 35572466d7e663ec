package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// hedge is after how long the next node is asked as well: a silent one must not take all the time.
const hedge = 100 * time.Millisecond

// askCluster asks the nodes that are known, then those that the configuration names, one after the other until one answers.
func (s *servers) askCluster(seeds []string) func(ctx context.Context) (layout, error) {
	return func(ctx context.Context) (layout, error) {
		var known []string
		if v := s.now.Load(); v != nil {
			for address := range v.nodes {
				known = append(known, address)
			}
		}
		rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
		for _, i := range rand.Perm(len(seeds)) {
			if !slices.Contains(known, seeds[i]) {
				known = append(known, seeds[i])
			}
		}
		type answer struct {
			found layout
			err   error
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		answers := make(chan answer, len(known))
		var errs []error
		for asked, waiting := 0, 0; asked < len(known) || waiting > 0; {
			if asked < len(known) {
				address := known[asked]
				go func() { // ends with ctx
					found, err := s.askNode(ctx, address)
					answers <- answer{found, err}
				}()
				asked++
				waiting++
			}
			var next <-chan time.Time
			if asked < len(known) {
				next = time.After(hedge)
			}
			select {
			case a := <-answers:
				if a.err == nil {
					return a.found, nil
				}
				waiting--
				errs = append(errs, a.err)
			case <-next:
			}
		}
		return layout{}, fmt.Errorf("ask cluster for its slots: %w", errors.Join(errs...))
	}
}

func (s *servers) askNode(ctx context.Context, address string) (layout, error) {
	n, err := s.at(address)
	if err != nil {
		return layout{}, err
	}
	reply, err := n.client.Do(ctx, "CLUSTER", "SLOTS").Slice()
	if err != nil {
		return layout{}, fmt.Errorf("%s: %w", address, err)
	}
	found, err := n.readSlots(reply)
	if err != nil {
		return layout{}, fmt.Errorf("%s: %w", address, err)
	}
	return found, nil
}

// readSlots reads the answer to CLUSTER SLOTS.
func (n *node) readSlots(reply []any) (layout, error) {
	type slots struct {
		first, last int64
		address     string
	}
	var list []slots
	for _, item := range reply {
		fields, _ := item.([]any)
		if len(fields) < 3 {
			return layout{}, fmt.Errorf("a range of slots is %v", item)
		}
		first, ok1 := fields[0].(int64)
		last, ok2 := fields[1].(int64)
		master, _ := fields[2].([]any)
		if !ok1 || !ok2 || first > last || len(master) < 2 {
			return layout{}, fmt.Errorf("a range of slots is %v", item)
		}
		host, _ := master[0].(string)
		port, ok := master[1].(int64)
		if !ok {
			return layout{}, fmt.Errorf("port of a master is %v", master[1])
		}
		list = append(list, slots{first, last, n.resolve(host, strconv.FormatInt(port, 10))})
	}
	slices.SortFunc(list, func(a, b slots) int { return int(a.first - b.first) })
	var l layout
	next := int64(0)
	add := func(last int64, address string) {
		if k := len(l.spans); k > 0 && l.spans[k-1].address == address {
			l.spans[k-1].last = int(last)
		} else {
			l.spans = append(l.spans, span{int(last), address})
		}
		next = last + 1
	}
	for _, s := range list {
		if s.first > next {
			add(s.first-1, "")
		}
		add(s.last, s.address)
	}
	if next == 0 {
		return layout{}, errors.New("it knows no slots")
	}
	if next <= lastSlot {
		add(lastSlot, "")
	}
	return l, nil
}

// resolve is the address of a server as the node tells it. What it leaves out is as with the node itself.
func (n *node) resolve(host, port string) string {
	ownHost, ownPort, _ := net.SplitHostPort(n.address)
	if host == "" || host == "?" {
		host = ownHost
	}
	if port == "" || port == "0" {
		port = ownPort
	}
	return net.JoinHostPort(host, port)
}

// redirected reads MOVED and ASK: where to go, and whether only for once.
func (n *node) redirected(err error) (address string, once, ok bool) {
	to, moved := redis.IsMovedError(err)
	if !moved {
		if to, once = redis.IsAskError(err); !once {
			return "", false, false
		}
	}
	i := strings.LastIndexByte(to, ':')
	if i < 0 {
		return "", false, false
	}
	return n.resolve(strings.Trim(to[:i], "[]"), to[i+1:]), once, true
}

// slotOf is the slot of a key: CRC16 (XMODEM) of the part in the first braces, else of all.
func slotOf(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc & lastSlot)
}

package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// pings are how many answers the latency is the median of.
const pings = 7

// Condition is what [Store.Examine] found out about one server.
type Condition struct {
	Address string
	// Err says why it could not be asked; the rest is not known then.
	Err error

	// Latency is the median of some pings.
	Latency time.Duration
	// Certificate ends then; zero without TLS.
	Certificate time.Time
	// Forbidden are the commands that the user may not run, such as zadd; "keys" and "channels" stand for patterns that leave ours out.
	Forbidden []string
	// Odd is what else is wrong with the commands that are needed: they are not known here, or do not do what they should.
	Odd []string
	// ReadOnly says that it takes no writes, as replicas do. Full says that its memory is used up.
	ReadOnly, Full bool
	// About is what INFO tells, by its names; nil where that may not be asked.
	About map[string]string
}

// Examine looks at each server that keeps sessions, without writing anything: every command that is needed is tried on a key that there is not, in a
// form that makes none. On the channel of notices one goes out about a session that nobody has. The error says that no server could be found.
func (s *Store) Examine(ctx context.Context) ([]Condition, error) {
	v, err := s.servers.current(ctx)
	if err != nil {
		return nil, s.secrets.redact(err)
	}
	masters := v.masters()
	slices.SortFunc(masters, func(a, b *node) int { return strings.Compare(a.address, b.address) })
	found := make([]Condition, len(masters))
	_ = atOnce(len(masters), func(i int) error {
		found[i] = s.examine(ctx, masters[i], s.nobodyOn(v, masters[i]))
		return nil
	})
	return found, nil
}

// nobodyOn makes up a session that nobody has and that a server would keep, if it can be found.
func (s *Store) nobodyOn(v *view, n *node) (session string) {
	for range 10_000 { // a server of a cluster has a part of the keys
		session = rand.Text()
		if on, err := v.of(s.sessionKey(session)); err == nil && on == n {
			break
		}
	}
	return session
}

func (s *Store) examine(ctx context.Context, n *node, nobody string) Condition {
	c := Condition{Address: n.address}
	if c.Err = n.client.Ping(ctx).Err(); c.Err != nil {
		c.Err = s.secrets.redact(c.Err)
		return c
	}
	c.Latency = latency(ctx, n)
	c.Certificate = certificateEnd(ctx, n)
	c.tryCommands(ctx, s, n, nobody)
	c.tryChannel(ctx, s, n)
	if text, err := n.client.Info(ctx).Result(); err == nil {
		c.About = readInfo(text)
	}
	return c
}

func latency(ctx context.Context, n *node) time.Duration {
	took := make([]time.Duration, pings)
	for i := range took {
		began := time.Now()
		_ = n.client.Ping(ctx)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[pings/2]
}

// certificateEnd makes a connection of its own, since the client library does not show the certificate of those that it has.
func certificateEnd(ctx context.Context, n *node) time.Time {
	o := n.client.Options()
	made, err := o.Dialer(ctx, o.Network, o.Addr)
	if err != nil {
		return time.Time{}
	}
	defer made.Close()
	ours, _ := made.(*conn)
	if ours == nil {
		return time.Time{}
	}
	secure, ok := ours.Conn.(*tls.Conn)
	if !ok {
		return time.Time{}
	}
	return secure.ConnectionState().PeerCertificates[0].NotAfter
}

// tryScript runs what the scripts run (see TestExamineTriesEveryCommand) on a key that there is not. ARGV: channel, a session that there is not.
var tryScript = newScript(`
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    refused[#refused + 1] = string.lower((...)) .. ' ' .. answer.err
  end
end
try('GET', KEYS[1])
try('GETRANGE', KEYS[1], 0, 17)
try('PTTL', KEYS[1])
try('TIME')
try('ZCARD', KEYS[1])
try('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
try('ZRANGEBYSCORE', KEYS[1], '(0', '+inf', 'WITHSCORES')
try('SET', KEYS[1], '', 'XX', 'KEEPTTL')
try('SETRANGE', KEYS[1], 0, '')
try('PEXPIRE', KEYS[1], 1)
try('ZADD', KEYS[1], 'XX', 1, 'none')
try('ZREM', KEYS[1], 'none')
try('ZREMRANGEBYSCORE', KEYS[1], '-inf', 0)
try('DEL', KEYS[1])
try('PUBLISH', ARGV[1], ARGV[2])
return refused`)

// tryCommands tries what the store sends, and what its scripts run.
func (c *Condition) tryCommands(ctx context.Context, s *Store, n *node, nobody string) {
	key := s.sessionKey(nobody)
	c.note("get", n.client.Get(ctx, key).Err())
	c.note("set", n.client.Do(ctx, "SET", key, "", "XX").Err())
	if err := n.client.EvalSha(ctx, strings.Repeat("0", 40), []string{key}).Err(); !redis.HasErrorPrefix(err, "NOSCRIPT") {
		c.note("evalsha", err)
	}
	if s.wait.Replicas > 0 {
		c.note("wait", n.client.Do(ctx, "WAIT", 0, 1).Err())
		c.note("info", n.client.Info(ctx, "replication").Err())
	}
	refused, err := n.client.Eval(ctx, tryScript.source, []string{key}, s.channel(), nobody).StringSlice()
	c.note("eval", err)
	for _, line := range refused {
		command, why, _ := strings.Cut(line, " ")
		c.note(command, errors.New(why))
	}
}

// tryChannel subscribes to the notices, as Watch does.
func (c *Condition) tryChannel(ctx context.Context, s *Store, n *node) {
	channels := []string{s.channel()}
	if s.cluster {
		channels = append(channels, s.beats())
	}
	sub := n.client.Subscribe(ctx)
	defer sub.Close()
	err := sub.Subscribe(ctx, channels...)
	for range channels {
		if err == nil {
			_, err = sub.ReceiveTimeout(ctx, max(s.timeout, minDial))
		}
	}
	c.note("subscribe", err)
}

// note sorts the answer to a command that should have done nothing.
func (c *Condition) note(command string, err error) {
	if err == nil || errors.Is(err, redis.Nil) {
		return
	}
	text := err.Error()
	add := func(to *[]string, what string) {
		if !slices.Contains(*to, what) {
			*to = append(*to, what)
		}
	}
	// Within a script Redis 7.0 and older say it in words of their own.
	refused := strings.Contains(text, "NOPERM") || strings.Contains(text, "ACL failure") || strings.Contains(text, "user executing the script can't")
	switch {
	case refused && strings.Contains(text, "channel"):
		add(&c.Forbidden, "channels")
	case refused && (strings.Contains(text, "the keys") || strings.Contains(text, "a key")):
		add(&c.Forbidden, "keys")
	case refused:
		add(&c.Forbidden, command)
	case strings.Contains(text, "READONLY"):
		c.ReadOnly = true
	case strings.Contains(text, "OOM "):
		c.Full = true
	default:
		add(&c.Odd, fmt.Sprintf("%s: %s", command, text))
	}
}

// readInfo reads the answer to INFO.
func readInfo(text string) map[string]string {
	about := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			about[name] = value
		}
	}
	return about
}

// Number is a number that INFO tells; 0 where it does not.
func (c Condition) Number(name string) int64 {
	n, _ := strconv.ParseInt(c.About[name], 10, 64)
	return n
}

// Commands are all that a store sends and that its scripts run, for the ACL of its user. The whole conformance suite passes with them alone.
func Commands() []string {
	return []string{
		"get", "set", "del", "pttl", "pexpire", "getrange", "setrange", "zadd", "zrem", "zcard", "zrange", "zrangebyscore", "zremrangebyscore", "time",
		"eval", "evalsha", "publish", "subscribe", "ping", "info", "wait", "select", "cluster|slots", "asking",
	}
}

package proxy

import (
	"context"
	"encoding/hex"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/session"
)

// logRequest writes the line of a request: no query, no token, no name, and nothing at length that a client made up. Of those that ended well only a share
// has one; the others cost nothing here.
//
// It is on the way of every request. So the handler is called past the Logger, which would look up the caller's line in the source, and the attributes go
// along as a group without a name, which handlers write as if it were not there: a Record would copy them.
func (p *Proxy) logRequest(x *exchange) {
	ctx, h := context.Background(), p.log.Handler()
	if !h.Enabled(ctx, slog.LevelInfo) || x.endedWell() && p.logShare < 1 && rand.Float64() >= p.logShare {
		return
	}
	now := p.now()
	room := lineRoom.Get().(*[18]slog.Attr)
	attrs := append(room[:0],
		slog.String("request_id", x.client.RequestID),
		slog.String("method", brief(x.r.Method)),
		slog.String("host", brief(x.client.Host)),
		slog.String("path", brief(x.path)),
		slog.Int("status", x.status),
		slog.String("verdict", x.verdict.Kind.String()),
		slog.String("reason", brief(x.outcome().logged())),
		slog.Int64("duration_us", now.Sub(x.start).Microseconds()),
		slog.Int64("bytes", x.bytes),
		slog.String("client", x.client.addrText()),
	)
	if x.route != nil {
		attrs = append(attrs, slog.String("route", x.route.name))
	}
	if x.upstream != 0 {
		attrs = append(attrs, slog.Int64("upstream_us", x.upstream.Microseconds()))
	}
	if s := x.verdict.Session; s != nil {
		names := p.logNames.of(s, now, p.userHash)
		attrs = append(attrs, slog.String("session", names.session), slog.String("user", names.user))
	}
	if id := x.span.TraceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	attrs = append(attrs, x.more...)
	if x.err != nil {
		attrs = append(attrs, slog.String("error", brief(x.err.Error())))
	}
	r := slog.NewRecord(now, slog.LevelInfo, "request", 0)
	r.AddAttrs(slog.Attr{Value: slog.GroupValue(attrs...)})
	_ = h.Handle(ctx, r) // who would be told?
	clear(room[:])
	lineRoom.Put(room)
}

// lineRoom keeps the room for the attributes of a line for the next one: a handler keeps nothing of a Record, or clones it.
var lineRoom = sync.Pool{New: func() any { return new([18]slog.Attr) }}

// endedWell tells a request of which the operator need not know: answered, by the application or in the usual way by us.
func (x *exchange) endedWell() bool {
	if x.failed || x.err != nil || x.status == 0 || x.status >= http.StatusInternalServerError {
		return false
	}
	switch x.verdict.Kind {
	case verdictAllow, verdictSignIn:
		return true
	case verdictOwn:
		return x.status < http.StatusBadRequest
	}
	return false
}

// maxLogged bounds a text in the log that somebody else wrote, in bytes.
const maxLogged = 1024

// brief is the beginning of a text that somebody else wrote.
func brief(text string) string {
	if len(text) <= maxLogged {
		return text
	}
	return strings.ToValidUTF8(text[:maxLogged], "") + "…"
}

// userHash names a person in the log without naming them; it is the same on every replica, until session.keys has another first key.
func (p *Proxy) userHash(subject string) string {
	return hex.EncodeToString(p.ring.MAC("log user", subject)[0][:6])
}

// logNames remembers how sessions and their people are called in the log, for those that come often: it is a keyed hash. Which is forgotten
// for which is left to chance; nothing waits.
type logNames struct {
	seed  maphash.Seed
	slots [4096]atomic.Pointer[logName]
}

// logName is how one session is called.
type logName struct {
	id, session, user string
	until             time.Time
}

// logNameFor is how long a name is used after session.keys have changed.
const logNameFor = time.Minute

func newLogNames() *logNames { return &logNames{seed: maphash.MakeSeed()} }

// of is how s is called. An access token that came along is no session, and is not remembered.
func (n *logNames) of(s *session.Session, now time.Time, userHash func(subject string) string) *logName {
	id := s.ID()
	if id == "" {
		return &logName{user: userHash(s.Subject)}
	}
	slot := &n.slots[maphash.String(n.seed, id)%uint64(len(n.slots))]
	if known := slot.Load(); known != nil && known.id == id && now.Before(known.until) {
		return known
	}
	name := &logName{id, s.Handle(), userHash(s.Subject), now.Add(logNameFor)}
	slot.Store(name)
	return name
}

package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"postern/session"
)

// tieAfter is how long a request runs before it is tied to its session. Few run so long, and the others cost a timer. WebSockets are tied at
// once.
const tieAfter = time.Second

// errSessionOver is why a request under way is given up: its session is over, or no longer meets the rule of its route.
var errSessionOver = errors.New("the session that the request was allowed for is over")

// tether ties a request that takes long to the session that it was allowed for: a WebSocket, an event stream, a long poll, a download. When
// the session ends, anywhere and for whatever reason, or no longer meets the rule of the route after a refresh, the request ends,
//
//   - a WebSocket with a close frame 1008 and the reason where a frame to the client ends within [closeGrace], else cut,
//   - an event stream cleanly: the client connects again, and learns how things are,
//   - a request that the application has not answered yet with the answer of the new verdict: mostly 401,
//   - any other by a broken connection, since a part must not look like the whole.
type tether struct {
	x     *exchange
	s     *session.Session
	pr    *provider // whose session it is
	timer *time.Timer
	stop  context.CancelCauseFunc // ends the request to the application

	mu        sync.Mutex
	untied    bool
	following *session.Following
	stream    stream // what the request has become; nil as long as cancelling it does
	cut       bool
}

// tether readies l to be tied, if there is a session that it depends on. The caller calls untie at the end.
func (l *leg) tether() *tether {
	x := exchangeOf(l.w)
	if x == nil || l.f.Session == nil || x.verdict.Provider == nil && !ofToken(l.f.Session) {
		return nil
	}
	t := &tether{x: x, s: l.f.Session, pr: x.verdict.Provider}
	l.Context, t.stop = context.WithCancelCause(l.Context)
	if ofToken(l.f.Session) {
		t.timer = time.AfterFunc(l.f.Session.Ends.Sub(x.start), t.expire)
	} else {
		t.timer = time.AfterFunc(tieAfter, t.tie)
	}
	return t
}

// expire ends a request whose presented token has run out. Nothing else ends those: there is no session to follow.
func (t *tether) expire() {
	v := verdict{Kind: verdictSignIn, Reason: "token_expired", Token: tokenInvalid}
	t.x.revised.CompareAndSwap(nil, &v)
	t.end(farewell{policyViolation, "access token expired"})
}

// tie begins to follow the session.
func (t *tether) tie() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.untied || t.following != nil || ofToken(t.s) {
		return
	}
	t.following = t.pr.sessions.Follow(t.s, t.pr.refresh, func(s *session.Session, err error) {
		if v := t.x.reconsider(t.pr, s, err); v.Kind != verdictAllow {
			if t.x.revised.CompareAndSwap(nil, &v) {
				t.pr.audit.denied(t.x, v)
			}
			go t.end(farewellTo(v)) // it may wait for a slow client
		}
	})
}

// untie is called when the request is over. A nil tether has nothing to untie.
func (t *tether) untie() {
	if t == nil {
		return
	}
	t.timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.untied = true
	t.following.Close()
	t.stop(nil)
}

// becomes takes note that ending st is the way to end the request from now on. It is errSessionOver if that has happened before.
func (t *tether) becomes(st stream) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut {
		return errSessionOver
	}
	t.stream = st
	return nil
}

// end ends the request.
func (t *tether) end(why farewell) {
	t.mu.Lock()
	t.cut = true
	st := t.stream
	t.mu.Unlock()
	if st == nil {
		t.stop(errSessionOver)
		return
	}
	st.end(why)
}

// used notes data from the client, if that counts on the route. A nil tether has no session to keep.
func (t *tether) used() {
	if t == nil || !t.x.route.activity {
		return
	}
	t.mu.Lock()
	f := t.following
	t.mu.Unlock()
	f.Used()
}

// policyViolation is the code for those who may no longer use a WebSocket.
const policyViolation = 1008

// farewellTo is what a WebSocket is told when the verdict about it has become v. It tells nothing that an answer to a request does not.
func farewellTo(v verdict) farewell {
	text := "session ended"
	switch v.Ended {
	case session.ReasonSignedOut:
		text = "signed out"
	case session.ReasonBackChannel, session.ReasonFrontChannel:
		text = "signed out at the identity provider"
	case session.ReasonAdmin:
		text = "session ended by an administrator"
	case session.ReasonIdle:
		text = "session idle"
	case session.ReasonLifetime:
		text = "session at its greatest age"
	case session.ReasonRefreshRejected, session.ReasonTokenExpired:
		text = "session not prolonged by the identity provider"
	case session.ReasonLimit:
		text = "signed in on too many devices"
	case session.ReasonReplaced:
		text = "signed in again"
	case "":
		if v.Kind == verdictDeny {
			text = "access no longer allowed"
		}
	}
	return farewell{policyViolation, text}
}

package proxy

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"postern/config"
	"postern/proxy/access"
	"postern/proxy/tracing"
)

// exchange is one request on its way through Postern: what was found out about it, and what was answered. It is the
// http.ResponseWriter that the steps write to.
type exchange struct {
	http.ResponseWriter
	r       *http.Request
	now     func() time.Time
	start   time.Time
	client  clientInfo
	asked   bool   // another proxy asks about this request and carries it itself
	target  string // path and query as the client sent them
	rawPath string // the path of that
	path    string // the path in the one form that routes are matched on
	// encodedSlash is why the path is refused on a route without allow_encoded_slash; nil where every route takes it.
	encodedSlash error
	origin       *url.URL // what the browser sees of us on this host; nil where only public routes are and nothing tells it
	route        *route   // nil for our own endpoints
	endpoint     bool     // path is of an endpoint of ours
	verdict      verdict
	kept         *keptTicket // what is sent is a kept request; nil: it is what the browser sent

	body     *clientBody // nil without one
	status   int
	bytes    int64
	sent     time.Time               // when the application was asked first; zero: it was not
	waited   time.Duration           // for the application's answer to begin
	answered time.Time               // when the status was written; zero: it was not
	upstream time.Duration           // spent with the application, its body included
	err      error                   // for the operator's log, never for the client
	failed   bool                    // it is broken off, or the application did not answer it
	revised  atomic.Pointer[verdict] // what the verdict became while the request was under way; nil: it holds
	more     []slog.Attr             // what only some endpoints have to say in the log
	span     *tracing.Span           // nil without tracing
	asking   *tracing.Span           // the application's part in it
	tunnel   *tunnel                 // what the request has become; nil: it ends with its handler
}

// request is what expressions see of the request.
func (x *exchange) request() *access.Request {
	path := x.path
	if x.route != nil && x.route.anyCase {
		path = config.FoldPath(path) // all spellings are one to the application
	}
	return &access.Request{
		Method: x.r.Method, Host: hostname(x.client.Host), Path: path, Header: x.r.Header, IP: x.client.Addr, Time: x.start,
	}
}

// reason notes why the exchange ends as it does, for the log.
func (x *exchange) reason(why string, err error) {
	x.verdict.Reason, x.verdict.Detail = why, ""
	if err != nil {
		x.err = err
	}
}

// WriteHeader notes the status and passes it on. A 101 is final. Whoever asks for another proxy takes every 2xx for a yes: there is none without the
// verdict.
func (x *exchange) WriteHeader(status int) {
	if x.asked && status >= 200 && status < 300 && x.verdict.Kind != verdictAllow {
		status = http.StatusForbidden
	}
	final := x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols)
	if final {
		x.status = status
		switch {
		case x.body == nil:
		case x.r.ProtoMajor == 2:
			x.body.release()
		default:
			x.body.hurry()
		}
	}
	x.ResponseWriter.WriteHeader(status)
	if final {
		x.answered = x.now()
	}
}

// Write counts what was sent.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach Flush, Hijack and the deadlines.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// exchangeOf finds the exchange under whatever an upstream wrapped around it.
func exchangeOf(w http.ResponseWriter) *exchange {
	for {
		if x, ok := w.(*exchange); ok {
			return x
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}

// outcome is the verdict as it became.
func (x *exchange) outcome() verdict {
	if v := x.revised.Load(); v != nil {
		return *v
	}
	return x.verdict
}

// leaveApplication is called when the application has no more part in the exchange.
func (x *exchange) leaveApplication() {
	if !x.sent.IsZero() {
		x.upstream = x.now().Sub(x.sent)
	}
	x.asking.End()
}

// endSpan tells the trace what became of the request: less than the log, since whoever may read traces may not know who asked for which page.
func (x *exchange) endSpan() {
	if x.span == nil {
		return
	}
	r := tracing.Result{
		Method: x.r.Method, Scheme: x.client.Scheme, Status: x.status, Verdict: x.verdict.Kind.String(), Reason: x.outcome().Reason, Asked: x.asked,
	}
	switch {
	case x.route != nil:
		r.Route = x.route.name
	case x.endpoint:
		r.Route = strings.TrimRight(x.path, "/")
	}
	x.span.EndRequest(r)
}

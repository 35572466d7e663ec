package idp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postern/proxy/metrics"
	"postern/proxy/tracing"
)

const (
	maxAnswer     = 1 << 20  // bytes of any answer of a provider
	maxHeader     = 64 << 10 // bytes of its header
	maxRetryAfter = time.Hour
)

// answer is a whole HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
	sent   time.Time // when the request was made
}

// call makes a request that anyone may make, and that may as well be made twice. See [Provider.callBy].
func (p *Provider) call(ctx context.Context, what string, req *http.Request) (answer, error) {
	return p.callBy(ctx, p.anyone, what, req)
}

// callAsClient makes a request that may as well be made twice, with the client's certificate if it has one.
func (p *Provider) callAsClient(ctx context.Context, what string, req *http.Request) (answer, error) {
	return p.callBy(ctx, p.asClient, what, req)
}

// callBy makes one request within the provider's time limit and reads the whole answer. what names the endpoint in errors. Its errors
// are [UnavailableError]s, and a [ProtocolError] for an answer that is too long.
func (p *Provider) callBy(ctx context.Context, by http.RoundTripper, what string, req *http.Request) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, &UnavailableError{What: what + " was not called", Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()

	// A request is certainly not sent when the transport went for a connection and got none. It goes for another one only after
	// nothing at all was written to the last, or when the provider said that it did not process the request (HTTP/2).
	var asked, got atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true); got.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	span := p.o.Tracer.Provider(ctx, p.name, what, req)
	defer span.End()
	outcome, began := "error", time.Now()
	defer func() { p.o.Metrics.ProviderCall(p.name, endpointOf(what), outcome, time.Since(began)) }()
	broken := func(err error) error {
		outcome = metrics.Failure(err)
		span.Fail(tracing.ErrorType(err))
		return &UnavailableError{What: what + " did not answer", Err: safeCause(ctx, err), sent: got.Load() || !asked.Load()}
	}

	req.Header.Set("User-Agent", "postern")
	a := answer{sent: p.now()}
	resp, err := by.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return answer{}, broken(err)
	}
	defer resp.Body.Close()
	span.Answered(resp)
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, broken(err)
	}
	if len(a.body) > maxAnswer {
		return answer{}, badAnswer("%s answered more than %d bytes", what, maxAnswer)
	}
	outcome = strconv.Itoa(a.status/100) + "xx"
	return a, nil
}

// endpointOf is the word under which calls to an endpoint are counted. Those that an operator has added count together.
func endpointOf(what string) string {
	word, _, _ := strings.Cut(what, " ")
	switch {
	case strings.HasPrefix(what, userinfoCall):
		return "userinfo_call"
	case word == "jwks_uri":
		return "jwks"
	}
	return word
}

// get asks for a JSON document that anyone may read and wants status 200.
func (p *Provider) get(ctx context.Context, what, address string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return answer{}, badAnswer("%s has a malformed address", what)
	}
	req.Header.Set("Accept", "application/json")
	a, err := p.call(ctx, what, req)
	if err != nil {
		return answer{}, err
	}
	if a.status != http.StatusOK {
		return answer{}, p.refused(what, a)
	}
	return a, nil
}

// refused is the error for an answer whose status says that there is no result.
func (p *Provider) refused(what string, a answer) error {
	e := &UnavailableError{What: fmt.Sprintf("%s answered status %d", what, a.status), RetryAfter: a.retryAfter(p.now()), sent: true}
	if a.status >= 300 && a.status < 400 {
		e.What += ", a redirect to " + a.redirectHost() + ", which is not followed"
	}
	return e
}

// redirectHost is the host that a redirect names, without the rest of the address: that may hold what was sent.
func (a answer) redirectHost() string {
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || u.Host == "" {
		return "the same host"
	}
	return strconv.Quote(u.Host)
}

// mediaType is the answer's media type in lower case.
func (a answer) mediaType() string {
	t, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		return "unknown"
	}
	return t
}

// retryAfter reads Retry-After (RFC 9110 section 10.2.3): seconds or a date. It is 0 without one, else between a second and an hour.
func (a answer) retryAfter(now time.Time) time.Duration {
	v := strings.TrimSpace(a.header.Get("Retry-After"))
	if v == "" {
		return 0
	}
	d := time.Duration(0)
	if s, err := strconv.ParseUint(v, 10, 64); err == nil {
		d = time.Duration(min(s, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	} else {
		return 0
	}
	return max(time.Second, min(d, maxRetryAfter))
}

// safeCause is the cause of a failed call without an address around it, whose query is not ours to show.
func safeCause(ctx context.Context, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return ctx.Err() // a read that the time limit broke off says so
	}
	return err
}

package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// bodyTimeout is how long a client may send nothing of a body that it has announced. There is no limit to how long a body takes that moves.
	bodyTimeout = time.Minute
	// restTimeout takes its place once HTTP/1's answer has begun and no more than smallRest is left, which net/http reads before it lets the answer out.
	restTimeout = 5 * time.Second
	smallRest   = 256 << 10 // bytes
)

// clientBody is the body of a request. Whoever announces a body and then sends nothing would hold the connection, and one to the application, for
// ever.
type clientBody struct {
	io.ReadCloser
	control *http.ResponseController

	mu    sync.Mutex    // the application's side reads in its own goroutine
	left  int64         // bytes that are announced and not yet read; negative: nobody knows
	pause time.Duration // that is allowed now
	set   time.Time     // when the deadline was set last
	ended bool          // there is none any more
}

// watchBody bounds the pauses in a request's body, also in what net/http reads of a body that nobody wanted.
func (x *exchange) watchBody() {
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return
	}
	x.body = &clientBody{ReadCloser: x.r.Body, left: x.r.ContentLength, pause: bodyTimeout, control: http.NewResponseController(x.ResponseWriter)}
	x.body.extend()
	x.r.Body = x.body
}

// endBody is called when the request has been answered.
func (x *exchange) endBody() {
	if x.body != nil {
		x.body.end()
	}
}

// Read implements io.Reader.
func (b *clientBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 {
		b.mu.Lock()
		b.left -= int64(n)
		b.mu.Unlock()
	}
	if err != nil {
		b.over(err)
	}
	return n, err
}

// over is called when the body has come to its end, or cannot be read. At its end net/http has cleared the deadline, since one would end the answer;
// so a deadline that the answer set meanwhile is cleared, too.
func (b *clientBody) over(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == io.EOF && b.pause == restTimeout && !b.ended {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	b.ended = true
}

// end leaves the deadline as it is from now on. It is called when the body or the request is over: the connection may be another request's then.
func (b *clientBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}

// extend moves the deadline on. A writer that knows no deadlines has none.
func (b *clientBody) extend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); !b.ended && now.Sub(b.set) > b.pause/8 {
		b.set = now
		_ = b.control.SetReadDeadline(now.Add(b.pause))
	}
}

// hurry is called when HTTP/1's answer begins: it must not wait long for a client that sends nothing more.
func (b *clientBody) hurry() {
	b.mu.Lock()
	small := b.left <= smallRest
	if small {
		b.pause, b.set = restTimeout, time.Time{}
	}
	b.mu.Unlock()
	if small {
		b.extend()
	}
}

// letRest ends the bound for a stream of gRPC messages to an application that can have one: it may rest before the first answer as well as after it.
func (x *exchange) letRest() {
	if x.body != nil && x.r.ProtoMajor == 2 && x.route.upstream.speaksHTTP2() && strings.HasPrefix(x.r.Header.Get("Content-Type"), "application/grpc") {
		x.body.release()
	}
}

// release ends the bound. In HTTP/2 bodies of both directions run side by side: once the answer has begun, pauses are between client and
// application.
func (b *clientBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	_ = b.control.SetReadDeadline(time.Time{})
}

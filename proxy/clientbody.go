package proxy

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// bodyTimeout is how long a client may send nothing of a body that it has announced. There is no limit to how long a body takes that moves.
const bodyTimeout = time.Minute

// clientBody is the body of a request. Whoever announces a body and then sends nothing would hold the connection, and one to the application, for
// ever.
type clientBody struct {
	io.ReadCloser
	control *http.ResponseController

	mu    sync.Mutex // the application's side reads in its own goroutine
	set   time.Time  // when the deadline was set last
	ended bool       // there is none any more
}

// watchBody bounds the pauses in a request's body, also in what net/http reads of a body that nobody wanted.
func (x *exchange) watchBody() {
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return
	}
	x.body = &clientBody{ReadCloser: x.r.Body, control: http.NewResponseController(x.ResponseWriter)}
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
	if err != nil {
		b.end() // net/http has cleared the deadline; a new one would end the answer
	}
	return n, err
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
	if now := time.Now(); !b.ended && now.Sub(b.set) > bodyTimeout/8 {
		b.set = now
		_ = b.control.SetReadDeadline(now.Add(bodyTimeout))
	}
}

// release ends the bound. In HTTP/2 bodies of both directions run side by side: once the answer has begun, pauses are between client and
// application, as in a gRPC stream.
func (b *clientBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	_ = b.control.SetReadDeadline(time.Time{})
}

package proxy

import (
	"io"
	"sync"
	"sync/atomic"
)

// upload is a request's body. It remembers whether reading it failed: that is the client's fault, not the application's.
type upload struct {
	body io.ReadCloser
	tied *tether // whoever uploads for hours is not idle

	begun, over, whole atomic.Bool // whether somebody has read from it, until it gave no more, and that was its end

	mu     sync.Mutex // the transport reads in its own goroutine
	closed bool
	err    error
}

// Read implements io.Reader. The end stays the end: the transport reads once more after it, when the server may have closed the body, because the answer has
// begun already; the transport would take that for a failure and break the answer off (golang/go issue 40747).
func (b *upload) Read(p []byte) (int, error) {
	b.begun.Store(true)
	if b.whole.Load() {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	if n > 0 {
		b.tied.used()
	}
	if err != nil {
		b.whole.Store(err == io.EOF)
		b.over.Store(true)
	}
	if err != nil && err != io.EOF {
		b.mu.Lock()
		if !b.closed && b.err == nil {
			b.err = err
		}
		b.mu.Unlock()
	}
	return n, err
}

// Close implements io.Closer. The transport closes the body of a request that failed; reading errors after that mean nothing. A body that
// nobody has read from stays open: it may go to another address yet, and the reverse proxy closes it in the end.
func (b *upload) Close() error {
	if !b.begun.Load() {
		return nil
	}
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.body.Close()
}

func (b *upload) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

package wire

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// body is the body of an answer. Its end gives the connection back; anything else closes it.
type body struct {
	io.ReadCloser // as http.ReadResponse made it; never closed, since that would read on
	ctx           context.Context
	detach        func() bool // from ctx; false when that has ended
	conn          *conn
	keepIn        *Transport // nil: the connection is closed even after the end

	mu  sync.Mutex
	err error // what every further Read returns; with one the connection is given up
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	err := b.err
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		err = b.end(err)
	}
	return n, err
}

// end gives the connection up, once, and returns why nothing more can be read.
func (b *body) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil { // closed meanwhile
		return b.err
	}
	if err == io.EOF {
		b.release()
	} else {
		b.detach()
		b.conn.close()
		if b.ctx.Err() != nil {
			err = context.Cause(b.ctx)
		}
	}
	b.err = err
	return err
}

// Close implements io.Closer. It may be called during a Read, which then ends.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.detach()
		b.conn.close()
	}
	b.err = http.ErrBodyReadAfterClose
	return nil
}

// release gives the connection back after the end of an answer. A request that is given up in this very moment may be closing it.
func (b *body) release() {
	if b.detach() && b.keepIn != nil {
		b.keepIn.put(b.conn)
		return
	}
	b.conn.close()
}

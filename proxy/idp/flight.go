package idp

import (
	"context"
	"fmt"
	"sync"
)

// flight lets one caller at a time do something for all who want it.
type flight struct {
	mu  sync.Mutex
	run *run // what is under way, or nil
}

// run is one flight; err may be read once done is closed.
type run struct {
	done chan struct{}
	err  error
}

// join waits for the flight that is under way, or else starts do on a goroutine of its own. When ctx ends first, its error is returned
// and the flight goes on: do must be bounded by itself.
func (f *flight) join(ctx context.Context, do func() error) error {
	f.mu.Lock()
	r := f.run
	if r == nil {
		r = &run{done: make(chan struct{})}
		f.run = r
		go f.fly(r, do)
	}
	f.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *flight) fly(r *run, do func() error) {
	defer func() {
		// A document that makes a parser panic must not end the process for everyone.
		if v := recover(); v != nil {
			r.err = fmt.Errorf("panic: %v", v)
		}
		f.mu.Lock()
		f.run = nil
		f.mu.Unlock()
		close(r.done)
	}()
	r.err = do()
}

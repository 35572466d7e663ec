//go:build unix

package proxy

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// countedBuffers knows how many buffers are taken.
type countedBuffers struct {
	buffers
	taken, ever atomic.Int64
}

func (b *countedBuffers) Get() []byte {
	b.taken.Add(1)
	b.ever.Add(1)
	return b.buffers.Get()
}

func (b *countedBuffers) Put(p []byte) {
	b.taken.Add(-1)
	b.buffers.Put(p)
}

func TestASilentWebSocketHoldsNoBuffer(t *testing.T) {
	address, _ := echoApplication(t)
	f := newFront(t, address, asAlice)
	var pool countedBuffers
	f.u.proxy.BufferPool = &pool
	c := dialWebSocket(t, f)
	for _, size := range []int{1, 100_000} {
		echo(t, c, make([]byte, size))
		for deadline := time.Now().Add(10 * time.Second); pool.taken.Load() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after %d bytes %d buffers are held", size, pool.taken.Load())
			}
		}
	}
	if pool.ever.Load() == 0 {
		t.Error("it takes none at all: the count proves nothing")
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}

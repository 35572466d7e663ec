package session_test

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"

	"postern/session"
	"postern/session/memstore"
)

// What a session needs in the memory of a process that has read it, and whether the cache counts it about right: max_size is what
// somebody bounds a container by.
func TestCachedSessionMemory(t *testing.T) {
	const sessions, bound = 4000, 4100
	f := replica(t, memstore.New(memstore.Options{}), nil)
	headers := make([]http.Header, sessions)
	for i := range headers {
		g := f.typical()
		g.Subject, g.SID = hex(fmt.Sprint("sub", i), 16), hex(fmt.Sprint("sid", i), 16)
		g.Identity.User, g.Identity.Email = g.Subject, fmt.Sprintf("person%d@corp.example", i)
		g.Tokens.Access, g.Tokens.ID = jwt(1193, fmt.Sprint("at", i)), jwt(950, fmt.Sprint("id", i))
		_, headers[i] = f.signIn(g, session.CreateOptions{Browser: "Firefox"})
	}
	other := replica(t, f.store, func(o *session.Options) { o.Cache.MaxSize = 1 << 30 })
	before := heap()
	for _, h := range headers {
		other.mustLoad(h)
	}
	used, counted := (heap()-before)/sessions, other.Weight()/sessions
	runtime.KeepAlive(headers)
	t.Logf("a cached session takes %d bytes, and counts %d", used, counted)
	if used > bound {
		t.Errorf("a cached session takes %d bytes, want at most %d", used, bound)
	}
	if counted < used*85/100 || counted > used*115/100 {
		t.Errorf("a cached session of %d bytes counts %d", used, counted)
	}
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // pools let go of what they hold after the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

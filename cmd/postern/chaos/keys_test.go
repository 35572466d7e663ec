//go:build chaos

package chaos_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
)

// TestKeysRotateUnderLoad: a key is moved to the front and the old one dropped, in files, while people work. Nobody notices; only a
// cookie that was not used meanwhile is over.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	const noticed = 8 * time.Second // files are looked at every 2 s
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	set := func(a, b string) {
		proctest.WriteFile(t, dir, "first", []byte(a+"\n"))
		proctest.WriteFile(t, dir, "second", []byte(b+"\n"))
	}
	old, next, last := newKey(t), newKey(t), newKey(t)
	set(old, next)
	w := newWorld(t, settings{keys: fmt.Sprintf("[{file: %q}, {file: %q}]", first, second)})
	before := w.baseline()
	l := w.startLoad(20)
	unused := w.signedInBrowser("away", "wanda").current()
	pause(t.Context(), time.Second)
	w.note("the second key comes to the front")
	set(next, old)
	pause(t.Context(), noticed)
	w.note("the old key is dropped")
	set(next, last)
	pause(t.Context(), noticed)
	l.stop()
	l.settle()
	unused.askEnd()
	gone := w.replay(t.Context(), unused)
	t.Logf("%s; the cookie that was not used: %d", w.summary(), gone.status)
	if n := w.total("alive at the end"); n != len(l.browsers) || w.total("answers 503") > 0 {
		t.Errorf("%d of %d are signed in", n, len(l.browsers))
	}
	if gone.status != http.StatusUnauthorized {
		t.Errorf("a cookie under a key that was dropped: %s", gone)
	}
	w.report(t, t.Name())
	w.finish(before)
}

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

// TestKeysRotateUnderLoad: another key comes to the front, in files, while people work and sign in. Nobody notices. A key that is dropped
// before its cookies have moved (they do after five minutes) ends them.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	const noticed = 8 * time.Second // files are looked at every second
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	set := func(a, b string) {
		proctest.WriteFile(t, dir, "first", []byte(a+"\n"))
		proctest.WriteFile(t, dir, "second", []byte(b+"\n"))
	}
	old, next, last := newKey(t), newKey(t), newKey(t)
	set(old, next)
	w := newWorld(t, settings{keys: fmt.Sprintf("[{file: %q}, {file: %q}]", first, second)})
	for _, key := range []string{old, next, last} {
		w.secrets.Add("session key", key)
	}
	before := w.baseline()
	l := w.startLoad(20)
	unused := w.signedInBrowser("away", "wanda").current()
	pause(t.Context(), time.Second)
	w.note("the second key comes to the front")
	set(next, old)
	pause(t.Context(), noticed)
	w.signedInBrowser("new", "nelly")
	l.stop()
	l.settle()
	if a := w.replay(t.Context(), unused); a.status != http.StatusOK {
		t.Errorf("a cookie that was not used meanwhile: %s", a)
	}
	if n := w.total("alive at the end"); n != len(l.browsers) || w.total("answers 503") > 0 {
		t.Errorf("%d of %d are signed in", n, len(l.browsers))
	}
	unused.askEnd()
	set(next, last)
	pause(t.Context(), noticed)
	gone := w.replay(t.Context(), unused)
	t.Logf("%s; a cookie under the key that was dropped: %d", w.summary(), gone.status)
	if gone.status != http.StatusUnauthorized {
		t.Errorf("a cookie under a key that was dropped: %s", gone)
	}
	w.report(t, t.Name())
	w.finish(before, 4)
}

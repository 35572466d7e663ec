//go:build chaos

package chaos_test

import (
	"net/http"
	"testing"
	"time"
)

// TestKilledLeaseHolder: kill -9 of the replica that refreshes, in the middle of the exchange. The others take over within the lease
// and one exchange. Whether the refresh token comes twice depends on whether the dead one had sent it.
func TestKilledLeaseHolder(t *testing.T) {
	t.Parallel()
	const lease = exchangeLimit + 5*time.Second
	for _, sent := range []bool{true, false} {
		name := "had sent the token"
		if !sent {
			name = "had not sent it yet"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{ttl: 2 * time.Second})
			b := w.signedInBrowser("b1", "alice")
			s := b.current()
			w.provider.setTTL(time.Hour)
			hold, held := make(chan struct{}), make(chan string, 1)
			if sent {
				w.provider.setFault(tokenFault{hold: hold, held: held})
			} else {
				w.provider.connections.freeze()
			}
			w.expires(s)
			first := make(chan answer, 1)
			go func() { first <- b.do(via(t.Context(), w.replicas[0]), http.MethodGet, "/first", scriptHeaders) }()
			if sent {
				if got := <-held; got != w.replicas[0].name {
					t.Fatalf("%s refreshes", got)
				}
			} else {
				w.awaitLease()
			}
			w.note("%s is killed", w.replicas[0].name)
			w.replicas[0].kill()
			killed := time.Now()
			if a := <-first; a.status != 0 {
				t.Errorf("the killed replica answers %s", a)
			}
			w.provider.setFault(tokenFault{})
			close(hold)
			w.provider.connections.thaw()
			var tries int
			for {
				tries++
				a := b.get(t.Context())
				if a.status == http.StatusOK || time.Since(killed) > 2*lease {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			took := time.Since(killed)
			most, _ := w.provider.sends()
			t.Logf("usable again after %v (lease %v, time limit of an exchange %v), %d requests; the refresh token was sent %d times", took.Round(10*time.Millisecond), lease, exchangeLimit, tries, most)
			want := 1
			if sent {
				want = 2
			}
			if took > lease+exchangeLimit || most != want {
				t.Errorf("usable after %v, token sent %d times, want %d", took, most, want)
			}
			w.report(t, t.Name())
		})
	}
}

//go:build attack

package attack_test

import (
	"net/http"
	"testing"
)

// order posts to the back channel as a provider does.
func (w *world) order(form string, header ...string) *ordered {
	w.t.Helper()
	return &ordered{w.browser().do(http.MethodPost, "/oauth2/logout/backchannel", form, append([]string{"Content-Type: application/x-www-form-urlencoded"}, header...)...)}
}

type ordered struct{ *page }

// is checks the answer, which tells nothing but the status (OpenID Connect Back-Channel Logout section 2.8).
func (o *ordered) is(t *testing.T, status int) {
	t.Helper()
	if o.status != status || o.header.Get("Cache-Control") != "no-store" || o.header.Get("Set-Cookie") != "" {
		t.Errorf("got %d %v %s, want %d", o.status, o.header, o.body, status)
	}
}

package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A revocation that is given up must not hold one of the few places for another minute.
func TestRevocationThatIsGivenUpWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := idp.New(idp.Options{Name: "corp", ClientID: "wiki", OAuth2: &idp.Endpoints{
			Authorize: "https://id.example.com/authorize", Token: "https://id.example.com/token", Revoke: "https://id.example.com/revoke",
		}, Identity: "none", Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })})
		if err != nil {
			t.Fatal(err)
		}
		rv := newRevoker(slog.New(slog.DiscardHandler))
		began := time.Now()
		rv.try(context.Background(), &provider{name: "corp", idp: client}, "handle", session.Tokens{Access: "a"})
		want := time.Duration(0)
		for i := range revokeTries - 1 {
			want += revokeWait << i
		}
		if took := time.Since(began); took != want {
			t.Errorf("took %s, want %s between %d tries", took, want, revokeTries)
		}
	})
}

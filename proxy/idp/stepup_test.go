package idp_test

import (
	"errors"
	"net/url"
	"testing"
	"time"

	"postern/proxy/idp"
)

// S34, S35: how and when a person signed in is what the ID token says, not what was asked for (OpenID Connect Core section 3.1.3.7, points 12 and 13).
func TestS34_StrengthAndAgeAreVerified(t *testing.T) {
	const insufficient, stale, bad = "insufficient", "stale", "bad"
	ago := func(d time.Duration) any { return today.Add(-d).Unix() }
	for name, c := range map[string]struct {
		acr      []string
		maxAge   time.Duration
		gotACR   any
		authTime any
		want     string // "": a grant
	}{
		"nothing asked, nothing said": {nil, 0, nil, nil, ""},
		"one of several":              {[]string{"gold", "key"}, 0, "key", nil, ""},
		"another":                     {[]string{"gold"}, 0, "pwd", nil, insufficient},
		"a part of one":               {[]string{"gold"}, 0, "gol", nil, insufficient},
		"none":                        {[]string{"gold"}, 0, nil, nil, insufficient},
		"a list":                      {[]string{"gold"}, 0, []string{"gold"}, nil, insufficient},
		"recent":                      {nil, time.Minute, nil, ago(time.Minute), ""},
		"by the leeway":               {nil, time.Minute, nil, ago(2 * time.Minute), ""},
		"older":                       {nil, time.Minute, nil, ago(2*time.Minute + time.Second), stale},
		"no time":                     {nil, time.Minute, nil, nil, insufficient},
		"a clock ahead":               {nil, time.Minute, nil, ago(-time.Minute), ""},
		"the future":                  {nil, time.Minute, nil, ago(-time.Hour), bad},
		"strong, but old":             {[]string{"gold"}, time.Minute, "gold", ago(time.Hour), stale},
		"weak and old":                {[]string{"gold"}, time.Minute, "pwd", ago(time.Hour), insufficient},
	} {
		s, p := scripted(t)
		b, claims := attempt(t, t.Context(), p, today)
		if c.gotACR != nil {
			claims["acr"] = c.gotACR
		}
		if c.authTime != nil {
			claims["auth_time"] = c.authTime
		}
		s.answer("/token", 200, map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": sign(t, s.key, claims)})
		_, err := p.Finish(t.Context(), idp.Finish{
			Params: url.Values{"code": {"c0de"}, "state": {b.State}}, Secret: b.Secret, RedirectURI: b.RedirectURI, ACR: c.acr, MaxAge: c.maxAge,
		})
		got := ""
		weak, isWeak := errors.AsType[*idp.InsufficientError](err)
		switch {
		case isWeak && weak.Stale:
			got = stale
		case isWeak:
			got = insufficient
		case err != nil:
			got = bad
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q: %v", name, got, c.want, err)
		}
	}
}

func TestBeginAsksForStrengthAndAge(t *testing.T) {
	_, oidc := scripted(t, func(o *idp.Options) {
		o.AuthorizeParams = map[string]string{"acr_values": "pwd", "max_age": "100000"}
	})
	_, old := plain(t)
	for _, c := range []struct {
		p           *idp.Provider
		acr, maxAge string
	}{{oidc, "gold key", "90"}, {old, "", ""}} {
		address, err := c.p.Begin(t.Context(), idp.Begin{
			State: "s", Secret: newSecret(), RedirectURI: callback, ACR: []string{"gold", "key"}, MaxAge: 90 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if q := u.Query(); q.Get("acr_values") != c.acr || q.Get("max_age") != c.maxAge || len(q["acr_values"]) > 1 {
			t.Errorf("%s asks %v", c.p.Name(), q)
		}
		if c.p.TellsHow() != (c.acr != "") {
			t.Errorf("%s: TellsHow %v", c.p.Name(), c.p.TellsHow())
		}
	}
}

// A provider that tells neither cannot meet a demand, whoever asks for it.
func TestPlainOAuthMeetsNoDemand(t *testing.T) {
	s, p := plain(t)
	s.answer("/token", 200, map[string]any{"access_token": "access", "token_type": "Bearer", "acr": "gold", "auth_time": today.Unix()})
	for _, f := range []idp.Finish{{ACR: []string{"gold"}}, {MaxAge: time.Hour}} {
		f.Params, f.Secret, f.RedirectURI = url.Values{"code": {"c0de"}}, newSecret(), callback
		if _, err := p.Finish(t.Context(), f); err == nil {
			t.Errorf("%+v is met", f)
		}
	}
}

// RFC 9700 section 4.4: an answer that names another provider is not this one's, also where this one has no issuer of its own.
func TestA9_AnAnswerThatNamesAnotherProvider(t *testing.T) {
	s, p := plain(t, func(o *idp.Options) { o.OtherIssuers = []string{"https://honest.example"} })
	s.answer("/token", 200, map[string]any{"access_token": "access", "token_type": "Bearer"})
	for iss, ok := range map[string]bool{"https://honest.example": false, "https://its.own.example": true} {
		_, err := p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c0de"}, "iss": {iss}}, Secret: newSecret(), RedirectURI: callback})
		if (err == nil) != ok {
			t.Errorf("iss %s: %v", iss, err)
		}
	}
	if n := s.count("/token"); n != 1 {
		t.Errorf("%d codes were sent", n)
	}
}

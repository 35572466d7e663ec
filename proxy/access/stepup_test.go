package access_test

import (
	"testing"
	"time"

	"postern/config"
	"postern/proxy/access"
	"postern/session"
)

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// signedIn is a session of a sign-in of that strength, ago before noon; a negative ago is not known.
func signedIn(acr string, ago time.Duration, groups ...string) *session.Session {
	s := &session.Session{Grant: session.Grant{ACR: acr, Identity: session.Identity{User: "alice", Groups: groups}}}
	if ago >= 0 {
		s.AuthTime = noon.Add(-ago)
	}
	return s
}

func TestStepUp_S34(t *testing.T) {
	strong := config.Access{ACR: []string{"mfa", "key"}}
	recent := config.Access{MaxAge: 15 * time.Minute}
	both := config.Access{ACR: []string{"mfa"}, MaxAge: 15 * time.Minute, Groups: []string{"payroll"}}
	const unknown = -1
	for name, c := range map[string]struct {
		rule   config.Access
		s      *session.Session
		reason string
		need   access.Need
	}{
		"strong":                         {strong, signedIn("key", unknown), access.ReasonConditions, access.None},
		"weak":                           {strong, signedIn("pwd", 0), "acr", access.StepUp},
		"strength not told":              {strong, signedIn("", 0), "acr", access.StepUp},
		"strength in another case":       {strong, signedIn("MFA", 0), "acr", access.StepUp},
		"recent":                         {recent, signedIn("", 15*time.Minute), access.ReasonConditions, access.None},
		"old":                            {recent, signedIn("", 15*time.Minute+time.Second), "max_age", access.StepUp},
		"time not told":                  {recent, signedIn("mfa", unknown), "max_age", access.StepUp},
		"clock of the provider":          {recent, &session.Session{Grant: session.Grant{AuthTime: noon.Add(time.Minute)}}, access.ReasonConditions, access.None},
		"tomorrow":                       {recent, &session.Session{Grant: session.Grant{AuthTime: noon.Add(24 * time.Hour)}}, "max_age", access.StepUp},
		"both":                           {both, signedIn("mfa", 0, "payroll"), access.ReasonConditions, access.None},
		"both, old":                      {both, signedIn("mfa", time.Hour, "payroll"), "max_age", access.StepUp},
		"nobody is sent to step up":      {both, signedIn("pwd", time.Hour, "wiki"), "groups", access.None},
		"a stranger signs in, not steps": {both, nil, access.ReasonNoSession, access.SignIn},
	} {
		rule := mustRule(t, c.rule)
		d := rule.Decide(t.Context(), c.s, &access.Request{Time: noon})
		if d.Reason != c.reason || d.Need != c.need || d.Allow != (c.reason == access.ReasonConditions) {
			t.Errorf("%s: %+v, want %s, %s", name, d, c.reason, c.need)
		}
		if (d.Demand != nil) != (c.need == access.StepUp) || d.Demand != nil && d.Demand != rule.Demand() {
			t.Errorf("%s: demands %+v", name, d.Demand)
		}
	}
}

// The age of a sign-in depends on the time, so that such a rule must be asked with it.
func TestOnlyMaxAgeReadsTheTime(t *testing.T) {
	if mustRule(t, config.Access{ACR: []string{"mfa"}}).ReadsRequest() || !mustRule(t, config.Access{MaxAge: time.Minute}).ReadsRequest() {
		t.Error("a rule does not say what it reads")
	}
	if d := mustRule(t, config.Access{MaxAge: time.Minute}).Decide(t.Context(), signedIn("", 0), nil); d.Allow {
		t.Error("allowed without knowing the time")
	}
}

func TestEmptyACRLetsNobodyIn(t *testing.T) {
	rule := mustRule(t, config.Access{ACR: []string{}})
	if d := rule.Decide(t.Context(), signedIn("", 0), nil); d.Allow || d.Need != access.None {
		t.Errorf("%+v", d)
	}
}

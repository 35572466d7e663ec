package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestChallengesOfApplications(t *testing.T) {
	const start = `Bearer error="insufficient_user_authentication"`
	for line, want := range map[string]string{ // strengths and seconds
		start + `, acr_values="gold"`:                                                  "gold 0",
		start + `, acr_values="gold  silver", max_age="5"`:                             "gold silver 5",
		start + `,max_age=5`:                                                           "5",
		start + `, max_age=0`:                                                          "1",
		start + `, max_age="99999999"`:                                                 "31536000",
		`bearer ERROR="insufficient_user_authentication", MAX_AGE = 7 `:                "7",
		`Bearer realm="a, b=\"c\"", error=insufficient_user_authentication, max_age=7`: "7",
		`Basic realm="x", ` + start + `, max_age=7, DPoP algs="ES256"`:                 "7",
		`Bearer, ` + start + `, max_age=7`:                                             "7",
		`Bearer error="invalid_token", ` + start + `, max_age=7`:                       "7",
		start: "",
		`DPoP error="insufficient_user_authentication", max_age=7`:           "",
		`Bearer error="invalid_token", max_age=7`:                            "",
		start + `, max_age=7, max_age=8`:                                     "",
		start + `, max_age=-7`:                                               "",
		start + `, max_age=7.5`:                                              "",
		start + `, max_age=99999999999`:                                      "",
		start + `, max_age="7`:                                               "",
		start + `, max_age=7 x`:                                              "",
		start + `, acr_values="a\"b"`:                                        "",
		start + `, acr_values="a` + "\x01" + `b"`:                            "",
		start + `, acr_values="ä"`:                                           "",
		start + `, acr_values="` + strings.Repeat("x", 257) + `"`:            "",
		start + `, max_age=7, x="` + strings.Repeat("x", maxChallenge) + `"`: "",
		`error="insufficient_user_authentication", max_age=7`:                "",
		`Negotiate YWJj==, ` + start + `, max_age=7`:                         "",
		"": "",
	} {
		got := ""
		if d := demandOf(http.Header{"Www-Authenticate": {line}}); d != nil {
			got = strings.TrimSpace(fmt.Sprint(strings.Join(d.ACR, " "), " ", int(d.MaxAge.Seconds())))
		}
		if got != want {
			t.Errorf("%.200s: %q, want %q", line, got, want)
		}
	}
	if d := demandOf(http.Header{"Www-Authenticate": {"Basic", start + ", max_age=7"}}); d == nil || d.MaxAge != 7*time.Second {
		t.Errorf("in a second line: %+v", d)
	}
}

// Whatever an application sends, what is demanded fits the parameter, the challenge and the cookie that carry it on.
func FuzzDemandIsBounded(f *testing.F) {
	f.Add(`Bearer error="insufficient_user_authentication", acr_values="gold silver", max_age=5`)
	f.Add(`Basic x, Bearer error=insufficient_user_authentication,max_age="\5"`)
	f.Fuzz(func(t *testing.T, line string) {
		d := demandOf(http.Header{"Www-Authenticate": {line}})
		if d == nil {
			return
		}
		text := strings.Join(d.ACR, " ")
		if len(text) > maxDemandACR || strings.ContainsAny(text, "\"\\\r\n\x00") || d.MaxAge < 0 || d.MaxAge > maxDemandAge || len(d.ACR) == 0 && d.MaxAge == 0 {
			t.Errorf("%q demands %+v", line, d)
		}
		if again := demandOf(http.Header{"Www-Authenticate": {"Bearer realm=x" + stepUpChallenge(d)}}); again == nil || strings.Join(again.ACR, " ") != text || again.MaxAge != d.MaxAge {
			t.Errorf("%+v is told as %+v", d, again)
		}
	})
}

package idptest

import (
	"maps"
	"time"
)

// logoutTokenLife is what OpenID Connect Back-Channel Logout section 4 recommends at most.
const logoutTokenLife = 2 * time.Minute

// LogoutToken makes a logout token for a client (OpenID Connect Back-Channel Logout section 2.4), about a person, a session of theirs or
// both; what is empty is left out. change, unless nil, gives it any defect before it is signed, the way the provider signs now.
func (s *Server) LogoutToken(client, sub, sid string, change func(header, claims map[string]any)) string {
	now := s.o.Now()
	claims := map[string]any{
		"iss": s.URL, "aud": client, "iat": now.Unix(), "exp": now.Add(logoutTokenLife).Unix(), "jti": random(0),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	maps.Copy(claims, map[string]any{"sub": sub, "sid": sid})
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == "" })
	return s.sign(claims, func(header, claims map[string]any) {
		header["typ"] = "logout+jwt"
		if change != nil {
			change(header, claims)
		}
	}, "")
}

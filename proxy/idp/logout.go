package idp

// maxLogoutURL is how long an end-session URL may be before the ID token leaves it. Servers and proxies refuse longer request lines.
const maxLogoutURL = 4 << 10

// EndSessionURL is where the browser goes to sign out at the provider, too (OpenID Connect RP-Initiated Logout section 2). ok is
// false when the provider has no such place, or when it is not known.
func (p *Provider) EndSessionURL(idTokenHint, postLogoutRedirectURI, state string) (address string, ok bool) {
	m := p.meta.Load()
	if m == nil || m.endSession == nil {
		return "", false
	}
	u := *m.endSession
	q := u.Query()
	q.Set("client_id", p.clientID)
	for name, value := range map[string]string{"id_token_hint": idTokenHint, "post_logout_redirect_uri": postLogoutRedirectURI, "state": state} {
		if value != "" {
			q.Set(name, value)
		}
	}
	u.RawQuery = encodeQuery(q)
	if address = u.String(); len(address) > maxLogoutURL {
		q.Del("id_token_hint") // client_id says who asks
		u.RawQuery = encodeQuery(q)
		address = u.String()
	}
	return address, true
}

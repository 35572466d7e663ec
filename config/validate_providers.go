package config

import (
	"net/url"
	"strings"
	"time"
)

func (v *validator) providers() {
	if len(v.c.Providers) == 0 {
		v.err("providers", "no identity provider is named", "Write one, such as  corp: {issuer: https://id.example.com, client_id: ID, client_secret: {file: PATH}}")
	}
	for _, p := range v.c.Providers {
		at := join("providers", p.Name)
		if !isProviderName(p.Name) {
			v.err(at, "is not a name for a provider", "Write up to 32 lower-case letters, digits and -, such as corp")
		}
		v.identityOf(at, p)
		v.client(at, p)
		v.positive(at+".timeout", p.Timeout)
		if p.Timeout > 2*time.Minute {
			v.shown(at+".timeout", "is longer than two minutes", "Write what a slow provider needs, such as 10s")
		}
		if p.Leeway > 10*time.Minute {
			v.shown(at+".leeway", "is longer than ten minutes: outdated ID tokens would be accepted", "Set the clocks right, and write a minute or so")
		}
		if p.ResponseMode == "form_post" && !v.secure {
			v.err(at+".response_mode", "form_post needs a cookie with SameSite=None, which browsers accept over https alone, and they see plain http",
				"Write query, or make server.public_url https")
		}
		for i, s := range p.Scopes {
			if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) { // RFC 6749, section 3.3
				v.shown(element(v.c.src, at+".scopes", i), "is not one scope", "Write each scope as its own entry")
			}
		}
	}
}

// identityOf checks where a provider is and what it speaks.
func (v *validator) identityOf(at string, p Provider) {
	issuer, plain := v.given(at+".issuer"), v.given(at+".oauth2")
	switch {
	case issuer && plain:
		v.err(at+".oauth2", "stands beside issuer", "Keep issuer for OpenID Connect, oauth2 for a provider that is not")
	case !issuer && !plain && !v.given(at+".preset"):
		v.err(at, "has no issuer", "Write issuer: https://…, exactly as the provider writes it")
	}
	if u := p.Issuer; u != nil {
		switch {
		case u.Scheme != "https" && u.Scheme != "http" || !isHostPort(u.Host):
			v.err(at+".issuer", "is not an https URL", "Write it exactly as the provider does, such as https://id.example.com/realms/corp")
		case u.Scheme == "http" && !isLoopback(u.Hostname()):
			v.err(at+".issuer", "is plain http: whoever is on the network could sign in as anyone", "Use the provider's https issuer; http is for loopback only")
		case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil:
			v.err(at+".issuer", "has a user, query or fragment, which issuers never have", "Write the issuer, not the address of a page") // OpenID Connect Discovery, section 3
		case strings.HasSuffix(u.Path, "/.well-known/openid-configuration"):
			v.err(at+".issuer", "is the address of the metadata, not the issuer", "Leave /.well-known/openid-configuration off")
		}
	}
	if o := p.OAuth2; o != nil {
		for _, e := range []struct {
			key string
			url *url.URL
		}{
			{"authorize_url", o.AuthorizeURL}, {"token_url", o.TokenURL}, {"userinfo_url", o.UserinfoURL},
			{"revoke_url", o.RevokeURL}, {"introspect_url", o.IntrospectURL}, {"end_session_url", o.EndSessionURL},
		} {
			if e.url != nil {
				v.endpoint(at+".oauth2."+e.key, e.url)
			}
		}
		if o.TokenURL == nil {
			v.err(at+".oauth2.token_url", "is missing", "Name the provider's token endpoint")
		}
	}
}

// client checks how Postern authenticates at a provider.
func (v *validator) client(at string, p Provider) {
	if p.ClientID == "" {
		v.err(at+".client_id", "is missing", "Write the id that the provider gave this client")
	}
	secret := v.given(at + ".client_secret")
	switch p.ClientAuth {
	case "none":
		if secret {
			v.err(at+".client_auth", "is none, but client_secret is set", "Leave out one of them")
		}
	case "client_secret_basic", "client_secret_post":
		if !secret {
			v.err(at+".client_auth", "is "+p.ClientAuth+", but client_secret is missing", "Write client_secret: {file: PATH}")
		}
	case "private_key_jwt":
		if !v.given(at + ".client_key") {
			v.err(at+".client_auth", "is private_key_jwt, but client_key is missing", "Write client_key: {file: PATH}")
		}
		fallthrough
	case "tls_client_auth":
		if secret {
			v.err(at+".client_secret", "is set, but client_auth does not use it", "Leave out one of them")
		}
	}
}

// isProviderName tells whether a name can stand in cookie names, URLs and logs as it is.
func isProviderName(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32 && s[0] != '-' && s[len(s)-1] != '-'
}

// anyoneMayRegister tells whether being signed in at a provider means nothing more than having an account that anyone
// can make. For those a route has to say who may enter.
func (p Provider) anyoneMayRegister() bool {
	if p.Public {
		return true
	}
	urls := []*url.URL{p.Issuer}
	if p.OAuth2 != nil {
		urls = append(urls, p.OAuth2.AuthorizeURL, p.OAuth2.TokenURL)
	}
	for _, u := range urls {
		if u == nil {
			continue
		}
		switch host := strings.ToLower(u.Hostname()); host {
		case "login.microsoftonline.com", "login.microsoft.com", "sts.windows.net":
			tenant, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(u.Path), "/"), "/")
			switch tenant { // the last one is the tenant of personal accounts
			case "common", "organizations", "consumers", "9188040d-6c67-4c5b-b112-36a304b66dad":
				return true
			}
		case "accounts.google.com", "gitlab.com", "github.com", "bitbucket.org", "codeberg.org", "discord.com", "slack.com",
			"appleid.apple.com", "account.apple.com", "www.facebook.com", "facebook.com", "limited.facebook.com", "www.linkedin.com", "id.twitch.tv",
			"api.login.yahoo.com", "login.yahoo.com", "login.live.com", "access.line.me", "kauth.kakao.com", "orcid.org", "login.salesforce.com",
			"metamaps.cc", "auth.gearcode.eu", "metafy.gg", "like.co", "api.like.co":
			return true
		}
	}
	return false
}

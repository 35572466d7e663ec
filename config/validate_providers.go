package config

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
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
		v.preset(at, p)
		v.endpoints(at, p)
		v.grant(at, p)
		v.client(at, p)
		v.identity(at, p)
		v.claims(at, p)
		v.scopes(at, p)
		v.parameters(at, p)
		v.network(at, p)
		if p.ResponseMode == "form_post" && !v.secure {
			v.err(at+".response_mode", "form_post needs a cookie with SameSite=None, which browsers accept over https alone, and they see plain http",
				"Write query, or make server.public_url https")
		}
		if p.TokenLifetime > maxTokenLifetime {
			v.shown(at+".token_lifetime", "is longer than a year", "Write how long the provider's access tokens live, such as 1h")
		}
		if v.given(at + ".token_lifetime") {
			v.positive(at+".token_lifetime", p.TokenLifetime)
		}
		if p.RefreshTokenScope == "user" && p.Identity == "none" {
			v.err(at+".refresh_token_scope", "is user, but with identity: none nobody knows which sessions are one user's", "Write session, or an identity that names the user")
		}
	}
}

// maxTokenLifetime bounds what the operator says about access tokens.
const maxTokenLifetime = 365 * 24 * time.Hour

// preset checks the keys that only a preset makes sense of.
func (v *validator) preset(at string, p Provider) {
	file, ok := presetFile(p.Preset)
	switch {
	case p.Preset == "":
		for _, key := range []string{"url", "tenant"} {
			if v.given(at + "." + key) {
				v.err(at+"."+key, "is for presets, and none is named", "Write preset: NAME (`postern providers` lists them), or issuer: https://…")
			}
		}
	case !ok:
		mend := "`postern providers` lists them; or write issuer: https://… or oauth2: {…} instead"
		if near := nearest(p.Preset, presetNames()); near != "" && !strings.Contains(v.c.src.show(at+".preset"), "${") {
			mend = "Did you mean " + near + "?"
		}
		v.shown(at+".preset", "is not a preset", mend)
	default:
		for _, key := range []string{"url", "tenant"} {
			if v.given(at+"."+key) && !strings.Contains(file, "<"+key+">") {
				v.err(at+"."+key, "is not used by preset "+p.Preset, "Leave it out")
			}
		}
	}
	if u := p.URL; u != nil {
		v.secureURL(at+".url", u)
		if u.RawQuery != "" || u.ForceQuery {
			v.err(at+".url", "has a query", "Write the address of the installation alone, such as https://id.example.com")
		}
	}
	if p.Tenant != "" && strings.ContainsFunc(p.Tenant, func(r rune) bool { return !isUnreserved(r) }) || p.Tenant == "." || p.Tenant == ".." {
		v.shown(at+".tenant", "is not one name", "Write it as it stands in the provider's addresses: letters, digits, - . _ and ~")
	}
}

// endpoints checks where a provider is and what it speaks.
func (v *validator) endpoints(at string, p Provider) {
	_, known := presetFile(p.Preset)
	unsaid := v.c.src.broken(at+".issuer") || v.c.src.broken(at+".oauth2") || p.Preset != "" && !known || v.c.src.broken(at+".preset")
	switch {
	case p.Issuer != nil && p.OAuth2 != nil && p.Preset != "" && known && !v.given(at+".oauth2"):
		v.err(at+".issuer", "stands beside the oauth2 of preset "+p.Preset, "Leave issuer out, or the preset")
	case p.Issuer != nil && p.OAuth2 != nil && p.Preset != "" && known && !v.given(at+".issuer"):
		v.err(at+".oauth2", "stands beside the issuer of preset "+p.Preset, "Leave oauth2 out, or the preset")
	case p.Issuer != nil && p.OAuth2 != nil:
		v.err(at+".oauth2", "stands beside issuer", "Keep issuer for OpenID Connect, oauth2 for a provider that is not")
	case p.Issuer == nil && p.OAuth2 == nil && !unsaid:
		v.err(at, "has no issuer", "Write issuer: https://…, exactly as the provider writes it; oauth2: {authorize_url, token_url} where it is not OpenID Connect; or preset: NAME")
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
	o := p.OAuth2
	if o == nil {
		return
	}
	for _, e := range []struct {
		key string
		url *url.URL
	}{
		{"authorize_url", o.AuthorizeURL}, {"token_url", o.TokenURL}, {"userinfo_url", o.UserinfoURL},
		{"revoke_url", o.RevokeURL}, {"introspect_url", o.IntrospectURL}, {"end_session_url", o.EndSessionURL},
	} {
		if e.url != nil {
			v.secureURL(at+".oauth2."+e.key, e.url)
		}
	}
	if o.TokenURL == nil {
		v.err(at+".oauth2.token_url", "is missing", "Name the provider's token endpoint")
	}
	if o.AuthorizeURL == nil && p.Grant != "password" && p.Issuer == nil {
		v.err(at+".oauth2.authorize_url", "is missing", "Name the address at the provider where people sign in")
	}
}

// secureURL checks the address of something that tokens or secrets are sent to.
func (v *validator) secureURL(path string, u *url.URL) {
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || !isHostPort(u.Host) || u.Fragment != "":
		v.err(path, "is not an https URL", "Write it with scheme and host, such as https://id.example.com/path, and without #")
	case u.User != nil:
		v.err(path, "holds a user or password", "Leave it out; the client's id and secret have their own keys")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		v.err(path, "is plain http: whoever is on the network could take secrets and sign in as anyone", "Use the provider's https address; http is for loopback only")
	}
}

// grant checks what comes with signing in by password.
func (v *validator) grant(at string, p Provider) {
	if p.Grant != "password" {
		return
	}
	v.warn(at+".grant", "has people type their password into Postern, which RFC 9700, section 2.4, forbids for new installations: anyone who controls Postern sees it",
		"Use authorization_code as soon as the provider has it")
	if p.Issuer != nil {
		v.err(at+".grant", "is password, which is for oauth2 providers that have nothing else", "Leave grant out: a provider with an issuer has a sign-in page")
	}
	for _, k := range []struct {
		key string
		set bool
	}{
		{"pkce", p.PKCE == "off"}, {"response_mode", p.ResponseMode == "form_post"}, {"authorize_params", len(p.AuthorizeParams) > 0},
		{"callback_params", len(p.CallbackParams) > 0}, {"start_params", len(p.StartParams) > 0}, {"omit_redirect_uri", p.OmitRedirectURI},
		{"redirect_uri", p.RedirectURI != ""}, {"own_callback", p.OwnCallback},
	} {
		v.unused(at+"."+k.key, k.set, "nobody is sent to the provider with grant: password")
	}
}

// unused refuses a key that would do nothing: nothing in the file is silently ignored. What a preset says is left alone.
func (v *validator) unused(path string, set bool, why string) {
	if set && v.given(path) {
		v.err(path, "does nothing: "+why, "Leave it out")
	}
}

// client checks how Postern authenticates at a provider.
func (v *validator) client(at string, p Provider) {
	switch {
	case p.ClientID == "":
		v.err(at+".client_id", "is missing", "Write the id that the provider gave this client")
	case strings.ContainsFunc(p.ClientID, func(r rune) bool { return r < ' ' || r >= 0x7f }): // RFC 6749, appendix A.1
		v.shown(at+".client_id", "is not printable ASCII", "Write the id that the provider gave this client")
	}
	_, known := presetFile(p.Preset)
	secret, key, cert := v.given(at+".client_secret"), v.given(at+".client_key"), v.given(at+".client_cert")
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
		if !key {
			v.err(at+".client_auth", "is private_key_jwt, but client_key is missing", "Write client_key: {file: PATH}")
		}
	case "tls_client_auth":
		if !cert {
			v.err(at+".client_auth", "is tls_client_auth, but client_cert is missing", "Write client_cert: {cert_file: PATH, key_file: PATH}")
		}
	case "":
		switch {
		case key:
			v.err(at+".client_key", "is set, but client_auth does not say that it is used", "Write client_auth: private_key_jwt")
		case cert:
			v.err(at+".client_cert", "is set, but client_auth does not say that it is used", "Write client_auth: tls_client_auth")
		case !secret && known:
			v.err(at+".client_secret", "is missing, and preset "+p.Preset+" needs it", "Write client_secret: {file: PATH}; for a public client, client_auth: none")
		}
	}
	byKey, byCert := p.ClientAuth == "private_key_jwt", p.ClientAuth == "tls_client_auth"
	if secret && (byKey || byCert) {
		v.err(at+".client_secret", "is set, but client_auth does not use it", "Leave out one of them")
	}
	if p.ClientAuth != "" {
		v.unused(at+".client_key", !byKey, "client_auth is "+p.ClientAuth)
		v.unused(at+".client_cert", !byCert, "client_auth is "+p.ClientAuth)
	}
	v.unused(at+".client_key_id", !byKey, "client_auth is not private_key_jwt")
	v.unused(at+".assertion_audience", !byKey, "client_auth is not private_key_jwt")
	if p.AssertionAudience != "" && !isPrintable(p.AssertionAudience) {
		v.shown(at+".assertion_audience", "is not printable ASCII without spaces", "Write what the provider's documentation says, mostly a URL")
	}
	if key && p.ClientKey.File() == "" && !p.ClientKey.IsZero() {
		text, _ := p.ClientKey.Value()
		if what := badPrivateKey(text); what != "" {
			v.err(at+".client_key", what, "Write client_key: {file: PATH} with a PEM file such as openssl makes")
		}
	}
	if c := p.ClientCert; c != nil {
		if c.CertFile == "" {
			v.err(at+".client_cert.cert_file", "is missing", "Name the PEM file of the certificate chain")
		}
		if c.KeyFile == "" {
			v.err(at+".client_cert.key_file", "is missing", "Name the PEM file of the private key")
		}
	}
}

// identity checks that what an identity is made of can be had.
func (v *validator) identity(at string, p Provider) {
	o := p.OAuth2
	switch p.Identity {
	case "id_token":
		if o != nil && p.Issuer == nil && v.given(at+".identity") {
			v.err(at+".identity", "is id_token, which needs an issuer: without one no ID token can be checked", "Write issuer instead of oauth2, or another identity")
		} else if o != nil && p.Issuer == nil {
			v.err(at+".identity", "is missing: oauth2 has no ID token", "Write userinfo, token_response, access_token, introspection, or none if nobody's name is known")
		}
	case "userinfo":
		if o != nil && o.UserinfoURL == nil && len(p.Userinfo) == 0 && !v.c.src.broken(at+".oauth2.userinfo_url") && !v.c.src.broken(at+".userinfo") {
			v.err(at+".identity", "is userinfo, but there is no address to ask", "Write oauth2.userinfo_url, or userinfo: [{url: https://…}]")
		}
	case "introspection":
		if o != nil && o.IntrospectURL == nil && !v.c.src.broken(at+".oauth2.introspect_url") {
			v.err(at+".identity", "is introspection, but there is no address to ask", "Write oauth2.introspect_url")
		}
	}
	v.unused(at+".userinfo", p.Identity == "none", "identity is none")
	v.unused(at+".extra_audiences", o != nil, "oauth2 has no ID token")
	v.unused(at+".id_token_signed_response_alg", o != nil && p.IDTokenSignedResponseAlg != "RS256", "oauth2 has no ID token")
	v.unused(at+".assume_email_verified", p.AssumeEmailVerified && p.Identity == "none", "identity is none")
	if len(p.Userinfo) > maxUserinfo {
		v.err(at+".userinfo", fmt.Sprintf("lists more than %d calls, which every sign-in and refresh would make", maxUserinfo), "Keep the ones that claims needs")
	}
	if v.given(at+".userinfo") && len(p.Userinfo) == 0 {
		v.err(at+".userinfo", "is an empty list", "Name addresses, or leave the key out")
	}
	names := map[string]bool{}
	for i, c := range p.Userinfo {
		call := fmt.Sprintf("%s.userinfo[%d]", at, i)
		if c.URL == nil {
			v.err(call+".url", "is missing", "Name the address that is asked with the access token")
		} else {
			v.secureURL(call+".url", c.URL)
		}
		switch {
		case c.As != "" && !isClaimName(c.As):
			v.shown(call+".as", "is not a name for a claim", "Write lower-case letters, digits and _, such as emails")
		case slices.Contains([]string{"claims", "email_verified", "iss", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "auth_time", "acr", "amr", "sid", "sub"}, c.As):
			v.shown(call+".as", "has a meaning already", "Write another name, such as emails")
		case names[c.As] && c.As == "":
			v.err(call, "has no as, like an entry before it: their members would be mixed", "Write as: NAME")
		case names[c.As]:
			v.shown(call+".as", "is named twice", "Give each answer its own name")
		}
		names[c.As] = true
	}
	for i, a := range p.ExtraAudiences {
		if e := element(v.c.src, at+".extra_audiences", i); !isPrintable(a) {
			v.shown(e, "is not printable ASCII without spaces", "Write the audience as it stands in the ID token")
		} else if a == p.ClientID {
			v.warn(e, "is client_id, which is always accepted", "Leave it out")
		}
	}
}

// The bounds of what is asked and kept about one person.
const (
	maxUserinfo = 8
	maxExtra    = 16
	maxClaim    = 4 << 10
)

// claims checks the names of the mapping. Whether a value compiles is the mapping's own matter (proxy/idp).
func (v *validator) claims(at string, p Provider) {
	v.unused(at+".claims", p.Identity == "none", "identity is none")
	extra := 0
	for _, name := range slices.Sorted(maps.Keys(p.Claims)) {
		key := join(at+".claims", name)
		switch name {
		case "user", "email", "name", "preferred_username", "groups":
		case "sub":
			v.err(key, "is not to be mapped", "Write user: for what names the person")
		case "email_verified":
			v.err(key, "is not to be mapped", `Write an expression that yields the address only where it is verified, such as email: 'verified ? email : ""'`)
		default:
			extra++
			if !isClaimName(name) {
				v.err(key, "is not a name for a claim", "Write user, email, name, preferred_username, groups, or another name of lower-case letters and _, such as picture")
			} else if near := nearest(name, []string{"user", "email", "name", "preferred_username", "groups"}); near != "" && v.given(key) {
				v.warn(key, "is kept under that name, but is none of the five that rules and headers use", "Did you mean "+near+"?")
			}
		}
		if len(p.Claims[name]) > maxClaim {
			v.err(key, "is longer than 4 KiB", "Write a path such as data.login, or a short expression")
		}
	}
	if extra > maxExtra {
		v.err(at+".claims", fmt.Sprintf("keeps more than %d further claims in each session", maxExtra), "Keep those that something uses")
	}
}

// network checks how the provider is reached.
func (v *validator) network(at string, p Provider) {
	v.positive(at+".timeout", p.Timeout)
	if p.Timeout > 2*time.Minute {
		v.shown(at+".timeout", "is longer than two minutes", "Write what a slow provider needs, such as 10s")
	}
	if p.Leeway > 5*time.Minute {
		v.shown(at+".leeway", "is longer than five minutes: outdated ID tokens would be accepted", "Set the clocks right, and write a minute or so")
	}
	if u := p.LogoutURI; u != nil {
		v.logoutURI(at+".logout_uri", u)
		v.unused(at+".oauth2.end_session_url", p.OAuth2 != nil, "logout_uri stands in its place")
	}
	if u := p.InternalURL; u != nil {
		switch {
		case u.Scheme != "https" && u.Scheme != "http" || !isHostPort(u.Host) || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			v.err(at+".internal_url", "is not the base of an http or https address", "Write scheme and host, such as https://keycloak.auth.svc:8443")
		case u.Scheme == "http" && !isLoopback(u.Hostname()):
			v.warn(at+".internal_url", "is plain http: whoever is on that network could take secrets and sign in as anyone", "Use https with ca_file")
		}
	}
	if u := p.HTTPProxy; u != nil {
		if u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h" || !isHostPort(u.Host) || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
			v.err(at+".http_proxy", "is not the address of a proxy", "Write it such as http://proxy.example.com:3128")
		}
	}
}

// logoutURI checks where a person is sent to sign out, and its placeholders.
func (v *validator) logoutURI(path string, u *url.URL) {
	const mend = "Write {client_id}, {id_token_hint}, {post_logout_redirect_uri} or {state}, in the query, such as ?returnTo={post_logout_redirect_uri}"
	v.secureURL(path, u)
	rest := u.RawQuery
	for _, name := range []string{"{client_id}", "{id_token_hint}", "{post_logout_redirect_uri}", "{state}"} {
		rest = strings.ReplaceAll(rest, name, "")
	}
	if strings.ContainsAny(rest, "{}") {
		v.err(path, "has a placeholder that is not known", mend)
	}
}

// isClaimName tells whether a name can be a claim's in the mapping and an identifier in its expressions.
func isClaimName(s string) bool {
	for i, r := range s {
		if (r < 'a' || r > 'z') && r != '_' && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// isPrintable tells whether s is printable ASCII without spaces.
func isPrintable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// isProviderName tells whether a name can stand in cookie names, URLs and logs as it is.
func isProviderName(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32 && s[0] != '-' && s[len(s)-1] != '-' && !strings.HasPrefix(s, "login-") // whose cookies are those of sign-ins
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

package idp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// document is a provider's metadata as OpenID Connect Discovery section 3, RFC 8414, RFC 8705 and RFC 9207 name them, as far as they
// matter here.
type document struct {
	Issuer            string   `json:"issuer"`
	Authorization     string   `json:"authorization_endpoint"`
	Token             string   `json:"token_endpoint"`
	JWKS              string   `json:"jwks_uri"`
	Userinfo          string   `json:"userinfo_endpoint"`
	Revocation        string   `json:"revocation_endpoint"`
	Introspection     string   `json:"introspection_endpoint"`
	EndSession        string   `json:"end_session_endpoint"`
	Scopes            []string `json:"scopes_supported"`
	ResponseModes     []string `json:"response_modes_supported"`
	TokenAuthMethods  []string `json:"token_endpoint_auth_methods_supported"`
	TokenAuthAlgs     []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	SigningAlgs       []string `json:"id_token_signing_alg_values_supported"`
	ChallengeMethods  []string `json:"code_challenge_methods_supported"`
	ResponseIssuerSet bool     `json:"authorization_response_iss_parameter_supported"`
	BackChannelLogout bool     `json:"backchannel_logout_supported"`
	Aliases           aliases  `json:"mtls_endpoint_aliases"`
}

// aliases are the endpoints for clients with a certificate (RFC 8705 section 5).
type aliases struct {
	Token         string `json:"token_endpoint"`
	Userinfo      string `json:"userinfo_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
	Introspection string `json:"introspection_endpoint"`
}

// metadata is what is known about a provider. It is never changed: newer metadata replace it.
type metadata struct {
	document    document // that the provider answered; empty when there was none
	authorize   *url.URL // nil when there is none
	token       string
	userinfo    string // empty when there is none, as are the next two
	revoke      string
	introspect  string
	endSession  *url.URL // nil when there is none
	clientAuth  string
	authAlgs    []string // with which the provider verifies private_key_jwt; nil when it does not say
	scope       string
	issRequired bool     // RFC 9207: the authorization response names the issuer
	keys        *keySet  // nil when there is no ID token
	doubts      []string // what may not work, for the log
}

// fetchMetadata reads the discovery document and checks it. Keys that are known already are kept.
func (p *Provider) fetchMetadata(ctx context.Context, old *metadata) (*metadata, error) {
	d, _, err := p.fetchDocument(ctx)
	if err != nil {
		return nil, err
	}
	m, err := p.readDocument(d)
	if err != nil {
		return nil, err
	}
	if old != nil && old.keys.address == m.keys.address {
		m.keys = old.keys
	}
	return m, nil
}

// fetchDocument reads the discovery document, and the answer that it came in.
func (p *Provider) fetchDocument(ctx context.Context) (d document, a answer, err error) {
	address := strings.TrimSuffix(p.issuer, "/") + "/.well-known/openid-configuration"
	if u, err := url.Parse(address); err == nil {
		address = p.internal.of(u).String()
	}
	if a, err = p.get(ctx, "discovery", address); err != nil {
		return d, a, err
	}
	if err := json.Unmarshal(a.body, &d); err != nil {
		return document{}, a, badAnswer("discovery answered no metadata: %v (media type %s)", err, a.mediaType())
	}
	return d, a, nil
}

// Adopt takes over what another Provider has learned of the same issuer by the same way, as if it had been asked just now. Where that does not fit,
// nothing is taken, and the provider is asked.
func (p *Provider) Adopt(other *Provider) {
	old := other.meta.Load()
	same := p.issuer == other.issuer && p.o.InternalURL == other.o.InternalURL && p.o.HTTPProxy == other.o.HTTPProxy && bytes.Equal(p.roots, other.roots)
	if old == nil || !same || p.o.OAuth2 != nil || other.o.OAuth2 != nil {
		return
	}
	m, err := p.readDocument(old.document)
	if err != nil {
		return // Run says so, once the provider was asked
	}
	if m.keys.address == old.keys.address {
		m.keys.adopt(old.keys)
	}
	p.meta.Store(m)
}

// readDocument checks a discovery document.
func (p *Provider) readDocument(d document) (*metadata, error) {
	// OpenID Connect Discovery section 4.3: exactly the same, or someone else's metadata would be used for this issuer.
	if d.Issuer != p.issuer {
		return nil, badAnswer("discovery names another issuer: %q instead of %q", brief(d.Issuer), p.issuer)
	}
	m := &metadata{document: d, authAlgs: d.TokenAuthAlgs, scope: p.scope(d.Scopes), issRequired: d.ResponseIssuerSet}
	var err error
	if m.clientAuth, err = p.chooseClientAuth(d.TokenAuthMethods); err != nil {
		return nil, err
	}
	if m.clientAuth == authTLS {
		d.useAliases()
	}
	if p.o.Grant == grantCode {
		if m.authorize, err = p.publicEndpoint("authorization_endpoint", d.Authorization); err != nil {
			return nil, err
		}
	}
	if m.token, err = p.endpoint("token_endpoint", d.Token); err != nil {
		return nil, err
	}
	jwks, err := p.endpoint("jwks_uri", d.JWKS)
	if err != nil {
		return nil, err
	}
	m.keys = newKeySet(p, jwks)
	if err := p.readOptional(m, d); err != nil {
		return nil, err
	}
	m.doubts = append(m.doubts, p.doubts(d)...)
	return m, nil
}

// useAliases puts the endpoints for clients with a certificate in the place of the others, where there are any.
func (d *document) useAliases() {
	d.Token = cmp.Or(d.Aliases.Token, d.Token)
	d.Userinfo = cmp.Or(d.Aliases.Userinfo, d.Userinfo)
	d.Revocation = cmp.Or(d.Aliases.Revocation, d.Revocation)
	d.Introspection = cmp.Or(d.Aliases.Introspection, d.Introspection)
}

// readOptional checks the endpoints that not every provider has. One that cannot be used is an error only where it is needed.
func (p *Provider) readOptional(m *metadata, d document) (err error) {
	for _, e := range []struct {
		name, address string
		to            *string
		needed        bool
		loss          string
	}{
		{"userinfo_endpoint", d.Userinfo, &m.userinfo, p.o.Identity == fromUserinfo && len(p.o.UserinfoCalls) == 0, ""},
		{"introspection_endpoint", d.Introspection, &m.introspect, p.o.Identity == fromIntrospection, ""},
		{"revocation_endpoint", d.Revocation, &m.revoke, false, "tokens are not revoked when people sign out"},
	} {
		if e.address == "" && !e.needed {
			continue
		}
		switch *e.to, err = p.endpoint(e.name, e.address); {
		case err != nil && e.needed:
			return fmt.Errorf("%w (identity: %s needs one)", err, p.o.Identity)
		case err != nil && e.loss != "":
			m.doubts = append(m.doubts, err.Error()+": "+e.loss)
		}
	}
	if d.EndSession != "" {
		if m.endSession, err = p.publicEndpoint("end_session_endpoint", d.EndSession); err != nil {
			m.doubts = append(m.doubts, err.Error()+": signing out does not reach the provider")
		}
	}
	return nil
}

// doubts are what may not work with a provider.
func (p *Provider) doubts(d document) (doubts []string) {
	if len(d.SigningAlgs) > 0 && !slices.Contains(d.SigningAlgs, p.alg) {
		doubts = append(doubts, "the provider does not sign ID tokens with "+p.alg+": see id_token_signed_response_alg")
	}
	if p.o.ResponseMode == modeFormPost && len(d.ResponseModes) > 0 && !slices.Contains(d.ResponseModes, modeFormPost) {
		doubts = append(doubts, "the provider does not support response_mode form_post")
	}
	if p.o.Grant == grantCode && p.usesPKCE() && !slices.Contains(d.ChallengeMethods, "S256") {
		doubts = append(doubts, "the provider does not say that it supports PKCE; it is sent all the same")
	}
	if p.o.Grant == grantCode && p.o.SharesCallback && !d.ResponseIssuerSet {
		// RFC 9700 section 4.4: without it another provider could have this one's codes sent to itself.
		doubts = append(doubts, "the provider does not name itself in its answers (RFC 9207), and another one's come to the same redirect URI: see own_callback")
	}
	return append(doubts, p.internal.doubts()...)
}

// readEndpoints makes metadata of what the configuration says about a provider that is not OpenID Connect.
func (p *Provider) readEndpoints(e Endpoints) (*metadata, error) {
	m := &metadata{scope: p.scope(nil), doubts: p.internal.doubts()}
	var err error
	if m.clientAuth, err = p.chooseClientAuth(nil); err != nil {
		return nil, err
	}
	for _, at := range []struct {
		name, address string
		to            *string
	}{
		{"token_url", e.Token, &m.token}, {"userinfo_url", e.Userinfo, &m.userinfo},
		{"revoke_url", e.Revoke, &m.revoke}, {"introspect_url", e.Introspect, &m.introspect},
	} {
		if at.address == "" {
			continue
		}
		if *at.to, err = p.endpoint(at.name, at.address); err != nil {
			return nil, err
		}
	}
	for _, at := range []struct {
		name, address string
		to            **url.URL
	}{
		{"authorize_url", e.Authorize, &m.authorize}, {"end_session_url", e.EndSession, &m.endSession},
	} {
		if at.address == "" {
			continue
		}
		if *at.to, err = p.publicEndpoint(at.name, at.address); err != nil {
			return nil, err
		}
	}
	if p.o.Grant == grantCode && m.clientAuth == authNone && !p.usesPKCE() {
		// RFC 9700 section 2.1.1: whoever sees a code of such a client can use it.
		m.doubts = append(m.doubts, "pkce is off for a client that does not authenticate: a stolen code is as good as a sign-in")
	}
	return m, nil
}

// endpoint checks the address of an endpoint that is called, and leads it to the internal network where there is one. It must be
// https: tokens and secrets go there, or keys come from there. Only a provider on a loopback address may have others there.
func (p *Provider) endpoint(name, address string) (string, error) {
	u, err := parseEndpoint(name, address)
	if err != nil {
		return "", err
	}
	u = p.internal.of(u)
	if !p.internal.trusts(u) && !p.allows(u) {
		return "", badAnswer("discovery names a %s that is not https", name)
	}
	return u.String(), nil
}

// publicEndpoint checks the address of an endpoint to which browsers are sent.
func (p *Provider) publicEndpoint(name, address string) (*url.URL, error) {
	u, err := parseEndpoint(name, address)
	if err != nil {
		return nil, err
	}
	if !p.allows(u) {
		return nil, badAnswer("discovery names a %s that is not https", name)
	}
	return u, nil
}

// parseEndpoint checks what every address of an endpoint must be.
func parseEndpoint(name, address string) (*url.URL, error) {
	if address == "" {
		return nil, badAnswer("discovery names no %s", name)
	}
	u, err := parseAddress(address)
	if err != nil || u.Fragment != "" {
		return nil, badAnswer("discovery names an unusable %s", name)
	}
	return u, nil
}

// allows reports whether u is https, or on this machine as the provider itself is.
func (p *Provider) allows(u *url.URL) bool {
	if p.o.OAuth2 != nil {
		return checkScheme(u) == nil // each address was written out by the operator
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) && strings.HasPrefix(p.issuer, "http:")
}

// scope is what is asked for.
func (p *Provider) scope(supported []string) string {
	switch {
	case p.o.Scopes != nil || p.o.OAuth2 != nil:
		return strings.Join(p.o.Scopes, p.o.ScopeSeparator)
	case slices.Contains(supported, "offline_access"):
		return strings.Join([]string{"openid", "profile", "email", "offline_access"}, p.o.ScopeSeparator)
	}
	return strings.Join([]string{"openid", "profile", "email"}, p.o.ScopeSeparator)
}

// brief shortens what a provider wrote for use in a message.
func brief(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

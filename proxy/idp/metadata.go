package idp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// document is a provider's metadata as OpenID Connect Discovery section 3, RFC 8414 and RFC 9207 name them, as far as they matter here.
type document struct {
	Issuer            string   `json:"issuer"`
	Authorization     string   `json:"authorization_endpoint"`
	Token             string   `json:"token_endpoint"`
	JWKS              string   `json:"jwks_uri"`
	Userinfo          string   `json:"userinfo_endpoint"`
	EndSession        string   `json:"end_session_endpoint"`
	Scopes            []string `json:"scopes_supported"`
	ResponseModes     []string `json:"response_modes_supported"`
	TokenAuthMethods  []string `json:"token_endpoint_auth_methods_supported"`
	SigningAlgs       []string `json:"id_token_signing_alg_values_supported"`
	ChallengeMethods  []string `json:"code_challenge_methods_supported"`
	ResponseIssuerSet bool     `json:"authorization_response_iss_parameter_supported"`
}

// metadata is what is known about a provider. It is never changed: newer metadata replace it.
type metadata struct {
	authorize   *url.URL
	token       string
	userinfo    string   // empty when there is none
	endSession  *url.URL // nil when there is none
	clientAuth  string
	scope       string
	issRequired bool // RFC 9207: the authorization response names the issuer
	keys        *keySet
	doubts      []string // what may not work, for the log
}

// fetchMetadata reads the discovery document and checks it. Keys that are known already are kept.
func (p *Provider) fetchMetadata(ctx context.Context, old *metadata) (*metadata, error) {
	a, err := p.get(ctx, "discovery", strings.TrimSuffix(p.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(a.body, &d); err != nil {
		return nil, badAnswer("discovery answered no metadata: %v (media type %s)", err, a.mediaType())
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

// readDocument checks a discovery document.
func (p *Provider) readDocument(d document) (*metadata, error) {
	// OpenID Connect Discovery section 4.3: exactly the same, or someone else's metadata would be used for this issuer.
	if d.Issuer != p.issuer {
		return nil, badAnswer("discovery names another issuer: %q instead of %q", brief(d.Issuer), p.issuer)
	}
	authorize, err := p.endpoint("authorization_endpoint", d.Authorization)
	if err != nil {
		return nil, err
	}
	token, err := p.endpoint("token_endpoint", d.Token)
	if err != nil {
		return nil, err
	}
	jwks, err := p.endpoint("jwks_uri", d.JWKS)
	if err != nil {
		return nil, err
	}
	m := &metadata{
		authorize:   authorize,
		token:       token.String(),
		scope:       p.scope(d.Scopes),
		issRequired: d.ResponseIssuerSet,
		keys:        newKeySet(p, jwks.String()),
	}
	if m.clientAuth, err = p.chooseClientAuth(d.TokenAuthMethods); err != nil {
		return nil, err
	}
	if p.wantUserinfo {
		u, err := p.endpoint("userinfo_endpoint", d.Userinfo)
		if err != nil {
			return nil, fmt.Errorf("%w (identity: userinfo needs one)", err)
		}
		m.userinfo = u.String()
	}
	if d.EndSession != "" {
		if m.endSession, err = p.endpoint("end_session_endpoint", d.EndSession); err != nil {
			m.doubts = append(m.doubts, err.Error()+": signing out does not reach the provider")
		}
	}
	if len(d.SigningAlgs) > 0 && !slices.Contains(d.SigningAlgs, p.alg) {
		m.doubts = append(m.doubts, "the provider does not sign ID tokens with "+p.alg+": see id_token_signed_response_alg")
	}
	if p.responseMode == modeFormPost && len(d.ResponseModes) > 0 && !slices.Contains(d.ResponseModes, modeFormPost) {
		m.doubts = append(m.doubts, "the provider does not support response_mode form_post")
	}
	if !slices.Contains(d.ChallengeMethods, "S256") {
		m.doubts = append(m.doubts, "the provider does not say that it supports PKCE; it is sent all the same")
	}
	return m, nil
}

// endpoint checks the address of an endpoint. It must be https: tokens and secrets go there, or keys come from there. Only a
// provider on a loopback address may have others there.
func (p *Provider) endpoint(name, address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return nil, badAnswer("discovery names no %s", name)
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, badAnswer("discovery names an unusable %s", name)
	case u.Scheme == "https":
		return u, nil
	case u.Scheme == "http" && isLoopback(u.Hostname()) && strings.HasPrefix(p.issuer, "http:"):
		return u, nil
	}
	return nil, badAnswer("discovery names a %s that is not https", name)
}

// chooseClientAuth decides how the client authenticates. It is never found out by trying: the second try would send a code or refresh
// token again.
func (p *Provider) chooseClientAuth(supported []string) (string, error) {
	switch {
	case p.clientAuth != "":
		return p.clientAuth, nil
	case p.secret == nil:
		return authNone, nil
	case supported == nil || slices.Contains(supported, authBasic): // RFC 8414 section 2: the default is client_secret_basic
		return authBasic, nil
	case slices.Contains(supported, authPost):
		return authPost, nil
	}
	return "", badAnswer("the provider supports client authentication by %s only: see client_auth", brief(strings.Join(supported, ", ")))
}

// scope is what is asked for.
func (p *Provider) scope(supported []string) string {
	if p.scopes != nil {
		return strings.Join(p.scopes, " ")
	}
	if slices.Contains(supported, "offline_access") {
		return "openid profile email offline_access"
	}
	return "openid profile email"
}

// brief shortens what a provider wrote for use in a message.
func brief(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

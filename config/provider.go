package config

import (
	"crypto/tls"
	"net/url"
	"time"
)

// Providers is the `providers` mapping in the order of the file.
type Providers []Provider

// Lookup finds a provider by name.
func (ps Providers) Lookup(name string) (Provider, bool) {
	for _, p := range ps {
		if p.Name == name {
			return p, true
		}
	}
	return Provider{}, false
}

// Provider is one identity provider.
type Provider struct {
	// Name is the key in the file.
	Name string `yaml:"-"`
	// Preset names built-in defaults for a known provider; see `postern providers`. Keys written beside it win, mappings key by key.
	Preset string `yaml:"preset"`
	// URL is the address of your installation, where the preset asks for one, such as https://git.example.com.
	URL *url.URL `yaml:"url"`
	// Tenant is your part of the installation, where the preset asks for one: Entra's directory, Keycloak's realm, Authentik's application.
	Tenant string `yaml:"tenant"`
	// Issuer is the OpenID Connect issuer, exactly as the provider writes it.
	Issuer *url.URL `yaml:"issuer"`
	// OAuth2 are the endpoints of a provider that is not OpenID Connect, in place of issuer.
	OAuth2 *OAuth2 `yaml:"oauth2"`
	// Public says that anyone can register at this provider, so that its routes must say who may enter.
	Public bool `yaml:"public" default:"false"`
	// Grant is how a person signs in: at the provider, or with a password in Postern's own form (for old installations that have nothing else).
	Grant string `yaml:"grant" default:"authorization_code" oneof:"authorization_code password"`
	// ClientID is the client's id at the provider.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the client's secret. Without it the client is public.
	ClientSecret Secret `yaml:"client_secret"`
	// ClientAuth is how the client authenticates. Default: what the provider's metadata says; with oauth2, client_secret_basic.
	ClientAuth string `yaml:"client_auth" oneof:"client_secret_basic client_secret_post none private_key_jwt tls_client_auth"`
	// ClientKey is the private key of private_key_jwt, in PEM.
	ClientKey Secret `yaml:"client_key"`
	// ClientKeyID is the key's id (kid) at the provider. Default: the RFC 7638 thumbprint of its public key.
	ClientKeyID string `yaml:"client_key_id"`
	// ClientCert is the certificate of tls_client_auth.
	ClientCert *ClientCert `yaml:"client_cert"`
	// AssertionAudience is the audience of private_key_jwt's assertion. Default: the issuer; with oauth2, the token_url.
	AssertionAudience string `yaml:"assertion_audience"`
	// Title is shown where a person chooses. Default: the provider's name.
	Title string `yaml:"title"`
	// Scopes are asked for. Default: openid, profile, email, and offline_access where the provider advertises it; with oauth2, none.
	Scopes []string `yaml:"scopes"`
	// ScopeSeparator stands between scopes. Default: a space.
	ScopeSeparator string `yaml:"scope_separator"`
	// ResponseMode is query or form_post.
	ResponseMode string `yaml:"response_mode" default:"query" oneof:"query form_post"`
	// PKCE is RFC 7636, which binds the code to the browser that asked for it. Turn it off only where a provider refuses its parameters.
	PKCE string `yaml:"pkce" default:"on" oneof:"on off"`
	// RedirectURI is the redirect URI of `postern login` alone: urn:ietf:wg:oauth:2.0:oob to paste the code, or a loopback address such as http://127.0.0.1:8910/callback.
	RedirectURI string `yaml:"redirect_uri"`
	// OwnCallback makes the redirect URI /oauth2/callback/NAME, and takes this provider's answers nowhere else: register that. Beside another provider it
	// keeps answers apart where a provider does not name itself in them (iss, RFC 9207).
	OwnCallback bool `yaml:"own_callback" default:"false"`
	// OmitRedirectURI leaves redirect_uri out of the token request, where a provider refuses it there.
	OmitRedirectURI bool `yaml:"omit_redirect_uri" default:"false"`
	// AuthorizeParams are further parameters of the authorize URL, such as {access_type: offline}.
	AuthorizeParams map[string]string `yaml:"authorize_params"`
	// TokenParams are further parameters of every token request, refreshes included.
	TokenParams map[string]string `yaml:"token_params" secret:"yes"`
	// CallbackParams are the provider's own names of code, state and error, such as {code: auth_code}.
	CallbackParams map[string]string `yaml:"callback_params"`
	// StartParams lists parameters that links to /oauth2/start may hand on to the authorize URL, such as login_hint, prompt and ui_locales.
	StartParams []string `yaml:"start_params"`
	// TokenRequest says where the token request's parameters stand. In a query they end up in the provider's logs: only where it takes nothing else.
	TokenRequest string `yaml:"token_request" default:"body" oneof:"body query"`
	// TokenLifetime is how long an access token is taken to live where neither expires_in nor a JWT's exp says. Default: not known; the token is then used until the session ends.
	TokenLifetime time.Duration `yaml:"token_lifetime"`
	// RefreshTokenScope is session where each sign-in has its own refresh token, user where a new one ends the person's older ones: then all their sessions share the newest.
	RefreshTokenScope string `yaml:"refresh_token_scope" default:"session" oneof:"session user"`
	// Identity is where a person's claims come from: id_token (needs issuer); userinfo (with issuer, beside the ID token); token_response, the members of the token answer; access_token, a JWT; introspection (RFC 7662); none: nobody's name is known.
	Identity string `yaml:"identity" default:"id_token" oneof:"id_token userinfo token_response access_token introspection none"`
	// Claims say where user, email, name, preferred_username and groups are found, and any further name: a path with dots such as data.login, or a CEL expression. Default: the claims of those names, and sub for user.
	Claims map[string]string `yaml:"claims" multiline:"yes"`
	// Userinfo lists further calls with the access token, beside identity, where one answer does not hold everything.
	Userinfo []UserinfoCall `yaml:"userinfo"`
	// ExtraAudiences are further audiences that an ID token may name beside client_id. Every other one is refused.
	ExtraAudiences []string `yaml:"extra_audiences"`
	// IDTokenSignedResponseAlg is the algorithm that this client is registered with for ID tokens.
	IDTokenSignedResponseAlg string `yaml:"id_token_signed_response_alg" default:"RS256" oneof:"RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"`
	// AssumeEmailVerified believes the email claim without email_verified.
	AssumeEmailVerified bool `yaml:"assume_email_verified" default:"false"`
	// LogoutURI is where a person is sent to sign out at the provider, in place of its end_session_endpoint. In its query {client_id}, {id_token_hint}, {post_logout_redirect_uri} and {state} stand for their values.
	LogoutURI *url.URL `yaml:"logout_uri"`
	// InternalURL replaces scheme and host of the calls that Postern itself makes to the provider. The issuer is still checked.
	InternalURL *url.URL `yaml:"internal_url"`
	// CAFile is the PEM file of the only CAs that may have signed the provider's certificate. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// HTTPProxy is the proxy through which the provider is reached. Default: HTTPS_PROXY and NO_PROXY of the environment.
	HTTPProxy *url.URL `yaml:"http_proxy"`
	// Timeout bounds each call to the provider.
	Timeout time.Duration `yaml:"timeout" default:"10s"`
	// Leeway is the clock difference that is allowed for.
	Leeway time.Duration `yaml:"leeway" default:"60s"`
}

// Callback is the endpoint below server.prefix at which the provider's answers arrive. With the origin before it, it is the redirect URI.
func (p Provider) Callback() string {
	if p.OwnCallback {
		return "callback/" + p.Name
	}
	return "callback"
}

// OAuth2 is a provider's `oauth2` section. The addresses are https, or on loopback.
type OAuth2 struct {
	// AuthorizeURL is where a person signs in.
	AuthorizeURL *url.URL `yaml:"authorize_url"`
	// TokenURL is where a code or refresh token is exchanged.
	TokenURL *url.URL `yaml:"token_url"`
	// UserinfoURL tells who a token belongs to.
	UserinfoURL *url.URL `yaml:"userinfo_url"`
	// RevokeURL revokes a token (RFC 7009). Used at sign-out.
	RevokeURL *url.URL `yaml:"revoke_url"`
	// IntrospectURL tells what a token means (RFC 7662).
	IntrospectURL *url.URL `yaml:"introspect_url"`
	// EndSessionURL signs a person out at the provider.
	EndSessionURL *url.URL `yaml:"end_session_url"`
}

// ClientCert is a provider's `client_cert` section (RFC 8705).
type ClientCert struct {
	// CertFile is the PEM file of the certificate chain.
	CertFile string `yaml:"cert_file"`
	// KeyFile is the PEM file of the certificate's private key.
	KeyFile string `yaml:"key_file"`
}

// Load reads the certificate and its key as they are now. Its errors name the keys, not the files nor what they hold.
func (c ClientCert) Load() (tls.Certificate, error) {
	return readPair("client_cert", c.CertFile, c.KeyFile)
}

// UserinfoCall is one entry of a provider's `userinfo` list.
type UserinfoCall struct {
	// URL is fetched with the access token.
	URL *url.URL `yaml:"url"`
	// As names the claim that holds the whole answer, such as emails. Without it the answer's members are claims themselves; one entry may do so, and is asked in place of userinfo_url.
	As string `yaml:"as"`
}

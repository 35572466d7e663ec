package config

import (
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
	// Preset names built-in defaults.
	Preset string `yaml:"preset" later:"yes"`
	// Issuer is the OpenID Connect issuer, exactly as the provider writes it.
	Issuer *url.URL `yaml:"issuer"`
	// OAuth2 are the endpoints of a provider that is not OpenID Connect.
	OAuth2 *OAuth2 `yaml:"oauth2" later:"yes"`
	// Public says that anyone can register at this provider, so that its routes must say who may enter.
	Public bool `yaml:"public" default:"false"`
	// Grant is how tokens are obtained.
	Grant string `yaml:"grant" later:"yes" oneof:"authorization_code password"`
	// ClientID is the client's id at the provider.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the client's secret. Without it the client is public.
	ClientSecret Secret `yaml:"client_secret"`
	// ClientAuth is how the client authenticates. Default: what the provider's metadata says.
	ClientAuth string `yaml:"client_auth" oneof:"client_secret_basic client_secret_post none private_key_jwt tls_client_auth" laterValues:"private_key_jwt tls_client_auth"`
	// ClientKey is the private key of private_key_jwt.
	ClientKey Secret `yaml:"client_key" later:"yes"`
	// AssertionAudience is the audience of the client's assertion.
	AssertionAudience string `yaml:"assertion_audience" later:"yes"`
	// Title is shown where a person chooses. Default: the provider's name.
	Title string `yaml:"title"`
	// Scopes are asked for. Default: openid, profile, email, and offline_access where the provider advertises it.
	Scopes []string `yaml:"scopes"`
	// ScopeSeparator stands between scopes.
	ScopeSeparator string `yaml:"scope_separator" later:"yes"`
	// ResponseMode is query or form_post.
	ResponseMode string `yaml:"response_mode" default:"query" oneof:"query form_post"`
	// PKCE is on or off.
	PKCE string `yaml:"pkce" later:"yes" oneof:"on off"`
	// RedirectURI replaces the redirect URI in a terminal.
	RedirectURI string `yaml:"redirect_uri" later:"yes"`
	// OmitRedirectURI leaves redirect_uri out of the token request.
	OmitRedirectURI bool `yaml:"omit_redirect_uri" later:"yes"`
	// AuthorizeParams are added to the authorize URL.
	AuthorizeParams map[string]string `yaml:"authorize_params" later:"yes"`
	// TokenParams are sent with every token request.
	TokenParams map[string]string `yaml:"token_params" later:"yes"`
	// CallbackParams are the provider's names of code, state and error.
	CallbackParams map[string]string `yaml:"callback_params" later:"yes"`
	// TokenRequest says where the token request's parameters stand.
	TokenRequest string `yaml:"token_request" later:"yes" oneof:"body query"`
	// TokenLifetime is used where the provider does not say how long a token lives.
	TokenLifetime time.Duration `yaml:"token_lifetime" later:"yes"`
	// RefreshTokenScope says whether each session has its own refresh token.
	RefreshTokenScope string `yaml:"refresh_token_scope" later:"yes" oneof:"session user"`
	// Identity says where the person's claims come from: id_token, or userinfo for both.
	Identity string `yaml:"identity" default:"id_token" oneof:"id_token userinfo token_response access_token introspection none" laterValues:"token_response access_token introspection none"`
	// Claims says which claim is the user, the e-mail address, and so on.
	Claims map[string]string `yaml:"claims" later:"yes"`
	// Userinfo lists further calls that yield claims.
	Userinfo []UserinfoCall `yaml:"userinfo" later:"yes"`
	// IDTokenSignedResponseAlg is the algorithm that this client is registered with for ID tokens.
	IDTokenSignedResponseAlg string `yaml:"id_token_signed_response_alg" default:"RS256" oneof:"RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"`
	// AssumeEmailVerified believes the email claim without email_verified.
	AssumeEmailVerified bool `yaml:"assume_email_verified" default:"false"`
	// LogoutURI is where a person is sent to sign out at the provider.
	LogoutURI *url.URL `yaml:"logout_uri" later:"yes"`
	// InternalURL is the base of calls that Postern itself makes to the provider.
	InternalURL *url.URL `yaml:"internal_url" later:"yes"`
	// CAFile is the PEM file of the CA that signed the provider's certificate.
	CAFile string `yaml:"ca_file" later:"yes"`
	// HTTPProxy is the proxy through which the provider is reached.
	HTTPProxy *url.URL `yaml:"http_proxy" later:"yes"`
	// Timeout bounds each call to the provider.
	Timeout time.Duration `yaml:"timeout" default:"10s"`
	// Leeway is the clock difference that is allowed for.
	Leeway time.Duration `yaml:"leeway" default:"60s"`
}

// OAuth2 is a provider's `oauth2` section.
type OAuth2 struct {
	// AuthorizeURL is where a person signs in.
	AuthorizeURL *url.URL `yaml:"authorize_url"`
	// TokenURL is where a code or refresh token is exchanged.
	TokenURL *url.URL `yaml:"token_url"`
	// UserinfoURL tells who a token belongs to.
	UserinfoURL *url.URL `yaml:"userinfo_url"`
	// RevokeURL revokes a token.
	RevokeURL *url.URL `yaml:"revoke_url"`
	// IntrospectURL tells what a token means.
	IntrospectURL *url.URL `yaml:"introspect_url"`
	// EndSessionURL signs a person out at the provider.
	EndSessionURL *url.URL `yaml:"end_session_url"`
}

// UserinfoCall is one entry of a provider's `userinfo` list.
type UserinfoCall struct {
	// URL is fetched with the access token.
	URL *url.URL `yaml:"url"`
	// As names the claim that holds the answer.
	As string `yaml:"as"`
}

package idp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postern/proxy/metrics"
	"postern/proxy/tracing"
)

// The ways in which a client authenticates at the token endpoint (OpenID Connect Core section 9, RFC 8705 section 2.1).
const (
	authBasic   = "client_secret_basic"
	authPost    = "client_secret_post"
	authKey     = "private_key_jwt"
	authTLS     = "tls_client_auth"
	authSelfTLS = "self_signed_tls_client_auth" // to the client the same as tls_client_auth
	authNone    = "none"
)

// The ways in which an authorization response arrives.
const (
	modeQuery    = "query"
	modeFormPost = "form_post"
)

// The ways in which a person's tokens are obtained.
const (
	grantCode     = "authorization_code"
	grantPassword = "password"
)

// Where the parameters of a token request stand.
const (
	requestBody  = "body"
	requestQuery = "query"
)

// Where it comes from who a person is.
const (
	fromIDToken       = "id_token"
	fromUserinfo      = "userinfo"
	fromTokenResponse = "token_response"
	fromAccessToken   = "access_token"
	fromIntrospection = "introspection"
	fromNothing       = "none"
)

const (
	maxLeeway      = 5 * time.Minute
	defaultTimeout = 10 * time.Second
	defaultLeeway  = time.Minute
)

// Options describe one provider and Postern's registration there. ClientID is needed, and either Issuer or OAuth2.
type Options struct {
	// Name is the provider's name in the configuration; it is used in logs.
	Name string
	// Issuer is the OpenID Connect issuer, exactly as the provider writes it. It is https, except on a loopback address.
	Issuer string
	// OAuth2 are the endpoints of a provider that is not OpenID Connect. Nothing is discovered then, and no ID token is looked at.
	OAuth2 *Endpoints
	// Grant is authorization_code (also when empty) or password.
	Grant string

	// ClientID is the client's id at the provider.
	ClientID string
	// ClientSecret returns the client's secret, as it is now. Nil means that there is none.
	ClientSecret func() (string, error)
	// ClientAuth is client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth or none. Empty: what the provider's
	// metadata say, and client_secret_basic for a provider that has none. It is never found out by trying.
	ClientAuth string
	// ClientKey returns the private key of private_key_jwt in PEM, as it is now.
	ClientKey func() (string, error)
	// ClientKeyID names that key to the provider. Empty: its RFC 7638 thumbprint.
	ClientKeyID string
	// ClientCert returns the certificate of tls_client_auth, as it is now.
	ClientCert func() (tls.Certificate, error)
	// AssertionAudience is the audience of private_key_jwt. Empty: the issuer, and the token URL for a provider that has none.
	AssertionAudience string

	// Scopes are asked for. Nil: openid, profile, email, and offline_access where the provider advertises it; nothing of a
	// provider that is not OpenID Connect.
	Scopes []string
	// ScopeSeparator stands between scopes; empty is a space.
	ScopeSeparator string
	// ResponseMode is query (also when empty) or form_post.
	ResponseMode string
	// PKCE is on (also when empty) or off.
	PKCE string
	// AuthorizeParams are added to the authorization request, TokenParams to every token request. Neither changes a parameter of
	// the protocol.
	AuthorizeParams, TokenParams map[string]string
	// Resources are asked for in the authorization request (RFC 8707 section 2.1), so that [Provider.RefreshFor] may get tokens for each of them.
	Resources []string
	// CallbackParams are the provider's names of code, state and error in the authorization response, by those names.
	CallbackParams map[string]string
	// StartParams are the names of parameters that an attempt may add to the authorization request ([Begin.Params]).
	StartParams []string
	// TokenRequest says where the parameters of a token request stand: body (also when empty) or query.
	TokenRequest string
	// OtherIssuers are those of other providers. An answer that names one of them is not this provider's.
	OtherIssuers []string
	// SharesCallback says that answers of other providers come to the same redirect URI.
	SharesCallback bool
	// OmitRedirectURI leaves redirect_uri out of the token request.
	OmitRedirectURI bool
	// TokenLifetime is used where neither expires_in nor the access token itself says how long it lives; 0 is unknown.
	TokenLifetime time.Duration

	// Identity says where it comes from who a person is: id_token, userinfo, token_response, access_token, introspection or none.
	// Empty: id_token, and none for a provider that is not OpenID Connect.
	Identity string
	// Claims say what user, email, name, preferred_username, groups and further members are made of: each is the path of a claim, or
	// a CEL expression.
	Claims map[string]string
	// KeepClaims are the names of claims that a grant keeps as they came, beside its identity: rules and header values read them. A claim of
	// more than 8 KiB, or beyond 32 KiB together, is left out; so is email, where the provider does not vouch for it.
	KeepClaims []string
	// UserinfoCalls are made for more claims. One without a name stands in for the userinfo endpoint.
	UserinfoCalls []UserinfoCall
	// SigningAlg is the algorithm that this client is registered with for ID tokens (id_token_signed_response_alg); RS256 when empty.
	// No other is accepted, whatever the metadata list.
	SigningAlg string
	// ExtraAudiences may be audiences of an ID token beside ClientID.
	ExtraAudiences []string
	// AssumeEmailVerified believes the email claim without email_verified.
	AssumeEmailVerified bool

	// LogoutURI is where a browser goes to sign out at the provider, in place of what the metadata say. In its query {client_id},
	// {id_token_hint}, {post_logout_redirect_uri} and {state} stand for what is known then.
	LogoutURI string

	// InternalURL is the base of the calls that are made to the provider itself, where that is not the public one. Issuer and what
	// browsers are sent to stay as they are.
	InternalURL string
	// CAFile is a PEM file with the only authorities whose certificates are trusted in those calls.
	CAFile string
	// HTTPProxy is the proxy for those calls; empty is what the environment says.
	HTTPProxy string
	// Timeout bounds each call to the provider; 0 is 10 seconds.
	Timeout time.Duration
	// Leeway is the clock difference that is allowed for; 0 is a minute. At most five.
	Leeway time.Duration
	// Transport makes the calls; nil is an own one.
	Transport http.RoundTripper
	// Tracer records the calls that are made for a request; nil records nothing.
	Tracer *tracing.Tracer
	// Metrics counts all calls; nil counts nothing.
	Metrics *metrics.Metrics
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Log gets what is worth telling an operator; nil is nobody.
	Log *slog.Logger
}

// Endpoints are the addresses of a provider that is not OpenID Connect. Token is needed, and Authorize unless the grant is password.
type Endpoints struct {
	Authorize, Token, Userinfo, Revoke, Introspect, EndSession string
}

// UserinfoCall is an address that tells something about the person whose access token is sent along.
type UserinfoCall struct {
	URL string
	// As names the claim that holds the answer; empty: the answer's members are claims themselves.
	As string
}

// withDefaults fills in what is not said.
func (o Options) withDefaults() Options {
	or := func(value *string, otherwise string) {
		if *value == "" {
			*value = otherwise
		}
	}
	or(&o.Grant, grantCode)
	or(&o.ScopeSeparator, " ")
	or(&o.ResponseMode, modeQuery)
	or(&o.PKCE, "on")
	or(&o.TokenRequest, requestBody)
	or(&o.SigningAlg, "RS256")
	if o.OAuth2 != nil {
		or(&o.Identity, fromNothing)
	}
	or(&o.Identity, fromIDToken)
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Leeway == 0 {
		o.Leeway = defaultLeeway
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// problems collects what is wrong with options.
type problems []error

func (ps *problems) add(format string, args ...any) { *ps = append(*ps, fmt.Errorf(format, args...)) }

// check reports every setting that cannot work.
func (o Options) check() error {
	var ps problems
	o.checkProvider(&ps)
	o.checkClient(&ps)
	o.checkRequests(&ps)
	o.checkIdentity(&ps)
	if !slices.Contains([]string{fromIDToken, fromUserinfo, fromTokenResponse, fromAccessToken, fromIntrospection, fromNothing}, o.Identity) {
		ps.add("identity: %q is not supported", o.Identity)
	}
	o.checkIdentity(&ps)
	if !slices.Contains(signingAlgs(), o.SigningAlg) {
		ps.add("id_token_signed_response_alg: %q is not supported", o.SigningAlg)
	}
	if o.LogoutURI != "" {
		if err := checkLogoutURI(o.LogoutURI); err != nil {
			ps.add("logout_uri: %w", err)
		}
	}
	if o.InternalURL != "" {
		if err := checkBase(o.InternalURL); err != nil {
			ps.add("internal_url: %w", err)
		}
	}
	if o.Timeout < 0 {
		ps.add("timeout: must be positive")
	}
	if o.Leeway < 0 || o.Leeway > maxLeeway {
		ps.add("leeway: must be between 0s and %s", maxLeeway)
	}
	if o.TokenLifetime < 0 || o.TokenLifetime > maxLifetime {
		ps.add("token_lifetime: must be positive, and at most a year")
	}
	return errors.Join(ps...)
}

// checkProvider checks what says where the provider is and what kind it is of.
func (o Options) checkProvider(ps *problems) {
	if o.Grant != grantCode && o.Grant != grantPassword {
		ps.add("grant: %q is neither authorization_code nor password", o.Grant)
	}
	if o.OAuth2 == nil {
		if err := checkIssuer(o.Issuer); err != nil {
			ps.add("issuer: %w", err)
		}
		return
	}
	if o.Issuer != "" {
		ps.add("issuer: a provider has either an issuer or oauth2 endpoints")
	}
	needed := map[string]bool{"token_url": true, "authorize_url": o.Grant == grantCode, "introspect_url": o.Identity == fromIntrospection,
		"userinfo_url": o.Identity == fromUserinfo && len(o.UserinfoCalls) == 0}
	for name, address := range map[string]string{
		"authorize_url": o.OAuth2.Authorize, "token_url": o.OAuth2.Token, "userinfo_url": o.OAuth2.Userinfo,
		"revoke_url": o.OAuth2.Revoke, "introspect_url": o.OAuth2.Introspect, "end_session_url": o.OAuth2.EndSession,
	} {
		if address == "" && !needed[name] {
			continue
		}
		if err := checkEndpoint(address); err != nil {
			ps.add("oauth2.%s: %w", name, err)
		}
	}
	if o.Identity == fromIDToken {
		ps.add("identity: id_token is for OpenID Connect")
	}
}

// checkClient checks what says who the client is and how it proves that.
func (o Options) checkClient(ps *problems) {
	if o.ClientID == "" || !visible(o.ClientID, true) {
		ps.add("client_id: must be given, in printable ASCII")
	}
	needs := func(what string, missing bool) {
		if missing {
			ps.add("client_auth: %s needs %s", o.ClientAuth, what)
		}
	}
	switch o.ClientAuth {
	case "":
	case authBasic, authPost:
		needs("client_secret", o.ClientSecret == nil)
	case authKey:
		needs("client_key", o.ClientKey == nil)
	case authTLS:
		needs("a client certificate", o.ClientCert == nil)
	case authNone:
		if o.ClientSecret != nil || o.ClientKey != nil || o.ClientCert != nil {
			ps.add("client_auth: none is for clients without client_secret, key and certificate")
		}
	default:
		ps.add("client_auth: %q is not supported", o.ClientAuth)
	}
	if o.AssertionAudience != "" && !visible(o.AssertionAudience, false) {
		ps.add("assertion_audience: must be printable ASCII without spaces")
	}
	if slices.Contains(o.ExtraAudiences, "") {
		ps.add("extra_audiences: must not be empty")
	}
}

// checkRequests checks what changes requests.
func (o Options) checkRequests(ps *problems) {
	if o.OAuth2 == nil && o.Scopes != nil && !slices.Contains(o.Scopes, "openid") {
		ps.add("scopes: openid is missing")
	}
	for _, s := range o.Scopes {
		if !visible(s, false) || strings.ContainsAny(s, `"\`) { // RFC 6749 section 3.3
			ps.add("scopes: %q is not a scope", s)
		}
	}
	if !visible(o.ScopeSeparator, true) || len(o.ScopeSeparator) > 8 {
		ps.add("scope_separator: must be printable ASCII, and short")
	}
	if o.ResponseMode != modeQuery && o.ResponseMode != modeFormPost {
		ps.add("response_mode: %q is neither query nor form_post", o.ResponseMode)
	}
	if o.PKCE != "on" && o.PKCE != "off" {
		ps.add("pkce: %q is neither on nor off", o.PKCE)
	}
	if o.TokenRequest != requestBody && o.TokenRequest != requestQuery {
		ps.add("token_request: %q is neither body nor query", o.TokenRequest)
	}
	for name := range o.AuthorizeParams {
		if name == "" || ofAuthorizeRequest(name) {
			ps.add("authorize_params: %q is a parameter of the protocol", name)
		}
	}
	for _, name := range o.StartParams {
		if name == "" || ofAuthorizeRequest(name) {
			ps.add("start_params: %q is a parameter of the protocol", name)
		}
	}
	for name := range o.TokenParams {
		if name == "" || ofTokenRequest(name) {
			ps.add("token_params: %q is a parameter of the protocol", name)
		}
	}
	o.checkCallback(ps)
}

// checkCallback checks the names of parameters of the authorization response: no name may mean two things.
func (o Options) checkCallback(ps *problems) {
	used := map[string]string{}
	for _, name := range []string{"code", "state", "error"} {
		theirs := o.callbackParam(name)
		if !visible(theirs, false) {
			ps.add("callback_params: the name of %s must be printable ASCII without spaces", name)
		}
		if other := used[theirs]; other != "" {
			ps.add("callback_params: %s and %s have the same name %q", other, name, theirs)
		}
		used[theirs] = name
	}
	for name, theirs := range o.CallbackParams {
		switch {
		case name != "code" && name != "state" && name != "error":
			ps.add("callback_params: %q is none of code, state and error", name)
		case slices.Contains([]string{"iss", "error_description", "error_uri"}, theirs):
			ps.add("callback_params: %q has a meaning of its own", theirs)
		}
	}
}

// callbackParam is the provider's name of a parameter of the authorization response.
func (o Options) callbackParam(name string) string {
	if theirs := o.CallbackParams[name]; theirs != "" {
		return theirs
	}
	return name
}

// ofAuthorizeRequest reports whether a parameter of an authorization request is Postern's own to set, or could replace those that are:
// RFC 6749 section 4.1.1, RFC 7636 section 4.3, OpenID Connect Core sections 3.1.2.1 and 6, RFC 9126.
func ofAuthorizeRequest(name string) bool {
	return slices.Contains([]string{
		"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
		"request", "request_uri", "registration", "client_secret",
	}, name)
}

// ofTokenRequest is the same for token requests: RFC 6749 sections 2.3.1, 4 and 6, RFC 7521 section 4.2, RFC 7636 section 4.5.
func ofTokenRequest(name string) bool {
	return slices.Contains([]string{
		"grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "username", "password", "scope",
		"client_id", "client_secret", "client_assertion", "client_assertion_type",
	}, name)
}

// checkIssuer holds OpenID Connect Discovery section 3: an https URL without query and fragment.
func checkIssuer(issuer string) error {
	u, err := parseAddress(issuer)
	switch {
	case err != nil:
		return err
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#"):
		return errors.New("must have neither query nor fragment")
	}
	return checkScheme(u)
}

// checkEndpoint holds RFC 6749 sections 3.1 and 3.2: an https URL without fragment.
func checkEndpoint(address string) error {
	u, err := parseAddress(address)
	switch {
	case err != nil:
		return err
	case strings.Contains(address, "#"):
		return errors.New("must have no fragment")
	}
	return checkScheme(u)
}

// checkBase checks the address of a network of one's own, where http is the operator's choice.
func checkBase(address string) error {
	u, err := parseAddress(address)
	switch {
	case err != nil:
		return err
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(address, "#"):
		return errors.New("must have neither query nor fragment")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be http or https")
	}
	return nil
}

// parseAddress parses an absolute URL without credentials. Its errors do not show the address, as that may hold some.
func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || !utf8.ValidString(address):
		return nil, errors.New("must be a URL")
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password")
	}
	return u, nil
}

// checkScheme demands https wherever the address leaves this machine.
func checkScheme(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return errors.New("must be https, except on a loopback address")
}

// isLoopback reports whether host never leaves this machine.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// visible reports whether s is printable ASCII, without spaces unless they are allowed, and not empty.
func visible(s string, space bool) bool {
	for i := range len(s) {
		if c := s[i]; c > 0x7e || c < 0x20 || c == ' ' && !space {
			return false
		}
	}
	return s != ""
}

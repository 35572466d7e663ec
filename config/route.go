package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Route says where requests go and who may make them. The most specific route wins; the order means nothing.
type Route struct {
	// Host is an exact host name or *.wildcard; without it the route matches any host.
	Host string `yaml:"host"`
	// Path is a prefix by whole segments, written without escapes: /my files, not /my%20files. A trailing slash means nothing.
	Path string `yaml:"path" default:"/"`
	// Methods limits the route to some methods. Default: all.
	Methods []string `yaml:"methods"`
	// Upstream is where requests go: http, https, h2c or unix:/path.sock, each with a base path if need be. Several in a list are balanced: a request goes where the
	// fewest are under way, and an address that does not answer is left alone for 1 to 30 seconds. Or a folder of static files: file:///srv/www.
	Upstream Upstreams `yaml:"upstream"`
	// UpstreamHost is which Host the application sees: keep (the default) passes the client's, upstream sends the host of the address. X-Forwarded-Host always tells the client's.
	UpstreamHost string `yaml:"upstream_host" oneof:"keep upstream"`
	// UpstreamTLS says more about https upstreams. Their certificates are always verified.
	UpstreamTLS *UpstreamTLS `yaml:"upstream_tls"`
	// Provider names whose sign-ins this route takes; of several, a person chooses one. Default: every provider.
	Provider []string `yaml:"provider"`
	// Access says who may make these requests: public, optional (a session is used where there is one), signed_in, deny, or conditions that must all hold. Default: signed_in, whoever the provider signs in.
	Access Access `yaml:"access" default:"signed_in"`
	// Unauthenticated says what somebody without a session gets: auto (the default) sends page navigations to sign in and answers everything else 401; login
	// also sends programs that ask with GET and do not say that they are scripts of a page; deny answers 401 always.
	Unauthenticated string `yaml:"unauthenticated" oneof:"auto login deny"`
	// Bearer says which token reaches the application: the person's access_token (the default) or id_token, none, one that the access token is exchanged for, or one of Postern's own client.
	Bearer Bearer `yaml:"bearer"`
	// Headers replaces the default identity headers: names, each with a CEL expression for its value. None of them passes from clients, on any route.
	Headers map[string]string `yaml:"headers" script:"yes"`
	// HeadersResponse are set on the application's answers in the same way, in place of the application's own.
	HeadersResponse map[string]string `yaml:"headers_response" script:"yes"`
	// Assertion adds a header with a signed statement about who asks, by which the application can check that a request came through Postern. Its keys are at /oauth2/jwks.
	Assertion *Assertion `yaml:"assertion"`
	// Resource is the application's RFC 8707 resource, an absolute URI: the access token that reaches it is one for that resource, kept beside the session's own.
	Resource string `yaml:"resource"`
	// CaseInsensitivePaths is for applications to which /Admin and /admin are one, such as those on Windows: path matches in any case, and
	// expressions see request.path in lower case. Write it on every route to such an application.
	CaseInsensitivePaths bool `yaml:"case_insensitive_paths"`
	// AllowEncodedSlash lets paths with %2F through, which are refused otherwise: applications do not agree whether it separates segments. It
	// does not here: /a%2Fb is one segment below /, and refused where another route covers /a/b. Expressions see %2F in request.path.
	AllowEncodedSlash bool `yaml:"allow_encoded_slash"`
	// StripPrefix is taken off the path before the application sees it, by whole segments; the route's path lies under it. The application is told of it in X-Forwarded-Prefix.
	StripPrefix string `yaml:"strip_prefix"`
	// RewriteResponse turns the application's own address in Location, Content-Location and Set-Cookie into what browsers see, and puts strip_prefix back there. For
	// applications that do not read X-Forwarded-Host and X-Forwarded-Prefix.
	RewriteResponse bool `yaml:"rewrite_response"`
	// Preflight lets CORS preflights through to the application when it is pass: without session, identity or token.
	Preflight string `yaml:"preflight" oneof:"pass"`
	// CORS lists origins whose scripts may read Postern's own 401, such as https://app.example.com. Everything else about CORS is the application's.
	CORS []string `yaml:"cors"`
	// CSRF guards an application that does not guard itself: with fetch_metadata, requests that pages of other origins send get 403, except GET, HEAD and OPTIONS.
	CSRF string `yaml:"csrf" oneof:"fetch_metadata"`
	// AllowedOrigins are further origins whose pages may open WebSockets, and send what csrf would refuse.
	AllowedOrigins []string `yaml:"allowed_origins"`
	// KeepFragment keeps the part of the URL after # over a sign-in, for applications that route by it: a page navigation without a session gets
	// a small page whose script goes on to sign in, in place of the direct redirect. Browsers do not send that part, so a redirect alone loses it.
	KeepFragment bool `yaml:"keep_fragment"`
	// Activity none is for applications that poll or send heartbeats by themselves: neither requests nor data that the client
	// sends in a WebSocket or an upload keep a session from idling on this route. Default: they do.
	Activity string `yaml:"activity" oneof:"none"`
	// Timeout bounds what an application takes for a request, from forwarding it to the last byte of the answer; WebSockets once they are open and event
	// streams are not bound. Without it an application has 2 minutes to begin its answer.
	Timeout time.Duration `yaml:"timeout"`
	// MaxRequestBody refuses larger request bodies with 413, in place of server.max_request_body.
	MaxRequestBody Size `yaml:"max_request_body"`
}

// Upstreams are the addresses of one application.
type Upstreams []*url.URL

// UpstreamTLS is a route's `upstream_tls`. The files are read for each new connection.
type UpstreamTLS struct {
	// CAFile is the PEM file of the CAs that sign the upstreams' certificates, in place of the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile is the PEM file of the certificate chain that Postern shows to upstreams.
	CertFile string `yaml:"cert_file"`
	// KeyFile is the PEM file of the certificate's private key.
	KeyFile string `yaml:"key_file"`
	// ServerName is the name that upstreams' certificates must have, and that they are asked for (SNI). Default: the host of the address.
	ServerName string `yaml:"server_name"`
}

// Load reads the files as they are now. Its errors name the keys, not the files nor what they hold.
func (t UpstreamTLS) Load() (*tls.Config, error) {
	c := &tls.Config{ServerName: t.ServerName}
	if t.CAFile != "" {
		ca, err := readPEM(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("upstream_tls.ca_file %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("upstream_tls.ca_file holds no certificate")
		}
	}
	if t.CertFile != "" {
		pair, err := readPair("upstream_tls", t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Folder is the folder of static files that the route serves; "" when it forwards requests.
func (r Route) Folder() string {
	if len(r.Upstream) != 1 || r.Upstream[0] == nil || r.Upstream[0].Scheme != "file" {
		return ""
	}
	return r.Upstream[0].Path
}

// Words that [Access.Level] can be.
const (
	Public   = "public"    // anyone; no session is looked up
	Optional = "optional"  // anyone; a session is used where there is one
	SignedIn = "signed_in" // whoever is signed in and meets every condition
	Deny     = "deny"      // nobody
)

// Access is a route's `access`: one word, or a mapping of conditions that must all hold. [Load] always sets
// Level. A nil list is no condition; one that is empty but not nil is, and nobody meets it.
type Access struct {
	// Level is public, optional, signed_in or deny. The conditions below come with signed_in.
	Level string `yaml:"-"`
	// SignedIn is the word signed_in as a condition: whoever is signed in. Write true.
	SignedIn bool `yaml:"signed_in"`
	// Groups lets in whoever is in any of them; an empty list nobody.
	Groups []string `yaml:"groups"`
	// Emails lets in these addresses, if the provider vouches for them. Upper and lower case of ASCII letters are the same.
	Emails []string `yaml:"emails"`
	// EmailDomains lets in addresses that end in @ and one of these domains, if the provider vouches for them. A subdomain is another domain.
	EmailDomains []string `yaml:"email_domains"`
	// Users lets in these user names, written exactly as X-Forwarded-User would be.
	Users []string `yaml:"users"`
	// Claims lets in whoever has one of the listed values in each of these claims; realm_access.roles is a path.
	Claims map[string][]string `yaml:"claims"`
	// Rule lets in whoever this CEL expression is true for. It sees user, email, name, preferred_username, groups, claims, session, request, ip and time.
	Rule string `yaml:"rule" script:"yes"`
	// ACR lets in whoever signed in with one of these strengths (the acr of OpenID Connect). Whoever did not is sent to the provider for it.
	ACR []string `yaml:"acr"`
	// MaxAge lets in whoever proved who they are no longer ago than this (auth_time), such as 15m. Whoever did not is sent to the provider to do so again.
	MaxAge time.Duration `yaml:"max_age"`
	// BearerTokens is a second way to be signed in: an access token of the provider in Authorization. It comes before a session, and the other conditions hold for it too.
	BearerTokens *BearerTokens `yaml:"bearer_tokens"`
}

// BearerTokens is `access.bearer_tokens`.
type BearerTokens struct {
	// Audience is whom the token must be for: one of these stands in its aud.
	Audience []string `yaml:"audience"`
	// Provider names the provider whose tokens are taken. Default: the route's first.
	Provider string `yaml:"provider"`
	// Scopes must all be among the token's.
	Scopes []string `yaml:"scopes"`
	// Introspect asks the provider what each token means (RFC 7662) and remembers the answer for at most a minute. Without it, a token is a JWT that the provider's keys verify.
	Introspect bool `yaml:"introspect" default:"false"`
}

// Bearer is a route's `bearer`: a word, or a mapping.
type Bearer struct {
	// Kind is access_token, id_token, none, exchange or client_credentials; empty where the file says nothing.
	Kind string `yaml:"-"`
	// Exchange trades the person's access token for another one at the provider, kept for each session.
	Exchange *Exchange `yaml:"exchange"`
	// ClientCredentials sends a token of Postern's own client, whoever asks: kept in memory and renewed ahead.
	ClientCredentials *ClientCredentials `yaml:"client_credentials"`
}

// Exchange is `bearer.exchange`.
type Exchange struct {
	// Kind says how it is asked for: token_exchange (RFC 8693) or jwt_bearer, which is Entra's on-behalf-of.
	Kind string `yaml:"kind" default:"token_exchange" oneof:"token_exchange jwt_bearer"`
	// Audience is whom the token is for, as the provider names it.
	Audience string `yaml:"audience"`
	// Scope is asked for; several are separated by spaces.
	Scope string `yaml:"scope"`
	// Resource is the RFC 8707 resource, an absolute URI.
	Resource string `yaml:"resource"`
}

// ClientCredentials is `bearer.client_credentials`.
type ClientCredentials struct {
	// Provider names the provider that issues the token. It has a client_secret, client_key or client_cert.
	Provider string `yaml:"provider"`
	// Scope is asked for; several are separated by spaces.
	Scope string `yaml:"scope"`
	// Audience is sent as the parameter audience, where a provider wants it.
	Audience string `yaml:"audience"`
}

// Assertion is a route's `assertion`.
type Assertion struct {
	// Header is the header that carries it. Clients cannot send it, on any route.
	Header string `yaml:"header" default:"X-Postern-Assertion"`
	// Audience is the aud of the statement: the application, which checks it.
	Audience string `yaml:"audience"`
}

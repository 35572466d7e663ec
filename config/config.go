// Package config reads Postern's one configuration file.
//
// [Load] decodes strictly (an unknown key is a problem), fills the defaults, and checks everything that can be checked
// without touching the outside world; [Config.CheckFiles] then looks at the files that the configuration names. Both
// report every problem at once, each with line, column, path and mend: nothing in the file is ever silently ignored.
//
// A provider can name a preset (the files in presets/, see [Presets]): defaults under its own keys, decoded by the same decoder.
//
// ${NAME} is replaced from the environment after the YAML was parsed, inside single values only, so a variable can
// never add structure. [Secret] values are never printed, neither by fmt, JSON, YAML or slog nor in a problem.
package config

import (
	"net/netip"
	"net/url"
	"time"
)

// Config is one configuration file. [Load] fills the defaults and has checked every rule that [Problems] can name.
type Config struct {
	// Server says where Postern listens and what browsers see of it.
	Server Server `yaml:"server"`
	// Session says how long people stay signed in and where that is kept.
	Session Session `yaml:"session"`
	// Providers are the identity providers by name. The first named one has the plain session cookie.
	Providers Providers `yaml:"providers"`
	// ForwardAuth lets another proxy carry the traffic and ask Postern, at /oauth2/auth. Routes then need no upstream.
	ForwardAuth *ForwardAuth `yaml:"forward_auth"`
	// Pages say how Postern's own pages look, and in which languages. Texts of theirs that a program gets, as problem JSON, stay in English.
	Pages Pages `yaml:"pages"`
	// Routes say which requests go where and who may make them.
	Routes []Route `yaml:"routes"`

	// Warnings are what Load found that does not stop it.
	Warnings Problems `yaml:"-"`

	src *source // where each key stands in the file; nil for a Config that no file made
}

// Server is the `server` section.
type Server struct {
	// Listen is the address that browsers (or the proxy before Postern) reach.
	Listen string `yaml:"listen" default:"127.0.0.1:4180"`
	// PublicURL is the origin that browsers see, such as https://wiki.example.com. Without it, the origin is https and the host of the route.
	PublicURL *url.URL `yaml:"public_url"`
	// TrustedProxies lists whose X-Forwarded-* and Forwarded headers are believed, as addresses or networks such as 10.0.0.0/8. Default: nobody's.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// AdminListen is the address of /healthz, /readyz and /metrics, and of what `admin` opens.
	AdminListen string `yaml:"admin_listen" default:"127.0.0.1:9090"`
	// Admin opens the sessions API and profiling on the admin listener.
	Admin *Admin `yaml:"admin"`
	// DrainDelay is how long Postern stays up, not ready, before it stops accepting.
	DrainDelay time.Duration `yaml:"drain_delay" default:"0s"`
	// ShutdownTimeout bounds how long running requests may take to finish after that.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" default:"20s"`
	// TLS serves https (and HTTP/2) itself. The files are read again when they change.
	TLS *TLS `yaml:"tls"`
	// RedirectListen is an address whose plain http requests are sent to https, for hosts of known routes.
	RedirectListen string `yaml:"redirect_listen"`
	// HSTS is the max-age of Strict-Transport-Security on https origins; 0s turns it off.
	HSTS time.Duration `yaml:"hsts" default:"4320h"`
	// Prefix is the path under which Postern's own endpoints live.
	Prefix string `yaml:"prefix" default:"/oauth2"`
	// ReturnHosts lists further hosts, or host:port, to which a person may be sent after sign-in or sign-out.
	ReturnHosts []string `yaml:"return_hosts"`
	// AssertionKeys sign the routes' assertions: files with an EC P-256 private key in PEM each. The first signs, all are published. `postern keygen --assertion`
	// makes one. Needed with Redis, where a route has an assertion; without it, a key is made at start. Files are read again when they change.
	AssertionKeys []Secret `yaml:"assertion_keys"`
	// MaxRequestBody refuses larger request bodies with 413 on every route that does not say otherwise. Default: no limit.
	MaxRequestBody Size `yaml:"max_request_body"`
	// MaxConnectionsPerClient closes further connections of one address (IPv6: of one /64) to `listen` and `redirect_listen`; 0 has no limit.
	// Those of trusted_proxies do not count.
	MaxConnectionsPerClient int `yaml:"max_connections_per_client"`
	// Log says what is logged, and how.
	Log Log `yaml:"log"`
	// Audit writes who signed in, was refused, and whose session ended by whom: one JSON object a line. Without it nothing is written.
	Audit *Audit `yaml:"audit"`
	// Tracing sends OpenTelemetry spans to a collector. Without it nothing is recorded, and applications get the client's own trace headers.
	Tracing *Tracing `yaml:"tracing"`
}

// Admin is the `server.admin` section.
type Admin struct {
	// Token is the bearer token that the admin endpoints ask for.
	Token Secret `yaml:"token"`
	// ClientCA is the PEM file of the CAs one of which must have signed the caller's certificate; with `token` both are asked for. The admin
	// listener then serves https, with the certificate of `tls` here, else of `server.tls`.
	ClientCA string `yaml:"client_ca"`
	// TLS makes the admin listener serve https.
	TLS *TLS `yaml:"tls"`
}

// AdminTLS is the key pair with which the admin listener serves https; nil: it serves http.
func (s Server) AdminTLS() *TLS {
	switch {
	case s.Admin == nil:
		return nil
	case s.Admin.TLS != nil:
		return s.Admin.TLS
	case s.Admin.ClientCA != "":
		return s.TLS
	}
	return nil
}

// Audit is the `server.audit` section.
type Audit struct {
	// File gets the lines. It is made with mode 0600, and opened anew when it was moved away (logrotate).
	File string `yaml:"file"`
	// Stdout writes them to standard output instead; the log goes to standard error.
	Stdout bool `yaml:"stdout"`
}

// TLS is the `server.tls` section.
type TLS struct {
	// CertFile is the PEM file of the certificate chain.
	CertFile string `yaml:"cert_file"`
	// KeyFile is the PEM file of the private key.
	KeyFile string `yaml:"key_file"`
}

// Log is the `server.log` section.
type Log struct {
	// Format is json or text.
	Format string `yaml:"format" default:"json" oneof:"json text"`
	// Level is debug, info, warn or error.
	Level string `yaml:"level" default:"info" oneof:"debug info warn error"`
	// Requests is the share, 0 to 1, of requests that ended well whose line is written. Requests that were refused, failed or broke off, and all answers of
	// 500 and above, always have their line; 0 leaves only those.
	Requests float64 `yaml:"requests" default:"1"`
}

// Tracing is the `server.tracing` section.
type Tracing struct {
	// Endpoint is the collector's OTLP/HTTP address, http or https. Without a path it gets /v1/traces. Spans are sent as protobuf.
	Endpoint *url.URL `yaml:"endpoint"`
	// Sample is the share of requests that are recorded, 0 to 1. What trusted proxies say in `traceparent` comes before it; from anyone else that
	// header is only linked to.
	Sample float64 `yaml:"sample" default:"0.05"`
}

// ForwardAuth is the `forward_auth` section.
type ForwardAuth struct {
	// Dialect is nginx, traefik, caddy or envoy: who asks. Only the headers that this proxy always overwrites are read.
	Dialect string `yaml:"dialect" oneof:"nginx traefik caddy envoy"`
}

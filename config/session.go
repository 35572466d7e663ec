package config

import (
	"net/url"
	"time"
)

// Session is the `session` section.
type Session struct {
	// Keys are the sealing keys: the first seals, all open. `postern keygen` makes one. Needed with Redis; without it, a key is made at start.
	// Files are read again when they change. To rotate: add the new key as the last everywhere, then move it to the front, then, after lifetime, drop the old.
	Keys []Secret `yaml:"keys"`
	// IdleTimeout ends a session that was not used for this long.
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"1h"`
	// Lifetime ends every session this long after sign-in.
	Lifetime time.Duration `yaml:"lifetime" default:"12h"`
	// RefreshBefore is how long before its expiry an access token is refreshed at the latest, at most a third of its life. Each session is refreshed up to a tenth of that life sooner, ten minutes at most, so that the provider does not hear of all of them at once.
	RefreshBefore time.Duration `yaml:"refresh_before" default:"60s"`
	// Cookie says what the session cookie is like.
	Cookie Cookie `yaml:"cookie"`
	// Cache bounds the copies of sessions that each process holds.
	Cache Cache `yaml:"cache"`
	// Store is where sessions live; without it, in memory, and gone with the process.
	Store Store `yaml:"store"`
	// OnStoreError says what happens while the store does not answer. The word deny answers 503 with Retry-After; keep: 5m goes on with what the cache holds.
	OnStoreError OnStoreError `yaml:"on_store_error" default:"deny"`
	// MaxSessionsPerUser bounds how many sessions one person has; the oldest end.
	MaxSessionsPerUser int `yaml:"max_sessions_per_user" default:"1000"`
	// RevokeWithoutCookie also keeps each session's refresh token where session.keys open it, so that it is revoked at once when a session is
	// ended without its cookie: by the provider, an operator, or from another browser. Then a dump of Redis together with session.keys opens
	// all refresh tokens (never an access or ID token). Without it such a token is revoked when the browser comes back, or expires at the provider.
	RevokeWithoutCookie bool `yaml:"revoke_without_cookie" default:"false"`
	// KeptRequests bounds what is kept of forms and the like that people send when their session has just ended, until they have signed in again.
	KeptRequests KeptRequests `yaml:"kept_requests"`
}

// KeptRequests is the `session.kept_requests` section.
type KeptRequests struct {
	// MaxSize bounds the body of one request; 0 keeps none. It is kept in the store for ten minutes, sealed under a key that only the browser has.
	MaxSize Size `yaml:"max_size" default:"10MiB"`
	// MaxTotal bounds all that is kept at a time in the whole deployment; each request counts 64KiB at least. What does not fit is not kept.
	MaxTotal Size `yaml:"max_total" default:"256MiB"`
}

// Cookie is the `session.cookie` section.
type Cookie struct {
	// Name is the session cookie's name. Default: __Host-postern; on a plain http origin, postern.
	Name string `yaml:"name"`
	// SameSite is lax, strict or none.
	SameSite string `yaml:"same_site" default:"lax" oneof:"lax strict none"`
	// Persistent keeps the cookie when the browser is closed.
	Persistent bool `yaml:"persistent" default:"true"`
	// Insecure allows a plain http origin that is not loopback. Anyone on the network can then take the session.
	Insecure bool `yaml:"insecure" default:"false"`
}

// Cache is the `session.cache` section.
type Cache struct {
	// MaxSize bounds the cache in bytes.
	MaxSize Size `yaml:"max_size" default:"64MiB"`
	// MaxStale is how long a copy is used before the store is asked again; 0s asks for every request.
	MaxStale time.Duration `yaml:"max_stale" default:"5s"`
}

// Store is the `session.store` section.
type Store struct {
	// Redis keeps sessions in Redis.
	Redis *Redis `yaml:"redis"`
}

// Redis is the `session.store.redis` section. It has one of url, sentinel and cluster.
type Redis struct {
	// URL is redis://user@host:6379/0, rediss:// for TLS, or unix:///path.sock.
	URL *url.URL `yaml:"url"`
	// Sentinel finds the master by Redis Sentinel.
	Sentinel *Sentinel `yaml:"sentinel"`
	// Cluster is a Redis Cluster.
	Cluster *Cluster `yaml:"cluster"`
	// Username is the ACL user, with sentinel and cluster. A url holds its own.
	Username string `yaml:"username"`
	// Password is the user's password. A file is read for each new connection, so it may change.
	Password Secret `yaml:"password"`
	// Database is the number of the database, with sentinel. A url holds its own; a cluster has none but 0.
	Database int `yaml:"database"`
	// TLS speaks TLS to all servers, sentinels included, with sentinel and cluster. A url says it as rediss://.
	TLS bool `yaml:"tls"`
	// CAFile is the PEM file of the CA that signed the server's certificate. Default: the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile is the PEM file of the client certificate. It is read for each new connection, so it may change.
	CertFile string `yaml:"cert_file"`
	// KeyFile is the PEM file of the client certificate's key.
	KeyFile string `yaml:"key_file"`
	// ServerName is the name in the servers' certificates. Default: the host of each server's address.
	ServerName string `yaml:"server_name"`
	// KeyPrefix begins every key. Deployments that share a Redis need different ones.
	KeyPrefix string `yaml:"key_prefix" default:"postern:"`
	// Timeout bounds each command.
	Timeout time.Duration `yaml:"timeout" default:"250ms"`
	// Wait asks replicas to confirm what a failover must not lose.
	Wait RedisWait `yaml:"wait"`
}

// Sentinel is the `session.store.redis.sentinel` section.
type Sentinel struct {
	// Master is the name of the master.
	Master string `yaml:"master"`
	// Addresses are the sentinels, as host:port; without a port, 26379.
	Addresses []string `yaml:"addresses"`
	// Username is the ACL user of the sentinels themselves.
	Username string `yaml:"username"`
	// Password is the password of the sentinels themselves.
	Password Secret `yaml:"password"`
}

// Cluster is the `session.store.redis.cluster` section.
type Cluster struct {
	// Addresses are some of the cluster's nodes, as host:port; without a port, 6379.
	Addresses []string `yaml:"addresses"`
}

// RedisWait is the `session.store.redis.wait` section.
type RedisWait struct {
	// Replicas is how many replicas are to confirm a sign-in, a new token and an end, or all that are connected if they are fewer. 0 asks none.
	Replicas int `yaml:"replicas" default:"1"`
	// Timeout bounds what that may take. Then the write counts all the same.
	Timeout time.Duration `yaml:"timeout" default:"100ms"`
}

// OnStoreError is `session.on_store_error`: the word deny, or keep: DURATION.
type OnStoreError struct {
	// Keep is how long after the store was last asked about a session the cached copy serves while the store answers nothing, while its access token is
	// valid. On a replica that is cut off from the store, a sign-out elsewhere takes as long.
	Keep time.Duration `yaml:"keep"`
}

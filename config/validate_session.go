package config

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keySize is the size of a session key in bytes.
const keySize = 32

func (v *validator) session() {
	s := v.c.Session
	v.positive("session.idle_timeout", s.IdleTimeout)
	v.positive("session.lifetime", s.Lifetime)
	v.positive("session.refresh_before", s.RefreshBefore)
	if s.Lifetime > maxLifetime {
		v.shown("session.lifetime", "is longer than browsers keep a cookie", "Write at most 9600h (400 days)")
	}
	if s.IdleTimeout > s.Lifetime && s.Lifetime > 0 {
		v.err(v.either("session.idle_timeout", "session.lifetime"),
			fmt.Sprintf("session.idle_timeout (%v) is longer than session.lifetime (%v)", v.duration("session.idle_timeout", s.IdleTimeout), v.duration("session.lifetime", s.Lifetime)),
			"A session cannot idle longer than it lives: shorten one or lengthen the other")
	}
	if s.RefreshBefore >= s.Lifetime && s.Lifetime > 0 {
		v.err(v.either("session.refresh_before", "session.lifetime"), "session.refresh_before is not shorter than session.lifetime", "Write a minute or so, such as 60s")
	}
	if s.MaxSessionsPerUser < 1 {
		v.shown("session.max_sessions_per_user", "leaves nobody a session", "Write a number from 1 on")
	}
	if s.Cache.MaxSize < 1 {
		v.err("session.cache.max_size", "must be more than 0", "Write a size such as 64MiB; cache.max_stale: 0s makes every request ask the store")
	}
	if s.Cache.MaxStale > time.Hour {
		v.shown("session.cache.max_stale", "lets an ended session be used for more than an hour", "Write seconds, such as 5s")
	}
	v.onStoreError()
	v.keptRequests()
	v.keys()
}

// maxKept is what a process can hold of one kept request, several times over.
const maxKept = 100 << 20

func (v *validator) keptRequests() {
	k := v.c.Session.KeptRequests
	if k.MaxSize > maxKept {
		v.shown("session.kept_requests.max_size", "is more than a process should hold of one request", "Write at most 100MiB; 0 keeps none")
	}
	if k.MaxSize > 0 && k.MaxTotal <= k.MaxSize {
		v.err(v.either("session.kept_requests.max_total", "session.kept_requests.max_size"),
			fmt.Sprintf("session.kept_requests.max_total (%v) leaves no room for one request of max_size (%v)", k.MaxTotal, k.MaxSize),
			"Write several times as much for all together, or max_size: 0 to keep none")
	}
}

func (v *validator) onStoreError() {
	const at = "session.on_store_error.keep"
	if !v.given(at) {
		return
	}
	s := v.c.Session
	keep := s.OnStoreError.Keep
	v.positive(at, keep)
	switch {
	case keep <= 0:
	case keep > s.Lifetime && s.Lifetime > 0:
		v.shown(at, "is longer than session.lifetime", "Write minutes, such as 5m: so long a session that was ended elsewhere may be used on a replica that is cut off")
	case s.Store.Redis == nil:
		v.warn(at, "does nothing without session.store.redis: memory always answers", "Leave it out")
	case keep <= s.Cache.MaxStale:
		v.warn(at, "does nothing: session.cache.max_stale serves copies as long", "Write more, such as 5m, or the word deny")
	}
}

// keys checks the keys that the file holds; those in files of their own are CheckFiles' matter.
func (v *validator) keys() {
	s := v.c.Session
	var seen []string
	for i, k := range s.Keys {
		at := fmt.Sprintf("session.keys[%d]", i)
		if k.IsZero() || k.File() != "" {
			if k.File() != "" && slices.Contains(seen, "file "+k.File()) {
				v.err(at, "names a file that stands in the list already", "Name each key once")
			}
			seen = append(seen, "file "+k.File())
			continue
		}
		text, _ := k.Value()
		if what := badKey(text); what != "" {
			v.err(at, what, "Make one with `postern keygen`")
		} else if slices.Contains(seen, text) {
			v.err(at, "is the same as a key before it", "Name each key once")
		}
		seen = append(seen, text)
	}
	if s.Store.Redis != nil && len(s.Keys) == 0 {
		v.err("session.keys", "is missing, and with Redis every replica needs the same keys, after a restart too", "Make one with `postern keygen` and write keys: [{file: PATH}]")
	}
	if v.given("session.keys") && len(s.Keys) == 0 {
		v.err("session.keys", "is an empty list", "Make a key with `postern keygen`, or leave the list out")
	}
}

// badKey says why a text is no session key, without quoting it.
func badKey(text string) string {
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	key, err := base64.RawStdEncoding.DecodeString(text)
	switch {
	case err != nil:
		return "is not base64"
	case len(key) != keySize:
		return fmt.Sprintf("is %d bytes long instead of %d", len(key), keySize)
	}
	distinct := map[byte]bool{}
	for _, b := range key {
		distinct[b] = true
	}
	if len(distinct) < 10 { // 32 random bytes have fewer with a chance of less than 10⁻²⁰
		return "is not random"
	}
	return ""
}

// either is the path of two that the file has.
func (v *validator) either(a, b string) string {
	if v.given(a) || !v.given(b) {
		return a
	}
	return b
}

// duration shows a duration as the file says it, or its default.
func (v *validator) duration(path string, t time.Duration) string {
	if v.given(path) {
		return strings.Trim(v.c.src.show(path), `"`)
	}
	return "default " + strings.TrimSuffix(strings.TrimSuffix(t.String(), "0s"), "0m")
}

func (v *validator) cookie() {
	k := v.c.Session.Cookie
	secure := v.secure
	if v.given("session.cookie.name") {
		switch {
		case !isToken(k.Name) || len(k.Name) > 64:
			v.shown("session.cookie.name", "cannot be a cookie's name", "Write letters, digits, - and _, such as __Host-postern")
		case !secure && (hasPrefixFold(k.Name, "__Host-") || hasPrefixFold(k.Name, "__Secure-")):
			v.shown("session.cookie.name", "is a name that browsers accept over https alone, and they see plain http", "Leave the name out, or make server.public_url https")
		}
	}
	if k.SameSite == "none" && !secure {
		v.err("session.cookie.same_site", "none needs https, and browsers see plain http", "Write lax, or make server.public_url https")
	}
	if k.Insecure && secure {
		v.warn("session.cookie.insecure", "does nothing: browsers see https", "Leave it out")
	}
	if k.Insecure && !secure {
		v.warn("session.cookie.insecure", "lets anyone on the network take sessions", "Use it for trials only")
	}
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// isToken is RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

func (v *validator) redis() {
	const at = "session.store.redis"
	r := v.c.Session.Store.Redis
	if r == nil {
		if v.given("session.store") {
			v.err("session.store", "names no store", "Write redis: {url: …}, or leave the section out for memory")
		}
		return
	}
	var ways []string
	for _, way := range []string{"url", "sentinel", "cluster"} {
		if v.given(at + "." + way) {
			ways = append(ways, way)
		}
	}
	switch {
	case len(ways) == 0:
		v.err(at, "has no url", "Write url: redis://HOST:6379/0, or rediss:// for TLS; or sentinel, or cluster")
	case len(ways) > 1:
		v.err(at+"."+ways[1], "stands beside "+ways[0], "Keep one of url, sentinel and cluster")
	}
	switch {
	case len(ways) > 1:
	case r.URL != nil:
		v.redisURL(at+".url", r)
	case r.Sentinel != nil || r.Cluster != nil:
		v.redisServers(at, r)
	}
	if len(r.KeyPrefix) > 64 || strings.ContainsFunc(r.KeyPrefix, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '{' || c == '}' }) {
		v.shown(at+".key_prefix", "cannot begin Redis keys here", "Write up to 64 plain characters without spaces and braces, such as postern:wiki:")
	}
	v.positive(at+".timeout", r.Timeout)
	if r.Timeout > time.Minute {
		v.shown(at+".timeout", "is longer than a minute", "Write what a healthy Redis needs, such as 250ms")
	}
	if r.Wait.Replicas < 0 || r.Wait.Replicas > 10 {
		v.shown(at+".wait.replicas", "is not a number of replicas", "Write 1, or 0 to ask none")
	}
	if r.Wait.Timeout < time.Millisecond || r.Wait.Timeout > 10*time.Second {
		v.shown(at+".wait.timeout", "is not between 1ms and 10s", "Write what a healthy replica needs, such as 100ms; replicas: 0 asks none")
	}
	if v.given(at+".cert_file") != v.given(at+".key_file") {
		v.err(v.either(at+".cert_file", at+".key_file"), "needs the other of cert_file and key_file", "Name both")
	}
}

// redisURL checks the URL without ever quoting it.
func (v *validator) redisURL(at string, r *Redis) {
	u := r.URL
	if _, ok := u.User.Password(); ok {
		v.err(at, "holds a password, and URLs end up in logs and process lists", "Write it as password: ${NAME}, or password: {file: PATH}")
	}
	switch u.Scheme {
	case "redis", "rediss":
		db := strings.TrimPrefix(u.Path, "/")
		if n, err := strconv.ParseUint(db, 10, 16); db != "" && (err != nil || strconv.FormatUint(n, 10) != db) {
			v.err(at, "has a path that is not the number of a database", "Write redis://HOST:6379/0")
		}
		if !isHostPort(u.Host) {
			v.err(at, "has no host", "Write redis://HOST:6379/0")
		}
		if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
			v.err(at, "has options after ?", "Use Postern's own keys, such as timeout and ca_file")
		}
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" || u.RawQuery != "" && !isDB(u) || u.Fragment != "" {
			v.err(at, "is not the path of a socket", "Write unix:///run/redis.sock, or unix:///run/redis.sock?db=1")
		}
	default:
		v.err(at, "is not a Redis URL", "Write redis://HOST:6379/0, rediss:// for TLS, or unix:///PATH")
	}
	if _, inURL := u.User.Password(); u.User.Username() != "" && r.Password.IsZero() && !inURL {
		v.err(at, "names a user, but there is no password", "Write it as password: ${NAME}, or password: {file: PATH}")
	}
	if u.Scheme != "rediss" {
		v.noTLS(r, "but the URL is not rediss", "Write rediss:// in url, or leave %s out")
	}
	for _, other := range []struct{ key, mend string }{
		{"username", "Write it into the url, as redis://USER@HOST:6379/0"},
		{"database", "Write it into the url, as redis://HOST:6379/1"},
		{"tls", "Write rediss:// in url for TLS, redis:// for none"},
	} {
		if v.given("session.store.redis." + other.key) {
			v.err("session.store.redis."+other.key, "is for sentinel and cluster; a url says it itself", other.mend)
		}
	}
}

// noTLS finds files and names that are for TLS, which is not spoken. mend names the key.
func (v *validator) noTLS(r *Redis, why, mend string) {
	for _, f := range []struct{ key, value string }{
		{"ca_file", r.CAFile}, {"cert_file", r.CertFile}, {"server_name", r.ServerName},
	} {
		if f.value != "" {
			v.err("session.store.redis."+f.key, "is for TLS, "+why, fmt.Sprintf(mend, f.key))
		}
	}
}

// redisServers checks what goes with sentinel and cluster.
func (v *validator) redisServers(at string, r *Redis) {
	list, addresses, port := at+".cluster.addresses", []string(nil), 6379
	if r.Cluster != nil {
		addresses = r.Cluster.Addresses
		if r.Database != 0 {
			v.shown(at+".database", "is not in a cluster, which has 0 alone", "Leave it out; key_prefix keeps deployments apart")
		}
	} else {
		list, addresses, port = at+".sentinel.addresses", r.Sentinel.Addresses, 26379
		if r.Sentinel.Master == "" || strings.ContainsFunc(r.Sentinel.Master, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			v.err(at+".sentinel.master", "is not the name of a master", "Write the name that the sentinels monitor, such as mymaster")
		}
		if r.Sentinel.Username != "" && r.Sentinel.Password.IsZero() {
			v.err(at+".sentinel.username", "needs a password", "Write it as password: ${NAME}, or password: {file: PATH}, beside it")
		}
		if r.Database < 0 || r.Database > 65535 {
			v.shown(at+".database", "is not the number of a database", "Write a number from 0 on")
		}
	}
	if len(addresses) == 0 {
		v.err(list, "is empty", fmt.Sprintf(`Write some, such as ["redis-1:%d", "redis-2:%[1]d"]`, port))
	}
	for i, a := range addresses {
		if a == "" || !isHostPort(a) {
			v.shown(fmt.Sprintf("%s[%d]", list, i), "is not an address", "Write HOST:PORT")
		}
	}
	if r.Username != "" && r.Password.IsZero() {
		v.err(at+".username", "needs a password", "Write it as password: ${NAME}, or password: {file: PATH}, beside it")
	}
	if !r.TLS {
		v.noTLS(r, "but tls is not true", "Write tls: true, or leave %s out")
	}
}

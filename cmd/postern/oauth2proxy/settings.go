package oauth2proxy

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// set puts an option's text at a path of the configuration.
func set(path string) func(*draft, *provider, option) {
	return func(d *draft, _ *provider, o option) {
		if o.text() != "" {
			d.doc.set(path, o.text())
		}
	}
}

// server says where Postern listens, and what browsers see.
func (d *draft) server() {
	if d.in.text("tls_cert_file") == "" {
		d.listen(d.in.values["http_address"])
	} else {
		address := d.in.text("https_address")
		if address == "" {
			address = ":443"
		}
		d.doc.set("server.listen", address)
		if d.in.is("force_https", false) {
			d.redirectListen()
		}
	}
	if d.in.text("redirect_url") == "" && !d.in.is("relative_redirect_url", false) {
		d.ask("redirect_url", "The address followed the Host header of each request. Which address do browsers see? Write it to server.public_url, such as https://wiki.example.com; or host to each route.")
	}
}

// listen takes the forms of http_address.
func (d *draft) listen(o option) {
	address := o.text()
	if rest, ok := cutFold(address, "http://"); ok {
		address = rest
	}
	if _, ok := cutFold(address, "unix:"); ok || strings.HasPrefix(strings.ToLower(address), "fd:") {
		d.ask(o.name, "Postern listens on no socket file or inherited descriptor. Which address shall it be? Write server.listen: HOST:PORT.")
		return
	}
	if address != "" && address != "-" {
		d.doc.set("server.listen", address)
	}
}

// redirectListen keeps the plain listener that sends browsers to https.
func (d *draft) redirectListen() {
	address, _ := cutFold(d.in.text("http_address"), "http://")
	if address == "" {
		address = ":80"
	}
	d.doc.set("server.redirect_listen", address)
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

func redirectURL(d *draft, _ *provider, o option) {
	u, err := url.Parse(o.text())
	if err != nil || u.Host == "" {
		return // an empty one; server asks
	}
	prefix := d.in.text("proxy_prefix")
	if prefix == "" {
		prefix = "/oauth2"
	}
	d.doc.set("server.public_url", u.Scheme+"://"+u.Host)
	if u.Path != prefix+"/callback" {
		d.ask(o.name, "The path of the redirect URI is "+prefix+"/callback with Postern. Register that one at the provider, or write another server.prefix.")
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		d.ask(o.name, "Browsers saw plain http, where anyone on the network can take sessions. Make server.public_url https; for a trial, write session.cookie.insecure: true.")
	}
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func metricsAddress(d *draft, _ *provider, o option) {
	if o.text() != "" && o.text() != "-" {
		d.doc.set("server.admin_listen", o.text())
	}
}

func returnHosts(d *draft, _ *provider, o option) {
	var hosts []string
	for _, h := range o.list() {
		if strings.HasPrefix(h, ".") || strings.Contains(h, "*") {
			d.ask(o.name, "People could be sent to any host or port below "+plain(h)+". Which ones are needed? Write each to server.return_hosts, whole.")
			continue
		}
		hosts = append(hosts, h)
	}
	if len(hosts) > 0 {
		d.doc.set("server.return_hosts", hosts)
	}
}

func reverseProxy(d *draft, _ *provider, o option) {
	if !o.is(false) {
		d.say(kept, o.name, "nobody's X-Forwarded headers are believed")
		return
	}
	if len(d.in.values["trusted_proxy_ips"].list()) == 0 {
		d.ask(o.name, "Whoever sent X-Forwarded headers was believed, from any address. Which addresses do the proxies before Postern have? Write them to server.trusted_proxies.")
	}
}

func trustedProxies(d *draft, _ *provider, o option) {
	if !d.in.is("reverse_proxy", false) {
		d.say(kept, o.name, notInUse)
		return
	}
	var networks []string
	for _, s := range o.list() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			networks = append(networks, s)
			continue
		}
		if p.Bits() == 0 {
			d.ask(o.name, "Whoever sent X-Forwarded headers was believed, from any address. Which addresses do the proxies before Postern have? Write them to server.trusted_proxies.")
			continue
		}
		networks = append(networks, p.Masked().String())
	}
	if len(networks) > 0 {
		d.doc.set("server.trusted_proxies", networks)
	}
}

func cookieSecure(d *draft, _ *provider, o option) {
	u, err := url.Parse(d.in.text("redirect_url"))
	if !o.is(true) && (err != nil || !isLoopback(u.Hostname())) {
		d.ask(o.name, "The session's cookie could travel over plain http, where anyone on the network can take it. Do browsers see https? Then nothing is to be done: it is Secure. Else make server.public_url https.")
	}
}

func cookieSameSite(d *draft, _ *provider, o option) {
	if s := strings.ToLower(o.text()); s != "" {
		d.doc.set("session.cookie.same_site", s)
	}
}

// session says how long people stay signed in, and where that is kept.
func (d *draft) session() {
	o, given := d.in.values["cookie_expire"]
	life, err := time.ParseDuration(o.text())
	switch {
	case !given:
		d.lasts("168h")
		d.say(kept, "cookie_expire (not given)", "session.lifetime is oauth2-proxy's default of 168h; Postern's is 12h")
	case err != nil || life < 0:
		d.ask(o.name, "It is not a duration. How long may people stay signed in? Write it to session.lifetime.")
	case life == 0:
		d.doc.set("session.cookie.persistent", false)
		d.say(changed, o.name, "session.cookie.persistent: false, and session.lifetime is Postern's default of 12h")
	default:
		d.lasts(o.text())
	}
	store, given := d.in.values["session_store_type"]
	if d.usesRedis() {
		d.redis()
		return
	}
	if !given {
		store.name = "session_store_type (not given)"
	}
	d.say(changed, store.name, "sessions are in memory and end with the process: right for one replica; several need session.store.redis with session.keys")
}

// lasts sets how long a session lives. oauth2-proxy has no limit for one that is not used.
func (d *draft) lasts(life string) {
	d.doc.set("session.lifetime", life)
	d.doc.set("session.idle_timeout", life)
	d.say(changed, "session.idle_timeout", "is as long as session.lifetime, since oauth2-proxy knows no idling; Postern's default is 1h")
}

func (d *draft) usesRedis() bool { return d.in.text("session_store_type") == "redis" }

// redis says where Redis is, in one of its three forms.
func (d *draft) redis() {
	d.doc.set("session.keys", []string{"${POSTERN_SESSION_KEY}"})
	r := d.doc.sub("session").sub("store").sub("redis")
	d.say(changed, "session.keys", "`postern keygen` makes the key for POSTERN_SESSION_KEY; every replica has the same; {file: PATH} does as well")
	user, password := d.in.text("redis_username"), d.in.text("redis_password")
	switch {
	case d.in.is("redis_use_sentinel", false):
		list := d.in.values["redis_sentinel_connection_urls"].list()
		r.set("sentinel.master", d.in.text("redis_sentinel_master_name"))
		r.set("sentinel.addresses", addresses(list))
		if o := d.in.values["redis_sentinel_password"]; o.text() != "" {
			r.set("sentinel.password", secret(o, "REDIS_SENTINEL_PASSWORD"))
		}
		servers(r, list, user)
	case d.in.is("redis_use_cluster", false):
		list := d.in.values["redis_cluster_connection_urls"].list()
		r.set("cluster.addresses", addresses(list))
		servers(r, list, user)
	default:
		o := d.in.values["redis_connection_url"]
		u, err := url.Parse(o.text())
		if err != nil || u.Scheme == "" {
			d.ask("redis_connection_url", "Where is Redis? Write session.store.redis.url: redis://HOST:6379/0, or rediss:// for TLS.")
			break
		}
		if inURL, ok := u.User.Password(); ok && password == "" {
			password = inURL
			d.say(changed, o.name, "its password is taken from OAUTH2_PROXY_REDIS_PASSWORD, since secrets are not copied")
		}
		if user == "" {
			user = u.User.Username()
		}
		u.User = nil
		if user != "" && password != "" {
			u.User = url.User(user)
		}
		if u.RawQuery != "" {
			d.say(changed, o.name, "its options after ? are left out: timeout, ca_file and the like are keys of their own")
			u.RawQuery = ""
		}
		r.put("url", u.String())
	}
	if password != "" {
		r.put("password", secret(d.in.values["redis_password"], "REDIS_PASSWORD"))
	}
	if file := d.in.text("redis_ca_path"); file != "" {
		r.put("ca_file", file)
	}
	if prefix := d.in.text("redis_key_prefix"); prefix != "" {
		r.put("key_prefix", prefix)
	}
}

// servers says what sentinels and clusters have in common.
func servers(r *mapping, urls []string, user string) {
	if user != "" {
		r.put("username", user)
	}
	if slices.ContainsFunc(urls, func(s string) bool { return strings.HasPrefix(s, "rediss:") }) {
		r.put("tls", true)
	}
}

// addresses are the hosts of URLs.
func addresses(urls []string) []string {
	hosts := make([]string, len(urls))
	for i, s := range urls {
		hosts[i] = s
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			hosts[i] = u.Host
		}
	}
	return hosts
}

func singleSession(d *draft, _ *provider, o option) {
	if o.is(false) {
		d.doc.set("session.max_sessions_per_user", 1)
	}
}

func emailDomains(d *draft, _ *provider, o option) {
	if slices.Contains(o.list(), "*") {
		d.say(kept, o.name, "no domain is asked for")
		return
	}
	for _, domain := range o.list() {
		if strings.HasPrefix(domain, ".") || strings.Contains(domain, "*") {
			d.ask(o.name, "People of every domain below "+plain(domain)+" came in. Which domains are there? Write each to access.email_domains of the routes, whole.")
			continue
		}
		d.domains = append(d.domains, strings.TrimPrefix(domain, "@"))
	}
	d.limited = d.limited || len(d.domains) == 0
}

// emailsFile lets in whoever is in a file, beside the people of email_domains.
func emailsFile(d *draft, p *provider, o option) {
	switch {
	case o.text() == "":
	case slices.Contains(d.in.values["email_domains"].list(), "*"):
		d.say(changed, o.name, "not needed: email_domains lets everyone in")
	default:
		d.limited = d.limited || len(d.domains) == 0
		d.ask(o.name, "People in this file came in, and those of email_domains. Write their addresses to access.emails of the routes; or, since conditions must all hold, both as a rule: 'email in [\"ADDRESS\"] || email.endsWith(\"@DOMAIN\")'.")
	}
}

// text is the text of an option outside providers.
func (in *options) text(key string) string { return in.values[key].text() }

// is tells whether an option outside providers says yes; def where it is not given.
func (in *options) is(key string, def bool) bool { return in.values[key].is(def) }

package proxy

import (
	"crypto/rand"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// clientInfo is what is known of the client at the far end, and of how it reached the first proxy that we trust.
type clientInfo struct {
	// Addr is the client's address, Peer the address of whoever is connected to us. They are the same unless Peer is a trusted proxy.
	// Both are invalid (and not trusted) on a Unix socket.
	Addr, Peer netip.Addr
	text       string // Addr as text, where it has been written already
	// Trusted says that Peer is one of the trusted proxies.
	Trusted bool
	// Scheme is http or https, Host what the client asked for with its port if it named one, Port the port in digits.
	Scheme, Host, Port string
	// RequestID names the request in logs and upstream.
	RequestID string

	hops []netip.Addr // the trusted proxies between the client and us, the client's neighbour first, Peer last
}

// forwarding knows whom to believe about clients. The zero value believes nobody.
type forwarding struct {
	trusted []netip.Prefix
}

// maxHops bounds the proxies between a client and us that are looked at. Honest chains have three.
const maxHops = 16

// client finds out who asks.
//
// A peer that is not trusted is the client, whatever its headers say. Of a trusted one's X-Forwarded-For the client is the rightmost
// address that is not trusted itself; what stands left of it could be anything and is dropped. Scheme, host and port are
// the last value of X-Forwarded-Proto, -Host and -Port, which the peer itself wrote or overwrote. Forwarded (RFC 7239) is believed only where none of the
// X-Forwarded-* came: a proxy that writes one of them passes a client's other one on unread, and nearly all write X-Forwarded-*.
func (f forwarding) client(r *http.Request) clientInfo {
	c := clientInfo{Scheme: "http", Host: r.Host, Peer: peerAddr(r.RemoteAddr)}
	if r.TLS != nil {
		c.Scheme = "https"
	}
	c.Addr = c.Peer
	c.Trusted = f.trusts(c.Peer)
	if c.Trusted {
		f.believe(&c, r.Header)
	}
	if c.RequestID == "" {
		c.RequestID = rand.Text()
	}
	if port := portOf(c.Host); port != "" {
		c.Port = port
	} else if c.Port == "" {
		c.Port = defaultPort(c.Scheme)
	}
	c.text = c.addrText()
	return c
}

// addrText is Addr as text.
func (c *clientInfo) addrText() string {
	if c.text == "" {
		return c.Addr.String()
	}
	return c.text
}

// trusts tells whether an address is a trusted proxy's.
func (f forwarding) trusts(a netip.Addr) bool {
	for _, p := range f.trusted {
		if p.Contains(a) {
			return true
		}
		if p.Addr().Is4In6() && a.Is4() && p.Contains(netip.AddrFrom16(a.As16())) { // ::ffff:10.0.0.0/104
			return true
		}
	}
	return false
}

// believe takes what a trusted peer says.
func (f forwarding) believe(c *clientInfo, h http.Header) {
	if ids := h["X-Request-Id"]; len(ids) == 1 && isRequestID(ids[0]) {
		c.RequestID = ids[0]
	}
	xff, proto, host, port := h["X-Forwarded-For"], h["X-Forwarded-Proto"], h["X-Forwarded-Host"], h["X-Forwarded-Port"]
	if len(xff)+len(proto)+len(host)+len(port) == 0 {
		f.believeForwarded(c, h["Forwarded"])
		return
	}
	c.takeScheme(lastOf(proto))
	c.takeHost(lastOf(host))
	if p := lastOf(port); isPort(p) {
		c.Port = p
	}
	c.hops = []netip.Addr{c.Peer}
	for i := len(xff) - 1; i >= 0; i-- {
		for line := xff[i]; line != ""; {
			entry := line
			if j := strings.LastIndexByte(line, ','); j >= 0 {
				line, entry = line[:j], line[j+1:]
			} else {
				line = ""
			}
			if !f.step(c, parseNode(strings.Trim(entry, " \t"))) {
				return
			}
		}
	}
	c.hops = c.hops[1:] // all are trusted: the first of them is the client
}

// step goes one hop towards the client and tells whether to go on. Before it, hops is complete up to the proxy that named next.
func (f forwarding) step(c *clientInfo, next netip.Addr) (more bool) {
	if !next.IsValid() { // unknown, obfuscated or garbage: the last address that a trusted proxy vouched for is the best there is
		c.hops = c.hops[1:]
		return false
	}
	c.Addr = next
	if !f.trusts(next) || len(c.hops) == maxHops {
		return false
	}
	c.hops = append([]netip.Addr{next}, c.hops...)
	return true
}

// believeForwarded reads RFC 7239. A header with any mistake in it is not believed at all.
func (f forwarding) believeForwarded(c *clientInfo, lines []string) {
	elements, ok := parseForwarded(lines)
	if !ok || len(elements) == 0 {
		return
	}
	c.hops = []netip.Addr{c.Peer}
	for i := len(elements) - 1; i >= 0; i-- {
		e := elements[i]
		more := f.step(c, parseNode(e.node))
		if more && i > 0 {
			continue
		}
		// The trusted proxy that met the client says how it was met.
		c.takeScheme(e.proto)
		c.takeHost(e.host)
		if more {
			c.hops = c.hops[1:]
		}
		return
	}
}

func (c *clientInfo) takeScheme(s string) {
	switch strings.ToLower(s) {
	case "https", "wss": // Traefik writes wss for WebSockets
		c.Scheme = "https"
	case "http", "ws":
		c.Scheme = "http"
	}
}

func (c *clientInfo) takeHost(s string) {
	if isHost(s) {
		c.Host = s
	}
}

// lastOf is the last value of a list header: the one that the peer itself wrote.
func lastOf(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	last := lines[len(lines)-1]
	return strings.Trim(last[strings.LastIndexByte(last, ',')+1:], " \t")
}

// set tells an application who asks, in the usual headers. The client's own have been removed by [stripIdentity]; each is written anew
// from c, so that all of them say the same. X-Forwarded-For and Forwarded name the client first, then the trusted proxies that it came through.
func (f forwarding) set(h http.Header, c clientInfo) {
	values := make([]string, 0, 7) // one allocation for all
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	set("X-Request-Id", c.RequestID)
	set("X-Forwarded-Proto", c.Scheme)
	set("X-Forwarded-Port", c.Port)
	if c.Host != "" {
		set("X-Forwarded-Host", c.Host)
	}
	if c.Addr.IsValid() {
		addr := c.addrText()
		set("X-Real-Ip", addr)
		for _, hop := range c.hops {
			addr += ", " + hop.String()
		}
		set("X-Forwarded-For", addr)
	}
	set("Forwarded", forwardedValue(c))
}

// forwardedValue writes RFC 7239.
func forwardedValue(c clientInfo) string {
	b := make([]byte, 0, 128)
	b = appendNode(b, c.Addr)
	if c.Host != "" {
		b = append(b, ";host="...)
		b = appendForwardedValue(b, c.Host)
	}
	b = append(append(b, ";proto="...), c.Scheme...)
	for _, hop := range c.hops {
		b = appendNode(append(b, ", "...), hop)
	}
	return string(b)
}

// appendNode writes for=, with IPv6 in brackets and quotes (RFC 7239 section 6).
func appendNode(b []byte, a netip.Addr) []byte {
	b = append(b, "for="...)
	switch {
	case !a.IsValid():
		return append(b, "unknown"...)
	case a.Is4():
		return a.AppendTo(b)
	}
	return append(a.AppendTo(append(b, `"[`...)), `]"`...)
}

// appendForwardedValue quotes what is not a token.
func appendForwardedValue(b []byte, s string) []byte {
	token := true
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			token = false
			break
		}
	}
	if token {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// forwardedElement is what one proxy wrote into Forwarded.
type forwardedElement struct {
	node, host, proto string
}

// parseForwarded reads all lines of Forwarded as one list. It is strict: a header that another parser might read differently is refused whole.
func parseForwarded(lines []string) (elements []forwardedElement, ok bool) {
	for _, s := range lines {
		for s != "" {
			e, rest, ok := parseElement(s)
			if !ok {
				return nil, false
			}
			elements = append(elements, e)
			s = rest
		}
	}
	return elements, true
}

// parseElement reads one element and the comma behind it.
func parseElement(s string) (e forwardedElement, rest string, ok bool) {
	for {
		s = strings.TrimLeft(s, " \t")
		n := 0
		for n < len(s) && isTokenByte(s[n]) {
			n++
		}
		if n == 0 || n == len(s) || s[n] != '=' {
			return e, "", false
		}
		name := s[:n]
		value, after, ok := parseValue(s[n+1:])
		if !ok || !e.take(strings.ToLower(name), value) {
			return e, "", false
		}
		s = strings.TrimLeft(after, " \t")
		switch {
		case s == "":
			return e, "", true
		case s[0] == ',':
			rest = strings.TrimLeft(s[1:], " \t")
			return e, rest, rest != ""
		case s[0] != ';':
			return e, "", false
		}
		s = s[1:]
	}
}

// take notes a parameter; each may come once in an element (RFC 7239 section 4).
func (e *forwardedElement) take(name, value string) (ok bool) {
	var field *string
	switch name {
	case "for":
		field = &e.node
	case "host":
		field = &e.host
	case "proto":
		field = &e.proto
	default:
		return true
	}
	if *field != "" || value == "" {
		return false
	}
	*field = value
	return true
}

// parseValue reads a token or a quoted string.
func parseValue(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		n := 0
		for n < len(s) && isTokenByte(s[n]) {
			n++
		}
		return s[:n], s[n:], n > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// isTokenByte tells RFC 9110 token characters.
func isTokenByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// parseNode is the address of "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80", without zone; else invalid.
func parseNode(s string) netip.Addr {
	if a, err := netip.ParseAddr(s); err == nil {
		return plainAddr(a)
	}
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		if a, err := netip.ParseAddr(s[1 : len(s)-1]); err == nil && a.Is6() {
			return plainAddr(a)
		}
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plainAddr(ap.Addr())
	}
	return netip.Addr{}
}

// peerAddr is the address of a connection.
func peerAddr(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// plainAddr takes IPv4 out of IPv6; a zone means nothing to anybody else.
func plainAddr(a netip.Addr) netip.Addr {
	if a.Zone() != "" {
		return netip.Addr{}
	}
	return a.Unmap()
}

// isRequestID tells a request id that may be kept: short, and harmless in a log or a shell.
func isRequestID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// isHost tells a host name or address with an optional port, and nothing else.
func isHost(s string) bool {
	name, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i:], ']') < 0 {
		name, port = s[:i], s[i+1:]
		if !isPort(port) {
			return false
		}
	}
	if len(name) > 1 && name[0] == '[' && name[len(name)-1] == ']' {
		a, err := netip.ParseAddr(name[1 : len(name)-1])
		return err == nil && a.Is6() && a.Zone() == ""
	}
	if name == "" || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !isAlphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// portOf is the port that a host names, or "".
func portOf(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.IndexByte(host[i:], ']') >= 0 || !isPort(host[i+1:]) {
		return ""
	}
	return host[i+1:]
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

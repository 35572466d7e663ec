package proxy

import (
	"net/url"
	"slices"
	"strings"
)

// maxReturnTo bounds an address to return to. What is longer loses its fragment, then its query (attempt.go bounds it further).
const maxReturnTo = 2048

// returnTo is the address to which a person is sent after sign-in or sign-out: raw if it is safe, else "/".
//
// Safe is a path with query on the same origin, or an absolute URL with exactly origin or https and one of hosts. The result is built anew
// from checked parts, in ASCII without spaces, so that browsers and Go cannot read it differently; it never begins with "//"
// or "/\". Our own endpoints are refused (they would sign out, or loop), but for the page
// about a kept request. RFC 9700 section 2.1: no open redirector.
func returnTo(raw string, origin *url.URL, hosts []string, prefix string) string {
	for _, end := range []string{"#", "?"} {
		if len(raw) > maxReturnTo {
			raw, _, _ = strings.Cut(raw, end)
		}
	}
	if len(raw) > maxReturnTo {
		return "/"
	}
	if strings.HasPrefix(raw, "/") {
		return returnPath(raw, prefix)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme != "https" && scheme != "http" {
		return "/"
	}
	end := strings.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	host, path := rest[:end], rest[end:]
	if path == "" {
		path = "/"
	}
	if path[0] != '/' {
		return "/"
	}
	switch {
	case origin != nil && scheme == origin.Scheme && strings.EqualFold(host, origin.Host):
		return returnPath(path, prefix)
	case scheme == "https" && slices.Contains(hosts, strings.ToLower(host)):
		if p := returnPath(path, ""); p != "/" || path == "/" {
			return "https://" + strings.ToLower(host) + p
		}
	}
	return "/"
}

// returnPath checks a path with query and fragment and writes it anew in plain ASCII. A fragment that cannot be kept is left out: no server
// has ever seen it, so the page is the wanted one without it.
func returnPath(raw, prefix string) string {
	raw, fragment, _ := strings.Cut(raw, "#")
	path, _, _ := strings.Cut(raw, "?")
	if strings.HasPrefix(path, "//") || ambiguousPath(path, true) != "" || unsafeText(raw) {
		return "/"
	}
	if prefix != "" {
		canonical := canonicalPath(path)
		if raw == prefix+keptEndpoint { // a page that only asks
			return raw
		}
		if canonical == prefix || strings.HasPrefix(canonical, prefix+"/") {
			return "/"
		}
	}
	address := escapeASCII(raw)
	if fragment != "" && !unsafeText(fragment) {
		address += "#" + escapeASCII(escapePercent(fragment))
	}
	return address
}

// unsafeText tells what no part of an address may hold: control characters, and the backslash, which browsers take for a slash.
func unsafeText(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' })
}

// escapePercent encodes each "%" that begins no escape: parsers refuse it in a fragment, while a query keeps it as it is.
func escapePercent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			b.WriteString("25")
		}
	}
	return b.String()
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// escapeASCII percent-encodes what must not stand in a Location header or could end an attribute; the rest stays as it is.
func escapeASCII(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>'`+"`{}|^", c) >= 0:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

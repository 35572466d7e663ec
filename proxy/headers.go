package proxy

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/session"
)

// stripIdentity removes from a client's header everything by which a proxy tells an application who asks, from where, with which
// certificate, or for what: only Postern may say that. It knows a name in every spelling that some application
// reads as that name: CGI, WSGI, PHP and IIS fold "_", "." and "-" together (CVE-2025-64484, CVE-2026-54763, CVE-2026-88011), so names are
// compared without case and without anything but letters and digits.
//
// Removed are
//   - X-Forwarded-* whatever follows, X-Auth-Request-*, Remote-* and X-Remote-*, and what other authenticating proxies assert;
//   - Forwarded, X-Real-IP and its many siblings, X-Request-Id (Postern sets its own or keeps a trusted one);
//   - X-Original-*, X-Rewrite-URL and the like, which make some frameworks serve another path than the one decided on;
//   - X-HTTP-Method-Override and its kin, since a rule about methods was decided on the real one (A57, A102);
//   - client certificates in headers (RFC 9440 and all the older names);
//   - Proxy-*, and Proxy itself (which CGI turns into HTTP_PROXY), HTTP2-Settings, and Content-Length, Transfer-Encoding and
//     Authorization in any other spelling than their own.
//
// extra are further names that a route sets itself. Everything else passes.
func stripIdentity(h http.Header, extra []string) {
	for name := range h {
		if claims(name) || len(extra) > 0 && namedIn(name, extra) {
			delete(h, name)
		}
	}
}

// disguised is the name of a header that [stripIdentity] would remove and that is not spelled with letters, digits and hyphens; empty where there is none.
func disguised(h http.Header, extra []string) string {
	for name := range h {
		odd := strings.ContainsFunc(name, func(c rune) bool { return c != '-' && !(c < utf8.RuneSelf && isAlphanumeric(byte(c))) })
		if odd && (claims(name) || namedIn(name, extra)) {
			return name
		}
	}
	return ""
}

// longestClaim bounds the letters and digits that tell whether a name is a claim. It is the longest case below.
const longestClaim = 32

// claims tells whether a header's name, folded, is one of those of [stripIdentity].
func claims(name string) bool {
	var buffer [longestClaim]byte
	n := 0
	whole := true
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if !isAlphanumeric(c) {
			continue
		}
		if n == len(buffer) {
			whole = false
			break
		}
		buffer[n] = c
		if n++; n == 3 && !mayClaim(buffer[:3]) {
			return false // most headers end here
		}
	}
	if n == 0 {
		return true // nothing but punctuation: nobody needs that
	}
	folded := buffer[:n]
	return whole && isClaim(folded, name) || isClaimFamily(folded)
}

// mayClaim knows the first three letters of every claim.
func mayClaim(first []byte) bool {
	if first[0] == 'x' {
		return true
	}
	switch string(first) {
	case "aut", "cfa", "cfc", "cfp", "cli", "con", "fas", "for", "fro", "htt", "oid", "pro", "rem", "ssl", "tai", "tra", "tru", "web":
		return true
	}
	return false
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isClaim knows single names.
func isClaim(folded []byte, name string) bool {
	switch string(folded) {
	case "authorization":
		return name != "Authorization"
	case "contentlength":
		return name != "Content-Length"
	case "transferencoding":
		return name != "Transfer-Encoding"
	case "xrequestid",
		// who
		"xuser", "xusername", "xuseremail", "xemail", "xgroups", "xrealuser", "xproxyuser", "xssouser",
		"xauthuser", "xauthemail", "xauthgroups", "xauthusername", "xauthname",
		"xjwtassertion", "xendpointapiuserinfo", "xuserinfo", "xcredentialusername", "xconsumerusername",
		// from where, and how
		"xrealip", "xclientip", "xclientport", "xclusterclientip", "xoriginatingip", "xproxyuserip", "clientip", "trueclientip",
		"cfconnectingip", "cfconnectingipv6", "cfpseudoipv4", "fastlyclientip", "xappengineuserip", "xazureclientip", "xazuresocketip",
		"xenvoyexternaladdress", "xenvoyinternal", "xscheme", "xurlscheme", "frontendhttps", "xhost", "xhttphost", "xhttphostoverride",
		"xproxyhost",
		// for what
		"xrewriteurl", "xrewriteuri", "xenvoyoriginalpath",
		"xhttpmethodoverride", "xhttpmethod", "xmethodoverride", "xmethod",
		// between proxies
		"proxy", "proxyauthorization", "proxyauthenticate", "proxyconnection", "http2settings":
		return true
	}
	return false
}

// isClaimFamily knows names by how they begin.
func isClaimFamily(folded []byte) bool {
	var families []string
	switch folded[0] {
	case 'x':
		families = xFamilies[:]
	default:
		families = otherFamilies[:]
	}
	for _, family := range families {
		if len(folded) >= len(family) && string(folded[:len(family)]) == family {
			return true
		}
	}
	return false
}

// The beginnings of names that are claims whatever follows. Never written to.
var (
	xFamilies = [...]string{
		"xforwarded", "xauthrequest", "xremote", "xoriginal", "xssl", "xclientcert", "xclientverify", "xclientdn", "xclienttls", "xclientssl",
		"xarrclientcert", "xarrssl", "xamznoidc", "xamznmtls", "xmsclientprincipal", "xmstoken", "xgoogauthenticateduser", "xgoogiap",
		"xwebauth", "xauthentik", "xauthelia", "xpomerium", "xvouch", "xauthenticated", "xtlsclient",
	}
	otherFamilies = [...]string{
		"forwarded", "remoteuser", "remoteemail", "remotename", "remotegroup", "remoteaddr", "remotehost", "remoteident", "authuser", "authtype",
		"clientcert", "sslclient", "sslserver", "sslsession", "sslprotocol", "sslcipher", "cfaccess", "tailscaleuser", "webauthuser", "oidcclaim",
		"oidcaccesstoken", "oidcidtoken",
	}
)

// namedIn tells whether name is one of names, whatever the spelling.
func namedIn(name string, names []string) bool {
	for _, n := range names {
		if foldedEqual(name, n) {
			return true
		}
	}
	return false
}

// foldedEqual compares two names by their letters and digits alone, without case.
func foldedEqual(a, b string) bool {
	i, j := 0, 0
	for {
		for i < len(a) && !isAlphanumeric(a[i]) {
			i++
		}
		for j < len(b) && !isAlphanumeric(b[j]) {
			j++
		}
		if i == len(a) || j == len(b) {
			return i == len(a) && j == len(b)
		}
		// Digits have the bit 0x20 already; among letters it is the case.
		if a[i]|0x20 != b[j]|0x20 {
			return false
		}
		i++
		j++
	}
}

// The identity headers that an application gets.
const (
	headerUser      = "X-Forwarded-User"
	headerEmail     = "X-Forwarded-Email"
	headerPreferred = "X-Forwarded-Preferred-Username"
	headerGroups    = "X-Forwarded-Groups"
)

// setIdentity tells an application who asks, and gives it a token where there is one. What the session does not know is removed: never stale, never the client's
// (CVE-2026-30851).
//
// Values are UTF-8 as the provider gave them, with control characters, a "%", spaces at either end, and bytes that are not UTF-8
// percent-encoded, and in groups the comma too, since it separates them. So percent-decoding always gives the provider's value, two different values never look
// the same, and no claim can break a request (RFC 9110 section 5.5) or pretend to be two groups.
func setIdentity(h http.Header, s *session.Session, token string) {
	for _, name := range [...]string{headerUser, headerEmail, headerPreferred, headerGroups, "Authorization"} {
		delete(h, name)
	}
	if s == nil && token == "" {
		return
	}
	values := make([]string, 0, 5) // one allocation for all
	set := func(name, value string) {
		if value != "" {
			values = append(values, value)
			h[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	if s != nil {
		set(headerUser, encodeClaim(s.Identity.User, false))
		set(headerEmail, encodeClaim(s.Identity.Email, false))
		set(headerPreferred, encodeClaim(s.Identity.PreferredUsername, false))
		set(headerGroups, joinGroups(s.Identity.Groups))
	}
	if isToken68(token) {
		set("Authorization", "Bearer "+token)
	}
}

// joinGroups writes groups as one value.
func joinGroups(groups []string) string {
	if len(groups) == 0 {
		return ""
	}
	size := len(groups)
	for _, g := range groups {
		size += len(g)
	}
	var b strings.Builder
	b.Grow(size)
	for _, g := range groups {
		if g == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(encodeClaim(g, true))
	}
	return b.String()
}

// encodeClaim writes one claim as a header value, or as one member of a list.
func encodeClaim(value string, list bool) string {
	if !mustEncode(value, list) {
		return value
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	escape := func(s string) {
		for i := range len(s) {
			b.WriteByte('%')
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		}
	}
	inner := strings.TrimFunc(value, unicode.IsSpace)
	start := strings.Index(value, inner)
	escape(value[:start])
	for i := 0; i < len(inner); {
		r, n := utf8.DecodeRuneInString(inner[i:])
		if r == '%' || r == ',' && list || unicode.IsControl(r) || r == utf8.RuneError && n <= 1 {
			escape(inner[i : i+n])
		} else {
			b.WriteString(inner[i : i+n])
		}
		i += n
	}
	escape(value[start+len(inner):])
	return b.String()
}

// mustEncode tells whether encodeClaim changes value. Most values are plain and cost one pass.
func mustEncode(value string, list bool) bool {
	if value == "" {
		return false
	}
	ascii := true
	for i := range len(value) {
		switch c := value[i]; {
		case c >= utf8.RuneSelf:
			ascii = false
		case c == '%' || c < ' ' || c == 0x7f || c == ',' && list:
			return true
		}
	}
	if value[0] == ' ' || value[len(value)-1] == ' ' {
		return true
	}
	if ascii {
		return false
	}
	return !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) || strings.TrimFunc(value, unicode.IsSpace) != value
}

// isToken68 tells whether an access token may stand in an Authorization header (RFC 6750 section 2.1, leniently: any visible ASCII). Another one would fail
// every request, or end the header early.
func isToken68(token string) bool {
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return token != ""
}

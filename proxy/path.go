package proxy

import (
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"
)

// refusedMethod tells methods that no application gets to see: CONNECT and TRACE (RFC 9110 sections 9.3.6 and 9.3.8: a tunnel, and an
// echo of credentials), TRACK (IIS's name for TRACE), HTTP/2's preface, and any method with lower-case letters, which some
// applications take for its upper-case twin and so slip past a rule about methods.
func refusedMethod(r *http.Request) bool {
	switch r.Method {
	case http.MethodConnect, http.MethodTrace, "TRACK", "PRI", "":
		return true
	}
	for i := range len(r.Method) {
		if c := r.Method[i]; 'a' <= c && c <= 'z' {
			return true
		}
	}
	return false
}

// requestTarget is the path and the query of a request, byte for byte as the client sent them. The query begins with its "?";
// it is empty where there was none. Together they are what is forwarded.
//
// An absolute-form target (RFC 9112 section 3.2.2) counts only where it names the host that the request is for. The
// asterisk form, the authority form, user information, and bytes that could end a request line are refused.
func requestTarget(r *http.Request) (path, query string, err error) {
	target := r.RequestURI
	for i := range len(target) {
		// HTTP/2 carries any byte in :path. A space or a line end would become part of an HTTP/1 request line upstream.
		if c := target[i]; c <= ' ' || c == 0x7f {
			return "", "", errors.New("request target holds a space or a control character")
		}
	}
	if !strings.HasPrefix(target, "/") {
		if target, err = originForm(r); err != nil {
			return "", "", err
		}
	}
	if i := strings.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i:], nil
	}
	return target, "", nil
}

// wholeTarget is what [requestTarget] has taken apart.
func wholeTarget(r *http.Request, path, query string) string {
	if len(r.RequestURI) == len(path)+len(query) {
		return r.RequestURI
	}
	return path + query // of the absolute form
}

// originForm is the path and query of an absolute-form target.
func originForm(r *http.Request) (string, error) {
	scheme, rest, ok := strings.Cut(r.RequestURI, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", errors.New("request target is neither a path nor a URL")
	}
	if r.ProtoMajor != 1 {
		return "", errors.New("absolute request target outside HTTP/1")
	}
	end := strings.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	host, target := rest[:end], rest[end:]
	if host == "" || !strings.EqualFold(host, r.Host) { // a "@" cannot be in a valid Host either
		return "", errors.New("request target names another host")
	}
	if target == "" || target[0] == '?' {
		target = "/" + target
	}
	return target, nil
}

// maxEncodings is how often a path may be percent-encoded over. One is usual, two a mistake, more an attack.
const maxEncodings = 5

// ambiguousPath says why an application could read a path differently than we do, or "" when it could not. Rules are decided
// on a path and the same bytes are forwarded, so what two parsers disagree about must not pass: CVE-2025-54576, CVE-2026-41059,
// CVE-2026-67309 and their like all began there.
//
// Refused are, in plain or in any percent-encoding (also encoded repeatedly): slashes that are encoded, backslashes, control
// characters, dot segments (with a ;parameter or spaces behind them, too), empty segments, a raw "#", broken escapes, and bytes
// that are not UTF-8 (overlong forms among them). A question mark and a hash are fine encoded once (C%23), not twice.
//
// With encodedSlash a slash may be encoded, once, and not beside ;parameters. It counts as a slash for everything else that is refused.
func ambiguousPath(rawPath string, encodedSlash bool) (why string) {
	if rawPath == "" || rawPath[0] != '/' {
		return "path does not begin with a slash"
	}
	encoded, ascii := false, true
	for i := range len(rawPath) {
		switch c := rawPath[i]; {
		case c == '%':
			encoded = true
		case c >= utf8.RuneSelf:
			ascii = false
		case c == '\\':
			return "backslash in the path"
		case c == '#' || c == '?':
			return "fragment in the path"
		case c <= ' ' || c == 0x7f:
			return "space or control character in the path"
		}
	}
	if why := ambiguousSegments(rawPath); why != "" {
		return why
	}
	if !encoded {
		if !ascii && !utf8.ValidString(rawPath) {
			return "path is not UTF-8"
		}
		return ""
	}
	level := rawPath
	for depth := 1; strings.IndexByte(level, '%') >= 0; depth++ {
		next, why := decodeOnce(level, depth, encodedSlash)
		if why != "" {
			return why
		}
		if next == level {
			return "" // what percent signs remain are just that
		}
		if depth == 1 && !utf8.ValidString(next) {
			return "path is not UTF-8"
		}
		if depth == maxEncodings {
			return "path is encoded many times over"
		}
		if why := ambiguousSegments(next); why != "" {
			return why
		}
		level = next
	}
	return ""
}

// ambiguousSegments finds dot segments and empty segments. What follows a ";" is dropped first, as servlet containers do:
// "/..;x/" is "/../" to them, and "/;x/" is "//".
func ambiguousSegments(path string) (why string) {
	for rest, last := path[1:], false; !last; {
		segment := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			segment, rest = rest[:i], rest[i+1:]
		} else {
			last = true
		}
		if len(segment) > 3 && segment[0] != '.' && segment[0] != ';' && segment[0] != ' ' {
			continue // the usual case: it can be neither
		}
		name := segment
		if i := strings.IndexByte(segment, ';'); i >= 0 {
			name = segment[:i]
		}
		switch strings.TrimRight(name, " ") {
		case ".", "..":
			return "dot segment in the path"
		case "":
			if !last {
				return "empty segment in the path"
			}
		}
	}
	return ""
}

// decodeOnce takes one layer of percent-encoding off, and refuses what no layer may hide. The first layer must be well-formed; in
// deeper ones a lone percent sign is text.
func decodeOnce(s string, depth int, encodedSlash bool) (decoded, why string) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		c, ok := unescapeAt(s, i)
		switch {
		case !ok && depth == 1:
			return "", "broken escape in the path"
		case !ok:
			out = append(out, '%')
			continue
		case c == '/' && depth == 1 && encodedSlash && strings.IndexByte(s, ';') < 0:
		case c == '/' || c == '\\':
			return "", "encoded slash or backslash in the path"
		case c < ' ' || c == 0x7f:
			return "", "encoded control character in the path"
		case depth > 1 && (c == '#' || c == '?'):
			return "", "twice encoded delimiter in the path"
		case c == 0xC0 || c == 0xC1: // the first byte of every overlong ASCII character
			return "", "path is not UTF-8"
		}
		out = append(out, c)
		i += 2
	}
	return string(out), ""
}

// unescapeAt decodes the escape that begins at s[i].
func unescapeAt(s string, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := hexDigit(s[i+1])
	lo, ok2 := hexDigit(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// canonicalPath is the one form of an unambiguous path that routes are matched on: two spellings of the same path give the same
// result, and a canonical path is its own canonical form. Everything is decoded but "%25", "%3B" and "%2F", and parameters
// ("/admin;jsessionid=1/x") are dropped, as servlet containers do. Applications that read it differently see an [otherReading].
func canonicalPath(rawPath string) string { return decodePath(rawPath, false, "%2F") }

// otherReading is canonicalPath with the parameters kept and encoded slashes decoded. A route holds for a request only where both forms
// lead to it: "/public;x/admin" is below /public to Tomcat, and below / to others; "/public%2F.." is refused, and "/pay%2Froll" is below
// /pay to some. No path that passes has both.
func otherReading(rawPath string) string { return decodePath(rawPath, true, "/") }

func decodePath(rawPath string, parameters bool, slash string) string {
	special := strings.IndexByte(rawPath, '%') >= 0 || !parameters && strings.IndexByte(rawPath, ';') >= 0
	if !special {
		return rawPath
	}
	out := make([]byte, 0, len(rawPath))
	for i := 0; i < len(rawPath); i++ {
		switch c := rawPath[i]; c {
		case ';':
			if parameters {
				out = append(out, c)
				continue
			}
			for i+1 < len(rawPath) && rawPath[i+1] != '/' {
				i++
			}
		case '%':
			d, ok := unescapeAt(rawPath, i)
			switch {
			case !ok || d == '%':
				out = append(out, "%25"...)
			case d == ';':
				out = append(out, "%3B"...)
			case d == '/':
				out = append(out, slash...)
			default:
				out = append(out, d)
			}
			if ok {
				i += 2
			}
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

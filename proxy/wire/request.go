package wire

import (
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// A request is one as it goes over the wire, to the last byte what http.Request.Write makes of it.
type request struct {
	bytes []byte
	names []string // of its header, while it is written
}

var requests = sync.Pool{New: func() any { return new(request) }}

// free keeps the memory of a request for the next one, unless it has become large.
func (q *request) free() {
	if cap(q.bytes) <= 16<<10 {
		requests.Put(q)
	}
}

// write writes a request, or returns false for one that this transport does not carry: anything but HTTP without TLS, with a body or
// something like one, with a word about the connection, or invalid. Those are for net/http to send or refuse.
func (q *request) write(r *http.Request) bool {
	//lint:ignore SA1019 whoever still sets Cancel expects it to work
	if r.URL == nil || r.URL.Scheme != "http" || r.URL.Host == "" || r.Close || r.Cancel != nil || !bodiless(r) {
		return false
	}
	target, host := r.URL.RequestURI(), r.Host
	if host == "" {
		host = r.URL.Host
	}
	if !isTarget(target) || !isHost(host) {
		return false
	}
	q.bytes = append(q.bytes[:0], r.Method...)
	q.bytes = append(q.bytes, ' ')
	q.bytes = append(q.bytes, target...)
	q.bytes = append(q.bytes, " HTTP/1.1\r\nHost: "...)
	q.bytes = append(q.bytes, host...)
	q.bytes = append(q.bytes, "\r\n"...)
	agent, ok := r.Header["User-Agent"]
	if !ok { // net/http has one of its own then
		return false
	}
	if len(agent) > 0 && strings.Trim(agent[0], " \t") != "" && !q.field("User-Agent", agent[0]) {
		return false
	}
	q.names = q.names[:0]
	for name := range r.Header {
		q.names = append(q.names, name)
	}
	slices.Sort(q.names)
	for _, name := range q.names {
		switch name {
		case "Connection", "Expect", "Upgrade":
			return false
		case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer": // the request's own fields say that
			continue
		}
		if !isToken(name) || reserved(name) {
			return false
		}
		for _, value := range r.Header[name] {
			if !q.field(name, value) {
				return false
			}
		}
	}
	q.bytes = append(q.bytes, "\r\n"...)
	return true
}

// bodiless tells a request that neither has a body nor could be taken for one that has: net/http sends Content-Length: 0 with POST, PUT
// and PATCH, and CONNECT makes a tunnel.
func bodiless(r *http.Request) bool {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodConnect:
		return false
	}
	return isToken(r.Method) && (r.Body == nil || r.Body == http.NoBody) && r.ContentLength == 0 && len(r.TransferEncoding) == 0 && len(r.Trailer) == 0
}

// reserved tells whether a name that is none of those which write knows is one of them in another spelling.
func reserved(name string) bool {
	switch len(name) {
	case 4, 6, 7, 10, 14, 17:
		switch http.CanonicalHeaderKey(name) {
		case "Connection", "Expect", "Upgrade", "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
			return true
		}
	}
	return false
}

// field writes a line of the header, or returns false for a value with a control character, above all one that would end the line.
func (q *request) field(name, value string) bool {
	q.bytes = append(q.bytes, name...)
	q.bytes = append(q.bytes, ": "...)
	start := len(q.bytes)
	q.bytes = append(q.bytes, strings.Trim(value, " \t")...)
	if !isFieldValue(q.bytes[start:]) {
		return false
	}
	q.bytes = append(q.bytes, "\r\n"...)
	return true
}

// isFieldValue tells a value without control characters (RFC 9110 section 5.5). Tokens of some kilobytes are common, hence eight bytes at a time.
func isFieldValue(s []byte) bool {
	for len(s) >= 8 {
		if v := binary.LittleEndian.Uint64(s); !isPlain(v) && !isFieldText(s[:8]) {
			return false
		}
		s = s[8:]
	}
	return isFieldText(s)
}

// isPlain tells eight bytes which are all printable ASCII; it may say no of some that are.
func isPlain(v uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	below := v - ones*' '         // borrows into the high bit of bytes below a space
	del := (v ^ ones*0x7f) - ones // and of those that are DEL
	return (v|below|del)&highs == 0
}

func isFieldText(s []byte) bool {
	for _, b := range s {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// isTarget tells a request target that ends where it seems to: without a control character. A space would be for net/http to judge.
func isTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// isHost tells a plain name or IPv4 address with or without a port. What net/http would change (names that are not ASCII, zones of IPv6 addresses)
// or leave out is for it.
func isHost(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '.', b == ':', b == '_':
		default:
			return false
		}
	}
	return s != ""
}

// isToken tells a name of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || !tokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

var tokenBytes = func() (is [0x80]bool) {
	for _, b := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		is[b] = true
	}
	return is
}()

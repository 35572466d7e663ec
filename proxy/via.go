package proxy

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"postern/session/seal"
)

// via is how a route names itself to whoever comes after (RFC 9110 section 7.6.3), and so knows a request that it has forwarded before.
type via struct {
	name         string
	http1, http2 []string // the header's value for a request that came by either; shared, never written to
}

// newVia names a route for all replicas that have the same keys. The name is a MAC, which tells nothing of route or host. A loop comes by the same
// route again; a chain of several routes, each with the next as its application, is none.
func newVia(keys *seal.Ring, route string) via {
	name := "postern-" + hex.EncodeToString(keys.MAC("via", route)[0][:8])
	return via{name: name, http1: []string{"1.1 " + name}, http2: []string{"2.0 " + name}}
}

// passed tells whether the route has forwarded this request before.
func (v *via) passed(h http.Header) bool {
	for _, line := range h["Via"] {
		if strings.Contains(line, v.name) {
			return true
		}
	}
	return false
}

// add names the route in the header of a request that came by HTTP of some version.
func (v *via) add(h http.Header, protoMajor int) {
	own := v.http1
	if protoMajor == 2 {
		own = v.http2
	}
	if before := h["Via"]; len(before) > 0 {
		own = append(slices.Clip(before), own...)
	}
	h["Via"] = own
}

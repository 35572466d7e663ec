package proxy

import (
	"net/http"
	"strings"
)

// ownHeaders is about how many headers a request gets from Postern on its way to the application.
const ownHeaders = 13

// isHopByHop tells a header that is between two neighbours alone (RFC 9110 section 7.6.1), by the list of httputil.ReverseProxy.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// saysNothingOfHops tells a header in which nothing but what [isHopByHop] knows is between two neighbours: its Connection names no other header, it asks for no
// other protocol, and for no trailers, all of which httputil.ReverseProxy knows how to treat.
func saysNothingOfHops(h http.Header) bool {
	if len(h["Upgrade"]) > 0 || len(h["Te"]) > 0 {
		return false
	}
	c := h["Connection"]
	return len(c) == 0 || len(c) == 1 && (strings.EqualFold(c[0], "keep-alive") || strings.EqualFold(c[0], "close"))
}

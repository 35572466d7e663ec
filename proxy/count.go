package proxy

import "net/http"

// limitOf names the limit, as it is counted, of a request that was refused for that reason.
var limitOf = map[string]string{
	"header_too_large":               "header",
	"body_too_large":                 "body",
	"client_too_slow":                "slow_body",
	"too_many_guesses":               "password",
	"too_many_logout_tokens":         "logout",
	"too_many_front_channel_logouts": "logout",
}

// count counts a request that is over.
func (p *Proxy) count(x *exchange) {
	if p.metrics == nil {
		return
	}
	if x.answered.IsZero() { // broken off: all of it was ours
		x.answered = p.now()
	}
	rt, verdict := p.unrouted, x.verdict.Kind.String()
	if x.route != nil {
		rt = x.route.counted
	}
	rt.Answered(verdict, x.status, x.answered.Sub(x.start)-x.waited)
	if x.asked {
		p.metrics.ForwardAuth(verdict)
	}
	if x.status < http.StatusBadRequest {
		return
	}
	if limit := limitOf[x.verdict.Reason]; limit != "" {
		p.metrics.Rejected(limit)
	}
}

package access

import (
	"slices"
	"time"

	"postern/session"
)

// maxAhead is how far the provider's clock may be ahead of ours. A sign-in that lies further in the future proves nothing about its age.
const maxAhead = 5 * time.Minute

// Demand is how strongly and how recently somebody must have signed in (OpenID Connect Core section 3.1.2.1, RFC 9470). Cookies hold it by its
// numbers, which stay for good.
type Demand struct {
	// ACR are strengths of which any will do; none: any strength.
	ACR []string `cbor:"1,keyasint,omitempty"`
	// MaxAge is how long ago it may be; 0: any time.
	MaxAge time.Duration `cbor:"2,keyasint,omitempty"`
}

// unmet names the condition that s does not meet; "" where both hold. What the provider did not tell is not met.
func (d *Demand) unmet(s *session.Session, q *Request) string {
	if len(d.ACR) > 0 && !slices.Contains(d.ACR, s.ACR) {
		return "acr"
	}
	if d.MaxAge == 0 {
		return ""
	}
	if q == nil || s.AuthTime.IsZero() {
		return "max_age"
	}
	if age := q.Time.Sub(s.AuthTime); age > d.MaxAge || age < -maxAhead {
		return "max_age"
	}
	return ""
}

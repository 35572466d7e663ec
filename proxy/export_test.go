package proxy

// Tied is how many requests under way are tied to their session.
func Tied(p *Proxy) (n int) {
	for _, pr := range p.providers {
		_, streams := pr.sessions.Followed()
		n += streams
	}
	return n
}

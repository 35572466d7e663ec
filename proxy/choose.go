package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	"postern/proxy/page"
)

// choiceLifetime is how long a browser remembers which of several providers its person signs in at.
const choiceLifetime = 365 * 24 * time.Hour

// routeOf is the route of the page at a checked address, or nil. One on another host (return_hosts) is taken for the first page of this one.
func (p *Proxy) routeOf(x *exchange, address string) *route {
	path := pathOnly(address)
	if path[0] != '/' {
		path = "/"
	}
	return p.routes.match(x.client.Host, canonicalPath(path), http.MethodGet)
}

// providersFor are those at which one can sign in for the page at a checked address. A page that is no route's, or open to everyone, leads to
// those of its host; where nobody ever signs in, to the first of all.
func (p *Proxy) providersFor(x *exchange, address string) []*provider {
	if pathOnly(address) == p.prefix+keptEndpoint { // only whose request it is can send it
		if t, ok := p.keptTicket(x); ok && p.provider(t.Provider) != nil {
			return []*provider{p.provider(t.Provider)}
		}
	}
	if rt := p.routeOf(x, address); rt != nil && len(rt.providers) > 0 {
		return rt.providers
	}
	taken := map[*provider]bool{}
	p.routes.eachOf(x.client.Host, func(rt *route) {
		for _, pr := range rt.providers {
			taken[pr] = true
		}
	})
	if len(taken) == 0 {
		return p.providers[:1]
	}
	return slices.DeleteFunc(slices.Clone(p.providers), func(pr *provider) bool { return !taken[pr] })
}

// chosen is the one of a route's providers that is used without asking: the only one, else the one that the link q names, else the one that this
// browser has chosen before. A link that names an empty provider wants to choose anew; one that names another provider than the route's, too.
func (p *Proxy) chosen(x *exchange, providers []*provider, q url.Values) *provider {
	if len(providers) == 1 {
		return providers[0]
	}
	name := q.Get("provider")
	if !q.Has("provider") {
		for _, c := range x.r.CookiesNamed(p.attempts.choiceName()) {
			name = c.Value
		}
	}
	for _, pr := range providers {
		if pr.name == name {
			return pr
		}
	}
	return nil
}

// choose asks a person where to sign in for the page rd. What the link q wants to tell a provider goes along.
func (p *Proxy) choose(x *exchange, providers []*provider, rd string, q url.Values) {
	if len(x.r.URL.RawQuery) > maxReturnTo {
		q = url.Values{}
	}
	q.Set("rd", rd)
	var links []page.Link
	for _, pr := range providers {
		q.Set("provider", pr.name)
		links = append(links, page.Link{Text: pr.title, URL: p.prefix + "/start?" + q.Encode()})
	}
	if _, _, err := p.anySession(x); err != nil { // whoever comes because a session ended is told why
		x.verdict.Ended = withoutSession(err).Ended
	}
	p.notice(x, http.StatusOK, noticeChoose, links...)
}

// rememberChoice notes where a sign-in that could have gone elsewhere was. It is only ever chosen among the providers of a route, so that it need
// not be sealed.
func (p *Proxy) rememberChoice(x *exchange, at attempt) {
	if len(p.providersFor(x, at.ReturnTo)) == 1 {
		return
	}
	c := p.attempts.cookie
	c.Name, c.Value, c.MaxAge = p.attempts.choiceName(), at.Provider, int(choiceLifetime.Seconds())
	http.SetCookie(x, &c)
}

// forgetChoice lets whoever signs out choose again.
func (p *Proxy) forgetChoice(x *exchange) {
	if name := p.attempts.choiceName(); hasCookie(x.r, name) {
		p.attempts.expire(x, name)
	}
}

func (a *attempts) choiceName() string { return a.cookie.Name + "choice" }

package proxy

import (
	"cmp"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"postern/proxy/page"
)

// Limits of a request's header. net/http's own are wider (see cmd/postern): what it refuses itself gets no page, and so leaves no way out for
// somebody whose browser sends too much each time.
const (
	maxHeader  = 64 << 10 // the target, and all names and values
	maxTarget  = 16 << 10 // of a request that is too large: more is not even looked at
	maxCookies = 1000     // browsers keep fewer than 200 for a site; of more than 3,000 net/http reads none
)

// maxExpiring bounds the Set-Cookie lines of one answer, since proxies before us often take no header beyond 4 or 8 KiB.
const maxExpiring = 3 << 10

// clearCookiesName is the endpoint whose button makes a browser forget the site's cookies.
const clearCookiesName = "clear-cookies"

// headerSize is how large a request's header is, how much of that are cookies, and how many.
func headerSize(r *http.Request) (size, cookieBytes, cookies int) {
	size = len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	for _, line := range r.Header["Cookie"] {
		cookieBytes += len(line)
		cookies += 1 + strings.Count(line, ";")
	}
	return size, cookieBytes, cookies
}

// tooLarge refuses a header beyond the limits. It is true when it has answered.
//
// Where cookies are the reason, whoever has set them (a page of a sibling host can) has locked this person out for good: the answer is a page
// whose button deletes them (A141).
func (p *Proxy) tooLarge(x *exchange) bool {
	size, cookieBytes, cookies := headerSize(x.r)
	if size <= maxHeader && cookies <= maxCookies {
		return false
	}
	const reason = "header_too_large"
	if len(x.r.RequestURI) > maxTarget {
		p.refuse(x, http.StatusRequestURITooLong, reason, nil)
		return true
	}
	if !p.readTarget(x) {
		return true
	}
	x.asked = p.isAuthRequest(x.path)
	name, ours := p.endpointName(x.path)
	switch {
	case cookies <= maxCookies && cookieBytes <= maxHeader/2, x.asked && p.dialect == dialectNginx, !wantsHTML(x.r):
		p.refuse(x, http.StatusRequestHeaderFieldsTooLarge, reason, nil)
	case !p.findHost(x):
	case ours && name == clearCookiesName:
		p.endpoint(x, name)
	default:
		x.verdict = verdict{Kind: verdictOwn, Reason: reason}
		p.offerClearing(x, http.StatusRequestHeaderFieldsTooLarge)
	}
	return true
}

// clearCookies is the endpoint: a question, whose button is posted to the same address.
func (p *Proxy) clearCookies(x *exchange) {
	if x.r.Method != http.MethodPost {
		p.offerClearing(x, http.StatusOK)
		return
	}
	if err := p.crossOrigin.Check(x.r); err != nil { // else any page could sign people out
		p.refuse(x, http.StatusForbidden, "cross_origin_clearing", err)
		return
	}
	h := x.Header()
	h.Set("Clear-Site-Data", `"cookies"`)
	for _, line := range expireEverywhere(x.r.Header["Cookie"], hostname(x.client.Host), x.origin.Scheme == "https") {
		h.Add("Set-Cookie", line)
	}
	p.notice(x, http.StatusOK, noticeCleared, page.Link{Say: "continue", URL: "/", Primary: true})
}

func (p *Proxy) offerClearing(x *exchange, status int) {
	p.own(x.Header())
	p.pages.Confirm(x, x.r, page.Confirm{
		Status: status, Say: "clear", Action: p.prefix + "/" + clearCookiesName, Cancel: "/", RequestID: x.client.RequestID,
	})
}

// expireEverywhere are the Set-Cookie lines that expire the cookies of some Cookie lines, for browsers that do not know Clear-Site-Data. A cookie
// tells nobody for which domain it was set, so each is expired for the host and for the domains above it. The largest come first: what does not
// fit into one answer goes with the next.
func expireEverywhere(cookies []string, host string, secure bool) (lines []string) {
	domains := []string{""}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
		for domain := host; strings.Contains(domain, "."); _, domain, _ = strings.Cut(domain, ".") {
			domains = append(domains, "; Domain="+domain)
		}
	}
	attributes := "=; Path=/; Max-Age=0"
	if secure {
		attributes += "; Secure"
	}
	sizes := map[string]int{}
	for _, line := range cookies {
		for pair := range strings.SplitSeq(line, ";") {
			if name := cookieName(pair); isToken(name) {
				sizes[name] += len(pair)
			}
		}
	}
	names := slices.Collect(maps.Keys(sizes))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(sizes[b], sizes[a]), cmp.Compare(a, b)) })
	left := maxExpiring
	for _, name := range names {
		for _, domain := range domains {
			line := name + attributes + domain
			if left -= len(line); left < 0 {
				return lines
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// isToken tells an RFC 9110 token.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

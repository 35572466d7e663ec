package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// public asks for Postern where browsers do, once for each origin. Where server.listen is free, as Postern does not run, the doctor stands there
// for a moment in its place: then it sees what the proxy before Postern makes of a request.
func (h *house) public(ctx context.Context) []Finding {
	select {
	case <-h.looked:
	case <-ctx.Done():
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.o.Limit)
	defer cancel()
	var stand *standIn
	if h.free {
		stand = h.o.standIn(ctx)
		defer stand.close()
	}
	origins := h.o.origins(needsSignIn)
	found := make([][]Finding, len(origins))
	var asking sync.WaitGroup
	for i, origin := range origins {
		ask := probe(func(ctx context.Context) []Finding {
			l := list{subject: origin.String()}
			h.o.origin(ctx, &l, origin, stand)
			return l.all
		})
		asking.Go(func() { found[i] = ask.findings(ctx) })
	}
	asking.Wait()
	return slices.Concat(found...)
}

// origin looks at one origin.
func (o Options) origin(ctx context.Context, l *list, origin *url.URL, stand *standIn) {
	transport := newTransport()
	transport.Proxy = http.ProxyFromEnvironment // as a browser on this machine
	defer transport.CloseIdleConnections()
	token := rand.Text()
	stand.expect(token)
	address := origin.String() + o.Config.Server.Prefix + "/session?doctor=" + token
	got, err := fetch(ctx, transport, address, http.Header{"Accept": {"application/json"}, "X-Request-Id": {token}})
	if err != nil {
		unreachable(l, err)
		return
	}
	if got.TLS != nil {
		l.certificate("public.tls", o.Now(), got.TLS.PeerCertificates[0].NotAfter, "Renew the certificate of "+origin.Host)
	}
	var p problem
	_ = json.Unmarshal(got.body, &p) // what is none leaves it empty
	switch r := stand.request(token); {
	case r != nil && string(got.body) == token:
		l.pass("public.reach", "leads to this machine's server.listen (Postern does not run: the doctor stood in for it)")
		o.forwarded(l, origin, r)
	case p.signsInAt() != nil:
		o.running(ctx, l, origin, p, token, transport)
	default:
		o.stranger(l, origin, got, p)
		return
	}
	redirects(ctx, l, origin, transport)
}

// problem is what Postern answers to programs.
type problem struct {
	Code      string `json:"code"`
	LoginURL  string `json:"login_url"`
	RequestID string `json:"request_id"`
}

// signsInAt is where a Postern that wants a sign-in has it; nil: this is no answer of one. Whatever answers there may have written it.
func (p problem) signsInAt() *url.URL {
	at, err := url.Parse(p.LoginURL)
	if err != nil || p.Code != "sign_in_required" || at.Host == "" {
		return nil
	}
	return at
}

// originWhere are the keys that name an origin.
var originWhere = where{address: "server.public_url (else the route's host)", ca: "SSL_CERT_FILE (environment)"}

// unreachable tells why nothing came. What may come of being inside, behind the firewall, is a warning.
func unreachable(l *list, err error) {
	found, mend := originWhere.trouble(err)
	_, badCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	name, noName := errors.AsType[*net.DNSError](err)
	if _, foreign := errors.AsType[x509.UnknownAuthorityError](err); foreign {
		mend = "Give the server a certificate that browsers trust, with its whole chain; if its CA is your own, run doctor with SSL_CERT_FILE naming it"
	}
	if badCertificate || noName && name.IsNotFound || errors.Is(err, syscall.ECONNREFUSED) {
		l.fail("public.reach", found, mend)
		return
	}
	l.warn("public.reach", "cannot be reached from this machine: "+found, mend)
}

// stranger tells what answers where Postern should.
func (o Options) stranger(l *list, origin *url.URL, got answer, p problem) {
	to, err := url.Parse(got.Header.Get("Location"))
	reached := "the proxy there must send " + origin.Host + " to Postern, at " + o.Config.Server.Listen
	switch {
	case p.Code == "unknown_host":
		l.fail("public.reach", "Postern is not told which host browsers ask for", "Let the proxy before it pass Host on, or send X-Forwarded-Host and be in server.trusted_proxies")
	case p.Code != "" && p.RequestID != "":
		l.fail("public.reach", "Postern answers "+got.Status+" ("+p.Code+")", "See that request in its log: request_id "+p.RequestID)
	case err == nil && got.StatusCode >= 300 && got.StatusCode < 400 && to.Host != "" && (to.Host != origin.Host || to.Scheme != origin.Scheme):
		l.fail("public.reach", "browsers are sent on to "+to.Scheme+"://"+to.Host, "server.public_url: write "+to.Scheme+"://"+to.Host+", where they end up, and register that redirect URI at the provider")
	case slices.Contains([]int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}, got.StatusCode):
		l.fail("public.reach", "the proxy there answers "+got.Status+": it does not reach Postern", reached)
	default:
		l.fail("public.reach", fmt.Sprintf("something else than Postern answers there (%s%s)", got.Status, server(got)), "server.public_url: write the origin that browsers use; "+reached)
	}
}

// server is how an answer names who made it.
func server(got answer) string {
	if name := got.Header.Get("Server"); name != "" {
		return ", " + name
	}
	return ""
}

// running looks at a Postern that answers: whether it is the one of this configuration, and what browsers get of its cookies.
func (o Options) running(ctx context.Context, l *list, origin *url.URL, p problem, token string, transport *http.Transport) {
	if at := p.signsInAt(); at.Scheme != origin.Scheme || at.Host != origin.Host {
		l.fail("public.reach", "a Postern answers that takes itself for "+at.Scheme+"://"+at.Host, "server.public_url: write "+origin.String()+" where it runs, and start it again")
		return
	}
	l.pass("public.reach", "Postern answers")
	switch {
	case p.RequestID == token:
		l.pass("public.forwarded", "what reaches Postern is believed (trusted_proxies)")
	case o.Config.Server.TLS == nil && origin.Scheme == "https" && len(o.Config.Server.TrustedProxies) == 0:
		l.warn("public.forwarded", "a proxy before Postern speaks https with browsers, and what it says of them is not believed: applications see its address and plain http",
			"server.trusted_proxies: write its address or network; while Postern does not run, doctor sees which that is")
	case o.Config.Server.TLS == nil && origin.Scheme == "https":
		l.pass("public.forwarded", "not seen, as Postern runs: while it does not, doctor sees what the proxy before it sends")
	}
	start := origin.String() + o.Config.Server.Prefix + "/start"
	got, err := fetch(ctx, transport, start, http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}})
	if err != nil {
		unreachable(l, err)
		return
	}
	o.signIn(l, origin, got)
}

// signIn looks at the beginning of a sign-in: nothing is kept of it.
func (o Options) signIn(l *list, origin *url.URL, got answer) {
	to, err := url.Parse(got.Header.Get("Location"))
	if err != nil || got.StatusCode != http.StatusSeeOther {
		if got.StatusCode == http.StatusServiceUnavailable {
			l.warn("public.sign_in", "Postern cannot begin a sign-in at the moment", "See the provider above")
		}
		return // a page where one chooses, or types a password
	}
	client := to.Query().Get("client_id")
	known := slices.ContainsFunc(o.Providers, func(p Provider) bool { return p.ClientID == client })
	if !known {
		l.fail("public.sign_in", "the Postern there signs people in at "+to.Host+" with a client that this configuration does not have",
			"It runs with another configuration: start it with this one, or let "+origin.Host+" lead to the one that you mean")
		return
	}
	cookies := got.Cookies()
	secure := origin.Scheme == "https"
	switch {
	case len(cookies) == 0:
		l.fail("public.cookie", "no cookie arrives: every sign-in ends in an error", "The proxy before Postern removes Set-Cookie: let it pass")
	case secure && !slices.ContainsFunc(cookies, func(c *http.Cookie) bool {
		return strings.HasPrefix(c.Name, "__Host-") && c.Secure && c.Path == "/" && c.Domain == ""
	}):
		l.fail("public.cookie", "the cookie arrives changed: browsers will not take it", "The proxy before Postern rewrites Set-Cookie (proxy_cookie_path, proxy_cookie_domain): let it pass")
	case !secure:
		l.warn("public.cookie", "cookies go over plain http, without the prefix __Host-", "server.public_url: use https for anything but trying out")
	default:
		l.pass("public.cookie", "cookies arrive, with the prefix __Host-")
	}
}

// redirects looks whether who types the name without https gets there.
func redirects(ctx context.Context, l *list, origin *url.URL, transport *http.Transport) {
	if origin.Scheme != "https" || origin.Port() != "" {
		return
	}
	const mend = "server.redirect_listen: 0.0.0.0:80, or let the proxy before Postern send http to https"
	got, err := fetch(ctx, transport, "http://"+origin.Host+"/", nil)
	if err != nil {
		l.pass("public.http", "nothing answers plain http")
		return
	}
	to, err := url.Parse(got.Header.Get("Location"))
	if err != nil || got.StatusCode < 300 || got.StatusCode > 399 || to.Scheme != "https" {
		l.warn("public.http", "plain http is answered ("+got.Status+") and not sent to https", mend)
		return
	}
	l.pass("public.http", "plain http is sent to https")
}

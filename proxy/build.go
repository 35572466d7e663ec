package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/config"
	"postern/proxy/idp"
	"postern/proxy/metrics"
	"postern/proxy/page"
	"postern/proxy/tracing"
	"postern/session"
)

// Env is the outside world that a Proxy works in.
type Env struct {
	// Store keeps sessions. Required; the caller closes it after the Proxy.
	Store session.Store
	// Transport carries the calls to providers; nil means one of their own with the usual proxy environment.
	Transport http.RoundTripper
	// Log gets one line per request and the life cycle. Nil discards.
	Log *slog.Logger
	// Metrics counts; nil counts nothing.
	Metrics *metrics.Metrics
	// Tracer records what requests spend their time on; nil records nothing.
	Tracer *tracing.Tracer
	// Audit gets the audit log, which names people; see audit.go for the events. Nil turns it off. Its handler must not block.
	Audit *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Before is the Proxy of the configuration until now, in the same world; nil at start. What the process remembers goes on in the new one, and
	// Before finishes what it has begun.
	Before *Proxy
}

// provider is one identity provider with the sessions that it began.
type provider struct {
	name, title, clientID string
	callback              string // the endpoint at which its answers arrive
	idp                   *idp.Provider
	sessions              *session.Manager
	refresh               session.RefreshFunc // is refreshTokens; made once, since every request hands it on
	idleTimeout           time.Duration
	// password signs in with what a person typed into our own form (grant: password); nil for every other provider.
	password func(ctx context.Context, user, password string) (session.Grant, error)
	audit    *auditor
	metrics  *metrics.Metrics
	now      func() time.Time
}

// New wires a Proxy from a checked configuration. It does no I/O apart from reading the secrets and
// the files of pages that the file names. Call [Proxy.Run]
// beside serving, and [Proxy.Close] at the end.
func New(cfg *config.Config, env Env) (*Proxy, error) {
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	env.Store = watchStore(env.Store, env.Tracer, env.Metrics, cfg.Session.Store.Redis != nil)
	before := env.Before
	env.Before = nil // what the new one keeps of env must not keep the old one
	var shared *lasting
	if before != nil {
		shared = before.lasting
	} else {
		shared = newLasting(env)
	}
	keys, err := shared.sessionKeys(cfg.Session.Keys)
	if err != nil {
		return nil, err
	}
	pages, problems := newPages(cfg.Pages, env, cfg.Problem)
	if len(problems) > 0 {
		return nil, problems
	}
	secure := cfg.Secure()
	var dialect string
	if cfg.ForwardAuth != nil {
		dialect = cfg.ForwardAuth.Dialect
	}
	p := &Proxy{
		lasting:     shared,
		dialect:     dialect,
		log:         env.Log,
		logShare:    cfg.Server.Log.Requests,
		logNames:    newLogNames(),
		now:         env.Now,
		pages:       pages,
		routes:      newTable(),
		appTokens:   map[config.ClientCredentials]*appToken{},
		forwarding:  forwarding{trusted: cfg.Server.TrustedProxies},
		streams:     newStreams(env.Metrics),
		audit:       newAuditor(env.Audit),
		tracer:      env.Tracer,
		metrics:     env.Metrics,
		unrouted:    env.Metrics.Route(""),
		store:       env.Store,
		prefix:      cfg.Server.Prefix,
		origin:      cfg.Server.Origin(""),
		public:      cfg.Server.PublicURL != nil,
		returnHosts: cfg.Server.ReturnHosts,
		keys:        keys,
		keeper:      newKeeper(cfg.Session.KeptRequests, shared.keptPlaces),
		crossOrigin: http.NewCrossOriginProtection(),
		tokens:      newPresentedTokens(env.Now),
		compiler:    newCompiler(before),
	}
	p.traded = newTraded(p)
	p.attempts = &attempts{ring: shared.ring.WithNow(env.Now), cookie: http.Cookie{
		Name: attemptCookieName(secure), Path: "/", Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}}
	if secure && cfg.Server.HSTS > 0 {
		p.hsts = fmt.Sprintf("max-age=%d", int(cfg.Server.HSTS.Seconds()))
	}
	programs, problems := compileRoutes(p.compiler, cfg.Routes, cfg.Problem)
	if len(problems) > 0 {
		return nil, problems
	}
	for _, c := range cfg.Providers {
		pr, err := newProvider(cfg, c, keptClaims(cfg.Routes, programs, c.Name), env, secure, p)
		if err != nil {
			return nil, fmt.Errorf("providers.%s: %w", c.Name, err)
		}
		p.providers = append(p.providers, pr)
	}
	p.ownHeaders = headerNames(programs)
	if slices.ContainsFunc(programs, func(r routePrograms) bool { return r.assertion != nil }) {
		texts, err := shared.assertionKeys(cfg.Server.AssertionKeys)
		if err != nil {
			return nil, err
		}
		if p.asserter, err = newAsserter(texts, env.Now); err != nil {
			return nil, err
		}
	}
	connections := map[destination]transports{}
	for i, c := range cfg.Routes {
		c.MaxRequestBody = cmp.Or(c.MaxRequestBody, cfg.Server.MaxRequestBody)
		if err := p.addRoute(c, programs[i], connections); err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
	}
	if err := p.trustOwnOrigins(cfg); err != nil {
		return nil, err
	}
	if p.admin, err = newAdmin(p.serveReady, &adminSessions{p.providers, p.audit}, env.Metrics, cfg.Server); err != nil {
		return nil, err
	}
	p.learnFrom(before)
	p.proxies.Add(1)
	return p, nil
}

// attemptCookieName begins the names of the cookies of sign-ins under way.
func attemptCookieName(secure bool) string {
	if secure {
		return "__Host-postern-login-"
	}
	return "postern-login-"
}

func newProvider(cfg *config.Config, c config.Provider, keep []string, env Env, secure bool, p *Proxy) (*provider, error) {
	o := providerOptions(c, keep, resourcesOf(cfg.Routes, c.Name), env)
	o.SharesCallback = cfg.SharesCallback(c.Name) != ""
	for _, other := range cfg.Providers {
		if other.Name != c.Name && other.Issuer != nil {
			o.OtherIssuers = append(o.OtherIssuers, text(other.Issuer))
		}
	}
	client, err := idp.New(o)
	if err != nil {
		return nil, err
	}
	deployment := "memory"
	if r := cfg.Session.Store.Redis; r != nil {
		deployment = r.KeyPrefix
	}
	s, audit := cfg.Session, newAuditor(env.Audit)
	pr := &provider{name: c.Name, title: cmp.Or(c.Title, c.Name), clientID: c.ClientID, callback: c.Callback(), idp: client, idleTimeout: s.IdleTimeout, audit: audit, metrics: env.Metrics, now: env.Now}
	pr.refresh = pr.refreshTokens
	pr.sessions, err = session.NewManager(session.Options{
		Provider: c.Name, ClientID: c.ClientID, Issuer: client.Issuer(), Deployment: deployment,
		Ring: p.ring, Store: env.Store,
		Ended: func(e session.Ending) {
			audit.ended(e)
			env.Metrics.SessionEnded(e.Provider, string(e.Reason))
		},
		Cookie:      session.Cookie{Name: cfg.CookieName(c.Name), Secure: secure, Persistent: s.Cookie.Persistent, SameSite: sameSite(s.Cookie.SameSite)},
		IdleTimeout: s.IdleTimeout, Lifetime: s.Lifetime, RefreshBefore: s.RefreshBefore, SpreadRefresh: true,
		Cache:           session.CacheOptions{MaxSize: int64(s.Cache.MaxSize), MaxStale: s.Cache.MaxStale},
		KeepFor:         s.OnStoreError.Keep,
		MaxPerUser:      s.MaxSessionsPerUser,
		ExchangeTimeout: c.Timeout,
		SharedGrant:     c.RefreshTokenScope == "user",

		RevokeWithoutCookie: s.RevokeWithoutCookie,
		Discarded:           func(ctx context.Context, d session.Discarded) { p.discarded(ctx, pr, d) },
		Changed:             p.traded.changed,
		Looked:              func(l session.Lookup) { env.Metrics.CacheLookup(string(l)) },
		Waited:              func(took time.Duration) { env.Metrics.RefreshWait(c.Name, took) },
		Now:                 env.Now, Log: env.Log,
	})
	if err != nil {
		return nil, err
	}
	if c.Grant == "password" {
		pr.password = client.Password
	}
	return pr, nil
}

// NewProvider makes the client of one provider of cfg as [New] does: its grants keep the claims that routes read. It does no I/O; env
// needs no store.
func NewProvider(cfg *config.Config, c config.Provider, env Env) (*idp.Provider, error) {
	programs, _ := compileRoutes(newCompiler(nil), cfg.Routes, cfg.Problem) // what is wrong with routes is told by New and Check
	return idp.New(providerOptions(c, keptClaims(cfg.Routes, programs, c.Name), resourcesOf(cfg.Routes, c.Name), env))
}

// NewStandIn wires a Proxy for [Proxy.Explain]: it runs the real thing, with sessions in store, an application that answers 200 and providers that
// exist in this process alone. It opens no connection, and needs neither keys nor secrets.
func NewStandIn(cfg *config.Config, store session.Store) (*Proxy, error) {
	alone := *cfg
	alone.Session.Keys, alone.Session.Store, alone.Server.Admin, alone.Server.Audit, alone.Providers = nil, config.Store{}, nil, nil, nil
	alone.Pages = config.Pages{}
	var stand standInProvider
	for _, c := range cfg.Providers {
		c.ClientSecret, c.ClientKey, c.ClientCert, c.ClientAuth, c.CAFile = config.NewSecret("none"), config.Secret{}, nil, "client_secret_basic", ""
		if c.Issuer != nil {
			stand.issuers = append(stand.issuers, c.Issuer)
		}
		alone.Providers = append(alone.Providers, c)
	}
	return New(&alone, Env{Store: store, Transport: stand})
}

// newPages hands the pages their part of the configuration. It reads the files that it names.
func newPages(c config.Pages, env Env, place placer) (*page.Pages, config.Problems) {
	logo, err := c.ReadLogo()
	if err != nil {
		return nil, config.Problems{place("pages.logo", 0, 0, "the file "+err.Error(), "Name an image file that Postern's user can read")}
	}
	o := page.Options{
		Title: c.Title, Logo: logo, Colors: page.Colors(c.Colors), Support: page.Support(c.Support), Languages: c.Languages, Now: env.Now, Log: env.Log,
	}
	root, err := c.OpenTemplates()
	if err != nil {
		return nil, config.Problems{place("pages.templates", 0, 0, "the folder "+err.Error(), "Name a folder that Postern's user can read")}
	}
	if root != nil {
		defer root.Close()
		o.Templates = root.FS()
	}
	pages, err := page.New(o)
	var wrong page.Problems
	var problems config.Problems
	errors.As(err, &wrong)
	for _, p := range wrong {
		problems = append(problems, place("pages."+p.Option, 0, 0, p.What, p.Mend))
	}
	return pages, problems
}

// resourcesOf are the resources of a provider's routes.
func resourcesOf(routes []config.Route, provider string) (resources []string) {
	for _, c := range routes {
		if c.Resource != "" && c.Takes(provider) {
			resources = append(resources, c.Resource)
		}
	}
	return resources
}

// providerOptions hands a provider its part of the configuration. Grants keep the claims that are named; sign-ins ask for the resources.
func providerOptions(c config.Provider, keep, resources []string, env Env) idp.Options {
	o := idp.Options{
		Name: c.Name, Issuer: text(c.Issuer), Grant: c.Grant,
		ClientID: c.ClientID, ClientAuth: c.ClientAuth, ClientKeyID: c.ClientKeyID, AssertionAudience: c.AssertionAudience,
		Scopes: c.Scopes, ScopeSeparator: c.ScopeSeparator, ResponseMode: c.ResponseMode, PKCE: c.PKCE,
		AuthorizeParams: c.AuthorizeParams, TokenParams: c.TokenParams, CallbackParams: c.CallbackParams, StartParams: c.StartParams,
		Resources:    resources,
		TokenRequest: c.TokenRequest, OmitRedirectURI: c.OmitRedirectURI, TokenLifetime: c.TokenLifetime,
		Identity: c.Identity, Claims: c.Claims, KeepClaims: keep, SigningAlg: c.IDTokenSignedResponseAlg, ExtraAudiences: c.ExtraAudiences,
		AssumeEmailVerified: c.AssumeEmailVerified,
		LogoutURI:           text(c.LogoutURI), InternalURL: text(c.InternalURL), CAFile: c.CAFile, HTTPProxy: text(c.HTTPProxy),
		Timeout: c.Timeout, Leeway: c.Leeway, Transport: env.Transport, Tracer: env.Tracer, Metrics: env.Metrics, Now: env.Now, Log: env.Log,
	}
	if e := c.OAuth2; e != nil {
		o.OAuth2 = &idp.Endpoints{
			Authorize: text(e.AuthorizeURL), Token: text(e.TokenURL), Userinfo: text(e.UserinfoURL),
			Revoke: text(e.RevokeURL), Introspect: text(e.IntrospectURL), EndSession: text(e.EndSessionURL),
		}
	}
	if !c.ClientSecret.IsZero() {
		o.ClientSecret = c.ClientSecret.Value
	}
	if !c.ClientKey.IsZero() {
		o.ClientKey = c.ClientKey.Value
	}
	if c.ClientCert != nil {
		o.ClientCert = c.ClientCert.Load
	}
	for _, call := range c.Userinfo {
		o.UserinfoCalls = append(o.UserinfoCalls, idp.UserinfoCall{URL: text(call.URL), As: call.As})
	}
	return o
}

// text is an address as it was written, or empty.
func text(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.String()
}

// Check finds what only the parts themselves can: claims, rules and header values that do not compile, colours that cannot be read. It does no I/O and asks nobody.
func Check(cfg *config.Config) config.Problems {
	var problems config.Problems
	for _, c := range cfg.Providers {
		if _, err := idp.New(providerOptions(c, nil, nil, Env{})); err != nil {
			for line := range strings.Lines(err.Error()) {
				problems = append(problems, cfg.Problem("providers."+c.Name, 0, 0, line, ""))
			}
		}
	}
	_, more := newPages(config.Pages{Colors: cfg.Pages.Colors, Support: cfg.Pages.Support}, Env{}, cfg.Problem)
	problems = append(problems, more...)
	_, more = compileRoutes(newCompiler(nil), cfg.Routes, cfg.Problem)
	return append(problems, more...)
}

// CheckFiles finds what is wrong in files that only the parts themselves understand: logo, own templates and texts. It reads them and changes nothing.
func CheckFiles(cfg *config.Config) config.Problems {
	c := cfg.Pages
	c.Colors, c.Support = config.Colors{}, config.Support{} // told by Check
	_, problems := newPages(c, Env{}, cfg.Problem)
	return problems
}

func sameSite(word string) http.SameSite {
	switch word {
	case "strict":
		return http.SameSiteStrictMode
	case "none":
		return http.SameSiteNoneMode
	}
	return http.SameSiteLaxMode
}

func (p *Proxy) addRoute(c config.Route, programs routePrograms, connections map[destination]transports) (err error) {
	rt := &route{name: c.Host + c.Path, methods: c.Methods, rule: programs.rule, bearer: p.appToken(c.Bearer.ClientCredentials),
		headers: programs.headers, response: programs.response, assertion: programs.assertion, token: cmp.Or(c.Bearer.Kind, "access_token"), keepAuthorization: c.Bearer.Kind == "",
		unauthenticated: c.Unauthenticated, preflight: c.Preflight == "pass", cors: c.CORS, allowedOrigins: c.AllowedOrigins, activity: c.Activity != "none",
		anyCase: c.CaseInsensitivePaths, encodedSlash: c.AllowEncodedSlash, keepFragment: c.KeepFragment}
	if c.CSRF != "" {
		if rt.csrf, err = p.crossSiteGuard(c); err != nil {
			return err
		}
	}
	rt.counted = p.metrics.Route(rt.name)
	rt.via = newVia(p.keys, rt.name)
	for _, name := range c.Provider {
		rt.providers = append(rt.providers, p.provider(name))
	}
	if len(c.Provider) == 0 && c.Access.Level != config.Public && c.Access.Level != config.Deny {
		rt.providers = p.providers
	}
	rt.trades, rt.accepts = targetOf(c), p.acceptance(c.Access.BearerTokens, rt.providers)
	if rt.token == "access_token" && rt.trades == nil {
		rt.renew = p.renew
	}
	if len(c.Upstream) > 0 {
		if rt.upstream, err = newUpstream(p.upstreamOptions(c, rt.via, connections)); err != nil {
			return err
		}
	}
	p.routes.add(c.Host, c.Path, rt)
	return nil
}

// upstreamOptions hands the way to an application its part of the configuration.
func (p *Proxy) upstreamOptions(c config.Route, via via, connections map[destination]transports) upstreamOptions {
	o := upstreamOptions{
		URLs: c.Upstream, Shared: connections, OwnHost: c.UpstreamHost == "upstream", StripPrefix: strings.TrimSuffix(c.StripPrefix, "/"), RewriteResponse: c.RewriteResponse,
		Timeout: c.Timeout, MaxBody: int64(c.MaxRequestBody), Via: via, EncodedSlash: c.AllowEncodedSlash, Strip: p.ownHeaders,
		Ours: p.ours, Forwarding: p.forwarding, Streams: p.streams, HSTS: p.hsts, Fail: p.upstreamFailed, Log: p.log,
	}
	if c.UpstreamTLS != nil {
		o.TLS = c.UpstreamTLS.Load
	}
	return o
}

// crossSiteGuard refuses what pages of other origins than the route's own and its allowed ones send.
func (p *Proxy) crossSiteGuard(c config.Route) (*http.CrossOriginProtection, error) {
	guard := http.NewCrossOriginProtection()
	origins := c.AllowedOrigins
	if p.origin != nil && (p.public || c.Host == "") {
		origins = append(slices.Clone(origins), p.origin.Scheme+"://"+p.origin.Host)
	}
	if c.Host != "" && c.Host[0] != '*' && !p.public {
		origins = append(slices.Clone(origins), "https://"+c.Host) // where a proxy before us rewrites Host
	}
	for _, o := range origins {
		if err := guard.AddTrustedOrigin(o); err != nil {
			return nil, err
		}
	}
	return guard, nil
}

// appToken is the token that a route sends in place of the person's, shared by all routes that want the same; nil without one.
func (p *Proxy) appToken(c *config.ClientCredentials) *appToken {
	if c == nil {
		return nil
	}
	pr := p.provider(c.Provider)
	if p.appTokens[*c] == nil {
		p.appTokens[*c] = &appToken{
			limit: finishTimeout, now: p.now,
			fetch: func(ctx context.Context) (session.Tokens, error) {
				return pr.idp.ClientCredentials(ctx, c.Scope, c.Audience)
			},
		}
	}
	return p.appTokens[*c]
}

// ours tells whether a cookie of this name is Postern's: never sent to an application, never set by one.
func (p *Proxy) ours(name string) bool {
	for _, pr := range p.providers {
		if name == pr.sessions.CookieName() {
			return true
		}
	}
	return p.attempts.ours(name)
}

// trustOwnOrigins lets forms of our own pages pass the cross-origin check where a proxy before us rewrites Host.
func (p *Proxy) trustOwnOrigins(cfg *config.Config) error {
	origins, seen := []*url.URL{p.origin}, map[string]bool{}
	for _, c := range cfg.Routes {
		if !seen[c.Host] {
			seen[c.Host] = true
			origins = append(origins, cfg.Server.Origin(c.Host))
		}
	}
	for _, o := range origins {
		if o == nil || o.Host == "" || o.Host[0] == '*' {
			continue
		}
		if err := p.crossOrigin.AddTrustedOrigin(o.Scheme + "://" + o.Host); err != nil {
			return err
		}
	}
	return nil
}

// learnFrom takes over what the Proxy before has learned from providers that are still the same, so that nobody waits for them to say it again, and
// people can sign in while they do not answer.
func (p *Proxy) learnFrom(before *Proxy) {
	if before == nil {
		return
	}
	for _, pr := range p.providers {
		if old := before.provider(pr.name); old != nil && old.clientID == pr.clientID {
			pr.idp.Adopt(old.idp)
		}
	}
}

// TakeOver makes the session keys those of the process, for what Proxies before this one still do, too. Call it before the Proxy serves in their place.
func (p *Proxy) TakeOver() { p.useKeys(p.keys, p.log) }

// Run keeps providers discovered and caches true until ctx ends.
func (p *Proxy) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, pr := range p.providers {
		wg.Go(func() { p.logExit(ctx, "provider", pr.idp.Run(ctx)) })
		wg.Go(func() { p.logExit(ctx, "sessions", pr.sessions.Run(ctx)) })
	}
	wg.Go(func() { p.ready.run(ctx) })
	wg.Go(func() { p.sweep(ctx) })
	wg.Wait()
	return ctx.Err()
}

// sweep forgets tokens that have expired, until ctx ends.
func (p *Proxy) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.traded.sweep()
			p.tokens.sweep()
		case <-ctx.Done():
			return
		}
	}
}

func (p *Proxy) logExit(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		p.log.ErrorContext(ctx, "stopped", "part", what, "error", err)
	}
}

// Listening tells readiness that the public listener is open.
func (p *Proxy) Listening() { p.ready.listening.Store(true) }

// Drain makes readiness false. The caller then waits, so that load balancers notice.
func (p *Proxy) Drain() { p.ready.draining.Store(true) }

// ConfigProblem makes readiness tell that a changed configuration was not taken, and why in short; "" that all is well.
func (p *Proxy) ConfigProblem(why string) { p.ready.configProblem.Store(&why) }

// EndStreams ends open WebSockets (close 1001) and long responses, spread over the time that ctx leaves.
func (p *Proxy) EndStreams(ctx context.Context) { p.streams.drain(ctx) }

// Close waits for refreshes under way, so that no rotated token is lost, and gives connections to upstreams back. The last of those that took
// each other's place waits for revocations, too.
func (p *Proxy) Close(ctx context.Context) error {
	var errs []error
	for _, pr := range p.providers {
		errs = append(errs, pr.sessions.Close(ctx))
	}
	p.traded.close()
	if p.proxies.Add(-1) == 0 {
		errs = append(errs, p.revoking.close(ctx)) // at the end: the others hand tokens to it
	}
	p.closeUpstreams()
	return errors.Join(errs...)
}

// Retire gives back what only requests need: the routes, and their connections to upstreams. No request may be under way, nor come any more; what was
// begun for sessions goes on until [Proxy.Close].
func (p *Proxy) Retire() {
	p.closeUpstreams()
	p.routes = newTable()
}

func (p *Proxy) closeUpstreams() {
	p.routes.each(func(rt *route) {
		if rt.upstream != nil {
			rt.upstream.close()
		}
	})
}

// Admin is the handler of the admin listener: health, readiness, metrics, and sessions and profiles where server.admin is set. Over https the caller
// verifies client certificates, where they are given, by server.admin.client_ca.
func (p *Proxy) Admin() http.Handler { return p.admin }

// Redirect is the handler of server.redirect_listen: 308 to https on the same host, for hosts of known routes only.
func (p *Proxy) Redirect() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{ResponseWriter: w, r: r, now: p.now, start: p.now(), client: p.forwarding.client(r), verdict: verdict{Kind: verdictOwn, Reason: "not_redirected"}}
		defer p.logRequest(x)
		x.watchBody()
		defer x.endBody()
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		origin := p.originOf(host)
		known := p.routes.namesHost(host) || p.public && hostname(p.origin.Host) == hostname(host)
		path, query, err := requestTarget(r)
		if !known || origin == nil || origin.Scheme != "https" || err != nil || refusedMethod(r) || ambiguousPath(path, true) != "" {
			x.Header().Set("Connection", "close")
			x.WriteHeader(http.StatusNotFound)
			return
		}
		x.path = canonicalPath(path)
		x.reason("redirected_to_https", nil)
		x.Header().Set("Location", origin.String()+escapeASCII(path+query))
		x.WriteHeader(http.StatusPermanentRedirect)
	})
}

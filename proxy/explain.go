package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"postern/session"
)

// The tokens of an explanation: nobody is asked for real ones.
const (
	explainAccess = "ACCESS-TOKEN"
	explainID     = "ID-TOKEN"
	explainOther  = "TOKEN-FROM-PROVIDER"
)

// Person is who makes a request that [Explain] explains.
type Person struct {
	// Provider signed the person in; empty is the first one that the route takes.
	Provider string
	// Claims are what the provider says of the person: the payload of an ID token, or an answer of its userinfo endpoint.
	Claims map[string]any
	// Identity stands in place of what the configuration makes of Claims, member by member.
	Identity session.Identity
}

// Explanation is what becomes of one request.
type Explanation struct {
	// Route is the host and path of the route; empty where none was reached.
	Route string
	// Verdict is allow, deny, sign_in, unavailable, or own for what no route decides. Reason is the word for it in the log, Error what the log
	// would say more.
	Verdict, Reason, Error string
	// Session is who is taken to be signed in; nil is nobody.
	Session *session.Session
	// Upstream is what the application would get; nil is nothing. Where another proxy carries the traffic it is nil, and the answer's headers
	// are what that proxy copies.
	Upstream *http.Request
	// Status and Header are what the client would get; of an allowed request Header is what Postern adds to the application's answer.
	Status int
	Header http.Header
}

// Explain says what Postern would do with r, made by who; nil is a person who is not signed in. It is for a Proxy that [NewStandIn] made, and
// works once.
func (p *Proxy) Explain(ctx context.Context, r *http.Request, who *Person) (*Explanation, error) {
	app := &standInApp{}
	p.routes.each(func(rt *route) {
		if rt.upstream != nil {
			rt.upstream.proxy.Transport = app
		}
	})
	_, ours := p.endpointName(canonicalPath(r.URL.EscapedPath()))
	answer := &answer{header: http.Header{}}
	x := &exchange{ResponseWriter: answer, r: r.WithContext(ctx), now: p.now, start: p.now(), client: p.forwarding.client(r), asked: p.dialect != "" && !ours}
	if who != nil {
		if err := p.signInForExplanation(x, who); err != nil {
			return nil, err
		}
	}
	p.serve(x)
	e := &Explanation{Verdict: x.verdict.Kind.String(), Reason: x.verdict.logged(), Session: x.verdict.Session, Upstream: app.got, Status: answer.status, Header: answer.header}
	if x.route != nil {
		e.Route = strings.Join(append([]string{x.route.name}, x.route.methods...), " ")
	}
	if x.err != nil {
		e.Error = x.err.Error()
	}
	return e, nil
}

// signInForExplanation makes a session of who and puts its cookie into the request.
func (p *Proxy) signInForExplanation(x *exchange, who *Person) error {
	pr := p.provider(who.Provider)
	if who.Provider == "" {
		pr = p.providers[0]
		if rt := p.routes.match(x.client.Host, canonicalPath(x.r.URL.EscapedPath()), x.r.Method); rt != nil && len(rt.providers) > 0 {
			pr = rt.providers[0]
		}
	}
	if pr == nil {
		return fmt.Errorf("the configuration has no provider %q", who.Provider)
	}
	g, err := pr.idp.Claimed(x.r.Context(), who.Claims)
	if err != nil {
		return err
	}
	override(&g.Identity, who.Identity)
	g.Tokens = session.Tokens{Access: explainAccess, ID: explainID, Obtained: p.now(), Expiry: p.now().Add(pr.idleTimeout)}
	_, cookie, err := pr.sessions.Create(x.r.Context(), g, session.CreateOptions{})
	if err != nil {
		return err
	}
	x.r.AddCookie(cookie)
	return nil
}

// override puts the members of by that are set into id.
func override(id *session.Identity, by session.Identity) {
	for to, value := range map[*string]string{&id.User: by.User, &id.Email: by.Email, &id.Name: by.Name, &id.PreferredUsername: by.PreferredUsername} {
		if value != "" {
			*to = value
		}
	}
	if by.Groups != nil {
		id.Groups = by.Groups
	}
}

// answer keeps what is said of an answer before its body.
type answer struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }

// standInApp is an application that keeps the request and answers 200.
type standInApp struct {
	got *http.Request
}

// RoundTrip implements http.RoundTripper.
func (a *standInApp) RoundTrip(r *http.Request) (*http.Response, error) {
	a.got = r
	return &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// standInProvider is every provider of a configuration, without network: its metadata have made-up addresses below the issuer, and it gives a
// token to everyone who asks.
type standInProvider struct {
	issuers []*url.URL
}

// RoundTrip implements http.RoundTripper.
func (s standInProvider) RoundTrip(r *http.Request) (*http.Response, error) {
	var answer map[string]any
	for _, issuer := range s.issuers {
		if r.URL.Path != strings.TrimSuffix(issuer.Path, "/")+"/.well-known/openid-configuration" {
			continue
		}
		at := strings.TrimSuffix(issuer.String(), "/")
		answer = map[string]any{
			"issuer": issuer.String(), "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token", "jwks_uri": at + "/keys",
			"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "none"},
			"introspection_endpoint":                at + "/introspect",
		}
	}
	if r.Method == http.MethodPost {
		answer = map[string]any{
			"access_token": explainOther, "token_type": "Bearer", "expires_in": 3600,
			"issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
		}
	}
	if answer == nil {
		return nil, errors.New("explaining asks no provider")
	}
	body, err := json.Marshal(answer)
	return &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, err
}

package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/config"
	"postern/proxy/idp"
)

// skewed is a clock difference that will be one that matters.
const skewed = 5 * time.Second

// provider asks one identity provider what can be asked without a person.
//
// Flow: discovery (DNS, connection, certificate, issuer) → clock → keys → what it advertises against what is configured → the redirect URI, by a sign-in
// that may show nothing → the client, by a code that nobody has. Where discovery fails there is nothing else to ask.
func (o Options) provider(ctx context.Context, p Provider) []Finding {
	l := &list{subject: p.Name}
	if p.Err != nil {
		l.fail("provider.discovery", p.Err.Error(), "providers."+p.Name+": change what is said there")
		return l.all
	}
	if !o.discover(ctx, p, l) {
		return l.all
	}
	o.signingKeys(ctx, p, l)
	o.redirects(ctx, p, l)
	o.client(ctx, p, l)
	return l.all
}

// key is the path of one of the provider's keys.
func (p Provider) key(name string) string { return "providers." + p.Name + "." + name }

// trouble says why a provider did not answer: what is wrong with the way there, else what its own errors tell.
func (p Provider) trouble(err error) (found, mend string) {
	w := where{address: p.key("issuer"), ca: p.key("ca_file")}
	if p.OAuth2 != nil {
		w.address = p.key("oauth2")
	}
	if _, wrong := errors.AsType[*idp.ProtocolError](err); wrong {
		return err.Error(), p.Hints(err)
	}
	if cause := errors.Unwrap(err); cause != nil {
		return w.trouble(cause)
	}
	return err.Error(), p.Hints(err)
}

// discover reads the metadata. It is false where they cannot be used.
func (o Options) discover(ctx context.Context, p Provider, l *list) bool {
	if p.OAuth2 != nil {
		l.pass("provider.discovery", "has none: oauth2 says where everything is")
		return true
	}
	var met way
	ctx, cancel := context.WithTimeout(met.note(ctx), o.Limit)
	defer cancel()
	told, err := p.IDP.Examine(ctx)
	met.certificate(l, o.Now())
	switch {
	case err != nil && told.Issuer != "" && told.Issuer != p.IDP.Issuer():
		l.fail("provider.issuer", fmt.Sprintf("the provider calls itself %q, and not %q", told.Issuer, p.IDP.Issuer()),
			fmt.Sprintf("%s: write %s, to the letter", p.key("issuer"), told.Issuer))
	case err != nil:
		found, mend := p.trouble(err)
		l.fail("provider.discovery", found, mend)
	default:
		l.pass("provider.discovery", "answers, and names the issuer that is configured")
	}
	if told.Dated {
		o.clock(p, l, told.Ahead)
	}
	if err != nil {
		return false
	}
	advertised(p, l, told)
	return true
}

// clock compares the provider's with ours: tokens say when they begin and end.
func (o Options) clock(p Provider, l *list, ahead time.Duration) {
	off := ahead.Abs().Round(time.Second)
	word := "ahead of"
	if ahead < 0 {
		word = "behind"
	}
	found := fmt.Sprintf("the provider's clock is %s %s this machine's", off, word)
	const mend = "Set this machine's clock by NTP (timedatectl, chronyc tracking); if it is right, the provider's is not"
	switch {
	case off > p.Leeway:
		l.fail("provider.clock", found+fmt.Sprintf(", and leeway allows for %s: ID tokens are refused", p.Leeway), mend)
	case off > skewed:
		l.warn("provider.clock", found, mend)
	default:
		l.pass("provider.clock", "the clocks agree")
	}
}

// advertised compares what the provider says that it can do with what it will be asked for.
func advertised(p Provider, l *list, told idp.Advertised) {
	if lacking := missing(p.IDP.Scopes(), told.Scopes); len(lacking) > 0 {
		l.warn("provider.scopes", "the provider does not list "+strings.Join(lacking, ", ")+"; it has "+strings.Join(told.Scopes, ", "),
			p.key("scopes")+": leave those out, unless the provider's documentation has them")
	} else {
		l.pass("provider.scopes", "asks for "+strings.Join(p.IDP.Scopes(), ", "))
	}
	switch {
	case p.Grant != "authorization_code":
	case p.PKCE == "off":
		l.warn("provider.pkce", "is off", p.key("pkce")+": leave it out, unless the provider refuses code_challenge")
	case !slices.Contains(told.ChallengeMethods, "S256"):
		l.warn("provider.pkce", "the provider does not say that it knows PKCE (S256); it is sent all the same", p.key("pkce")+": off, only if sign-ins fail because of it")
	default:
		l.pass("provider.pkce", "S256 is supported")
	}
	if lacking := missing([]string{p.ResponseMode}, told.ResponseModes); p.ResponseMode != "query" && len(lacking) > 0 {
		l.fail("provider.response_mode", "the provider does not support "+p.ResponseMode, p.key("response_mode")+": leave it out, or write one of "+strings.Join(told.ResponseModes, ", "))
	}
	how := p.IDP.ClientAuth()
	if lacking := missing([]string{how}, told.ClientAuthMethods); len(lacking) > 0 && how != "none" {
		l.warn("provider.client_auth", "Postern uses "+how+", and the provider lists "+strings.Join(told.ClientAuthMethods, ", "), p.key("client_auth")+": write one of those")
	} else {
		l.pass("provider.client_auth", "uses "+how)
	}
	switch {
	case !told.EndSession && p.LogoutURI == nil:
		l.warn("provider.logout", "the provider has no end_session_endpoint: who signs out here stays signed in there, and is back with one click", p.key("logout_uri")+": write the address, if its documentation has one")
	case !told.BackChannelLogout:
		l.pass("provider.logout", "can be signed out of (end_session_endpoint), but does not send logout tokens")
	default:
		l.pass("provider.logout", "can be signed out of, and sends logout tokens; register /logout/backchannel there")
	}
}

// missing are the wanted that a provider does not list. One that lists nothing says nothing.
func missing(wanted, listed []string) (lacking []string) {
	for _, w := range wanted {
		if len(listed) > 0 && !slices.Contains(listed, w) {
			lacking = append(lacking, w)
		}
	}
	return lacking
}

// signingKeys looks for a key that can verify this client's ID tokens.
func (o Options) signingKeys(ctx context.Context, p Provider, l *list) {
	if p.OAuth2 != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	switch usable, err := p.IDP.SigningKeys(ctx); {
	case err != nil:
		found, mend := p.trouble(err)
		l.fail("provider.keys", "the keys cannot be read: "+found, mend)
	case usable == 0:
		l.fail("provider.keys", "the provider publishes no key for "+p.IDTokenSignedResponseAlg+": every sign-in will be refused",
			p.key("id_token_signed_response_alg")+": write the algorithm that this client is registered with there")
	default:
		l.pass("provider.keys", fmt.Sprintf("%d for %s", usable, p.IDTokenSignedResponseAlg))
	}
}

// redirects asks the provider to sign nobody in, once for each redirect URI.
func (o Options) redirects(ctx context.Context, p Provider, l *list) {
	if p.Grant != "authorization_code" {
		return
	}
	for _, uri := range o.redirectURIs(p) {
		o.redirect(ctx, p, l, uri)
	}
}

// redirectURIs are what must be registered at a provider.
func (o Options) redirectURIs(p Provider) (all []string) {
	for _, origin := range o.origins(func(r config.Route) bool { return needsSignIn(r) && r.Takes(p.Name) }) {
		all = append(all, origin.String()+o.Config.Server.Prefix+"/"+p.Callback())
	}
	return all
}

func (o Options) redirect(ctx context.Context, p Provider, l *list, uri string) {
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	sent, err := p.IDP.TryAuthorize(ctx, uri)
	if err != nil {
		found, _ := p.trouble(err)
		l.warn("provider.redirect_uri", "the authorization endpoint cannot be asked from here: "+found, "Open it in a browser: what counts is that people reach it")
		return
	}
	switch {
	case sent.Back && slices.Contains([]string{"", "login_required", "interaction_required", "consent_required", "account_selection_required"}, sent.Code):
		l.pass("provider.redirect_uri", uri+" is registered")
	case sent.Back:
		l.fail("provider.redirect_uri", uri+" is registered, but the provider refuses the request: "+sent.Code, p.Hints(&idp.AuthorizationError{Code: sent.Code}))
	case sent.Blames == "redirect_uri":
		l.fail("provider.redirect_uri", "the provider shows an error about the redirect URI "+uri,
			"Register "+uri+" at the provider for client "+p.ClientID+", to the letter; it is made of server.public_url (else the route's host) and server.prefix")
	case sent.Blames == "client_id":
		l.fail("provider.redirect_uri", "the provider shows an error about the client "+p.ClientID, p.key("client_id")+": write the id that the provider gave to this client")
	case sent.Refused:
		l.fail("provider.redirect_uri", fmt.Sprintf("the provider shows an error page (status %d) for %s", sent.Status, uri),
			"`postern login` shows what it says; most often "+uri+" is not registered for client "+p.ClientID+", or "+p.key("client_id")+" is wrong")
	default:
		l.pass("provider.redirect_uri", uri+": the provider goes on to sign people in; whether it takes this address shows only after that")
	}
}

// client sends one code that nobody has: the provider must refuse the code, and not the client.
func (o Options) client(ctx context.Context, p Provider, l *list) {
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	uri := ""
	if all := o.redirectURIs(p); len(all) > 0 {
		uri = all[0]
	}
	err := p.IDP.TryClient(ctx, uri)
	refused, wrong := errors.AsType[*idp.ProtocolError](err)
	switch {
	case err == nil:
		l.pass("provider.client", "the provider knows client "+p.ClientID+" (it refused a made-up code, and not the client)")
	case wrong && slices.Contains([]string{"invalid_client", "incorrect_client_credentials", "unauthorized_client"}, refused.Code), wrong && strings.Contains(err.Error(), "status 401"):
		l.fail("provider.client", "the provider refuses the client: "+refused.What, p.Hints(err))
	case wrong && refused.Code != "":
		l.warn("provider.client", "whether the client's credentials are right cannot be told: the provider answered a made-up code with "+refused.Code, "`postern login` tries them with a person")
	default:
		found, mend := p.trouble(err)
		l.fail("provider.client", "the token endpoint cannot be used: "+found, mend)
	}
}

// way notes the certificates that calls meet.
type way struct {
	mu   sync.Mutex
	ends time.Time // the first one's
}

// note makes calls under the context be noted.
func (w *way) note(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{TLSHandshakeDone: func(state tls.ConnectionState, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil && w.ends.IsZero() {
			w.ends = state.PeerCertificates[0].NotAfter
		}
	}})
}

func (w *way) certificate(l *list, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ends.IsZero() {
		l.certificate("provider.tls", now, w.ends, "The provider must renew its certificate")
	}
}

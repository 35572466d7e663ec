package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"postern/config"
	"postern/proxy/idp"
)

// stage is how far a sign-in came.
type stage string

// The stages, as they stand before an error.
const (
	discovering stage = "find the provider"
	authorizing stage = "sign in"
	finishing   stage = "finish the sign-in"
	password    stage = "sign in with a password" // #nosec G101 -- a sentence
	refreshing  stage = "refresh the tokens"
)

// hint is a key of the configuration, and what is to be done about it.
type hint struct{ key, mend string }

// failure is an error with what may mend it.
type failure struct {
	err   error
	hints []hint
}

// Error has the error, then a line for each hint.
func (f *failure) Error() string {
	var b strings.Builder
	b.WriteString(f.err.Error())
	for _, h := range f.hints {
		b.WriteString("\n  " + h.String())
	}
	return b.String()
}

// Unwrap returns the error alone.
func (f *failure) Unwrap() error { return f.err }

// String is KEY: what to do.
func (h hint) String() string {
	if h.key == "" {
		return h.mend
	}
	return h.key + ": " + h.mend
}

// advisor knows which keys of a provider may mend what goes wrong with it.
type advisor struct{ c config.Provider }

// advice prints hints where nothing failed.
func (l *login) advice(hints []hint) {
	for _, h := range hints {
		l.say("  → %s", h)
	}
}

// failed makes the error that the command ends with.
func (l *login) failed(ctx context.Context, at stage, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return errors.New("interrupted")
	}
	text := err.Error()
	if refused, ok := errors.AsType[*idp.AuthorizationError](err); ok && refused.Description != "" {
		text += ": " + refused.Description
	}
	return &failure{fmt.Errorf("%s: %s", at, printable(text)), l.hints(at, err)}
}

// key is the path of one of the provider's keys.
func (a advisor) key(name string) string { return "providers." + a.c.Name + "." + name }

// endpoint is the key that says where an endpoint is.
func (a advisor) endpoint(name string) string {
	if a.c.OAuth2 != nil {
		return a.key("oauth2." + name)
	}
	return a.key("issuer")
}

// hints says which keys may mend an error.
func (a advisor) hints(at stage, err error) []hint {
	if errors.Is(err, errWaited) {
		return a.waitedInVain()
	}
	if hints := a.byCode(at, codeOf(err)); hints != nil {
		return hints
	}
	// The sentences are for people and name the part that is wrong. A sentence that is not found here costs a hint, and nothing else.
	text := err.Error()
	for _, one := range a.sentences() {
		if strings.Contains(text, one.has) {
			return one.hints
		}
	}
	return a.byStage(at)
}

// codeOf is the OAuth error code that the provider answered, or empty.
func codeOf(err error) string {
	if refused, ok := errors.AsType[*idp.AuthorizationError](err); ok {
		return refused.Code
	}
	if bad, ok := errors.AsType[*idp.ProtocolError](err); ok && bad.Code != "" {
		return bad.Code
	}
	// What a refresh ends with tells its code in words alone.
	_, code, _ := strings.Cut(err.Error(), ", error ")
	return strings.TrimRight(firstWord(code), ":,")
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

// byCode knows the error codes of RFC 6749 sections 4.1.2.1 and 5.2, OpenID Connect Core section 3.1.2.6, RFC 8707, and of large providers.
func (a advisor) byCode(at stage, code string) []hint {
	switch code {
	case "invalid_client", "incorrect_client_credentials":
		return a.clientHints()
	case "unauthorized_client":
		return append(a.clientHints(), hint{a.key("grant"), "or the client is not registered for " + a.c.Grant})
	case "invalid_grant", "bad_verification_code":
		return a.grantHints(at)
	case "redirect_uri_mismatch", "invalid_redirect_uri":
		return []hint{{a.key("redirect_uri"), "register exactly the redirect URI above at the provider, or write here the one that is registered"}}
	case "invalid_scope":
		return []hint{
			{a.key("scopes"), fmt.Sprintf("asks for %s: not all of it is allowed to this client", cmp.Or(strings.Join(a.c.Scopes, ", "), "the default"))},
			{a.key("scope_separator"), "or the provider separates scopes by something else than a space"},
		}
	case "invalid_request":
		return a.requestHints(at)
	case "unsupported_grant_type":
		return []hint{{a.key("grant"), "the provider does not take " + a.c.Grant + ", or not from this client: allow it in the client's registration"}}
	case "unsupported_response_type", "unsupported_response_mode":
		return []hint{
			{a.key("client_id"), "register this client for the authorization code flow (response_type code)"},
			{a.key("response_mode"), "is " + a.c.ResponseMode},
		}
	case "invalid_target":
		return []hint{{a.key("token_params"), "or authorize_params: the resource or audience in there is not known to the provider"}}
	case "access_denied", "denied", "user_denied", "user_cancelled_login", "user_cancelled_authorize":
		return []hint{
			{"", "The person or the provider's policy refused: see what that person and this client are allowed at the provider."},
			{a.key("scopes"), "asks for " + cmp.Or(strings.Join(a.c.Scopes, ", "), "the default") + ", which may be more than is allowed"},
		}
	case "login_required", "interaction_required", "consent_required", "account_selection_required":
		return []hint{{a.key("authorize_params"), "with prompt: none the provider may ask nothing: leave prompt out"}}
	case "temporarily_unavailable", "server_error", "slow_down":
		return a.trouble()
	}
	return nil
}

// clientHints are for a provider that does not believe who the client is.
func (a advisor) clientHints() []hint {
	hints := []hint{{a.key("client_id"), "must be the id of a client that the provider knows"}}
	switch a.c.ClientAuth {
	case "private_key_jwt":
		return append(hints,
			hint{a.key("client_key"), "register its public key at the provider"},
			hint{a.key("client_key_id"), "must be the key's id there"},
			hint{a.key("assertion_audience"), "some providers want the token endpoint's address, others the issuer"})
	case "tls_client_auth":
		return append(hints, hint{a.key("client_cert"), "register this certificate's subject at the provider"})
	}
	if a.c.ClientSecret.IsZero() {
		return append(hints, hint{a.key("client_secret"), "is missing: the provider wants this client to have one"})
	}
	hints = append(hints, hint{a.key("client_secret"), "must be the secret that the provider has for that client, complete and not expired"})
	switch a.c.ClientAuth {
	case "client_secret_basic", "client_secret_post":
		return append(hints, hint{a.key("client_auth"), "is " + a.c.ClientAuth + ": try " + other(a.c.ClientAuth)})
	}
	return append(hints, hint{a.key("client_auth"), "is not set: try client_secret_post, then client_secret_basic"})
}

// other is the other of the two ways to send a secret.
func other(auth string) string {
	if auth == "client_secret_basic" {
		return "client_secret_post"
	}
	return "client_secret_basic"
}

// grantHints are for a code, a password or a refresh token that was refused.
func (a advisor) grantHints(at stage) []hint {
	switch at {
	case password:
		return append([]hint{{"", "The user name or the password is wrong. If every one is refused:"}}, a.clientHints()...)
	case refreshing:
		return []hint{
			{a.key("scopes"), "the provider refuses the refresh token that it just gave: some want offline_access or the like"},
			{a.key("token_params"), "or something is missing in the refresh request"},
		}
	}
	return []hint{
		{a.key("redirect_uri"), "must be, to the letter, the one that is registered and that the provider was sent"},
		{a.key("omit_redirect_uri"), "true, if the provider wants no redirect_uri with the code"},
		{a.key("pkce"), "off, only if the provider refuses code_verifier"},
		{"", "A code works once and for a short time: try again before you change anything."},
	}
}

// requestHints are for a provider that misses something or finds too much.
func (a advisor) requestHints(at stage) []hint {
	if at == finishing || at == refreshing || at == password {
		return []hint{
			{a.key("token_params"), "add what the provider's documentation wants in the token request"},
			{a.key("client_auth"), "try client_secret_post or client_secret_basic"},
			{a.key("omit_redirect_uri"), "true, if the provider wants no redirect_uri with the code"},
			{a.key("pkce"), "off, only if the provider refuses PKCE's parameters"},
			{a.key("token_request"), "query, only if the provider's documentation has the parameters in the address"},
		}
	}
	return a.byStage(at)
}

// trouble is for a provider that cannot answer for now.
func (a advisor) trouble() []hint {
	return []hint{
		{"", "The provider has trouble of its own: try again later."},
		{a.endpoint("token_url"), "if it goes on, see whether this is the right address"},
	}
}

// waitedInVain is for a provider that never sent the person back, most often because it shows an error of its own.
func (a advisor) waitedInVain() []hint {
	if a.c.Grant == "password" {
		return []hint{{"", "Type user name and password, or give more time with --timeout."}}
	}
	return []hint{
		{a.key("redirect_uri"), "if the provider shows an error about the redirect URI, register exactly the one above, or write here the one that is registered"},
		{a.key("client_id"), "if it does not know the client"},
		{a.key("callback_params"), "if a request to the redirect URI was ignored above"},
		{"", "If the browser runs on another machine, paste the address at which it ends up. --timeout gives more time."},
	}
}

// noRefreshToken says how to get one.
func (a advisor) noRefreshToken() []hint {
	hints := []hint{{a.key("scopes"), "many providers want offline_access, or a scope of their own, and the client registered for refresh tokens"}}
	return append(hints, hint{a.key("authorize_params"), "some want access_type: offline (with prompt: consent)"})
}

// sentence is what an error of package idp may say.
type sentence struct {
	has   string
	hints []hint
}

// sentences are tried in order.
func (a advisor) sentences() []sentence {
	one := func(key, mend string) []hint { return []hint{{key, mend}} }
	userinfo := a.endpoint("userinfo_url")
	if len(a.c.Userinfo) > 0 {
		userinfo = a.key("userinfo")
	}
	clock := hint{a.key("leeway"), "set this machine's clock right first; leeway allows for a difference of at most five minutes"}
	return []sentence{
		{"client_secret could not be read", one(a.key("client_secret"), "its file or variable cannot be read")},
		{"client_secret is empty", one(a.key("client_secret"), "is empty")},
		{"client assertion", one(a.key("client_key"), "must be a private key in PEM that the provider's algorithms can use")},
		{"client certificate", one(a.key("client_cert"), "its files cannot be used")},
		{"client authentication by", one(a.key("client_auth"), "write one of those that the provider supports, with what it needs")},
		{"refused this client", a.clientHints()},
		{"signed by unknown authority", one(a.key("ca_file"), "name the CA that signed the provider's certificate")},
		{"x509:", one(a.key("internal_url"), "or "+a.endpoint("token_url")+": the provider's certificate is not for this address, or not valid")},
		{"another issuer", one(a.key("issuer"), "write the issuer exactly as the provider does, the slash at the end included")},
		{"issuer (iss)", one(a.key("issuer"), "the answer is not of this provider")},
		{"discovery answered", one(a.key("issuer"), "there are no metadata at this issuer: write it exactly as the provider does")},
		{"callback_params", one(a.key("callback_params"), "write the provider's own names, such as {code: auth_code}")},
		{"response_mode", one(a.key("response_mode"), "is "+a.c.ResponseMode+", and the answer came in another way")},
		{"no id_token", one(a.key("scopes"), "must have openid, or the client is not registered for OpenID Connect")},
		{"id_token_signed_response_alg", one(a.key("id_token_signed_response_alg"), "is "+a.c.IDTokenSignedResponseAlg+": write what the provider signs with for this client")},
		{"ID token: aud", []hint{{a.key("client_id"), "is not whom the token is for"}, {a.key("extra_audiences"), "lists further audiences that the token may name"}}},
		{"ID token: azp", one(a.key("client_id"), "is not whom the token is for")},
		{"this clock", []hint{clock}},
		{"key of the token", one(a.key("internal_url"), "or http_proxy: the provider's keys cannot be fetched from this machine")},
		{"email_verified", []hint{
			{a.key("claims.user"), "an address is not a user's name unless the provider vouches for it: take another claim"},
			{a.key("assume_email_verified"), "true, only if nobody can enter a foreign address at this provider"},
		}},
		{"claims.user", []hint{{a.key("claims.user"), "say where the user's name is"}, {a.key("identity"), "or take the claims from somewhere else than " + a.c.Identity}}},
		{"not a JWT", one(a.key("identity"), "the access token says nothing: take userinfo, introspection, token_response or none")},
		{"see as", one(a.key("userinfo"), "the answer is a list: give that entry a name with as, and take the list apart in claims")},
		{"userinfo", []hint{{userinfo, "this address did not tell who the person is"}, {a.key("scopes"), "the token may lack the scope for it"}, {a.key("identity"), "or take another source"}}},
		{"introspection", []hint{{a.endpoint("introspect_url"), "this address did not tell who the token belongs to"}, {a.key("identity"), "or take another source"}}},
		{"claim", []hint{{a.key("claims"), "says which claims are who the person is"}, {a.key("identity"), "says where claims come from"}}},
		{"token_type", one(a.endpoint("token_url"), "gives tokens that Postern cannot use: only Bearer")},
		{"token endpoint answered status 401", a.clientHints()},
		{"token endpoint answered status 403", a.clientHints()},
		{"token endpoint answered status 429", a.trouble()},
		{"token endpoint answered status 5", a.trouble()},
		{"token endpoint answered", one(a.endpoint("token_url"), "is this the address of the token endpoint? Not of a page or an API")},
		{"deadline exceeded", one(a.key("timeout"), "or http_proxy, internal_url: the provider cannot be reached, or is slow")},
		{"did not answer", []hint{{a.endpoint("token_url"), "is this the right address?"}, {a.key("http_proxy"), "or internal_url: how this machine reaches the provider"}}},
	}
}

// byStage is what is left to say.
func (a advisor) byStage(at stage) []hint {
	switch at {
	case discovering:
		return []hint{{a.key("issuer"), "write it exactly as the provider does"}}
	case authorizing:
		return []hint{
			{a.key("redirect_uri"), "register it at the provider, or write the one that is registered"},
			{a.key("authorize_params"), "add what the provider's documentation wants in the authorize address"},
			{a.key("pkce"), "off, only if the provider refuses code_challenge"},
		}
	case finishing:
		return []hint{
			{a.endpoint("token_url"), "is this the right provider?"},
			{a.key("identity"), "or claims: where it comes from who the person is"},
		}
	}
	return []hint{{a.endpoint("token_url"), "is this the right provider?"}}
}

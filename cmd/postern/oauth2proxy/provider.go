package oauth2proxy

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// provider is one identity provider while it is made.
type provider struct {
	name    string
	oidc    bool // it has an issuer
	options map[string]option
	out     *mapping
}

// directory is the id of a directory of Microsoft.
var directory = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// providers makes each provider. oauth2-proxy uses the first one alone.
func (d *draft) providers() {
	if len(d.in.providers) == 0 {
		d.in.providers = []map[string]option{{}}
	}
	for i, values := range d.in.providers {
		p := &provider{options: values, out: &mapping{}}
		d.kind(p)
		if i == 0 {
			d.first = p
		}
		for _, r := range providerTable() {
			d.row(r, values, p)
		}
		if p.oidc && p.out.has("issuer") && !p.out.has("scopes") {
			d.say(changed, "scope (not given)", "Postern asks for offline_access too where the provider has it, so that tokens can be refreshed; providers.*.scopes")
		}
		d.unknownOf(values)
		d.doc.sub("providers").put(p.name, p.out)
	}
	if len(d.in.providers) > 1 {
		d.say(changed, "providers", "oauth2-proxy used the first one alone, and so do the routes; name others in routes.*.provider")
	}
}

// unknownOf asks about a provider's options that the table does not have.
func (d *draft) unknownOf(values map[string]option) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !isProviderKey(key) {
			d.ask(values[key].name, "Postern does not know this option. What is it for?")
		}
	}
}

// kind names the provider and says what it speaks.
func (d *draft) kind(p *provider) {
	kind := p.options["provider"].text()
	if kind == "" {
		kind = "google"
		d.say(kept, "provider (not given)", "Google, as with oauth2-proxy")
	}
	p.name = providerName(p.options["id"].text())
	if p.name == "" {
		p.name = providerName(kind)
	}
	name := p.nameOf("provider", "provider")
	issuer := p.options["oidc_issuer_url"].text()
	switch kind {
	case "oidc", "keycloak-oidc", "entra-id", "login.gov", "adfs", "cidaas":
		p.oidc = true
		if issuer == "" && p.options["login_url"].text() == "" {
			d.ask(name, "Which issuer is it? Write it to the provider's issuer, exactly as the provider writes it.")
		}
	case "google":
		p.oidc = true
		p.out.put("preset", "google")
	case "gitlab":
		p.oidc = true
		p.out.put("preset", "gitlab")
	case "azure":
		p.oidc = true
		if issuer == "" {
			p.out.put("preset", "entra")
		}
		if issuer == "" && p.options["azure_tenant"].text() == "" {
			d.ask(name, "People of every directory of Microsoft came in. Which directory is yours? Write its id to the provider's tenant.")
		}
	case "github", "bitbucket":
		p.out.put("preset", kind)
	default:
		d.ask(name, "Postern has no preset for this one. Write preset (`postern providers` lists them) or issuer; or oauth2 with the addresses, identity and claims.")
		if p.options["login_url"].text() != "" {
			p.out.put("identity", "userinfo")
		}
	}
	if p.oidc && issuer == "" && p.options["login_url"].text() != "" && !p.out.has("preset") {
		p.oidc = false
		p.out.put("identity", "userinfo")
		d.ask(name, "Without an issuer no ID token can be checked. Write issuer in place of oauth2 and identity, if the provider has one.")
	}
}

// nameOf is how the input calls an option of the provider.
func (p *provider) nameOf(key, absent string) string {
	if o, ok := p.options[key]; ok {
		return o.name
	}
	return absent
}

// providerName makes a name for a provider of what oauth2-proxy calls it.
func providerName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	if len(s) > 32 {
		s = s[:32]
	}
	return strings.Trim(s, "-")
}

// to puts an option's text at a path below the provider.
func to(path string) func(*draft, *provider, option) {
	return func(_ *draft, p *provider, o option) {
		if text := o.text(); text != "" {
			p.out.set(path, text)
		}
	}
}

// toList puts an option's texts there.
func toList(key string) func(*draft, *provider, option) {
	return func(_ *draft, p *provider, o option) {
		if l := o.list(); len(l) > 0 {
			p.out.put(key, l)
		}
	}
}

// secret is a variable in place of a secret; the one that the input names itself, if it does.
func secret(o option, name string) string {
	if text := o.text(); oneVariable.MatchString(text) {
		return text
	}
	return "${" + EnvPrefix + name + "}"
}

func clientSecret(d *draft, p *provider, o option) {
	if o.text() == "" {
		return
	}
	name := "CLIENT_SECRET"
	if p != d.first {
		name += "_" + variableName(p.name)
	}
	p.out.put("client_secret", secret(o, name))
}

func clientSecretFile(_ *draft, p *provider, o option) {
	if o.text() != "" && p.options["client_secret"].text() == "" {
		p.out.set("client_secret.file", o.text())
	}
}

// clientKey is login.gov's.
func clientKey(_ *draft, p *provider, o option) {
	p.out.put("client_auth", "private_key_jwt")
	if o.key == "jwt_key_file" {
		p.out.set("client_key.file", o.text())
		return
	}
	p.out.put("client_key", secret(o, "JWT_KEY"))
}

func issuer(d *draft, p *provider, o option) {
	u, err := url.Parse(o.text())
	switch {
	case o.text() == "":
	case err == nil && u.Hostname() == "login.microsoftonline.com" && (strings.HasPrefix(u.Path, "/common") || strings.HasPrefix(u.Path, "/organizations")):
		d.ask(o.name, "People of every directory of Microsoft came in, and each directory has its own issuer. Which is yours? Write preset: entra and tenant in place of issuer.")
		p.out.put("issuer", o.text())
	case p.options["provider"].text() == "gitlab":
		p.out.put("url", o.text())
	case p.options["provider"].text() == "google" || !p.oidc:
		d.say(changed, o.name, "the preset knows it")
	default:
		p.out.put("issuer", o.text())
	}
}

func azureTenant(d *draft, p *provider, o option) {
	switch {
	case p.options["oidc_issuer_url"].text() != "" || p.options["provider"].text() != "azure":
		d.say(kept, o.name, "the issuer says it")
	case directory.MatchString(strings.ToLower(o.text())):
		p.out.put("tenant", o.text())
	default:
		d.ask(o.name, "Which directory is it? Write its id, which is no name, to the provider's tenant: the issuer of its tokens holds the id.")
	}
}

func scopes(d *draft, p *provider, o option) {
	l := strings.Fields(o.text())
	if p.oidc && len(l) > 0 && !slices.Contains(l, "openid") {
		l = append([]string{"openid"}, l...)
		d.say(changed, o.name, "providers.*.scopes, with openid, without which there is no ID token")
	}
	if len(l) > 0 {
		p.out.put("scopes", l)
	}
}

func challengeMethod(d *draft, _ *provider, o option) {
	if o.text() == "plain" {
		d.say(changed, o.name, "PKCE is always with S256, never plain")
	}
}

// claim puts a claim's name, unless it is the one that Postern takes anyway.
func claim(name, usual string) func(*draft, *provider, option) {
	return func(_ *draft, p *provider, o option) {
		if text := o.text(); text != "" && text != usual {
			p.out.sub("claims").put(name, text)
		}
	}
}

// userIDClaim was, for old configurations, another name of oidc_email_claim.
func userIDClaim(d *draft, p *provider, o option) {
	if p.options["oidc_email_claim"].text() != "" || o.text() == "email" || o.text() == "" {
		d.say(kept, o.name, "the address is what oidc_email_claim says; the user's name is the claim sub")
		return
	}
	p.out.sub("claims").put("email", o.text())
}

func audienceClaims(d *draft, _ *provider, o option) {
	if l := o.list(); !slices.Equal(l, []string{"aud"}) {
		d.ask(o.name, "Postern compares the claim aud alone. Which audiences does it hold? Write those that are not the client_id to the provider's extra_audiences.")
	}
}

// endpoint puts an address below oauth2, where there is no issuer.
func endpoint(key string) func(*draft, *provider, option) {
	return func(d *draft, p *provider, o option) {
		if o.text() == "" {
			return
		}
		if p.oidc || p.out.has("preset") {
			d.say(changed, o.name, "comes from the issuer's metadata, or the preset; internal_url says where Postern reaches the provider, if elsewhere")
			return
		}
		p.out.set("oauth2."+key, o.text())
	}
}

// loginParameters are parameters with a fixed value, and those that a link may set.
func loginParameters(d *draft, p *provider, o option) {
	entries, _ := o.value.([]any)
	var open []string
	for i, entry := range entries {
		m, _ := entry.(map[string]any)
		name := option{value: m["name"]}.text()
		at := fmt.Sprintf("%s[%d]", o.name, i)
		switch values := (option{value: m["default"]}).list(); {
		case name == "":
			d.ask(at, "This parameter has no name. Which one is meant? Write it to authorize_params or start_params of the provider.")
		case len(values) > 0:
			p.out.sub("authorize_params").put(name, values[0])
			if m["allow"] != nil || len(values) > 1 {
				d.say(changed, at, "has its first default value always; links cannot replace it")
			}
		default:
			open = append(open, name)
			d.say(changed, at, "start_params lets links to /oauth2/start set it to any value")
		}
	}
	if len(open) > 0 {
		p.out.put("start_params", open)
	}
}

func caFiles(d *draft, p *provider, o option) {
	l := o.list()
	if len(l) > 0 {
		p.out.put("ca_file", l[0])
	}
	if len(l) > 1 {
		d.ask(o.name, "There are several files. Write all their certificates into the one that ca_file names.")
	}
}

// unsafe asks about a switch that is on.
func unsafe(question string) func(*draft, *provider, option) {
	return func(d *draft, _ *provider, o option) {
		if o.is(true) && len(o.list())+len(o.text()) > 0 {
			d.ask(o.name, question)
		}
	}
}

// restricts asks about what let only some people in, in a way that Postern cannot say.
func restricts(question string) func(*draft, *provider, option) {
	return func(d *draft, _ *provider, o option) {
		if len(o.list()) > 0 {
			d.limited = true
			d.ask(o.name, question)
		}
	}
}

func groups(d *draft, p *provider, o option) {
	if p == d.first {
		d.groups = append(d.groups, o.list()...)
	}
}

func roles(d *draft, p *provider, o option) {
	if p != d.first {
		return
	}
	d.roles = o.list()
	if len(p.options["allowed_groups"].list())+len(p.options["keycloak_groups"].list()) > 0 && len(d.roles) > 0 {
		d.ask(o.name, "Either a group or a role let a person in; conditions of access must all hold. Write one of them, or both as a rule.")
	}
}

func githubOrg(d *draft, p *provider, o option) {
	if o.text() != "" && p.options["github_team"].text() == "" {
		restricts("Every member of this organisation came in. Which of its teams may? Write access: {groups: [ORGANISATION/TEAM]}.")(d, p, o)
	}
}

func githubTeam(d *draft, p *provider, o option) {
	org := p.options["github_org"].text()
	for _, team := range o.list() {
		if of, name, ok := strings.Cut(team, ":"); ok {
			d.groups = append(d.groups, of+"/"+name)
		} else {
			d.groups = append(d.groups, org+"/"+team)
		}
	}
}

// variableName is the part of a variable's name that stands for a name.
func variableName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
}

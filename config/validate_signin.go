package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The bounds of what a step-up asks for. It travels in the cookie of the sign-in.
const (
	maxACRBytes = 256 // all of acr, with a space between
	minMaxAge   = time.Minute
	maxMaxAge   = 365 * 24 * time.Hour
)

// stepUp checks conditions that a provider has to be asked about again.
func (v *validator) stepUp(key string, r Route) {
	a := r.Access
	for i, acr := range a.ACR {
		if !isPrintable(acr) || strings.ContainsAny(acr, `"\`) {
			v.shown(element(v.c.src, key+".acr", i), "is not printable ASCII without spaces, quotes and \\", "Write it as the provider does, such as urn:example:mfa; several as a list")
		}
	}
	if len(strings.Join(a.ACR, " ")) > maxACRBytes {
		v.err(key+".acr", fmt.Sprintf("is longer than %d bytes altogether", maxACRBytes), "Keep the strengths that the provider really sends")
	}
	if v.given(key+".max_age") && (a.MaxAge < minMaxAge || a.MaxAge > maxMaxAge || a.MaxAge%time.Second != 0) {
		v.shown(key+".max_age", "is not between a minute and a year, in whole seconds", "Write such as 15m: the way to the provider and back takes a part of it")
	}
	for _, k := range []struct {
		name  string
		given bool
	}{{"acr", len(a.ACR) > 0}, {"max_age", a.MaxAge > 0}} {
		for _, p := range v.c.Providers {
			if k.given && r.Takes(p.Name) && p.OAuth2 != nil {
				v.err(key+"."+k.name, "can never be met with provider "+quote(p.Name)+": plain OAuth 2.0 does not tell how or when a person signed in",
					"Write provider: with those of the file that have an issuer, or leave "+k.name+" out")
			}
		}
	}
}

// callbacks warns of providers whose answers cannot be told from those of others (RFC 9700 section 4.4).
func (v *validator) callbacks() {
	for _, p := range v.c.Providers {
		if p.OAuth2 == nil || p.Issuer != nil {
			continue
		}
		if other := v.c.SharesCallback(p.Name); other != "" {
			v.warn(join("providers", p.Name), "shares its redirect URI with provider "+quote(other)+" and has no issuer to name in its answers: one of the two, if it turns hostile, can have codes of the other sent to itself",
				"Write own_callback: true, and register "+v.c.Server.Prefix+"/callback/"+p.Name+" there")
		}
	}
}

// SharesCallback names a provider whose answers may arrive at the same redirect URI as this one's; empty where there is none.
func (c *Config) SharesCallback(provider string) string {
	if !c.sharing(provider) {
		return ""
	}
	hosts, around := map[string]bool{}, map[string]bool{} // of its routes, and those that overlap one of them
	for _, r := range c.Routes {
		if r.signsInAt(provider) {
			hosts[c.signInHost(r)] = true
			for _, h := range covering(c.signInHost(r)) {
				around[h] = true
			}
		}
	}
	for _, r := range c.Routes {
		host := c.signInHost(r)
		if !around[host] && !slices.ContainsFunc(covering(host), func(h string) bool { return hosts[h] }) {
			continue
		}
		for _, p := range c.Providers {
			if p.Name != provider && r.signsInAt(p.Name) && c.sharing(p.Name) {
				return p.Name
			}
		}
	}
	return ""
}

// sharing tells whether a provider answers at the redirect URI that all have by default.
func (c *Config) sharing(provider string) bool {
	p, ok := c.Providers.Lookup(provider)
	return ok && p.Grant != "password" && !p.OwnCallback
}

// signInHost is where people sign in for a route: its host, or one for all.
func (c *Config) signInHost(r Route) string {
	if c.Server.PublicURL != nil {
		return ""
	}
	return r.Host
}

// covering are the hosts of routes that answer wherever one for this host does: itself, each *.wildcard around it, and none.
func covering(host string) []string {
	all := []string{host, ""}
	for i := strings.IndexByte(host, '.'); i >= 0; {
		all = append(all, "*"+host[i:])
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return all
}

// signsInAt tells whether people may be sent to a provider for the route. An open route leads nobody there, unless it says so.
func (r Route) signsInAt(provider string) bool {
	return r.Takes(provider) && (r.needsSignIn() || len(r.Provider) > 0)
}

// Takes tells whether sign-ins at a provider count on the route.
func (r Route) Takes(provider string) bool {
	return len(r.Provider) == 0 || slices.Contains(r.Provider, provider)
}

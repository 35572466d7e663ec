package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/config"
	"postern/proxy/access"
	"postern/session"
)

const (
	maxShown  = 300 // runes of one value
	maxListed = 50  // values of one list
)

// tellGrant prints who signed in and what came with that.
func (l *login) tellGrant(g session.Grant) {
	l.say("Signed in at %s", l.c.Name)
	l.say("\nIdentity, as applications and rules see it")
	id := g.Identity
	for _, m := range []struct{ name, value string }{
		{"user", id.User}, {"email", id.Email}, {"name", id.Name}, {"preferred_username", id.PreferredUsername}, {"groups", list(id.Groups)},
	} {
		l.row(m.name, m.value)
	}
	for _, name := range slices.Sorted(maps.Keys(g.Extra)) {
		l.row(name, g.Extra[name])
	}
	l.doubtIdentity(g)

	t := g.Tokens
	l.say("\nTokens")
	l.row("access token", l.token(t.Access))
	l.row("expires", l.expiry(t))
	l.row("refresh token", l.token(t.Refresh))
	if l.c.Issuer != nil {
		l.row("ID token", l.token(t.ID))
	}
	l.row("scopes", t.Scope)
	if missing := notGranted(l.c.Scopes, t.Scope); len(missing) > 0 {
		l.row("not granted", strings.Join(missing, " "))
	}
	l.tellPayload("ID token holds", t.ID)
	l.tellPayload("Access token holds", t.Access)
}

// doubtIdentity says what of an identity is missing though the configuration or the provider suggests otherwise.
func (l *login) doubtIdentity(g session.Grant) {
	id := g.Identity
	switch {
	case l.c.Identity == "none":
		l.say("  Nobody's name is known, as identity: none says: no identity headers, and rules about groups deny.")
	case id.User == "":
		l.advice([]hint{
			{l.key("identity"), "no user name came from " + l.c.Identity + ": take another source"},
			{l.key("claims.user"), "or say where the name is; without one there are no identity headers"},
		})
	}
	if claims := payload(g.Tokens.ID); id.Email == "" && claims["email"] != nil && string(claims["email_verified"]) != "true" && !l.c.AssumeEmailVerified {
		l.advice([]hint{{l.key("assume_email_verified"), "the provider sent an address that it does not vouch for (email_verified); true believes it"}})
	}
}

// tellRoutes prints for each route whether that person would pass.
func (l *login) tellRoutes(ctx context.Context, g session.Grant) {
	l.say("\nRoutes")
	s := &session.Session{Grant: g, Provider: l.c.Name}
	table := tabwriter.NewWriter(l.out, 0, 0, 2, ' ', 0)
	groupless := false
	for _, rt := range l.cfg.Routes {
		name := strings.Join(append(slices.Clone(rt.Methods), rt.Host+rt.Path), " ")
		d, why := l.decide(ctx, rt, s)
		word := "deny"
		if d.Allow {
			word = "allow"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\n", printable(name), word, printable(why))
		groupless = groupless || d.Reason == "groups" && len(g.Identity.Groups) == 0
	}
	_ = table.Flush()
	if groupless {
		l.advice([]hint{
			{l.key("claims.groups"), "no groups came: say where they are"},
			{l.key("scopes"), "or ask for them"},
		})
	}
}

// decide is what a route says to that person now, and why. A route that takes the sign-ins of other providers alone sees nobody.
func (l *login) decide(ctx context.Context, rt config.Route, s *session.Session) (access.Decision, string) {
	var compiler access.Compiler
	rule, err := compiler.Rule(rt.Access)
	if err != nil {
		return access.Decision{}, err.Error()
	}
	if !rt.Takes(l.c.Name) && !rule.Public() && !rule.Optional() {
		return access.Decision{}, "asks for a sign-in at " + strings.Join(rt.Provider, " or ")
	}
	var q *access.Request
	if rt.Access.Rule == "" { // max_age alone reads it
		q = &access.Request{Time: time.Now()}
	}
	d := rule.Decide(ctx, s, q)
	if rule.ReadsRequest() && d.Reason == "rule" {
		return d, "rule: depends on the request"
	}
	return d, d.Reason
}

// row prints one named value. It may come from the provider, so nothing in it controls the terminal.
func (l *login) row(name, value string) {
	name, value = printable(name), printable(value)
	if value == "" {
		value = "-"
	}
	fmt.Fprintf(l.out, "  %-20s %s\n", name, value)
}

// token shows a token, or that there is one.
func (l *login) token(t string) string {
	switch {
	case t == "":
		return ""
	case l.showTokens:
		return t
	case payload(t) != nil:
		return fmt.Sprintf("******** (JWT, %d bytes)", len(t))
	}
	return fmt.Sprintf("******** (opaque, %d bytes)", len(t))
}

// expiry says how long the access token lives.
func (l *login) expiry(t session.Tokens) string {
	if t.Expiry.IsZero() {
		return "not known: neither expires_in nor the token says; see " + l.key("token_lifetime")
	}
	return fmt.Sprintf("%s, lives %s", t.Expiry.Local().Format("2006-01-02 15:04:05 MST"), t.Expiry.Sub(t.Obtained).Round(time.Second))
}

// notGranted lists the scopes that were asked for and not given. offline_access is not always named in what was.
func notGranted(asked []string, granted string) []string {
	has := strings.FieldsFunc(granted, func(r rune) bool { return r == ' ' || r == ',' })
	return slices.DeleteFunc(slices.Clone(asked), func(s string) bool { return slices.Contains(has, s) || s == "offline_access" })
}

// tellPayload prints what a JWT says, for whoever writes claims. Its signature is left out, and so are tokens inside it.
func (l *login) tellPayload(title, token string) {
	claims := payload(token)
	if len(claims) == 0 {
		return
	}
	l.say("\n%s", title)
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		value := string(claims[name])
		if strings.Contains(strings.ToLower(name), "token") && !l.showTokens {
			value = "********"
		}
		l.row(brief(name, 40), brief(value, maxShown))
	}
}

// payload reads the claims of a JWT without any check. It is nil for every other token.
func payload(token string) map[string]json.RawMessage {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var claims map[string]json.RawMessage
	if json.Unmarshal(text, &claims) != nil {
		return nil
	}
	return claims
}

// list joins values, as many as can be read.
func list(values []string) string {
	if n := len(values) - maxListed; n > 0 {
		return strings.Join(values[:maxListed], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(values, ", ")
}

// brief shortens what comes from outside.
func brief(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// printable replaces what is no character, or controls a terminal or the direction of text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

package idp

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/session"
)

const (
	maxSubject    = 255 // OpenID Connect Core section 2
	maxClaim      = 1 << 10
	maxGroups     = 10_000
	maxGroupBytes = 256 << 10
	maxTime       = 253402300799 // the end of the year 9999
	maxKept       = 8 << 10      // bytes of JSON of one claim that is kept as it is
	maxKeptAll    = 32 << 10     // of all of them
)

// claims are what is said about a person: the members of an ID token, of a userinfo answer, of whatever `identity` names.
type claims map[string]any

// text returns a claim that is a string.
func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
}

// time returns a claim that is a NumericDate (RFC 7519 section 2). ok is false if it is anything else, or out of all bounds.
func (c claims) time(name string) (t time.Time, ok bool) {
	n, ok := c[name].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > maxTime {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// audience returns the members of aud, which is one or a list (RFC 7519 section 4.1.3). They may be anything.
func (c claims) audience() []any {
	if list, ok := c["aud"].([]any); ok {
		return list
	}
	return []any{c["aud"]}
}

// has reports whether the claim is there. A claim that is null is not (OpenID Connect Core section 5.3.2).
func (c claims) has(name string) bool { return c[name] != nil }

// who is what claims say about a person.
type who struct {
	session.Identity
	extra map[string]string
}

// describe makes an identity of claims. What cannot be in a header never becomes part of it: the user's name is refused then, others
// are left out. Where the claims have no user's name, it is the one that the person typed and that the provider took with their
// password. When there is none either, absent says why.
func (p *Provider) describe(ctx context.Context, c claims, typed string) (w who, absent string, err error) {
	if w.User, absent, err = p.user(ctx, c); err != nil {
		return who{}, "", err
	}
	if w.User == "" && typed != "" {
		if !nameable(typed) {
			return who{}, "", badAnswer("user name is longer than %d bytes, has space around it or holds control characters", maxSubject)
		}
		w.User = typed
	}
	if w.Groups, err = p.groups(ctx, c); err != nil {
		return who{}, "", err
	}
	w.Email = p.email(ctx, c, typed)
	w.Name = p.optional(ctx, c, p.mapping.name)
	w.PreferredUsername = p.optional(ctx, c, p.mapping.preferred)
	for _, r := range p.mapping.extra {
		if s := p.optional(ctx, c, r); s != "" {
			if w.extra == nil {
				w.extra = map[string]string{}
			}
			w.extra[r.member] = s
		}
	}
	return w, absent, nil
}

// keep returns those of the claims that something reads later. An address that nobody vouches for is none of them: a rule that looks at
// claims.email must not be met by what someone typed into a profile.
func (p *Provider) keep(ctx context.Context, c claims) map[string]any {
	var kept map[string]any
	left := maxKeptAll
	for _, name := range p.keepClaims {
		v := c[name]
		if v == nil || name == memberEmail && !p.vouched(c, rule{path: memberEmail}) {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil || len(b) > maxKept || len(b) > left {
			p.leftOut(ctx, name, "too large to be kept in the session")
			continue
		}
		left -= len(b)
		if kept == nil {
			kept = map[string]any{}
		}
		kept[name] = v
	}
	return kept
}

// user returns the user's name, or why there is none.
func (p *Provider) user(ctx context.Context, c claims) (name, absent string, err error) {
	r := p.mapping.user
	v, err := r.value(ctx, c)
	switch {
	case err != nil:
		return "", err.Error(), nil
	case v == nil || v == "":
		return "", "nothing is there", nil
	case r.path == "email" && !p.vouched(c, r):
		// Or whoever can enter any address in a profile could be anyone.
		return "", "the provider does not say that the address is verified (email_verified)", nil
	}
	name, ok := text(v)
	if !ok {
		return "", "", badAnswer("claims.user yields neither a text nor a number: where it is a list, say which entry, as in emails[0].email")
	}
	if !nameable(name) {
		return "", "", badAnswer("claims.user yields a name that is longer than %d bytes, has space around it or holds control characters", maxSubject)
	}
	return name, "", nil
}

// nameable reports whether s can be a user's name. A header loses the space around a value: two people must not become one there.
func nameable(s string) bool {
	return clean(s) && len(s) <= maxSubject && strings.TrimSpace(s) == s
}

// email returns the address if somebody vouches for it: an address that someone merely claims to have must not decide anything. What
// they typed to sign in is one where the operator says that addresses at this provider are people's own.
func (p *Provider) email(ctx context.Context, c claims, typed string) string {
	if !p.vouched(c, p.mapping.email) {
		return ""
	}
	email := p.optional(ctx, c, p.mapping.email)
	if email != "" && !isAddress(email) {
		p.leftOut(ctx, memberEmail, "not an address")
		return ""
	}
	if email == "" && !c.has("email_verified") && nameable(typed) && isAddress(typed) {
		return typed
	}
	return email
}

// vouched reports whether an address that r yields may be believed. The provider's word is email_verified. Where it says nothing, the
// operator's word counts: assume_email_verified, or a rule of their own. On OpenID Connect the claim email comes with a meaning of its
// own, so that writing it out is not yet a word about it.
func (p *Provider) vouched(c claims, r rule) bool {
	if c.has("email_verified") {
		return isTrue(c["email_verified"])
	}
	return p.assumeEmail || r.written && (p.o.OAuth2 != nil || r.path != "email")
}

// isTrue reports whether a claim is true. Some send a string.
func isTrue(v any) bool { return v == true || v == "true" }

// isAddress reports whether s has one @ with something on both sides, and no space.
func isAddress(s string) bool {
	local, domain, _ := strings.Cut(s, "@")
	return local != "" && domain != "" && !strings.ContainsAny(domain, "@ ") && !strings.Contains(local, " ")
}

// optional returns what a rule yields as a text, or nothing if it is not fit for use.
func (p *Provider) optional(ctx context.Context, c claims, r rule) string {
	v, err := r.value(ctx, c)
	if err != nil {
		p.log.InfoContext(ctx, "claim absent", "claim", r.member, "why", err)
		return ""
	}
	if v == nil || v == "" {
		return ""
	}
	s, ok := text(v)
	if b, isBool := v.(bool); isBool && !isIdentityMember(r.member) {
		s, ok = strconv.FormatBool(b), true
	}
	if !ok || !clean(s) || len(s) > maxClaim {
		p.leftOut(ctx, r.member, "neither a text nor a number, too long, or with control characters")
		return ""
	}
	return s
}

// protocol returns a claim of the protocol, which no rule changes: a string, or nothing if it is not fit for use.
func (p *Provider) protocol(ctx context.Context, c claims, name string) string {
	s := c.text(name)
	if !c.has(name) || c[name] == "" {
		return ""
	}
	if !clean(s) || len(s) > maxClaim {
		p.leftOut(ctx, name, "not a string, too long, or with control characters")
		return ""
	}
	return s
}

func (p *Provider) leftOut(ctx context.Context, claim, why string) {
	p.log.WarnContext(ctx, "claim left out", "claim", claim, "why", why)
}

// groups returns the groups: a text, or a list of texts and numbers. Too many are refused rather than cut: a rule that decides on
// some of a person's groups decides wrongly.
func (p *Provider) groups(ctx context.Context, c claims) ([]string, error) {
	v, err := p.mapping.groups.value(ctx, c)
	if err != nil {
		p.log.InfoContext(ctx, "claim absent", "claim", memberGroups, "why", err)
		return nil, nil
	}
	var list []any
	switch v := v.(type) {
	case nil:
		if names, ok := c["_claim_names"].(map[string]any); ok && names["groups"] != nil {
			// Where they are is an address of the provider's choice. It is not fetched.
			p.leftOut(ctx, memberGroups, "the provider has too many to send and names an address instead")
		}
		return nil, nil
	case []any:
		list = v
	default:
		list = []any{v}
	}
	if len(list) > maxGroups {
		return nil, badAnswer("claim groups has more than %d entries", maxGroups)
	}
	var groups []string
	left := 0
	size := 0
	for _, v := range list {
		s, _ := text(v)
		if !clean(s) || len(s) > maxClaim {
			left++
			continue
		}
		if size += len(s); size > maxGroupBytes {
			return nil, badAnswer("claim groups has more than %d bytes", maxGroupBytes)
		}
		groups = append(groups, s)
	}
	if left > 0 {
		p.log.WarnContext(ctx, "groups left out", "count", left, "why", "not a string or number, empty, too long, or with control characters")
	}
	return groups, nil
}

// clean reports whether s may be in a header, a log and a page: not empty, UTF-8, without control characters.
func clean(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError
	})
}

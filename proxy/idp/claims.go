package idp

import (
	"context"
	"encoding/json"
	"math"
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
)

// claims are the members of an ID token, of a userinfo answer, or of both.
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

// has reports whether the claim is there. A claim that is null is not (OpenID Connect Core section 5.3.2).
func (c claims) has(name string) bool { return c[name] != nil }

// grant makes a grant of verified claims, but for the tokens.
func (p *Provider) grant(ctx context.Context, c claims) (session.Grant, error) {
	id, err := p.identity(ctx, c)
	if err != nil {
		return session.Grant{}, err
	}
	g := session.Grant{Issuer: p.issuer, Subject: c.text("sub"), SID: p.optional(ctx, c, "sid"), ACR: p.optional(ctx, c, "acr"), Identity: id}
	if t, ok := c.time("auth_time"); ok {
		g.AuthTime = t
	}
	return g, nil
}

// identity takes who someone is out of verified claims. What cannot be in a header never becomes part of it: the user's name is
// refused then, other claims are left out.
func (p *Provider) identity(ctx context.Context, c claims) (session.Identity, error) {
	user := c.text("sub")
	if !clean(user) || len(user) > maxSubject {
		return session.Identity{}, badAnswer("claim sub is empty, longer than %d bytes or holds control characters", maxSubject)
	}
	groups, err := p.groups(ctx, c)
	if err != nil {
		return session.Identity{}, err
	}
	return session.Identity{
		User:              user,
		Email:             p.email(ctx, c),
		Name:              p.optional(ctx, c, "name"),
		PreferredUsername: p.optional(ctx, c, "preferred_username"),
		Groups:            groups,
	}, nil
}

// email returns the address if the provider vouches for it: an address that someone merely typed in must not decide anything.
func (p *Provider) email(ctx context.Context, c claims) string {
	switch v := c["email_verified"]; {
	case v == true, v == "true": // some send a string
	case v == nil && p.assumeEmail:
	default:
		return ""
	}
	email := p.optional(ctx, c, "email")
	local, domain, ok := strings.Cut(email, "@")
	if email != "" && (!ok || local == "" || domain == "" || strings.ContainsAny(domain, "@ ") || strings.Contains(local, " ")) {
		p.log.WarnContext(ctx, "claim left out", "claim", "email", "why", "not an address")
		return ""
	}
	return email
}

// optional returns a string claim, or nothing if it is not fit for use.
func (p *Provider) optional(ctx context.Context, c claims, name string) string {
	if !c.has(name) || c[name] == "" {
		return ""
	}
	s := c.text(name)
	if !clean(s) || len(s) > maxClaim {
		p.log.WarnContext(ctx, "claim left out", "claim", name, "why", "not a string, too long, or with control characters")
		return ""
	}
	return s
}

// groups returns the groups claim: a string, or a list of strings and numbers. Too many are refused rather than cut: a rule that
// decides on some of a person's groups decides wrongly.
func (p *Provider) groups(ctx context.Context, c claims) ([]string, error) {
	var list []any
	switch v := c["groups"].(type) {
	case nil:
		if names, ok := c["_claim_names"].(map[string]any); ok && names["groups"] != nil {
			// Where they are is an address of the provider's choice. It is not fetched.
			p.log.WarnContext(ctx, "claim left out", "claim", "groups", "why", "the provider has too many to send and names an address instead")
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
		var s string
		switch v := v.(type) {
		case string:
			s = v
		case json.Number:
			s = v.String()
		}
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

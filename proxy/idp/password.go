package idp

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"postern/session"
)

const (
	maxUsername = 512
	maxPassword = 4 << 10
)

// Password turns a user name and password into a grant (RFC 6749 section 4.3). A wrong one is an [AuthorizationError] with the code
// invalid_grant, which does not say which of them is wrong. Other errors are as those of [Provider.Finish].
func (p *Provider) Password(ctx context.Context, username, password string) (session.Grant, error) {
	if p.o.Grant != grantPassword {
		return session.Grant{}, badAnswer("password for a provider that is not asked with any")
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Grant{}, err
	}
	// An empty password signs anyone in at directories that take it for an anonymous bind (RFC 4513 section 5.1.2).
	if !fitUsername(username) || password == "" || len(password) > maxPassword || !utf8.ValidString(password) || strings.Contains(password, "\x00") {
		return session.Grant{}, wrongPassword()
	}
	form := url.Values{
		"grant_type": {"password"},
		"username":   {username},
		"password":   {password},
	}
	if m.scope != "" {
		form.Set("scope", m.scope)
	}
	t, err := p.requestToken(ctx, m, form)
	if err != nil {
		return session.Grant{}, p.passwordError(ctx, err)
	}
	return p.signIn(ctx, m, t, expect{maxAge: maxTokenAge}, username)
}

// fitUsername reports whether a name may be sent, and may later be shown.
func fitUsername(s string) bool { return clean(s) && len(s) <= maxUsername }

// wrongPassword is the one answer to everything that is wrong with what a person typed.
func wrongPassword() error {
	return &AuthorizationError{Code: "invalid_grant", Description: "wrong user name or password"}
}

// passwordError says what a refusal means.
func (p *Provider) passwordError(ctx context.Context, err error) error {
	refused, ok := err.(*tokenError)
	if !ok || refused.busy() {
		return codeError(err)
	}
	switch refused.code {
	case "invalid_grant":
		return wrongPassword()
	case "access_denied", "unauthorized": // so old Spring servers call a user whom they do not know, and also a client
	case "":
		if refused.status != http.StatusBadRequest && refused.status != http.StatusUnauthorized && refused.status != http.StatusForbidden {
			return codeError(err)
		}
	default:
		return codeError(err)
	}
	// Anything else than the answer to a wrong password would tell whether a user exists.
	p.log.WarnContext(ctx, "refusal taken for a wrong password; if everyone is refused, see client_id, client_secret and client_auth", "err", refused)
	return wrongPassword()
}

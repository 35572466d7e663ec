package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"postern/proxy/access"
	"postern/session"
)

// headerValue is one line of a route's `headers` or `headers_response`.
type headerValue struct {
	name  string // in canonical form
	value access.Value
}

// computedHeader is a header with its value for one request; an empty one removes the header.
type computedHeader struct{ name, value string }

// compute evaluates header values. What is absent, cannot be evaluated, or could break a header is removed: never stale, never the
// client's (A54). The log has the header's name and never what it would have held.
func compute(ctx context.Context, log *slog.Logger, values []headerValue, s *session.Session, q *access.Request) []computedHeader {
	computed := make([]computedHeader, len(values))
	for i, v := range values {
		computed[i].name = v.name
		texts, list, err := v.value.Eval(ctx, s, q)
		if err == nil && slices.ContainsFunc(texts, breaksHeader) {
			log.WarnContext(ctx, "header left out", "header", v.name, "why", "its value holds a line break or another control character")
			continue
		}
		switch {
		case err == access.ErrAbsent:
		case err != nil:
			log.DebugContext(ctx, "header left out", "header", v.name, "why", err)
		case list:
			computed[i].value = joinGroups(texts)
		default:
			computed[i].value = encodeClaim(texts[0], false)
		}
	}
	return computed
}

// breaksHeader tells a value that ends its header, or begins another one (RFC 9110 section 5.5).
func breaksHeader(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// setComputed puts computed values in place of whatever is there.
func setComputed(h http.Header, computed []computedHeader) {
	for _, c := range computed {
		if c.value == "" {
			delete(h, c.name)
		} else {
			h[c.name] = []string{c.value}
		}
	}
}

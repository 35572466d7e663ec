package page

import (
	"net/url"
	"strings"
	"unicode"
)

// Bounds on what a page shows of values that may come from strangers, in characters.
const (
	maxLine = 200
	maxURL  = 16 << 10 // bytes; longer than any that arrived in a request
)

// line returns s as one line of a length that a heading or a cell can hold.
func line(s string) string {
	return clip(strings.Join(strings.Fields(printable(s, maxLine)), " "), maxLine)
}

// printable removes what is not text from s: broken UTF-8, control characters, and the characters that turn the direction of
// writing, with which a value could rewrite how its neighbourhood reads. It looks at not much more than limit characters.
func printable(s string, limit int) string {
	if n := 4 * (limit + 1); len(s) > n {
		s = s[:n] // at most 4 bytes a character; a cut one is removed below
	}
	s = strings.ToValidUTF8(s, "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s))
}

// clip cuts s to n characters and shows that it did.
func clip(s string, n int) string {
	i := 0
	for at := range s {
		if i == n {
			return s[:at] + "…"
		}
		i++
	}
	return s
}

// links keeps the links that have a text and a safe address.
func links(in *wording, list []Link) []Link {
	out := make([]Link, 0, len(list))
	for _, l := range list {
		if l.Say != "" {
			l.Text = in.say("link." + l.Say)
		}
		l.Text, l.URL = line(l.Text), safeURL(l.URL)
		if l.Text != "" && l.URL != "" {
			out = append(out, l)
		}
	}
	return out
}

// safeURL returns s if a browser takes it for an address on this origin or for http(s), and "" otherwise. It reads s as browsers do
// (WHATWG URL), where \ is / before the query, and tabs and line ends vanish.
func safeURL(s string) string {
	if len(s) > maxURL {
		return ""
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r == unicode.ReplacementChar {
			return ""
		}
	}
	path := s
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		path = s[:i]
	}
	if strings.Contains(path, `\`) || strings.HasPrefix(path, "//") {
		return "" // another host in disguise
	}
	before, _, colon := strings.Cut(path, ":")
	if !colon || strings.Contains(before, "/") {
		return s // no scheme: relative
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || !isOrigin(u) {
		return ""
	}
	return s
}

// isOrigin reports whether u has an origin of http(s) whose host is written plainly: in a Content-Security-Policy ; , and spaces
// divide, and * is anyone.
func isOrigin(u *url.URL) bool {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]_"
	return (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && strings.Trim(u.Host, plain) == ""
}

// fields makes hidden fields valid UTF-8 and changes nothing else about them: they must arrive as they were.
func fields(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for name, value := range m {
		out[strings.ToValidUTF8(name, "\uFFFD")] = strings.ToValidUTF8(value, "\uFFFD")
	}
	return out
}

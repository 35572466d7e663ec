package proxy

import (
	"net/http"
	"strings"
)

// cutCookies removes the cookies that are ours from the Cookie lines. It cuts strings instead of parsing and writing cookies anew: every
// other byte stays as the browser sent it (legacy cookies hold JSON, spaces and Latin-1), and there is no number
// of cookies beyond which ours would slip through, as there is with http.Request.Cookies (3,000).
//
// The lines that h has are not written to: they may be another header's, too.
func cutCookies(h http.Header, ours func(name string) bool) {
	lines, ok := h["Cookie"]
	if !ok {
		return
	}
	var kept []string
	for _, line := range lines {
		if rest := cutCookieLine(line, ours); rest != "" || line == "" {
			kept = append(kept, rest)
		}
	}
	if kept == nil {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

// cutCookieLine removes our cookies from one Cookie line, each with one separator.
func cutCookieLine(line string, ours func(name string) bool) string {
	var kept []string // runs of foreign cookies between ours
	run := 0          // where the current run begins
	found := false
	for at := 0; at <= len(line); {
		end := len(line)
		if i := strings.IndexByte(line[at:], ';'); i >= 0 {
			end = at + i
		}
		if ours(cookieName(line[at:end])) {
			found = true
			if run < at {
				kept = append(kept, line[run:at-1]) // without the separator before our cookie
			}
			run = end + 1
		}
		at = end + 1
	}
	if !found {
		return line
	}
	if run <= len(line) {
		kept = append(kept, line[run:])
	}
	switch len(kept) {
	case 0:
		return ""
	case 1:
		return strings.Trim(kept[0], " \t")
	}
	return strings.Trim(strings.Join(kept, ";"), " \t")
}

// cookieName is the name that a browser or an application would find in one name=value pair. A pair that begins with "=" has no name,
// and browsers send its value alone: "=__Host-postern=x" comes back as a cookie of our name.
func cookieName(pair string) string {
	pair = strings.TrimLeft(pair, "="+cookieSpace)
	if i := strings.IndexByte(pair, '='); i >= 0 {
		pair = pair[:i]
	}
	return strings.TrimRight(pair, cookieSpace)
}

// cookieSpace is what net/http takes for space around a name. No listener lets line ends in; a rule that forgets them would count on that.
const cookieSpace = " \t\r\n"

// filterSetCookie removes Set-Cookie lines of an application that would set or expire a cookie of ours.
func filterSetCookie(h http.Header, ours func(name string) bool) {
	lines := h["Set-Cookie"]
	kept := 0
	for i, line := range lines {
		pair, _, _ := strings.Cut(line, ";")
		if ours(cookieName(pair)) {
			continue
		}
		if kept != i {
			lines[kept] = line
		}
		kept++
	}
	switch {
	case kept == len(lines):
	case kept == 0:
		delete(h, "Set-Cookie")
	default:
		h["Set-Cookie"] = lines[:kept]
	}
}

// filterClearSiteData keeps an application from deleting our cookies, and so from signing a person out of every application of the site, by
// Clear-Site-Data. What it asks to be cleared beside cookies passes.
func filterClearSiteData(h http.Header) {
	lines := h["Clear-Site-Data"]
	if lines == nil {
		return
	}
	var kept []string
	for _, line := range lines {
		for kind := range strings.SplitSeq(line, ",") {
			switch kind = strings.TrimSpace(kind); kind {
			case `"cookies"`:
			case `"*"`:
				kept = append(kept, `"cache"`, `"storage"`, `"executionContexts"`)
			default:
				kept = append(kept, kind)
			}
		}
	}
	if kept == nil {
		delete(h, "Clear-Site-Data")
		return
	}
	h["Clear-Site-Data"] = []string{strings.Join(kept, ", ")}
}

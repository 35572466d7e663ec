package proxy

import "strings"

// maxChallenge bounds the header line that is looked at.
const maxChallenge = 4 << 10

// bearerChallenge is the Bearer challenge with that error (RFC 6750 section 3) among the lines of a WWW-Authenticate header: its parameters, by their
// names in lower case. Nil: there is none. A line that is not well-formed says nothing.
func bearerChallenge(lines []string, code string) map[string]string {
	for _, line := range lines {
		if len(line) > maxChallenge {
			continue
		}
		for _, c := range challenges(line) {
			if strings.EqualFold(c.scheme, "Bearer") && c.params["error"] == code {
				return c.params
			}
		}
	}
	return nil
}

// challenge is one of RFC 9110 section 11.6.1, without the form that is one opaque text (token68).
type challenge struct {
	scheme string
	params map[string]string
}

// challenges takes a header line apart; nil where it is not well-formed.
func challenges(line string) (all []challenge) {
	rest := line
	for {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return all
		}
		name, after := cutToken(rest)
		value, isParam := strings.CutPrefix(strings.TrimLeft(after, " \t"), "=")
		switch {
		case name == "":
			return nil
		case !isParam:
			all = append(all, challenge{name, map[string]string{}})
			rest = after
			continue
		case len(all) == 0:
			return nil
		}
		params, key := all[len(all)-1].params, strings.ToLower(name)
		text, after, ok := cutValue(strings.TrimLeft(value, " \t"))
		if _, twice := params[key]; !ok || twice {
			return nil
		}
		params[key], rest = text, after
	}
}

// cutToken cuts a token off the front (RFC 9110 section 5.6.2).
func cutToken(s string) (token, after string) {
	i := 0
	for i < len(s) && isTokenByte(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// cutValue cuts a token or a quoted string off the front. After it comes a comma or the end.
func cutValue(s string) (text, after string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		text, after, ok = cutQuoted(s[1:])
	} else {
		text, after = cutToken(s)
		ok = text != ""
	}
	after = strings.TrimLeft(after, " \t")
	return text, after, ok && (after == "" || after[0] == ',')
}

// cutQuoted cuts a quoted string, whose first quote is off already (RFC 9110 section 5.6.4).
func cutQuoted(s string) (text, after string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

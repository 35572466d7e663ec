package config

import (
	"strings"
	"unicode/utf8"
)

// expand replaces ${NAME} in one value. What a variable holds is not looked at again, and no mistake tells it.
func (d *decoder) expand(text string) (string, *mistake) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	var b strings.Builder
	for text != "" {
		switch {
		case strings.HasPrefix(text, "$${"):
			b.WriteString("${")
			text = text[len("$${"):]
		case strings.HasPrefix(text, "${"):
			name, rest, closed := strings.Cut(text[len("${"):], "}")
			if !closed || !isVariable(name) {
				return "", &mistake{"has ${ without a variable's name and }", "Write ${NAME}, or $${ for a ${ that is meant as it stands"}
			}
			value, ok := d.lookup(name)
			if !ok {
				return "", &mistake{"the environment variable " + name + " is not set", "Set it, or write $${" + name + "} if it is not meant to be replaced"}
			}
			if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				return "", &mistake{"the environment variable " + name + " does not hold UTF-8 text", "Set it to plain text"}
			}
			b.WriteString(value)
			text = rest
		default:
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	return b.String(), nil
}

// isVariable tells whether a name can be an environment variable's.
func isVariable(name string) bool {
	if name == "" || len(name) > 200 {
		return false
	}
	for i, r := range name {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return true
}

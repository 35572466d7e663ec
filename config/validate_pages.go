package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

var hexColor = regexp.MustCompile(`^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)

// pages checks what pages look like, as far as that can be told without the files and without knowing the pages.
func (v *validator) pages() {
	p := v.c.Pages
	for _, c := range []struct{ key, value string }{
		{"accent", p.Colors.Accent}, {"accent_dark", p.Colors.AccentDark}, {"background", p.Colors.Background}, {"background_dark", p.Colors.BackgroundDark},
	} {
		if at := "pages.colors." + c.key; c.value != "" && !hexColor.MatchString(c.value) {
			v.err(at, v.c.src.show(at)+" is not a colour", "Write it as #rgb or #rrggbb, in quotes")
		}
	}
	switch {
	case p.Support.URL == "" && p.Support.Text != "":
		v.err("pages.support.url", "is missing", "Name an https or mailto address, or leave support out")
	case p.Support.URL != "" && !supportURL(p.Support.URL):
		v.err("pages.support.url", v.c.src.show("pages.support.url")+" is neither an https nor a mailto address", "Write https://… or mailto:NAME@HOST")
	}
	for i, tag := range p.Languages {
		if slices.Contains(p.Languages[:i], tag) {
			v.err(fmt.Sprintf("pages.languages[%d]", i), "is there already", "Keep one")
		}
	}
}

// supportURL reports whether a text is an address that a page may send people to for help: https with a host and nobody's password, or mailto.
func supportURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || strings.ContainsAny(text, " \\") {
		return false
	}
	return u.Scheme == "https" && u.Host != "" && u.User == nil || u.Scheme == "mailto" && strings.Contains(u.Opaque, "@")
}

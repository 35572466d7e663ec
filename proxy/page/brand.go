package page

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/html"
	"golang.org/x/net/html"
)

// brand takes what marks the pages as a site's own. style takes the place of ours, if there is one.
func (p *Pages) brand(o Options, style string) (problems Problems) {
	if len(o.Logo) > 0 {
		media := imageType(o.Logo)
		if media == "" {
			problems = append(problems, Problem{"logo", "is not an image that browsers show", "Name an SVG, PNG, WebP or JPEG file"})
		}
		// Not served at an address of its own: where another proxy asks us, nobody knows that our addresses can be reached. A script in an SVG
		// does not run in an img.
		p.logo = dataURL(media, o.Logo)
	}
	colors, accent, more := o.Colors.palette()
	problems = append(problems, more...)
	p.icon = icon(accent)
	if o.Support.URL != "" && !safeSupport(o.Support.URL) {
		problems = append(problems, Problem{"support.url", "is neither an https nor a mailto address", "Write https://… or mailto:NAME@HOST"})
	}
	p.support = Support{URL: o.Support.URL, Text: line(o.Support.Text)}
	if style == "" {
		style = builtinStyle()
	}
	style += colors
	p.style = template.CSS(style) // #nosec G203 -- ours or the operator's, and colours that were parsed
	p.styleHash = "'sha256-" + hash(style) + "'"
	return problems
}

func builtinStyle() string {
	css, err := files.ReadFile("page.css")
	if err != nil {
		panic(err) // embedded: cannot be missing
	}
	return string(css)
}

// imageType is the media type of an image, or empty.
func imageType(data []byte) string {
	switch sniffed := http.DetectContentType(data); sniffed {
	case "image/png", "image/webp", "image/jpeg":
		return sniffed
	}
	z := html.NewTokenizer(bytes.NewReader(data))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return ""
		case html.StartTagToken, html.SelfClosingTagToken:
			if name, _ := z.TagName(); string(name) == "svg" {
				return "image/svg+xml"
			}
			return ""
		case html.TextToken:
			if len(bytes.TrimSpace(bytes.TrimPrefix(z.Text(), []byte("\ufeff")))) > 0 {
				return ""
			}
		}
	}
}

func dataURL(media string, data []byte) template.URL {
	return template.URL("data:" + media + ";base64," + base64.StdEncoding.EncodeToString(data)) // #nosec G203 -- base64
}

// icon is our mark in the site's colour.
func icon(c color) template.URL {
	return template.URL(fmt.Sprintf("data:image/svg+xml,%%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%%3E%%3Cpath fill='%%23%s' d='M4 31V15a12 12 0 0 1 24 0v16z'/%%3E"+
		"%%3Cpath fill='%%23fff' d='M16 13a3 3 0 0 1 1.5 5.6L18.5 25h-5l1-6.4A3 3 0 0 1 16 13z'/%%3E%%3C/svg%%3E", strings.TrimPrefix(c.String(), "#"))) // #nosec G203 -- a number
}

// safeSupport reports whether an address is https with a host, or mailto.
func safeSupport(address string) bool {
	u, err := url.Parse(address)
	if err != nil || len(address) > maxURL || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	switch u.Scheme {
	case "https":
		return u.User == nil && isOrigin(u)
	case "mailto":
		return strings.Contains(u.Opaque, "@")
	}
	return false
}

package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// YAML is the configuration as it works: defaults and presets filled in, keys in the order of the reference. It holds no secret. One
// that the file writes is shown as [secret], and so are values of token_params; user and password of a URL as SECRET. What environment
// variables hold is shown as ${NAME}.
func (c *Config) YAML() string {
	p := &printer{raw: map[string]string{}, src: c.src}
	if c.src != nil {
		p.raw = c.src.raw
	}
	p.section("", reflect.ValueOf(c).Elem(), 0)
	return p.out.String()
}

// printer writes block style, two spaces a level.
type printer struct {
	out strings.Builder
	raw map[string]string
	src *source

	// The client_id of the provider that is being written, and its path: no secret, wherever it stands.
	client, clientPath string
}

// section writes the keys of a struct that say something.
func (p *printer) section(path string, v reflect.Value, depth int) {
	if provider, ok := v.Interface().(Provider); ok {
		p.client, p.clientPath = provider.ClientID, join(path, "client_id")
	}
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		key := tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		at := join(path, key)
		if tag.Get("secret") != "" {
			p.hidden(key, v.Field(i), depth)
			continue
		}
		p.key(at, key, v.Field(i), depth, tag.Get("default") != "")
	}
}

// key writes one key with its value, unless that is nothing. A zero value is something where there is a default: the file chose it.
func (p *printer) key(path, key string, v reflect.Value, depth int, hasDefault bool) {
	switch x := v.Interface().(type) {
	case Secret:
		p.secret(path, key, x, depth)
		return
	case Providers:
		p.line(depth, key+":")
		for i := range x {
			at := join(path, x[i].Name)
			p.line(depth+1, quoted(x[i].Name)+":")
			p.section(at, v.Index(i), depth+2)
		}
		return
	case Access:
		if word := x.word(); word != "" {
			p.line(depth, key+": "+word)
			return
		}
	case Bearer:
		if x.Kind != "" && x.Exchange == nil && x.ClientCredentials == nil {
			p.line(depth, key+": "+x.Kind)
			return
		}
	case OnStoreError:
		if x.Keep == 0 {
			p.line(depth, key+": deny")
			return
		}
	}
	if isText(v.Type()) {
		if !v.IsZero() || hasDefault {
			p.line(depth, key+": "+p.scalar(path, v))
		}
		return
	}
	inner := &printer{raw: p.raw, src: p.src}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		inner.section(path, v.Elem(), depth+1)
	case reflect.Struct:
		inner.section(path, v, depth+1)
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		if v.Len() == 0 {
			p.line(depth, key+": []")
			return
		}
		for i := range v.Len() {
			inner.entry(fmt.Sprintf("%s[%d]", path, i), path, v.Index(i), depth+1)
		}
	case reflect.Map:
		names := v.MapKeys()
		slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, name := range names {
			inner.key(join(path, name.String()), quoted(name.String()), v.MapIndex(name), depth+1, true)
		}
	}
	if inner.out.Len() > 0 {
		p.line(depth, key+":")
		p.out.WriteString(inner.out.String())
	}
}

// hidden writes the names of a mapping whose values may be secrets.
func (p *printer) hidden(key string, v reflect.Value, depth int) {
	values, _ := v.Interface().(map[string]string)
	if len(values) > 0 {
		p.line(depth, key+":")
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		shown := `"[secret]"`
		if values[name] == p.client {
			shown = p.text(p.clientPath, p.client)
		}
		p.line(depth+1, quoted(name)+": "+shown)
	}
}

// entry writes one entry of a list. A single value that stands without brackets in the file has the path of the list.
func (p *printer) entry(path, list string, v reflect.Value, depth int) {
	if isText(v.Type()) {
		if _, ok := p.raw[path]; !ok && p.src != nil && !p.src.given(path) {
			if _, ok := p.raw[list]; ok {
				path = list
			}
		}
		p.line(depth, "- "+p.scalar(path, v))
		return
	}
	inner := &printer{raw: p.raw, src: p.src}
	if s, ok := v.Interface().(Secret); ok {
		inner.secret(path, "", s, 0)
		p.line(depth, "- "+strings.TrimSuffix(inner.out.String(), "\n"))
		return
	}
	inner.section(path, v, depth+1)
	text := strings.TrimPrefix(inner.out.String(), strings.Repeat("  ", depth+1))
	if text == "" {
		text = "{}\n"
	}
	p.out.WriteString(strings.Repeat("  ", depth) + "- " + text)
}

// secret writes where a secret is, never what it is. Without a key it writes the value alone.
func (p *printer) secret(path, key string, s Secret, depth int) {
	if s.IsZero() {
		return
	}
	value := `"[secret]"`
	if s.File() != "" {
		file := join(path, "file")
		value = "{file: " + p.text(file, s.File()) + "}"
	}
	if key != "" {
		value = key + ": " + value
	}
	p.line(depth, value)
}

// scalar writes a single value as the file would, or what the file says where a variable is in it.
func (p *printer) scalar(path string, v reflect.Value) string {
	if u, ok := v.Interface().(*url.URL); ok {
		return p.address(path, u)
	}
	if s, ok := v.Interface().(string); ok {
		return p.text(path, s)
	}
	if raw, ok := p.raw[path]; ok {
		return double(raw)
	}
	if t, ok := v.Interface().(time.Duration); ok {
		return brief(t)
	}
	return fmt.Sprint(v.Interface())
}

// text writes a text, or what the file says where a variable is in it.
func (p *printer) text(path, value string) string {
	if raw, ok := p.raw[path]; ok {
		return double(raw)
	}
	return quoted(strings.ReplaceAll(value, "${", "$${"))
}

// address writes a URL without its user and password, unless variables hold both.
func (p *printer) address(path string, u *url.URL) string {
	raw, variable := p.raw[path]
	user := regexp.MustCompile(`//[^/?#]*@`)
	switch {
	case variable && regexp.MustCompile(`^[a-z0-9+]+://(\$\{\w+\}:?)+@`).MatchString(raw):
		return double(raw)
	case variable:
		return double(user.ReplaceAllString(raw, "//SECRET@"))
	}
	if _, ok := u.User.Password(); ok {
		return quoted(user.ReplaceAllString(u.String(), "//SECRET@"))
	}
	return quoted(strings.ReplaceAll(u.String(), "${", "$${"))
}

func (p *printer) line(depth int, text string) {
	p.out.WriteString(strings.Repeat("  ", depth) + text + "\n")
}

// word is how a file writes an access that is one word; "" for conditions.
func (a Access) word() string {
	if a.Level != SignedIn {
		return a.Level
	}
	b := a
	b.Level, b.SignedIn = "", false
	if reflect.ValueOf(b).IsZero() {
		return SignedIn
	}
	return ""
}

// brief writes a duration without parts that are 0.
func brief(t time.Duration) string {
	if t == 0 {
		return "0s"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// quoted writes a text plainly where YAML cannot take it for anything else: it begins with a letter, a digit or a slash, holds neither
// spaces nor signs of flow style, and is none of YAML's words.
func quoted(s string) string {
	if regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*$`).MatchString(s) &&
		!slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return double(s)
}

// double writes a text in double quotes: JSON's are YAML's.
func double(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // strings always encode
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

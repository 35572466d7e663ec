package oauth2proxy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// header is one that is set on requests or answers, as an expression.
type header struct{ name, value string }

// identity says what the application is told of the person, where that is not Postern's default: four X-Forwarded headers, and the access
// token as Bearer.
func (d *draft) identity(r *mapping) {
	headers, bearer := d.legacyHeaders()
	if d.in.alpha {
		headers, bearer = d.split(d.request)
	}
	r.put("bearer", bearer)
	if !slices.Equal(headers, defaultHeaders("user")) {
		put(r, "headers", headers)
	}
	if len(d.response) > 0 {
		put(r, "headers_response", d.response)
	}
}

// answers says the same for another proxy that asks: there, answers carry the headers.
func (d *draft) answers(r *mapping) {
	headers, bearer := d.legacyAnswers()
	if d.in.alpha {
		headers, bearer = d.split(d.response)
	}
	r.put("bearer", bearer)
	put(r, "headers", headers)
}

func put(r *mapping, key string, headers []header) {
	m := &mapping{}
	for _, h := range headers {
		m.put(h.name, h.value)
	}
	r.put(key, m)
}

// split finds the token among headers: Postern has a key of its own for it.
func (d *draft) split(all []header) (headers []header, bearer string) {
	bearer = "none"
	for _, h := range all {
		switch {
		case strings.EqualFold(h.name, "Authorization") && h.value == `"Bearer " + access_token`:
			bearer = "access_token"
		case strings.EqualFold(h.name, "Authorization") && h.value == `"Bearer " + id_token`:
			bearer = "id_token"
		default:
			headers = append(headers, h)
		}
	}
	return headers, bearer
}

// defaultHeaders are those that both programs send. user is what X-Forwarded-User holds.
func defaultHeaders(user string) []header {
	all := []header{{"X-Forwarded-User", user}, {"X-Forwarded-Email", "email"}, {"X-Forwarded-Preferred-Username", "preferred_username"}, {"X-Forwarded-Groups", "groups"}}
	if user == "email" { // with prefer_email_to_user there is no other
		all = slices.Delete(all, 1, 2)
	}
	return all
}

// legacyHeaders are the headers of the options pass_…
func (d *draft) legacyHeaders() (headers []header, bearer string) {
	bearer = "none"
	if d.in.is("pass_basic_auth", true) || d.in.is("pass_user_headers", true) {
		headers = defaultHeaders(d.user())
	}
	if d.in.is("pass_access_token", false) {
		headers = append(headers, header{"X-Forwarded-Access-Token", "access_token"})
	}
	switch basic := d.in.is("pass_basic_auth", true) && d.in.text("basic_auth_password") != ""; {
	case d.in.is("pass_authorization_header", false):
		bearer = "id_token"
		if basic {
			d.ask("basic_auth_password", "Authorization held the ID token and a password. Which one does the application read? Write bearer: id_token, or bearer: none with headers: {Authorization: 'basic(user, r\"${"+EnvPrefix+"BASIC_AUTH_PASSWORD}\")'}.")
		}
	case basic:
		headers = append(headers, d.basic())
	}
	return headers, bearer
}

// legacyAnswers are the headers of the options set_…
func (d *draft) legacyAnswers() (headers []header, bearer string) {
	bearer = "none"
	if d.in.is("set_xauthrequest", false) {
		headers = []header{{"X-Auth-Request-User", "user"}, {"X-Auth-Request-Email", "email"}, {"X-Auth-Request-Preferred-Username", "preferred_username"}, {"X-Auth-Request-Groups", "groups"}}
		if d.in.is("pass_access_token", false) {
			headers = append(headers, header{"X-Auth-Request-Access-Token", "access_token"})
		}
	}
	switch {
	case d.in.is("set_authorization_header", false):
		bearer = "id_token"
	case d.in.is("set_basic_auth", false):
		headers = append(headers, d.basic())
	}
	return headers, bearer
}

func (d *draft) user() string {
	if d.in.is("prefer_email_to_user", false) {
		return "email"
	}
	return "user"
}

func (d *draft) basic() header {
	return header{"Authorization", fmt.Sprintf(`basic(%s, r"%s")`, d.user(), secret(d.in.values["basic_auth_password"], "BASIC_AUTH_PASSWORD"))}
}

func requestHeaders(d *draft, _ *provider, o option) { d.request = d.injected(o) }

func responseHeaders(d *draft, _ *provider, o option) { d.response = d.injected(o) }

// injected reads injectRequestHeaders and injectResponseHeaders.
func (d *draft) injected(o option) []header {
	entries, _ := o.value.([]any)
	all := []header{}
	for i, entry := range entries {
		m, _ := entry.(map[string]any)
		at := fmt.Sprintf("%s[%d]", o.name, i)
		h := header{name: option{value: m["name"]}.text()}
		values, _ := m["values"].([]any)
		if (option{value: m["preserveRequestValue"]}).is(false) {
			d.say(changed, at+".preserveRequestValue", "what a client sends under that name is always removed")
		}
		if len(values) > 1 {
			d.ask(at, plain(h.name)+" had several values. Which one is needed? Write an expression for it to routes.*.headers; below is the first.")
		}
		if len(values) == 0 {
			continue
		}
		v, _ := values[0].(map[string]any)
		if h.value = d.value(at, h.name, v); h.value != "" {
			all = append(all, h)
		}
	}
	return all
}

// value is the expression for a header's value; "" where there is none, which was said.
func (d *draft) value(at, name string, v map[string]any) string {
	if source, ok := v["claimSource"].(map[string]any); ok {
		v = source
	} else if source, ok := v["secretSource"].(map[string]any); ok {
		v = source
	}
	get := func(key string) string { return option{value: v[key]}.text() }
	known := []string{"claim", "prefix", "basicAuthPassword", "value", "fromEnv", "fromFile"}
	for _, key := range slices.Sorted(maps.Keys(v)) {
		if !slices.Contains(known, key) {
			d.ask(at+"."+key, "Postern does not know this option. What is it for?")
		}
	}
	claim := get("claim")
	switch {
	case claim == "":
		variable := get("fromEnv")
		if variable == "" {
			variable = "HEADER_" + variableName(name)
			d.say(changed, at, plain(name)+" takes its value from the variable "+variable+", since secrets are not copied")
		}
		return `r"${` + variable + `}"` // raw: a backslash is one
	case v["basicAuthPassword"] != nil:
		source, _ := v["basicAuthPassword"].(map[string]any)
		variable := option{value: source["fromEnv"]}.text()
		if variable == "" {
			variable = EnvPrefix + "BASIC_AUTH_PASSWORD"
			d.say(changed, at, plain(name)+" takes its password from the variable "+variable+", since secrets are not copied")
		}
		return fmt.Sprintf(`basic(%s, r"${%s}")`, claimExpression(claim), variable)
	case slices.Contains([]string{"refresh_token", "created_at", "expires_on"}, claim):
		d.say(unsupported, at, claim+" is not for applications")
		return ""
	case get("prefix") != "" && claim == "groups":
		return fmt.Sprintf("groups.map(g, %s + g)", strconv.Quote(withSpace(v["prefix"])))
	case get("prefix") != "":
		return strconv.Quote(withSpace(v["prefix"])) + " + " + claimExpression(claim)
	}
	return claimExpression(claim)
}

// withSpace is a text with the spaces around it.
func withSpace(v any) string {
	s, _ := v.(string)
	return s
}

var identifier = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// claimExpression names what oauth2-proxy calls a claim.
func claimExpression(claim string) string {
	switch {
	case slices.Contains([]string{"user", "email", "groups", "preferred_username", "access_token", "id_token"}, claim):
		return claim
	case identifier.MatchString(claim):
		return "claims." + claim
	}
	return "claims[" + strconv.Quote(claim) + "]"
}

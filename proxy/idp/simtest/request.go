package simtest

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

// request is one request and what is wrong with it.
type request struct {
	*http.Request
	server *Server
	text   string // its body
	faults int
}

// wrong notes a protocol error.
func (q *request) wrong(what string) {
	q.faults++
	q.server.errors = append(q.server.errors, q.server.name+": "+q.Method+" "+q.URL.EscapedPath()+": "+what)
}

// refuse is an error answer of RFC 6749 section 5.2.
func (q *request) refuse(status int, code string) answer {
	description := ""
	if n := len(q.server.errors); q.faults > 0 && n > 0 {
		description = q.server.errors[n-1]
	}
	return answer{status: status, body: map[string]any{"error": code, "error_description": description}}
}

// params are a request's parameters in one place.
type params struct {
	q     *request
	where string // the query | the body
	other url.Values
	url.Values
	raw url.Values // as they were written, before decoding
}

// query are the parameters in the URL of a request that has no body.
func (q *request) query() params {
	p := params{q: q, where: "the query"}
	if q.text != "" {
		q.wrong("there is a body")
		p.other, _ = url.ParseQuery(q.text)
	}
	p.parse(q.URL.RawQuery)
	return p
}

// form are the parameters in the body of a request that has no query.
func (q *request) form() params {
	p := params{q: q, where: "the body"}
	if q.URL.RawQuery != "" {
		q.wrong("there is a query")
		p.other = q.URL.Query()
	}
	if kind, _, _ := strings.Cut(q.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded") {
		q.wrong("the body is not application/x-www-form-urlencoded")
		return p
	}
	p.parse(q.text)
	return p
}

func (p *params) parse(text string) {
	p.Values, p.raw = url.Values{}, url.Values{}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		plainName, nameErr := url.QueryUnescape(name)
		plain, err := url.QueryUnescape(value)
		if nameErr != nil || err != nil || strings.Contains(pair, ";") {
			p.q.wrong(p.where + " cannot be read")
			continue
		}
		if p.Has(plainName) {
			p.q.wrong(plainName + " is there more than once") // RFC 6749 section 3.1
		}
		p.Add(plainName, plain)
		p.raw.Add(plainName, value)
	}
}

// need notes each documented parameter that is missing; one without a value is (RFC 6749 section 3.1).
func (p params) need(names ...string) {
	for _, name := range names {
		switch {
		case p.Get(name) != "":
		case p.other.Get(name) != "":
			p.q.wrong(name + " must be in " + p.where)
		default:
			p.q.wrong(name + " is missing")
		}
	}
}

// needValue notes a parameter whose only documented value is another one.
func (p params) needValue(name, value string) {
	p.need(name)
	if got := p.Get(name); got != "" && got != value {
		p.q.wrong(name + " must be " + value)
	}
}

// percentSpaces notes spaces that were written as + in a URL's scope.
func (p params) percentSpaces() {
	if strings.Contains(p.raw.Get("scope"), "+") {
		p.q.wrong("the spaces in scope must be %20, not +")
	}
}

// plusSpaces notes spaces of a form's scope that were not written as +.
func (p params) plusSpaces() {
	if strings.Contains(p.raw.Get("scope"), "%20") {
		p.q.wrong("the spaces in scope must be +")
	}
}

// paramClient is the client of a request that says who it is by client_id and client_secret among its parameters and in no other way.
func (p params) paramClient() (Client, bool) {
	p.need("client_id", "client_secret")
	ok := p.q.faults == 0
	if len(p.q.Header.Values("Authorization")) > 0 {
		p.q.wrong("the client must not authenticate in a header")
		ok = false
	}
	c, known := p.q.server.clients[p.Get("client_id")]
	if ok && (!known || c.Secret != p.Get("client_secret")) {
		p.q.wrong("no such client, or another secret")
		ok = false
	}
	return c, ok
}

// basicClient is the client of a request that says who it is by HTTP Basic and in no other way.
func (p params) basicClient() (Client, bool) {
	ok := true
	if p.Has("client_secret") || p.other.Has("client_secret") {
		p.q.wrong("the client must not authenticate by parameters")
		ok = false
	}
	headers := p.q.Header.Values("Authorization")
	if len(headers) != 1 || len(headers[0]) < 6 || !strings.EqualFold(headers[0][:6], "Basic ") {
		p.q.wrong("the client must authenticate by HTTP Basic")
		return Client{}, false
	}
	plain, err := base64.StdEncoding.DecodeString(headers[0][6:])
	id, secret, found := strings.Cut(string(plain), ":")
	if err != nil || !found {
		p.q.wrong("the client's HTTP Basic cannot be read")
		return Client{}, false
	}
	// RFC 6749 section 2.3.1: both are form-encoded first.
	plainID, idErr := url.QueryUnescape(id)
	plainSecret, secretErr := url.QueryUnescape(secret)
	c, known := p.q.server.clients[plainID]
	if idErr != nil || secretErr != nil || !known || c.Secret != plainSecret {
		p.q.wrong("no such client, or another secret")
		return Client{}, false
	}
	if p.Has("client_id") && p.Get("client_id") != c.ID {
		p.q.wrong("client_id names another client")
		ok = false
	}
	return c, ok
}

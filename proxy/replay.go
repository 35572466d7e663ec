package proxy

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"strings"
)

// keptField is the field of the page's form that asks for a kept request to be sent. Its value is the ticket's marker.
const keptField = "postern-kept"

// keptFormLength is the length of that form: no other request's body is looked at.
const keptFormLength = int64(len(keptField) + 1 + 22)

// sendsKept tells the form of our page that asks for a kept request to be sent. It is posted to the address that the request was for, so that the
// address bar and the application's relative addresses are right. A form of the application's that happens to be as long passes as it is.
func sendsKept(r *http.Request) (marker string, ok bool) {
	if r.Method != http.MethodPost || r.ContentLength != keptFormLength || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return "", false
	}
	form := make([]byte, keptFormLength)
	n, _ := io.ReadFull(r.Body, form) // whoever reads on gets the error
	marker, ok = strings.CutPrefix(string(form[:n]), keptField+"=")
	if !ok {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(form[:n]), r.Body), r.Body}
	}
	return marker, ok
}

// replay sends a kept request.
//
// Flow: a page of this origin asks → the ticket of this browser is for that very request → the person is the one who had sent it → the request takes the
// place of the form, and goes the way of any other: its route, its rule, its guard against other sites → the store gives it away, once → the application.
func (p *Proxy) replay(x *exchange, marker string) {
	x.verdict = verdict{Kind: verdictOwn, Reason: "kept"}
	if x.origin == nil {
		p.refuse(x, http.StatusNotFound, "no_route", nil)
		return
	}
	if err := p.crossOrigin.Check(x.r); err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_replay", err)
		return
	}
	leave, ok := p.keeper.enter()
	if !ok {
		p.keptBusy(x)
		return
	}
	defer leave()
	k, t, ok := p.openKept(x)
	if !ok {
		return
	}
	if subtle.ConstantTimeCompare([]byte(marker), []byte(t.marker())) == 0 { // a page about an earlier one
		p.keptGone(x)
		return
	}
	r, err := k.request(x.r)
	if err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_target", err)
		return
	}
	x.r, x.kept = r, &t
	if !p.readTarget(x) {
		return
	}
	if _, ours := p.endpointName(x.path); ours { // the prefix has changed meanwhile
		p.refuse(x, http.StatusNotFound, "no_route", errors.New("a kept request is for an endpoint of ours"))
		return
	}
	p.serveRoute(x)
}

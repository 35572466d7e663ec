package main

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"postern/proxy/idp"
	"postern/proxy/page"
)

const (
	maxPosted = 64 << 10 // bytes of an answer that is posted
	maxStrays = 5        // that are told about
)

// answer is the provider's authorization response.
type answer struct {
	url.Values
	posted bool
}

// callback waits on a loopback address for the one answer to this sign-in (RFC 8252 section 7.3). Everyone on this machine, and every page
// in its browsers, can send something there: what does not know the state changes nothing.
type callback struct {
	redirectURI string
	path        string
	state       string
	provider    *idp.Provider
	pages       *page.Pages
	note        func(format string, args ...any)

	server *http.Server
	serves sync.WaitGroup
	used   atomic.Bool
	strays atomic.Int32
	got    chan answer // takes one
}

// listen opens the redirect URI: the configured one, or one on a port of its own.
func (l *login) listen(ctx context.Context, state string) (*callback, error) {
	at := &url.URL{Scheme: "http", Host: "127.0.0.1", Path: "/callback"}
	if l.c.RedirectURI != "" {
		u, err := url.Parse(l.c.RedirectURI)
		if err != nil {
			return nil, fmt.Errorf("redirect_uri: %w", err)
		}
		at = u
	}
	port := l.port
	if own := at.Port(); own != "" {
		n, err := strconv.Atoi(own)
		if err != nil {
			return nil, fmt.Errorf("redirect_uri: %w", err)
		}
		if port != 0 && port != n {
			return nil, fmt.Errorf("--port %d: redirect_uri names port %d", port, n)
		}
		port = n
	}
	pages, err := page.New(page.Options{})
	if err != nil {
		return nil, err
	}
	listeners, err := loopback(ctx, at.Hostname(), port)
	if err != nil {
		return nil, err
	}
	port = listeners[0].Addr().(*net.TCPAddr).Port
	c := &callback{
		redirectURI: l.c.RedirectURI, path: at.Path, state: state, provider: l.provider, pages: pages, note: l.note,
		got: make(chan answer, 1),
	}
	if at.Port() == "" { // otherwise exactly as it was written: providers compare strings
		withPort := *at
		withPort.Host = net.JoinHostPort(at.Hostname(), strconv.Itoa(port))
		c.redirectURI = withPort.String()
	}
	if c.path == "" {
		c.path = "/"
	}
	c.server = &http.Server{
		Handler: c, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	for _, one := range listeners {
		c.serves.Go(func() { _ = c.server.Serve(one) })
	}
	return c, nil
}

// loopback listens on the address that a host name of this machine stands for. A browser may try either address of localhost, so both
// are taken, before someone else takes one.
func loopback(ctx context.Context, host string, port int) ([]net.Listener, error) {
	var config net.ListenConfig
	open := func(ip string, port int) (net.Listener, error) {
		return config.Listen(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	}
	if !strings.EqualFold(host, "localhost") {
		one, err := open(host, port)
		return []net.Listener{one}, err
	}
	four, err := open("127.0.0.1", port)
	if err != nil {
		return nil, err
	}
	listeners := []net.Listener{four}
	six, err := open("::1", four.Addr().(*net.TCPAddr).Port)
	switch {
	case err == nil:
		listeners = append(listeners, six)
	case errors.Is(err, syscall.EADDRINUSE):
		four.Close()
		return nil, err
	} // else this machine has no IPv6
	return listeners, nil
}

// namesPort reports whether a redirect URI says on which port.
func namesPort(redirectURI string) bool {
	u, err := url.Parse(redirectURI)
	return err == nil && u.Port() != ""
}

// wait returns the answer.
func (c *callback) wait(ctx context.Context) (answer, error) {
	select {
	case a := <-c.got:
		return a, nil
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// close stops listening, after the page has gone out.
func (c *callback) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.server.Shutdown(ctx) != nil {
		_ = c.server.Close()
	}
	c.serves.Wait()
}

// ServeHTTP takes the answer and tells the person to go back to the terminal.
func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != c.path {
		http.NotFound(w, r)
		return
	}
	a, err := c.read(w, r)
	if err != nil {
		c.say(w, r, http.StatusBadRequest, "terminal_unreadable")
		return
	}
	if !c.ours(a) {
		c.stray(a)
		c.say(w, r, http.StatusBadRequest, "terminal_foreign")
		return
	}
	if !c.take(a) {
		c.say(w, r, http.StatusConflict, "terminal_used")
		return
	}
	if _, failed := c.provider.Callback(a.Values); failed {
		c.say(w, r, http.StatusOK, "terminal_refused")
		return
	}
	c.say(w, r, http.StatusOK, "terminal_done")
}

// read takes the answer out of a request: from the query, or from a posted form (response_mode form_post).
func (c *callback) read(w http.ResponseWriter, r *http.Request) (answer, error) {
	switch r.Method {
	case http.MethodGet:
		q, err := url.ParseQuery(r.URL.RawQuery)
		return answer{Values: q}, err
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxPosted)
		err := r.ParseForm()
		return answer{Values: r.PostForm, posted: true}, err
	}
	return answer{}, errors.New("neither GET nor POST")
}

// ours reports whether an answer belongs to this sign-in: it has the state. An error counts without any, since some providers send none
// then, and whoever makes one up ends a sign-in and gains nothing.
func (c *callback) ours(a answer) bool {
	state, failed := c.provider.Callback(a.Values)
	return sameState(state, c.state) || failed && state == ""
}

func sameState(got, want string) bool {
	return subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}

// take accepts the first answer alone.
func (c *callback) take(a answer) bool {
	if !c.used.CompareAndSwap(false, true) {
		return false
	}
	c.got <- a
	return true
}

// stray tells about an answer without the state, a few times: a provider that calls it by another name looks like this.
func (c *callback) stray(a answer) {
	if c.strays.Add(1) > maxStrays {
		return
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(a.Values)) {
		if len(names) < 10 {
			names = append(names, brief(name, 40))
		}
	}
	c.note("A request to the redirect URI was ignored: it does not have the state of this sign-in. Its parameters: %s. If that was the provider, see providers.%s.callback_params.",
		cmp.Or(strings.Join(names, ", "), "none"), c.provider.Name())
}

func (c *callback) say(w http.ResponseWriter, r *http.Request, status int, say string) {
	c.pages.Notice(w, r, page.Notice{Status: status, Say: say})
}

// pastedAddresses takes the answer from an address that is pasted into the terminal, until one is right or ctx ends.
func (l *login) pastedAddresses(ctx context.Context, c *callback) {
	for {
		text, err := l.line(ctx)
		if err != nil {
			return
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		a, ok := l.pasted(text)
		if ok && c.ours(a) {
			c.take(a)
			return
		}
		l.note("That is not the address of this sign-in: it begins with %s and holds the state.", c.redirectURI)
	}
}

// pastedCode asks for the code that the provider displays.
func (l *login) pastedCode(ctx context.Context, state string) (answer, error) {
	l.prompt("Paste the code: ")
	text, err := l.line(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("read the code: %w", err)
	}
	if text = strings.TrimSpace(text); text == "" {
		return answer{}, errors.New("no code was pasted")
	}
	a, ok := l.pasted(text)
	if !ok {
		a.Values = url.Values{l.callbackParam("code"): {text}}
		if l.c.Issuer != nil {
			// RFC 9207 is about answers that reach the wrong client by redirect. A person brings this one from the page that we named.
			a.Set("iss", l.provider.Issuer())
		}
		return a, nil
	}
	if got, failed := l.provider.Callback(a.Values); got != "" && !sameState(got, state) || got == "" && !failed && a.Has(l.callbackParam("state")) {
		return answer{}, errors.New("what was pasted is of another sign-in (state)")
	}
	return a, nil
}

// pasted reads an address, or the query of one. Anything else is not ok: it may be a code.
func (l *login) pasted(text string) (answer, bool) {
	query := strings.TrimPrefix(text, "?")
	if u, err := url.Parse(text); err == nil && u.Scheme != "" && u.RawQuery != "" {
		query = u.RawQuery
	}
	params, err := url.ParseQuery(query)
	if err != nil || !params.Has(l.callbackParam("code")) && !params.Has(l.callbackParam("error")) {
		return answer{}, false
	}
	return answer{Values: params}, true
}

// callbackParam is the provider's name of a parameter of its answer.
func (l *login) callbackParam(name string) string { return cmp.Or(l.c.CallbackParams[name], name) }

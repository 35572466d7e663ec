package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postern/proxy"
	"postern/session"
	"postern/session/memstore"
)

// explainFlags describe a request and who makes it.
type explainFlags struct {
	as, provider, user, email string
	groups, headers           []string
	from                      string
}

func newExplain(o *options) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use: "explain METHOD URL", Short: "Say what would become of a request: route, condition, what the application and the browser get", Args: cobra.ExactArgs(2),
		Long: "explain runs one request through the configuration and says which route it takes, which condition decides, what the application would get\n" +
			"and what the client would get. It opens no connection: application and provider are stand-ins, and tokens are words in their place.\n\n" +
			"Without --as, --user, --email or --groups nobody is signed in. The request is a browser's page navigation; -H changes its headers, and\n" +
			"-H 'Sec-Fetch-Mode: cors' makes it a script's.",
		Example: "  postern explain GET https://wiki.example.com/team --user alice --groups staff,wiki -c postern.yaml\n" +
			"  postern explain POST https://erp.example.com/orders --as claims.json -c postern.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return explain(cmd.Context(), cmd.OutOrStdout(), o, args[0], args[1], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.as, "as", "", "file with what the provider says of the person, as JSON: the payload of an ID token, such as `postern login` shows; - is standard input")
	flags.StringVar(&f.provider, "provider", "", "provider that signed the person in (default: the route's first)")
	flags.StringVar(&f.user, "user", "", "the person's user name")
	flags.StringVar(&f.email, "email", "", "the person's address, taken as verified")
	flags.StringSliceVar(&f.groups, "groups", nil, "the person's groups, with commas between")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a header of the request, as 'Name: value'; may be repeated")
	flags.StringVar(&f.from, "from", "127.0.0.1", "the client's address")
	return cmd
}

func explain(ctx context.Context, w io.Writer, o *options, method, address string, f explainFlags) error {
	cfg, err := checked(w, o, false)
	if err != nil {
		return err
	}
	r, err := f.request(method, address)
	if err != nil {
		return err
	}
	who, err := f.person()
	if err != nil {
		return err
	}
	store := memstore.New(memstore.Options{})
	defer func() { _ = store.Close() }()
	p, err := proxy.NewStandIn(cfg, store)
	if err != nil {
		return err
	}
	e, err := p.Explain(ctx, r, who)
	if err != nil {
		return err
	}
	printExplanation(w, e)
	return nil
}

// request is the request as the listener would hand it on.
func (f explainFlags) request(method, address string) (*http.Request, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("URL is not an address such as https://wiki.example.com/page")
	}
	from, err := netip.ParseAddr(f.from)
	if err != nil {
		return nil, errors.New("--from is not an IP address")
	}
	_, target, _ := strings.Cut(strings.TrimPrefix(address, u.Scheme+"://"), u.Host)
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	r := &http.Request{
		Method: method, URL: &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, RequestURI: target, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
		RemoteAddr: netip.AddrPortFrom(from, 1).String(),
		Header:     http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"none"}},
	}
	if u.Scheme == "https" {
		r.TLS = &tls.ConnectionState{}
	}
	for _, line := range f.headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("-H %q is not a header such as 'Accept: application/json'", line)
		}
		r.Header.Set(name, strings.TrimSpace(value))
	}
	return r, nil
}

// person is who makes the request; nil is nobody.
func (f explainFlags) person() (*proxy.Person, error) {
	if f.as == "" && f.user == "" && f.email == "" && f.groups == nil {
		if f.provider != "" {
			return nil, errors.New("--provider needs somebody who signed in there: add --user or --as")
		}
		return nil, nil
	}
	who := &proxy.Person{Provider: f.provider, Identity: session.Identity{User: f.user, Email: f.email, Groups: f.groups}}
	if f.as == "" {
		who.Identity.User = cmp.Or(f.user, "somebody")
		return who, nil
	}
	in := io.Reader(os.Stdin)
	if f.as != "-" {
		file, err := os.Open(f.as)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	d := json.NewDecoder(io.LimitReader(in, 1<<20))
	d.UseNumber()
	if err := d.Decode(&who.Claims); err != nil {
		return nil, fmt.Errorf("--as %s: is not a JSON object of claims: %w", f.as, err)
	}
	return who, nil
}

func printExplanation(w io.Writer, e *proxy.Explanation) {
	row := func(name, value string) { fmt.Fprintf(w, "%-12s%s\n", name, value) }
	row("Route", cmp.Or(e.Route, "none"))
	row("Verdict", e.Verdict)
	row("Because", e.Reason)
	if e.Error != "" {
		row("", e.Error)
	}
	if s := e.Session; s != nil {
		row("Signed in", fmt.Sprintf("%s at %s, email %s, groups %s", s.Identity.User, s.Provider, cmp.Or(s.Identity.Email, "none"), cmp.Or(strings.Join(s.Identity.Groups, " "), "none")))
	} else {
		row("Signed in", "nobody")
	}
	if r := e.Upstream; r != nil {
		target := cmp.Or(r.URL.Opaque, r.URL.RequestURI())
		row("Upstream", fmt.Sprintf("%s %s://%s%s", r.Method, r.URL.Scheme, r.URL.Host, target))
		row("", "Host: "+r.Host)
		printHeader(row, r.Header)
	} else {
		row("Upstream", "nothing")
	}
	if e.Upstream != nil {
		row("Client", "the application's answer")
	} else {
		row("Client", fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status)))
	}
	printHeader(row, e.Header)
}

// everyAnswer are headers that say nothing about a decision.
var everyAnswer = []string{"Cache-Control", "Content-Language", "Content-Length", "Content-Security-Policy", "Referrer-Policy", "Strict-Transport-Security",
	"User-Agent", "Vary", "X-Content-Type-Options", "X-Frame-Options"}

// printHeader prints a header without everyAnswer and what is random: the values of our cookies, and the query of a sign-in's address.
func printHeader(row func(name, value string), h http.Header) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if slices.Contains(everyAnswer, name) {
			continue
		}
		for _, value := range h[name] {
			switch name {
			case "Set-Cookie":
				value, _, _ = strings.Cut(value, "=")
				value += "=…"
			case "Location":
				if before, _, ok := strings.Cut(value, "?"); ok {
					value = before + "?…"
				}
			}
			row("", name+": "+value)
		}
	}
}

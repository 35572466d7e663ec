package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"postern/config"
)

const (
	adminCall    = 40 * time.Second // longer than the listener takes at most
	maxAdminBody = 16 << 20
	maxTokenFile = 64 << 10
)

// adminClient asks the admin listener of a running Postern. Nothing of it goes through a proxy of the environment, or follows a redirect.
type adminClient struct {
	base  string // scheme and host
	token string
	http  *http.Client
}

// adminFlags say where the admin listener is, and how to be let in, where the configuration does not.
type adminFlags struct {
	url, tokenFile, ca, cert, key string
}

// newAdminClient finds the listener by the flags, else by the configuration.
func newAdminClient(o *options, f adminFlags) (*adminClient, error) {
	c := &adminClient{}
	var cfg *config.Config
	if o.config != "" {
		var err error
		if cfg, err = load(o); err != nil {
			return nil, err
		}
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case f.url != "":
		u, err := url.Parse(f.url)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, errors.New("--admin wants scheme and host, such as http://127.0.0.1:9090")
		}
		c.base = u.Scheme + "://" + u.Host
	case cfg == nil:
		return nil, errors.New("no configuration: use --config FILE, set POSTERN_CONFIG, or name the admin listener with --admin URL")
	case cfg.Server.Admin == nil:
		return nil, fmt.Errorf("%s has no server.admin, so that Postern has no sessions API; write server.admin: {token: {file: PATH}}", o.config)
	default:
		var err error
		if c.base, err = adminBase(cfg.Server.AdminListen, cfg.Server.AdminTLS(), t); err != nil {
			return nil, err
		}
	}
	if err := c.credentials(cfg, f, t); err != nil {
		return nil, err
	}
	c.http = newAdminHTTP(t)
	return c, nil
}

// newAdminHTTP makes the HTTP client for an admin listener.
func newAdminHTTP(t *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: nil, TLSClientConfig: t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// adminBase is where to reach a listener on this machine. Its certificate is known from the file, so no CA need vouch for it, and it is for the name
// that it has, whatever the address.
func adminBase(listen string, pair *config.TLS, t *tls.Config) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("admin address %q: %w", listen, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if pair == nil {
		return "http://" + net.JoinHostPort(host, port), nil
	}
	chain, leaf, err := certificates(pair.CertFile)
	if err != nil {
		return "", fmt.Errorf("certificate of the admin listener: %w", err)
	}
	t.RootCAs = chain
	switch {
	case len(leaf.DNSNames) > 0:
		t.ServerName = strings.Replace(leaf.DNSNames[0], "*", "postern", 1)
	case len(leaf.IPAddresses) > 0:
		t.ServerName = leaf.IPAddresses[0].String()
	}
	return "https://" + net.JoinHostPort(host, port), nil
}

// certificates reads a PEM file.
func certificates(file string) (*x509.CertPool, *x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, nil, fmt.Errorf("%s holds no certificate", file)
	}
	block, _ := pem.Decode(data)
	leaf, err := x509.ParseCertificate(block.Bytes)
	return pool, leaf, err
}

// credentials are the flags', else the configuration's.
func (c *adminClient) credentials(cfg *config.Config, f adminFlags, t *tls.Config) (err error) {
	switch {
	case f.tokenFile != "":
		if c.token, err = readToken(f.tokenFile); err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
	case cfg != nil && cfg.Server.Admin != nil && !cfg.Server.Admin.Token.IsZero():
		if c.token, err = cfg.Server.Admin.Token.Value(); err != nil {
			return fmt.Errorf("server.admin.token: %w", err)
		}
	}
	if f.ca != "" {
		if t.RootCAs, _, err = certificates(f.ca); err != nil {
			return fmt.Errorf("--ca: %w", err)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return errors.New("--cert and --key go together")
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return fmt.Errorf("--cert and --key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func readToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	token := strings.TrimRight(string(data), "\r\n")
	if err == nil && token == "" {
		err = errors.New("the file is empty")
	}
	return token, err
}

// adminProblem is what the listener says is wrong.
type adminProblem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Ended  int    `json:"ended"`
	// RequestID is in the problems of the listener for people alone.
	RequestID string `json:"request_id"`
}

func (p *adminProblem) Error() string { return printable(p.Detail) }

// do asks, and decodes the answer into out.
func (c *adminClient) do(ctx context.Context, method, target string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, adminCall)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.base+target, nil)
	if err != nil {
		return err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return c.unreached(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminBody))
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, out); err != nil {
			return fmt.Errorf("%s does not answer as Postern's admin listener does", c.base)
		}
		return nil
	}
	p := &adminProblem{}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(p); err == nil && p.Code != "" {
		return c.refused(p)
	}
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("there is no sessions API at %s; the running Postern needs server.admin: {token: {file: PATH}}", c.base)
	}
	return fmt.Errorf("%s answers %s", c.base, resp.Status)
}

// refused says what to do about a problem where the listener's own words are for those who call it by hand.
func (c *adminClient) refused(p *adminProblem) error {
	switch {
	case p.RequestID != "":
		return fmt.Errorf("%s is not the admin listener of Postern, but where people come in; name server.admin_listen's address", c.base)
	case p.Code == "token_required" && c.token == "":
		return fmt.Errorf("%s asks for server.admin.token: name its file with --token-file, or the configuration with --config", c.base)
	case p.Code == "token_required":
		return fmt.Errorf("%s refuses this token: it is not the server.admin.token of the Postern that runs there", c.base)
	}
	return p
}

// unreached says what to look at when there was no answer.
func (c *adminClient) unreached(err error) error {
	var at *url.Error
	if errors.As(err, &at) { // its text would repeat the query
		err = at.Err
	}
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: is Postern running, and is this its admin listener? %w", c.base, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate at %s is not trusted; name its CA with --ca FILE: %w", c.base, err)
	}
	return fmt.Errorf("ask %s: %w", c.base, err)
}

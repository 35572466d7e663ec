package idp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// network is the way to a provider. It holds transports and no clients. Those follow redirects, which would send a code, a refresh token
// or the client's secret to wherever one points (RFC 9700 section 4.12), or take metadata and keys from there. And when they do not
// follow one, they still show an address in the error that they cannot read, with whatever the provider copied into it.
type network struct {
	anyone   http.RoundTripper // for what anyone may ask, and may ask twice
	asClient http.RoundTripper // for what the client asks as itself, and may ask twice
	once     http.RoundTripper // for token requests
	own      []*http.Transport
	roots    []byte // CAFile as it was read
}

// newNetwork makes the way to a provider that o describes.
func newNetwork(o Options) (network, error) {
	var roots []byte
	if o.CAFile != "" {
		var err error
		if roots, err = os.ReadFile(o.CAFile); err != nil {
			return network{}, fmt.Errorf("ca_file: %w", err)
		}
	}
	plain, own, err := transport(o, roots)
	if err != nil {
		return network{}, err
	}
	n := network{own: own, roots: roots}
	asClient := plain
	if o.ClientCert != nil {
		t, ok := plain.(*http.Transport)
		if !ok {
			return network{}, errors.New("a client certificate cannot be used with this transport")
		}
		t = t.Clone()
		t.TLSClientConfig = tlsConfig(t)
		// Only here: the certificate tells who asks, and nobody else needs to know.
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := o.ClientCert()
			if err != nil {
				return nil, fmt.Errorf("client certificate could not be read: %w", err)
			}
			return &c, nil
		}
		asClient, n.own = t, append(n.own, t)
	}
	n.anyone, n.asClient, n.once = plain, asClient, onceTransport(asClient)
	return n, nil
}

// close lets idle connections go.
func (n network) close() {
	for _, t := range n.own {
		t.CloseIdleConnections()
	}
}

// transport makes the transport for calls that need no certificate, and says which it made.
func transport(o Options, roots []byte) (http.RoundTripper, []*http.Transport, error) {
	if o.Transport != nil && o.CAFile == "" && o.HTTPProxy == "" {
		return o.Transport, nil, nil
	}
	t := newTransport()
	if o.Transport != nil {
		given, ok := o.Transport.(*http.Transport)
		if !ok {
			return nil, nil, errors.New("ca_file, http_proxy: cannot be used with this transport")
		}
		t = given.Clone()
	}
	if o.CAFile != "" {
		t.TLSClientConfig = tlsConfig(t)
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(roots) {
			return nil, nil, errors.New("ca_file: holds no certificate")
		}
	}
	if o.HTTPProxy != "" {
		u, err := url.Parse(o.HTTPProxy)
		switch {
		case err != nil || u.Host == "": // the parser's error would show a password
			return nil, nil, errors.New("http_proxy: must be a URL")
		case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
			return nil, nil, errors.New("http_proxy: must be http, https or socks5")
		}
		t.Proxy = http.ProxyURL(u)
	}
	return t, []*http.Transport{t}, nil
}

// newTransport makes a transport for calls to one provider.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           32,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// tlsConfig returns a TLS configuration of t that may be changed.
func tlsConfig(t *http.Transport) *tls.Config {
	if t.TLSClientConfig == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return t.TLSClientConfig.Clone()
}

// onceTransport makes the transport of token requests out of that of the others: each goes over a connection of its own. On one that
// was idle, and that the provider closes at the same moment, nobody could say whether the request was processed, and a refresh token
// may be sent only once.
func onceTransport(t http.RoundTripper) http.RoundTripper {
	own, ok := t.(*http.Transport)
	if !ok {
		return t
	}
	own = own.Clone()
	own.DisableKeepAlives = true
	return own
}

// internalURL leads calls to the provider to an address in a network of one's own. The zero value changes nothing.
type internalURL struct {
	public, base *url.URL // base is nil when nothing is changed
}

// newInternalURL makes what leads calls from the provider's public origin to o.InternalURL.
func newInternalURL(o Options) (internalURL, error) {
	if o.InternalURL == "" {
		return internalURL{}, nil
	}
	public := o.Issuer
	if o.OAuth2 != nil {
		public = o.OAuth2.Token
	}
	from, err := parseAddress(public)
	if err != nil {
		return internalURL{}, err
	}
	to, err := parseAddress(o.InternalURL)
	if err != nil {
		return internalURL{}, err
	}
	return internalURL{public: from, base: to}, nil
}

// of is where a call to u goes: with the base's scheme and host, and below the base's path. What is not on the provider's public origin
// stays.
func (i internalURL) of(u *url.URL) *url.URL {
	if i.base == nil || !sameOrigin(u, i.public) {
		return u
	}
	to := *u
	to.Scheme, to.Host = i.base.Scheme, i.base.Host
	if below := strings.TrimSuffix(i.base.Path, "/"); !strings.HasPrefix(u.Path+"/", below+"/") {
		to.Path, to.RawPath = below+u.Path, strings.TrimSuffix(i.base.EscapedPath(), "/")+u.EscapedPath()
	}
	return &to
}

// trusts reports whether u is on the operator's own network by the operator's own word.
func (i internalURL) trusts(u *url.URL) bool { return i.base != nil && sameOrigin(u, i.base) }

// sameOrigin compares scheme, host and port (RFC 6454 section 4).
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// port is the URL's port, also when it is not written out.
func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case strings.EqualFold(u.Scheme, "https"):
		return "443"
	}
	return "80"
}

// doubts is what the operator should know about the base.
func (i internalURL) doubts() []string {
	if i.base == nil || checkScheme(i.base) == nil {
		return nil
	}
	return []string{"internal_url is not https: secrets and tokens cross that network in the clear"}
}

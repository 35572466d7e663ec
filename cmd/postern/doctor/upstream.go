package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"postern/config"
)

// maxRead bounds what is read of any answer.
const maxRead = 256 << 10

// application is one address of an upstream.
type application struct {
	key  string // in the configuration
	at   *url.URL
	tls  *config.UpstreamTLS
	file string
}

// applications are the addresses of all routes, each once.
func (o Options) applications() (all []application) {
	seen := map[string]bool{}
	for i, r := range o.Config.Routes {
		for _, at := range r.Upstream {
			if seen[at.String()] {
				continue
			}
			seen[at.String()] = true
			all = append(all, application{key: fmt.Sprintf("routes[%d].upstream", i), at: at, tls: r.UpstreamTLS, file: r.Folder()})
		}
	}
	return all
}

// application asks for the first page, as nobody. Any answer is one.
func (o Options) application(ctx context.Context, a application) []Finding {
	l := list{subject: a.at.String()}
	if a.file != "" {
		a.folder(&l)
		return l.all
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	w := where{address: a.key, ca: strings.TrimSuffix(a.key, "upstream") + "upstream_tls.ca_file"}
	transport, address, err := a.transport()
	if err != nil {
		l.fail("upstream", err.Error(), strings.TrimSuffix(a.key, "upstream")+"upstream_tls: name files that can be read")
		return l.all
	}
	defer transport.CloseIdleConnections()
	resp, err := ask(ctx, transport, address, nil)
	if err != nil {
		found, mend := w.trouble(err)
		l.fail("upstream", found, mend)
		return l.all
	}
	_ = resp.Body.Close() // unread: it may be a stream that never ends
	if resp.TLS != nil {
		l.certificate("upstream.tls", o.Now(), resp.TLS.PeerCertificates[0].NotAfter, "Renew the certificate of the application")
	}
	found := fmt.Sprintf("answers (%s)", resp.Status)
	if resp.StatusCode >= 500 {
		l.warn("upstream", found, "See the application's own log: it answers, but not well")
		return l.all
	}
	l.pass("upstream", found)
	return l.all
}

// folder looks at a folder of static files.
func (a application) folder(l *list) {
	if _, err := os.ReadDir(a.file); err != nil {
		l.fail("upstream", "the folder cannot be read", a.key+": name a folder that Postern's user can read")
		return
	}
	l.pass("upstream", "the folder can be read")
}

// transport is the way to the application, and the address of its first page.
func (a application) transport() (*http.Transport, string, error) {
	t := newTransport()
	if a.tls != nil {
		var err error
		if t.TLSClientConfig, err = a.tls.Load(); err != nil {
			return nil, "", err
		}
		t.TLSClientConfig.MinVersion = tls.VersionTLS12
	}
	at := *a.at
	switch at.Scheme {
	case "h2c":
		at.Scheme = "http"
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	case "unix":
		socket, base, _ := strings.Cut(at.Path, ":/")
		at = url.URL{Scheme: "http", Host: "localhost", Path: "/" + base}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	if !strings.HasSuffix(at.Path, "/") {
		at.Path += "/"
	}
	return t, at.String(), nil
}

// newTransport makes connections as Postern does: without a proxy of the environment, every certificate verified.
func newTransport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
}

// answer is what came, with its body.
type answer struct {
	*http.Response
	body []byte
}

// ask makes one GET request and follows nothing. The body is the caller's to close.
func ask(ctx context.Context, t *http.Transport, address string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("User-Agent", "postern doctor")
	return t.RoundTrip(req)
}

// fetch asks and reads what comes: a body that breaks off is judged by its beginning.
func fetch(ctx context.Context, t *http.Transport, address string, header http.Header) (answer, error) {
	resp, err := ask(ctx, t, address, header)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRead))
	return answer{resp, body}, nil
}

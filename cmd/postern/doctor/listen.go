package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
)

// house is this machine: what of Postern's addresses is free, and whether Postern itself is at home.
type house struct {
	o      Options
	looked chan struct{} // closed once free is known
	free   bool          // server.listen is
}

// listeners looks at each address that Postern listens on.
func (h *house) listeners(ctx context.Context) []Finding {
	defer close(h.looked)
	ctx, cancel := context.WithTimeout(ctx, h.o.Limit)
	defer cancel()
	s := h.o.Config.Server
	running := h.o.readiness(ctx)
	var all []Finding
	for _, a := range []struct{ check, key, address string }{
		{"listen.public", "server.listen", s.Listen},
		{"listen.admin", "server.admin_listen", s.AdminListen},
		{"listen.redirect", "server.redirect_listen", s.RedirectListen},
	} {
		if a.address == "" {
			continue
		}
		l := list{subject: a.address}
		free := l.listener(ctx, a.check, a.key, running != nil)
		h.free = h.free || free && a.check == "listen.public"
		all = append(all, l.all...)
	}
	all = append(all, running.findings(s.AdminListen)...)
	l := list{subject: s.AdminListen}
	if isPublic(s.AdminListen) {
		l.warn("listen.reach", "whoever reaches this machine can read /metrics and /readyz",
			"server.admin_listen: write 127.0.0.1:PORT, or let a firewall or NetworkPolicy close that port to all but the monitoring")
	}
	h.o.ownCertificate(&l)
	return append(all, l.all...)
}

// listener finds out whether Postern could listen at the list's subject.
func (l *list) listener(ctx context.Context, check, key string, running bool) (free bool) {
	on, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.subject)
	if err != nil {
		l.notFree(check, key, err, running)
		return false
	}
	_ = on.Close()
	l.pass(check, "is free")
	return true
}

// notFree tells why one cannot listen at the list's subject. Ports below 1024 may be Postern's all the same: this user is not all that it has.
func (l *list) notFree(check, key string, err error, running bool) {
	switch {
	case running && (errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES)):
		l.pass(check, "is taken, by the Postern that runs here")
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(l.subject)
		l.fail(check, "is in use by another program", fmt.Sprintf("%s: write another address, or stop that program (`ss -ltnp 'sport = :%s'` names it)", key, port))
	case errors.Is(err, syscall.EACCES):
		l.warn(check, "this user may not listen there: whether Postern may is not seen",
			key+": write a port from 1024 on, let systemd open it (postern.socket), or give Postern the capability CAP_NET_BIND_SERVICE")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		l.fail(check, "is no address of this machine", key+": write one of this machine, or 0.0.0.0 for all")
	default:
		l.fail(check, err.Error(), key+": write an address of this machine, with a port")
	}
}

// isPublic tells whether others than this machine reach an address.
func isPublic(address string) bool {
	host, _, err := net.SplitHostPort(address)
	a, notIP := netip.ParseAddr(host)
	return err == nil && host != "localhost" && (notIP != nil || !a.IsLoopback())
}

// ready is what a Postern says of itself at /readyz.
type ready struct {
	Ready     *bool             `json:"ready"`
	Listening *bool             `json:"listening"`
	Store     *string           `json:"store"`
	Providers map[string]string `json:"providers"`
}

// readiness asks the Postern that runs here; nil: none does.
func (o Options) readiness(ctx context.Context) *ready {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Admin.Base+"/readyz", nil)
	if err != nil || o.Admin.HTTP == nil {
		return nil
	}
	resp, err := o.Admin.HTTP.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var r ready
	err = json.NewDecoder(io.LimitReader(resp.Body, maxRead)).Decode(&r)
	if err != nil || r.Ready == nil || r.Listening == nil || r.Store == nil {
		return nil
	}
	return &r
}

// findings are what the running Postern says.
func (r *ready) findings(address string) []Finding {
	l := list{subject: address}
	switch {
	case r == nil:
		return nil
	case *r.Ready && *r.Store == "ok":
		l.pass("running", "Postern runs here, and is ready")
	case *r.Ready:
		l.warn("running", "Postern runs here, but its session store "+*r.Store, "See redis below; until it answers, on_store_error says who gets in")
	default:
		l.warn("running", "Postern runs here, but is not ready: its session store "+*r.Store, "See redis and providers below, and the log")
	}
	return l.all
}

// ownCertificate looks at the certificate that Postern serves itself.
func (o Options) ownCertificate(l *list) {
	s := o.Config.Server
	if s.TLS == nil {
		return
	}
	pair, err := tls.LoadX509KeyPair(s.TLS.CertFile, s.TLS.KeyFile)
	if err != nil {
		return // Files has said it
	}
	l.subject = s.Listen
	l.certificate("listen.tls", o.Now(), pair.Leaf.NotAfter, "Renew the certificate of server.tls; Postern reads it again by itself")
	for _, origin := range o.origins(needsSignIn) {
		if err := pair.Leaf.VerifyHostname(origin.Hostname()); err != nil {
			l.warn("listen.tls", "the certificate is not for "+origin.Hostname()+", but for "+names(pair.Leaf),
				"server.tls.cert_file: name a certificate for that host, unless a proxy before Postern has one")
		}
	}
}

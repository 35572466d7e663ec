package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// soon is how long before its end a certificate is warned of.
const soon = 14 * 24 * time.Hour

// where names the keys of the configuration that say where something is, and whose certificates are believed.
type where struct{ address, ca string }

// trouble says why there was no answer, and which key may mend that.
func (w where) trouble(err error) (found, mend string) {
	found = strings.TrimSpace(err.Error())
	name, isName := errors.AsType[*net.DNSError](err)
	host, isHost := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isForeign := errors.AsType[x509.UnknownAuthorityError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	var timeout net.Error
	switch {
	case isName && name.IsNotFound:
		return "DNS: nobody knows the name " + name.Name, w.address + ": write the right name, or put that one into the DNS that this machine asks"
	case isName:
		return "DNS did not answer: " + name.Error(), w.address + ": write the right name; if it is right, let this machine reach its name server (/etc/resolv.conf)"
	case isHost:
		return "TLS: the certificate is not for " + host.Host + ", but for " + names(host.Certificate),
			w.address + ": write a name that the certificate has, or give the server one for this name"
	case isInvalid && invalid.Reason == x509.Expired:
		return fmt.Sprintf("TLS: the certificate is good from %s to %s, and not now", day(invalid.Cert.NotBefore), day(invalid.Cert.NotAfter)),
			"Renew the server's certificate; if it is good, set this machine's clock right"
	case isForeign:
		return "TLS: this machine does not know who signed the certificate", w.ca + ": name the PEM file of the CA that signed it"
	case isInvalid:
		return "TLS: " + invalid.Error(), "Give the server a certificate that is good for servers"
	case noTLS:
		return "TLS: the server speaks something else", w.address + ": the server wants plain text there, or this is the wrong port"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return "nothing listens there: " + found, w.address + ": start what should answer there, or write the right address and port"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time", w.address + ": is this the right address? Else a firewall or NetworkPolicy is between, or it is overloaded"
	}
	return found, w.address + ": is this the right address?"
}

// names are those that a certificate is for.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name at all"
	}
	return strings.Join(all, ", ")
}

// certificate tells how long a certificate that was accepted stays good.
func (l *list) certificate(check string, now, ends time.Time, mend string) {
	left := ends.Sub(now)
	what := fmt.Sprintf("the certificate is good until %s", day(ends))
	switch {
	case left <= 0:
		l.fail(check, "the certificate has expired on "+day(ends), mend)
	case left < soon:
		l.warn(check, fmt.Sprintf("%s, %d days from now", what, int(left.Hours()/24)), mend)
	default:
		l.pass(check, what)
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

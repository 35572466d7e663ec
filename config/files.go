package config

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// maxPEM bounds what is read of a certificate or CA file.
const maxPEM = 4 << 20

// CheckFiles reads the files that the configuration names: secrets, session keys, certificates, CAs and the logo. Load does not,
// so that a file can be checked on another machine. It changes nothing.
func (c *Config) CheckFiles() Problems { return c.readFiles().problems.sorted() }

// Files are the files that [Config.CheckFiles] reads, missing ones too, and folders out of which any file may be taken: when what is in one changes, the
// configuration is another.
func (c *Config) Files() []string {
	files := c.readFiles().files
	slices.Sort(files)
	return slices.Compact(files)
}

func (c *Config) readFiles() *validator {
	v := &validator{c: c}
	if a := c.Server.Admin; a != nil {
		v.secret("server.admin.token", a.Token, func(text string) string {
			if len(text) < 16 {
				return "is shorter than 16 characters and could be guessed"
			}
			return ""
		}, "Make one with `postern keygen`")
		v.ca("server.admin.client_ca", a.ClientCA)
		if t := a.TLS; t != nil {
			v.pair("server.admin.tls", t.CertFile, t.KeyFile)
		}
	}
	if a := c.Server.Audit; a != nil {
		v.appendable("server.audit.file", a.File)
	}
	if t := c.Server.TLS; t != nil {
		v.pair("server.tls", t.CertFile, t.KeyFile)
	}
	for i, k := range c.Server.AssertionKeys {
		v.secret(fmt.Sprintf("server.assertion_keys[%d]", i), k, badAssertionKey, "Make one with `postern keygen --assertion`")
	}
	for i, k := range c.Session.Keys {
		v.secret(fmt.Sprintf("session.keys[%d]", i), k, badKey, "Make one with `postern keygen`")
	}
	v.sameKeys()
	if r := c.Session.Store.Redis; r != nil {
		v.secret("session.store.redis.password", r.Password, nil, "")
		v.ca("session.store.redis.ca_file", r.CAFile)
		if r.Sentinel != nil {
			v.secret("session.store.redis.sentinel.password", r.Sentinel.Password, nil, "")
		}
		if r.CertFile != "" && r.KeyFile != "" {
			v.pair("session.store.redis", r.CertFile, r.KeyFile)
		}
	}
	if _, err := c.Pages.ReadLogo(); err != nil {
		v.err("pages.logo", "the file "+err.Error(), "Name an image file that Postern's user can read")
	}
	v.folder("pages.templates", c.Pages.Templates)
	v.files = append(v.files, c.Pages.files()...)
	for _, p := range c.Providers {
		at := join("providers", p.Name)
		v.secret(at+".client_secret", p.ClientSecret, nil, "")
		if p.ClientKey.File() != "" {
			v.secret(at+".client_key", p.ClientKey, badPrivateKey, "Name the PEM file of a private key, such as `openssl genpkey` makes")
		}
		if t := p.ClientCert; t != nil {
			v.pair(at+".client_cert", t.CertFile, t.KeyFile)
		}
		v.ca(at+".ca_file", p.CAFile)
	}
	for i, r := range c.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		if t := r.UpstreamTLS; t != nil {
			v.ca(at+".upstream_tls.ca_file", t.CAFile)
			if t.CertFile != "" {
				v.pair(at+".upstream_tls", t.CertFile, t.KeyFile)
			}
		}
		v.folder(at+".upstream", r.Folder())
	}
	return v
}

// ClientCAs reads `client_ca`; nil without it.
func (a *Admin) ClientCAs() (*x509.CertPool, error) {
	if a.ClientCA == "" {
		return nil, nil
	}
	data, err := os.ReadFile(a.ClientCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("client_ca holds no certificate")
	}
	return pool, nil
}

// folder wants a folder that can be read.
func (v *validator) folder(path, name string) {
	if name == "" {
		return
	}
	const mend = "Name a folder that Postern's user can read"
	f, err := os.Open(name)
	if err != nil {
		v.err(path, "the folder "+unreadableFile(err).Error(), mend)
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		v.err(path, "is not a folder", mend)
	}
}

// secret reads a secret and lets bad say what is wrong with it, and mend what to do then.
func (v *validator) secret(path string, s Secret, bad func(string) string, mend string) {
	if s.IsZero() {
		return
	}
	if s.File() != "" {
		v.files = append(v.files, s.File())
	}
	text, err := s.Value()
	if err != nil {
		v.err(path, err.Error(), "Put the secret there, readable by Postern's user")
		return
	}
	if bad != nil {
		if what := bad(text); what != "" {
			v.err(path, what, mend)
		}
	}
	v.readableByOthers(path, path+".file", s.File())
}

// badPrivateKey says why a PEM text is no key that can sign a client's assertion, without quoting it.
func badPrivateKey(text string) string {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return "holds no PEM block"
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return "is encrypted, and there is nobody to ask for its passphrase"
	default:
		return "holds something else than a private key"
	}
	if err != nil {
		return "holds a private key that cannot be read"
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() < 2048 { // RFC 7518, section 3.3
			return "is an RSA key of fewer than 2048 bits"
		}
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P224() {
			return "is on the curve P-224, for which there is no JWS algorithm"
		}
	case ed25519.PrivateKey:
	default:
		return "is a key of a kind that signs no JWT"
	}
	return ""
}

// sameKeys finds one key under two names: rotating it would change nothing.
func (v *validator) sameKeys() {
	seen := map[string]bool{}
	for i, k := range v.c.Session.Keys {
		text, err := k.Value()
		if err != nil {
			continue
		}
		if seen[text] {
			v.err(fmt.Sprintf("session.keys[%d]", i), "is the same as a key before it", "Make another with `postern keygen`")
		}
		seen[text] = true
	}
}

// readableByOthers warns of a secret's file that every user of the machine can read or change. key is where the file
// is named.
func (v *validator) readableByOthers(path, key, file string) {
	if file == "" {
		return
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o006 != 0 {
		v.warn(path, fmt.Sprintf("%s can be read or changed by every user of the machine (mode %04o)", v.c.src.show(key), info.Mode().Perm()),
			"Give it to Postern's user with mode 0400; in Kubernetes set defaultMode and fsGroup")
	}
}

// pair wants a certificate chain and the key of its first certificate.
func (v *validator) pair(path, certFile, keyFile string) {
	cert, okCert := v.pem(path+".cert_file", certFile)
	key, okKey := v.pem(path+".key_file", keyFile)
	if !okCert || !okKey {
		return
	}
	v.readableByOthers(path+".key_file", path+".key_file", keyFile)
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		v.err(path, "the certificate and its key cannot be used: "+err.Error(), "Name the PEM files of a certificate chain, leaf first, and of its key")
	}
}

// ca wants a PEM file with at least one certificate.
func (v *validator) ca(path, file string) {
	if file == "" {
		return
	}
	if data, ok := v.pem(path, file); ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		v.err(path, v.c.src.show(path)+" holds no certificate", "Name the PEM file of the CA")
	}
}

// appendable wants a file that can be made or added to: a regular one, or a folder where it will be. Whether writing is allowed shows at start.
func (v *validator) appendable(path, file string) {
	if file == "" {
		return
	}
	info, err := os.Stat(file)
	switch {
	case err == nil && !info.Mode().IsRegular():
		v.err(path, v.c.src.show(path)+" is not a regular file", "Name a file that Postern's user may make and add to")
	case errors.Is(err, fs.ErrNotExist):
		if dir, err := os.Stat(filepath.Dir(file)); err != nil || !dir.IsDir() {
			v.err(path, "the folder of "+v.c.src.show(path)+" does not exist", "Make the folder, writable by Postern's user")
		}
	case err != nil:
		v.err(path, v.c.src.show(path)+" "+unreadableFile(err).Error(), "Name a file that Postern's user may make and add to")
	}
}

// pem reads a PEM file, bounded.
func (v *validator) pem(path, file string) ([]byte, bool) {
	v.files = append(v.files, file)
	data, err := readPEM(file)
	if err != nil {
		v.err(path, v.c.src.show(path)+" "+err.Error(), "Put the PEM file there, readable by Postern's user")
		return nil, false
	}
	return data, true
}

func readPEM(file string) ([]byte, error) {
	if info, err := os.Stat(file); err != nil {
		return nil, unreadableFile(err)
	} else if !info.Mode().IsRegular() { // opening a pipe could wait for ever
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, unreadableFile(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM))
	if err != nil {
		return nil, unreadableFile(err)
	}
	return data, nil
}

// readPair reads a certificate chain and its key, which are cert_file and key_file of the section that its errors name.
func readPair(section, certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readPEM(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.cert_file %w", section, err)
	}
	key, err := readPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s.key_file %w", section, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", section, err)
	}
	return pair, nil
}

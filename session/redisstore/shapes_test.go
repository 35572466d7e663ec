package redisstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
	"postern/session/storetest"
)

// always is a password that does not change.
func always(password string) func() (string, error) {
	return func() (string, error) { return password, nil }
}

// onSentinel are the options for a store on s.
func onSentinel(s *redistest.Sentinel) redisstore.Options {
	return redisstore.Options{Sentinel: &redisstore.Sentinel{Master: redistest.MasterName, Addresses: s.Addresses()}}
}

// onCluster are the options for a store on c.
func onCluster(c *redistest.Cluster) redisstore.Options {
	return redisstore.Options{Cluster: c.Addresses()[:1]} // the others are found
}

// conform runs the suite that every store passes. server is any of the servers.
func conform(t *testing.T, server *redistest.Server, o redisstore.Options) {
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		o := o
		o.KeyPrefix = fmt.Sprint("p:", n.Add(1), ":")
		return storetest.Harness{Store: newStore(t, server, o), Short: 50 * time.Millisecond, Now: time.Now}
	})
}

func TestStoreOnSentinel(t *testing.T) {
	s := redistest.StartSentinel(t, redistest.SentinelOptions{Server: redistest.Options{Password: "p", Forgetful: true}, SentinelPassword: "q"})
	o := onSentinel(s)
	permit(t, s.Servers)
	o.User, o.Password, o.Sentinel.Password = "postern", always("pw"), always("q")
	o.Database = 3
	o.Wait = redisstore.Wait{Replicas: 1, Timeout: patient}
	conform(t, s.Servers[0], o)
}

func TestStoreOnCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, redistest.ClusterOptions{Server: redistest.Options{Password: "p", TLS: true, ClientCert: true, Forgetful: true}})
	permit(t, c.Nodes)
	o := onCluster(c)
	o.User, o.Password = "postern", always("pw")
	o.Wait = redisstore.Wait{Replicas: 1, Timeout: patient}
	conform(t, c.Nodes[0], o)
}

// A server that wants a client certificate gets one, a new one once it has changed on disk, and without it the store is unavailable.
func TestClientCertificate(t *testing.T) {
	server := redistest.Start(t, redistest.Options{TLS: true, ClientCert: true})
	dir := t.TempDir()
	files := redisstore.TLSFiles{CAFile: server.CAFile, CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	if _, err := files.Config(); err == nil {
		t.Error("no error for a certificate that is not there")
	}
	if _, err := (redisstore.TLSFiles{CertFile: server.CertFile}).Config(); err == nil {
		t.Error("no error for a certificate without its key")
	}
	put := func(from *redistest.Server) {
		t.Helper()
		for to, from := range map[string]string{files.CertFile: from.CertFile, files.KeyFile: from.KeyFile} {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	stranger := redistest.Start(t, redistest.Options{TLS: true}) // of another CA
	put(stranger)
	ping := func(files redisstore.TLSFiles) (*redisstore.Store, error) {
		config, err := files.Config()
		if err != nil {
			t.Fatal(err)
		}
		s := newStore(t, server, redisstore.Options{TLS: config})
		return s, s.Ping(t.Context())
	}
	if _, err := ping(redisstore.TLSFiles{CAFile: server.CAFile}); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("without a certificate: %v", err)
	}
	s, err := ping(files)
	if !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("with a stranger's certificate: %v", err)
	}
	put(server)
	eventually(t, "the new certificate is used", func() bool { return s.Ping(t.Context()) == nil })
	if err := os.WriteFile(files.KeyFile, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	eventually(t, "the certificate of before is used", func() bool { return s.Ping(t.Context()) == nil })
}

// A password that changes on all servers is used for new connections, to servers and sentinels alike, wherever the next failover or slot leads.
func TestPasswordChangesOnAllServers(t *testing.T) {
	t.Parallel()
	g := redistest.StartSentinel(t, redistest.SentinelOptions{Server: redistest.Options{Password: "first"}, SentinelPassword: "s"})
	c := redistest.StartCluster(t, redistest.ClusterOptions{Server: redistest.Options{Password: "first"}})
	var current atomic.Pointer[string]
	set := func(p string) { current.Store(&p) }
	set("first")
	password := func() (string, error) { return *current.Load(), nil }
	o := onSentinel(g)
	o.Password, o.Sentinel.Password = password, always("s")
	stores := map[string]*redisstore.Store{"sentinel": newStore(t, nil, o)}
	o = onCluster(c)
	o.Password = password
	stores["cluster"] = newStore(t, nil, o)
	for name, s := range stores {
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	servers := append(slices.Clone(g.Servers), c.Nodes...)
	for _, s := range servers {
		if err := s.Client().ConfigSet(t.Context(), "requirepass", "second").Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("second")
	for name, s := range stores {
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("%s: the old connections: %v", name, err)
		}
	}
	for _, s := range servers {
		s.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	}
	for name, s := range stores {
		for i := range 10 {
			if _, err := s.Create(t.Context(), fmt.Sprint("k", i), record("x"), time.Hour, nil); err != nil {
				t.Errorf("%s: with the new password: %v", name, err)
			}
		}
	}
}

func TestContradictionsAreRefused(t *testing.T) {
	sentinel := &redisstore.Sentinel{Master: "m", Addresses: []string{"s"}}
	cluster := []string{"c"}
	for _, c := range []struct {
		o    redisstore.Options
		want string // part of the error; empty: fine
	}{
		{redisstore.Options{Sentinel: sentinel}, ""},
		{redisstore.Options{Cluster: cluster, User: "u", Password: always("p")}, ""},
		{redisstore.Options{Sentinel: sentinel, Cluster: cluster}, "one of"},
		{redisstore.Options{URL: "redis://host", Cluster: cluster}, "one of"},
		{redisstore.Options{Sentinel: &redisstore.Sentinel{Master: "m"}}, "addresses"},
		{redisstore.Options{Sentinel: &redisstore.Sentinel{Addresses: []string{"s"}}}, "name"},
		{redisstore.Options{Sentinel: &redisstore.Sentinel{Master: "m", Addresses: []string{"s"}, User: "u"}}, "no password"},
		{redisstore.Options{Cluster: []string{}}, "addresses"},
		{redisstore.Options{Cluster: cluster, Database: 1}, "database"},
		{redisstore.Options{Cluster: cluster, User: "u"}, "no password"},
		{redisstore.Options{URL: "redis://host", Database: 1}, "into the url"},
		{redisstore.Options{URL: "redis://host", User: "u"}, "into the url"},
		{redisstore.Options{URL: "redis://host", Wait: redisstore.Wait{Replicas: -1}}, "negative"},
		{redisstore.Options{URL: "redis://host", Wait: redisstore.Wait{Timeout: time.Microsecond}}, "millisecond"},
	} {
		s, err := redisstore.New(c.o)
		switch {
		case err == nil:
			s.Close()
			if c.want != "" {
				t.Errorf("%+v: no error, want %q", c.o, c.want)
			}
		case c.want == "" || !strings.Contains(err.Error(), c.want):
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

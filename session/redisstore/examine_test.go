package redisstore

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/session/redistest"
)

// Every command of a script is tried by Examine, and stands in the list for an ACL.
func TestExamineTriesEveryCommand(t *testing.T) {
	call := regexp.MustCompile(`redis\.call\('([A-Z]+)'`)
	for _, s := range []script{createSession, swapSession, touchSession, endSession, stripTombstone, addEntry, removeEntry, listEntries, countKept,
		forgetKept, takeKept, acquireLease, renewLease, releaseLease} {
		for _, found := range call.FindAllStringSubmatch(s.source, -1) {
			if !strings.Contains(tryScript.source, "try('"+found[1]+"'") {
				t.Errorf("Examine does not try %s", found[1])
			}
			if !slices.Contains(Commands(), strings.ToLower(found[1])) {
				t.Errorf("Commands lacks %s", found[1])
			}
		}
	}
}

// What Commands lists is enough for Examine too, and nothing is left behind.
func TestExamineIsContentWithTheListedCommands(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	args := []any{"ACL", "SETUSER", "postern", "on", ">pw", "~p:*", "&p:n*", "-@all"}
	for _, c := range Commands() {
		args = append(args, "+"+c)
	}
	if err := server.Client().Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	c := examined(t, Options{URL: "redis://postern@" + server.Address() + "/1", Password: func() (string, error) { return "pw", nil }, KeyPrefix: "p:", Wait: Wait{Replicas: 1}})
	if c.Err != nil || len(c.Forbidden)+len(c.Odd) > 0 || c.About["role"] != "master" {
		t.Errorf("%+v", c)
	}
	if keys := server.Client().DBSize(t.Context()).Val(); keys != 0 {
		t.Errorf("%d keys were left", keys)
	}
}

func TestExamineTellsUntilWhenACertificateIsGood(t *testing.T) {
	server := redistest.Start(t, redistest.Options{TLS: true})
	trust, err := TLSFiles{CAFile: server.CAFile}.Config()
	if err != nil {
		t.Fatal(err)
	}
	c := examined(t, Options{URL: server.URL(), TLS: trust})
	if left := time.Until(c.Certificate); c.Err != nil || left < 22*time.Hour || left > 25*time.Hour {
		t.Errorf("%+v", c)
	}
}

func TestExamineLooksAtEachMasterOfACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{})
	s, err := New(Options{Cluster: cluster.Addresses(), KeyPrefix: "p:", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	found, err := s.Examine(t.Context())
	if err != nil || len(found) != 3 {
		t.Fatalf("%+v, %v", found, err)
	}
	for _, c := range found {
		if c.Err != nil || len(c.Forbidden)+len(c.Odd) > 0 {
			t.Errorf("%+v", c)
		}
	}
}

// In a cluster Watch hears itself on a channel of its own, which the user must be allowed too.
func TestExamineTriesEveryChannelOfACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{})
	for pattern, forbidden := range map[string]bool{"&p:n": true, "&p:n*": false} {
		for _, server := range cluster.Nodes {
			if err := server.Client().Do(t.Context(), "ACL", "SETUSER", "postern", "reset", "on", ">pw", "~p:*", pattern, "+@all").Err(); err != nil {
				t.Fatal(err)
			}
		}
		s, err := New(Options{Cluster: cluster.Addresses(), User: "postern", Password: func() (string, error) { return "pw", nil }, KeyPrefix: "p:", Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		found, err := s.Examine(t.Context())
		if err != nil || len(found) != 3 {
			t.Fatalf("%+v, %v", found, err)
		}
		for _, c := range found {
			if c.Err != nil || len(c.Odd) > 0 || slices.Contains(c.Forbidden, "channels") != forbidden {
				t.Errorf("%s: %+v", pattern, c)
			}
		}
	}
}

// examined is what Examine says of one server.
func examined(t *testing.T, o Options) Condition {
	t.Helper()
	o.Timeout = 5 * time.Second
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	found, err := s.Examine(ctx)
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	return found[0]
}

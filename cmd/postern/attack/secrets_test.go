//go:build attack

package attack_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
)

// shortest is the length below which a value is not searched for: it could stand anywhere by chance.
const shortest = 12

// secrets are values that must not show where nobody looks after them.
type secrets struct {
	mu    sync.Mutex
	names map[string]string // by value
	shown map[string]bool   // values that a page may hold
	pages []string          // what Postern showed
}

func newSecrets() *secrets { return &secrets{names: map[string]string{}, shown: map[string]bool{}} }

// make makes a value that is recognised wherever it shows.
func (s *secrets) make(name string) string {
	value := "canary-" + name + "-" + rand.Text()
	s.add(name, value)
	return value
}

// add makes a value one that must not show.
func (s *secrets) add(name, value string) {
	if len(value) < shortest {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[value] = name
}

// mayShow lets pages hold a value, such as one that an application answers with.
func (s *secrets) mayShow(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown[value] = true
}

// page keeps a page for the search.
func (s *secrets) page(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = append(s.pages, text[:min(len(text), 1<<20)])
}

// search fails the test for each secret that text holds, as it is or encoded.
func (s *secrets) search(t testing.TB, where, text string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for value, name := range s.names {
		if at := found(text, value); at >= 0 {
			t.Errorf("%s holds the %s: …%s…", where, name, text[max(0, at-80):min(len(text), at+len(value)+20)])
		}
	}
}

// searchPages fails the test for each secret on a page.
func (s *secrets) searchPages(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	all := strings.Join(s.pages, "\n")
	names := map[string]string{}
	for value, name := range s.names {
		if !s.shown[value] {
			names[value] = name
		}
	}
	s.mu.Unlock()
	(&secrets{names: names}).search(t, "a page", all)
}

func found(text, value string) int {
	for _, form := range []string{
		value, url.QueryEscape(value), url.PathEscape(value),
		base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)),
	} {
		if at := strings.Index(text, form); at >= 0 {
			return at
		}
	}
	return -1
}

// searchProcess looks at what other users of the machine may see of a process.
func (s *secrets) searchProcess(t testing.TB, pid int) {
	t.Helper()
	for _, file := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Error(err)
			continue
		}
		s.search(t, "/proc/PID/"+file, string(text))
	}
}

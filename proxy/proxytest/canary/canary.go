// Package canary finds secrets where they must not be. A test tells it each token, code, state, key, password and cookie that it has to do with, and in
// the end has it search whatever was left behind: logs, metrics, spans, pages, what Redis holds, what is known of a process.
//
// Start at [Secrets].
package canary

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
)

// shortest is the length below which a value is not searched for: it could stand anywhere by chance.
const shortest = 12

// maxPage bounds what is kept of one page.
const maxPage = 1 << 20

// Reporter is the part of a test that a search needs.
type Reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// Secrets are values that must not show. The zero value has none.
type Secrets struct {
	mu    sync.Mutex
	names map[string]string // by value
	shown map[string]bool   // values that pages may hold
	pages []string
}

// New makes a value that is recognised wherever it shows.
func (s *Secrets) New(name string) string {
	value := "canary-" + name + "-" + rand.Text()
	s.Add(name, value)
	return value
}

// Add makes a value one that must not show. Short ones are left out.
func (s *Secrets) Add(name, value string) {
	if len(value) < shortest {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = map[string]string{}
	}
	s.names[value] = name
}

// linked are the parameters that pages link to, or post to the provider, and so may hold.
var linked = []string{"code", "state", "nonce", "code_challenge", "id_token", "id_token_hint"}

// AddParameter adds what a request to a provider, or an answer of one, has under a name.
func (s *Secrets) AddParameter(name, value string) {
	s.Add(name, value)
	if slices.Contains(linked, name) {
		s.MayShow(value)
	}
}

// AddQuery adds what a sign-in carries in an address.
func (s *Secrets) AddQuery(at *url.URL) {
	for _, name := range linked {
		s.AddParameter(name, at.Query().Get(name))
	}
}

// AddCookies adds the cookies that an answer sets.
func (s *Secrets) AddCookies(h http.Header) {
	for _, c := range (&http.Response{Header: h}).Cookies() {
		s.Add("cookie "+c.Name, c.Value)
	}
}

// MayShow lets pages hold a value, such as one that an application answers with.
func (s *Secrets) MayShow(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown == nil {
		s.shown = map[string]bool{}
	}
	s.shown[value] = true
}

// Page keeps a page for [Secrets.SearchPages].
func (s *Secrets) Page(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = append(s.pages, text[:min(len(text), maxPage)])
}

// Search reports each secret that text holds, as it is or encoded.
func (s *Secrets) Search(r Reporter, where, text string) {
	r.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	report(r, s.names, where, text)
}

// SearchPages reports each secret on a page that was kept.
func (s *Secrets) SearchPages(r Reporter) {
	r.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]string{}
	for value, name := range s.names {
		if !s.shown[value] {
			names[value] = name
		}
	}
	report(r, names, "a page", strings.Join(s.pages, "\n"))
}

// SearchProcess searches what the system tells of a process: its arguments, and its environment but for what may be in that.
func (s *Secrets) SearchProcess(r Reporter, pid int, env ...string) {
	r.Helper()
	for _, file := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			r.Errorf("%v", err)
			continue
		}
		left := string(text)
		for _, known := range env {
			left = strings.Replace(left, known+"\x00", "", 1)
		}
		s.Search(r, "/proc/PID/"+file, left)
	}
}

// Holds tells whether text holds a value, as it is or encoded.
func Holds(text, value string) bool {
	for _, form := range forms(value) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// forms are the spellings in which a value could show.
func forms(value string) []string {
	return []string{
		value, url.QueryEscape(value), url.PathEscape(value),
		base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)),
	}
}

// report goes over a text once, however many secrets there are: what stands at each place is looked up by its first bytes.
func report(r Reporter, names map[string]string, where, text string) {
	r.Helper()
	type spelling struct{ form, value string }
	byBeginning := map[string][]spelling{}
	for value := range names {
		for _, form := range forms(value) {
			byBeginning[form[:shortest]] = append(byBeginning[form[:shortest]], spelling{form, value})
		}
	}
	told := map[string]bool{}
	for at := 0; at+shortest <= len(text); at++ {
		for _, s := range byBeginning[text[at:at+shortest]] {
			if !told[s.value] && strings.HasPrefix(text[at:], s.form) {
				told[s.value] = true
				r.Errorf("%s holds the %s: …%s…", where, names[s.value], text[max(0, at-80):min(len(text), at+len(s.form)+20)])
			}
		}
	}
}

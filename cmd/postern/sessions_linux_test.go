package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestAllSessionsEndOnlyAfterAYesAtTheTerminal(t *testing.T) {
	s, at := adminStack(t)
	b := s.Browser()
	b.Go("/").Received(t)
	for _, c := range []struct {
		answer string
		want   int
	}{{"\n", http.StatusOK}, {"n\n", http.StatusOK}, {"why\n", http.StatusOK}, {" Yes\n", http.StatusUnauthorized}} {
		keys, program := openTerminal(t)
		if _, err := keys.WriteString(c.answer); err != nil {
			t.Fatal(err)
		}
		var out, notes bytes.Buffer
		root := newRoot()
		root.SetArgs(append([]string{"sessions", "end", "--user", "alice"}, at...))
		root.SetIn(program)
		root.SetOut(&out)
		root.SetErr(&notes)
		err := root.ExecuteContext(t.Context())
		if (err == nil) != (c.want == http.StatusUnauthorized) || !strings.Contains(notes.String(), "End 1 session?") {
			t.Errorf("%q: %v %s%s", c.answer, err, &out, &notes)
		}
		if a := b.Fetch("/"); a.StatusCode != c.want {
			t.Errorf("after %q: %s", c.answer, a.Status)
		}
	}
}

package proxy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"postern/proxy/page"
	"postern/session"
)

// Each answer names texts that exist, and says its sentences nowhere but there.
func TestWordsHaveTexts(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "respond.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		lit, ok := node.(*ast.CompositeLit)
		if !ok {
			return true
		}
		if name, ok := lit.Type.(*ast.Ident); lit.Type != nil && (!ok || name.Name != "words") || len(lit.Elts) != 2 {
			return true
		}
		say, ok := lit.Elts[1].(*ast.BasicLit)
		if !ok || say.Kind != token.STRING {
			return true
		}
		key, err := strconv.Unquote(say.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if title, text := page.English(key); strings.HasSuffix(title, ".title") || strings.HasSuffix(text, ".text") {
			t.Errorf("%s has no texts", key)
		}
		return true
	})
	if n < 35 {
		t.Errorf("%d words were found", n)
	}
}

// People are told why they have to sign in again, except where a forger could read it.
func TestReasonsHaveTexts(t *testing.T) {
	pages, err := page.New(page.Options{})
	if err != nil {
		t.Fatal(err)
	}
	told := func(reason session.Reason) bool {
		w := httptest.NewRecorder()
		pages.Notice(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), page.Notice{Say: "sign_in", Ended: string(reason)})
		return strings.Contains(w.Body.String(), "<li>")
	}
	for _, reason := range []session.Reason{session.ReasonIdle, session.ReasonLifetime, session.ReasonRefreshRejected, session.ReasonTokenExpired, session.ReasonSignedOut,
		session.ReasonBackChannel, session.ReasonFrontChannel, session.ReasonAdmin, session.ReasonLimit, session.ReasonReplaced, session.ReasonStoreMiss} {
		if !told(reason) {
			t.Errorf("nobody is told of %s", reason)
		}
	}
	for _, reason := range []session.Reason{"", session.ReasonKeyUnknown, session.ReasonTampered} {
		if told(reason) {
			t.Errorf("people are told of %q", reason)
		}
	}
}

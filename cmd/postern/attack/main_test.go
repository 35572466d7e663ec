//go:build attack

package attack_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postern/cmd/postern/proctest"
)

// program is the built postern. The flag -program names one that is built already.
var program string

func TestMain(m *testing.M) {
	flag.StringVar(&program, "program", "", "a built postern; empty builds it")
	flag.BoolVar(&full, "full", false, "strain the program as make floor does")
	flag.Parse()
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	if program == "" {
		dir, err := os.MkdirTemp("", "postern-attack-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if err := proctest.Build(dir, "./cmd/postern"); err != nil {
			return 0, err
		}
		program = filepath.Join(dir, "postern")
	}
	code := m.Run()
	printTable()
	return code, nil
}

// verdicts are what became of the rows' tests in this run, by id.
var verdicts struct {
	sync.Mutex
	failed  map[string]bool
	strains []string // what resources the attacks took
}

var testName = regexp.MustCompile(`^Test(A\d+)_`)

// attack begins the test of a row: its verdict goes into the table, and it runs beside others.
func attack(t *testing.T) {
	t.Helper()
	id := testName.FindStringSubmatch(t.Name())
	if id == nil {
		t.Fatalf("%s is not named for a row", t.Name())
	}
	t.Parallel()
	t.Cleanup(func() {
		verdicts.Lock()
		defer verdicts.Unlock()
		if verdicts.failed == nil {
			verdicts.failed = map[string]bool{}
		}
		verdicts.failed[id[1]] = verdicts.failed[id[1]] || t.Failed()
	})
}

// verdict is one row's in words.
func (r row) verdict() string {
	failed, ran := verdicts.failed[r.id]
	switch {
	case failed:
		return "FAILED"
	case ran:
		return "ok"
	case r.why != "":
		return "does not apply: " + r.why
	}
	return "not run"
}

// verdict is that of the worst row that covers the defect.
func (d defect) verdict() string {
	if d.rows == "" {
		return "does not apply: " + d.why
	}
	of := map[string]string{}
	for _, r := range rows {
		of[r.id] = r.verdict()
	}
	worst := "ok"
	for id := range strings.FieldsSeq(d.rows) {
		if v := of[id]; v == "FAILED" || v == "not run" && worst == "ok" {
			worst = v
		}
	}
	return worst + " (" + d.rows + ")"
}

func printTable() {
	verdicts.Lock()
	defer verdicts.Unlock()
	printStrains()
	if full { // few rows were run
		return
	}
	counts := map[string]int{}
	for _, r := range rows {
		v := r.verdict()
		kind, _, _ := strings.Cut(v, ":")
		counts[kind]++
		fmt.Printf("%-5s %-100s %s\n", r.id, cut(r.attack, 100), v)
	}
	for _, d := range defects {
		fmt.Printf("%-5s %-100s %s\n", d.id, cut(d.what, 100), d.verdict())
	}
	fmt.Printf("%d rows: %d ok, %d failed, %d do not apply, %d not run\n", len(rows), counts["ok"], counts["FAILED"], counts["does not apply"], counts["not run"])
}

// cut shortens text to so many characters.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// TestRows holds the rows against the tests of this folder: each row has one or says why not, and each defect names rows that do.
func TestRows(t *testing.T) {
	tested := map[string]bool{}
	for _, name := range testNames(t) {
		id := testName.FindStringSubmatch(name)
		if id == nil {
			continue
		}
		if !slices.ContainsFunc(rows, func(r row) bool { return r.id == id[1] }) {
			t.Errorf("%s is the test of no row", name)
		}
		tested[id[1]] = true
	}
	for _, r := range rows {
		switch {
		case tested[r.id] && r.why != "":
			t.Errorf("%s has a test and says why it does not apply", r.id)
		case !tested[r.id] && r.why == "":
			t.Errorf("%s has no test: %s", r.id, r.attack)
		}
	}
	for _, d := range defects {
		if (d.rows == "") == (d.why == "") {
			t.Errorf("%s names either rows or why it does not apply: %s", d.id, d.what)
		}
		for id := range strings.FieldsSeq(d.rows) {
			if !tested[id] {
				t.Errorf("%s is covered by %s, which has no test", d.id, id)
			}
		}
	}
}

var named = regexp.MustCompile(`\bA(\d+)(?:–A(\d+))?\b`)

// TestSecurityPageNamesRows holds SECURITY.md against the rows: each attack that it names is a row, what it promises is tested, and no promise of its lists is
// without a test.
func TestSecurityPageNamesRows(t *testing.T) {
	text, err := os.ReadFile("../../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	isTested := map[int]bool{}
	for _, r := range rows {
		id, err := strconv.Atoi(r.id[1:])
		if err != nil {
			t.Fatal(err)
		}
		isTested[id] = r.why == ""
	}
	for _, m := range named.FindAllString(page, -1) {
		first, last := span(m)
		for _, id := range []int{first, last} {
			if _, known := isTested[id]; !known {
				t.Errorf("SECURITY.md names A%d in %s, which is no row", id, m)
			}
		}
	}
	section := func(title string) string {
		_, text, _ := strings.Cut(page, "\n## "+title)
		text, _, _ = strings.Cut(text, "\n## ")
		return text
	}
	table := strings.Split(section("What is protected"), "\n| ")
	paragraphs := strings.Split(section("What is promised"), "\n\n")
	if len(table) < 8 || len(paragraphs) < 8 {
		t.Fatal("SECURITY.md promises nothing, or not where this test looks")
	}
	for _, promise := range append(table[3:], paragraphs[1:]...) { // after the table's head, and the title
		if !slices.ContainsFunc(named.FindAllString(promise, -1), func(name string) bool {
			first, last := span(name)
			for id := first; id <= last; id++ {
				if isTested[id] {
					return true
				}
			}
			return false
		}) {
			t.Errorf("SECURITY.md promises without a test: %.80s…", promise)
		}
	}
}

// span is the first and the last row of a name such as A20–A44.
func span(name string) (first, last int) {
	m := named.FindStringSubmatch(name)
	first, _ = strconv.Atoi(m[1])
	last, err := strconv.Atoi(m[2])
	if err != nil {
		last = first
	}
	return first, last
}

// testNames are the tests of this folder.
func testNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := fs.Glob(os.DirFS("."), "*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// File is the name that was given to Load or Parse.
	File string
	// Line and Column count from 1. They are 0 where no place in the file is meant.
	Line, Column int
	// Path is the YAML path, such as providers.corp.client_auth.
	Path string
	// What is wrong, and Mend what to do about it. Neither holds a secret or what an environment variable held.
	What, Mend string
	// Warning marks a problem that does not stop Load.
	Warning bool
	// Excerpt is the line of the file, with a mark below the column; empty where no line is meant. Like What it holds no secret.
	Excerpt string
}

// String is FILE:LINE:COLUMN: PATH: what. mend
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.What)
	if p.Mend != "" {
		b.WriteString(". " + p.Mend)
	}
	return b.String()
}

// Problems are sorted by place.
type Problems []Problem

// Error has one problem on each line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Errors are the problems that are not warnings.
func (ps Problems) Errors() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return p.Warning })
}

// Warnings are the problems that are warnings.
func (ps Problems) Warnings() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return !p.Warning })
}

// sorted orders by place and drops what was said twice.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path), cmp.Compare(a.What, b.What))
	})
	return slices.Compact(ps)
}

// mark is where a key or value stands, and what the file says there before variables were replaced.
type mark struct {
	line, col int
	text      string // of a single value; may be shown, because Secrets and URLs have none
}

// source knows where the values of a Config came from.
type source struct {
	file   string
	marks  map[string]mark
	failed map[string]bool   // paths whose value could not be decoded: nothing more is said about them
	raw    map[string]string // values with variables as the file writes them, for printing; URLs are among them

	scripts map[string]script // where expressions stand

	excerpts excerpts
}

func newSource(file string) *source {
	return &source{file: file, marks: map[string]mark{}, failed: map[string]bool{}, raw: map[string]string{}, scripts: map[string]script{}}
}

// given tells whether the file has the key.
func (s *source) given(path string) bool {
	if s == nil {
		return false
	}
	_, ok := s.marks[path]
	return ok
}

// broken tells whether path, or what contains it, could not be decoded.
func (s *source) broken(path string) bool {
	if s == nil || len(s.failed) == 0 {
		return false
	}
	for path != "" {
		if s.failed[path] {
			return true
		}
		path = parent(path)
	}
	return false
}

// at finds where path stands, or the nearest thing that contains it.
func (s *source) at(path string) mark {
	for s != nil && path != "" {
		if m, ok := s.marks[path]; ok {
			return m
		}
		path = parent(path)
	}
	if s == nil {
		return mark{}
	}
	return mark{line: 1, col: 1}
}

// show quotes what the file says at path, never what an environment variable held.
func (s *source) show(path string) string {
	if s == nil {
		return "the value"
	}
	text := s.marks[path].text
	if text == "" {
		return "the value"
	}
	return quote(text)
}

// quote makes text safe to print, whatever it holds.
func quote(text string) string {
	if r := []rune(text); len(r) > 80 {
		text = string(r[:80]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// parent drops the last step of a path: routes[0].access.groups[1] → routes[0].access.groups → routes[0].access.
func parent(path string) string {
	quoted := false
	for i := len(path) - 1; i > 0; i-- {
		switch {
		case path[i] == '"':
			quoted = !quoted
		case !quoted && (path[i] == '.' || path[i] == '['):
			return path[:i]
		}
	}
	return ""
}

// join adds a key to a path. A key of other than plain characters is quoted, so that it can print nothing odd.
func join(path, key string) string {
	plain := key != "" && len(key) <= 80
	for _, r := range key {
		plain = plain && (r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !plain {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

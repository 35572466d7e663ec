//go:build chaos

package chaos_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	keptEvents  = 100_000 // of a run
	shownEvents = 60      // for one violation
	shownBroken = 5       // violations
)

// A timeline is what happened in a run, and what must not have.
type timeline struct {
	began time.Time

	mu     sync.Mutex
	events []event
	broken []violation
	counts map[string]int
}

// An event is one line of it. Its topics say whom it is about; one without any is about everybody, as faults are.
type event struct {
	at     time.Duration
	topics []string
	text   string
}

// A violation is one broken promise.
type violation struct {
	event
	before []event // of its topics and of everybody's
}

func newTimeline() *timeline { return &timeline{began: time.Now(), counts: map[string]int{}} }

// note adds what everybody should know, such as a fault.
func (l *timeline) note(format string, args ...any) { l.about(nil, format, args...) }

// about adds an event of some topics.
func (l *timeline) about(topics []string, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) >= keptEvents {
		l.events = slices.Delete(l.events, 0, keptEvents/2)
	}
	l.events = append(l.events, event{time.Since(l.began), topics, fmt.Sprintf(format, args...)})
}

// violated adds a broken promise.
func (l *timeline) violated(topics []string, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts["violations"]++
	if len(l.broken) >= shownBroken {
		return
	}
	v := violation{event: event{time.Since(l.began), topics, fmt.Sprintf(format, args...)}}
	for _, e := range slices.Backward(l.events) {
		if len(topics) == 0 || len(e.topics) == 0 || slices.ContainsFunc(e.topics, func(s string) bool { return slices.Contains(topics, s) }) {
			v.before = append(v.before, e)
		}
		if len(v.before) == shownEvents {
			break
		}
	}
	slices.Reverse(v.before)
	l.broken = append(l.broken, v)
}

// count counts one thing that happened.
func (l *timeline) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

// total is how often it happened.
func (l *timeline) total(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[what]
}

// summary is all counts in one line.
func (l *timeline) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for what, n := range l.counts {
		parts = append(parts, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// report fails the test when a promise was broken, and shows what led to it.
func (l *timeline) report(t *testing.T, how string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.broken {
		var text strings.Builder
		for _, e := range v.before {
			fmt.Fprintf(&text, "  %9.3f %-14s %s\n", e.at.Seconds(), strings.Join(e.topics, " "), e.text)
		}
		t.Errorf("%s\nbroken at %.3f s: %v: %s\n%s", how, v.at.Seconds(), v.topics, v.text, text.String())
	}
	if n := l.counts["violations"]; n > len(l.broken) {
		t.Errorf("%s: %d violations in all", how, n)
	}
}

//go:build attack

package attack_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"postern/cmd/postern/proctest"
)

// logLines is what the program wrote to its log, over all its starts.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// entries are the lines as JSON objects; what is none is left out.
func (l *logLines) entries() (all []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil {
			all = append(all, entry)
		}
	}
	return all
}

// requests are the lines of the requests.
func (l *logLines) requests() (all []map[string]any) {
	for _, e := range l.entries() {
		if e["msg"] == "request" {
			all = append(all, e)
		}
	}
	return all
}

// reasons waits until a request is in the log for one of these reasons.
func (l *logLines) reasons(t *testing.T, any ...string) {
	t.Helper()
	proctest.Eventually(t, "the log", func() error {
		var seen []string
		for _, e := range l.requests() {
			reason, _ := e["reason"].(string)
			for _, want := range any {
				if reason == want {
					return nil
				}
			}
			seen = append(seen, reason)
		}
		return fmt.Errorf("has the reasons %q, not %q", seen, any)
	})
}

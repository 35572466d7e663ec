//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
)

// livePage holds a WebSocket and an event stream open, and writes down what becomes of them.
const livePage = `<!doctype html>
<html lang="en"><title>Live</title><link rel="icon" href="data:,">
<h1>Live</h1>
<pre id="live">{}</pre>
<script>
const saw = {echo: '', event: '', close: null, errors: []}
const note = change => { change(); document.querySelector('#live').textContent = JSON.stringify(saw) }
const socket = new WebSocket('ws://' + location.host + '/live/socket')
socket.onopen = () => socket.send('hello')
socket.onmessage = m => note(() => saw.echo = m.data)
socket.onclose = e => note(() => saw.close = {code: e.code, reason: e.reason, clean: e.wasClean, at: Date.now()})
const stream = new EventSource('/live/events')
stream.onmessage = m => note(() => saw.event = m.data)
stream.onerror = () => note(() => saw.errors.push({state: stream.readyState, at: Date.now()}))
</script>
</html>`

// serveLive serves that page and what it opens.
func serveLive(mux *http.ServeMux) {
	mux.HandleFunc("/live", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, livePage)
	})
	mux.HandleFunc("/live/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err == nil {
				err = c.Write(r.Context(), kind, message)
			}
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/live/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		// When it ends the browser connects again soon.
		io.WriteString(w, "retry: 100\ndata: hello\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}

// live is what that page saw.
type live struct {
	Echo  string `json:"echo"`
	Event string `json:"event"`
	Close *struct {
		Code   websocket.StatusCode `json:"code"`
		Reason string               `json:"reason"`
		Clean  bool                 `json:"clean"`
		At     int64                `json:"at"` // milliseconds, as Date.now() has them
	} `json:"close"`
	Errors []struct {
		State int   `json:"state"` // of the EventSource after the error
		At    int64 `json:"at"`
	} `json:"errors"`
}

// The states of an EventSource.
const (
	connecting = 0
	closed     = 2
)

// goesLive opens that page and waits until both of its connections work.
func (b *browser) goesLive(origin string) {
	b.t.Helper()
	b.open(origin + "/live")
	eventually(b.t, "WebSocket and event stream are open", func() error {
		if l := b.live(); l.Echo != "hello" || l.Event != "hello" {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}

func (b *browser) live() live {
	b.t.Helper()
	text := must(b, "read what the page saw", chromedp.Evaluate[string](`document.querySelector('#live').textContent`))
	var l live
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		b.t.Fatalf("the page saw %q: %v", text, err)
	}
	return l
}

// isCutOff waits until that page has lost both connections, says how long after began that was, and checks how it was.
func (b *browser) isCutOff(t *testing.T, began time.Time, reason string) {
	t.Helper()
	var l live
	eventually(t, "WebSocket and event stream are over", func() error {
		l = b.live()
		if n := len(l.Errors); l.Close == nil || n == 0 || l.Errors[n-1].State != closed {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	since := func(at int64) time.Duration { return time.UnixMilli(at).Sub(began).Round(time.Millisecond) }
	t.Logf("WebSocket closed after %v, event stream ended after %v, its next try refused after %v",
		since(l.Close.At), since(l.Errors[0].At), since(l.Errors[len(l.Errors)-1].At))
	if l.Close.Code != websocket.StatusPolicyViolation || l.Close.Reason != reason || !l.Close.Clean {
		t.Errorf("the WebSocket closed with %d %q, cleanly: %v", l.Close.Code, l.Close.Reason, l.Close.Clean)
	}
	if l.Errors[0].State != connecting {
		t.Errorf("the event stream did not end, but failed: %+v", l.Errors)
	}
}

// staysLive checks that both connections of that page are as they were.
func (b *browser) staysLive() {
	b.t.Helper()
	must(b, "say something", chromedp.Evaluate[bool](`socket.send('still here'), true`))
	eventually(b.t, "the WebSocket answers", func() error {
		if l := b.live(); l.Echo != "still here" {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	if l := b.live(); l.Close != nil || len(l.Errors) > 0 {
		b.t.Errorf("the page saw %+v", l)
	}
}

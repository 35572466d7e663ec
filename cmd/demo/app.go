package main

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// keptNotes bounds the guest book.
const keptNotes = 50

//go:embed app
var appFiles embed.FS

// app is the "legacy" application: it knows nothing of OAuth and believes the headers that it receives. What stands before it must
// make them true.
type app struct {
	log   *slog.Logger
	pages *template.Template

	mu    sync.Mutex
	notes []note // newest first
}

// note is one entry of the guest book.
type note struct {
	Who, Text, At string
}

// view is what every page is made from.
type view struct {
	Page, Title string
	User, Name  string // empty: the request came without a session, or past Postern
	Groups      []string
	Data        any
}

// received is what the headers page shows.
type received struct {
	Headers []header `json:"headers"`
	Bearer  *bearer  `json:"bearer"`
}

type header struct {
	Name   string   `json:"name"`
	Values []string `json:"values"`
}

// bearer is what a curious application can read in its access token. It verifies nothing: that is for showing only.
type bearer struct {
	ID     string `json:"id"` // short name of this very token, to see when it changes
	Exp    int64  `json:"exp"`
	Claims string `json:"claims"`
}

// newApp makes the application.
func newApp(log *slog.Logger) http.Handler {
	a := &app{log: log, pages: template.Must(template.ParseFS(appFiles, "app/*.html"))}
	assets, err := fs.Sub(appFiles, "app/assets")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.page("home", "Home"))
	mux.HandleFunc("GET /headers", a.headers)
	mux.HandleFunc("GET /headers.json", a.headersJSON)
	mux.HandleFunc("GET /guestbook", a.guestbook)
	mux.HandleFunc("POST /guestbook", a.sign)
	mux.HandleFunc("GET /live", a.page("live", "Live"))
	mux.HandleFunc("GET /time", a.time)
	mux.HandleFunc("GET /clock", a.clock)
	mux.HandleFunc("GET /echo", a.echo)
	mux.HandleFunc("GET /admin", a.page("admin", "Administration"))
	mux.HandleFunc("GET /public", a.page("public", "Public page"))
	mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.FileServerFS(assets)))
	return mux
}

func (a *app) page(name, title string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { a.show(w, r, name, title, nil) }
}

func (a *app) show(w http.ResponseWriter, r *http.Request, page, title string, data any) {
	v := view{Page: page, Title: title, User: r.Header.Get("X-Forwarded-User"), Data: data}
	v.Name = v.User
	if name := r.Header.Get("X-Forwarded-Preferred-Username"); name != "" {
		v.Name = name
	}
	if groups := r.Header.Get("X-Forwarded-Groups"); groups != "" {
		v.Groups = strings.Split(groups, ",")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; frame-ancestors 'none'")
	if err := a.pages.ExecuteTemplate(w, page+".html", v); err != nil {
		a.log.DebugContext(r.Context(), "page not written whole", "page", page, "error", err)
	}
}

func (a *app) headers(w http.ResponseWriter, r *http.Request) {
	a.show(w, r, "headers", "Headers", receivedBy(r))
}

func (a *app) headersJSON(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, receivedBy(r))
}

func receivedBy(r *http.Request) received {
	got := received{Headers: []header{{"Host", []string{r.Host}}}}
	for name, values := range r.Header {
		got.Headers = append(got.Headers, header{name, values})
	}
	slices.SortFunc(got.Headers, func(a, b header) int { return strings.Compare(a.Name, b.Name) })
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		got.Bearer = readBearer(token)
	}
	return got
}

func readBearer(token string) *bearer {
	sum := sha256.Sum256([]byte(token))
	b := &bearer{ID: hex.EncodeToString(sum[:4])}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return b
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return b
	}
	var claims map[string]any
	if json.Unmarshal(payload, &claims) != nil {
		return b
	}
	if exp, ok := claims["exp"].(float64); ok {
		b.Exp = int64(exp)
	}
	pretty, err := json.MarshalIndent(json.RawMessage(payload), "", "  ")
	if err == nil {
		b.Claims = string(pretty)
	}
	return b
}

func (a *app) guestbook(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	notes := slices.Clone(a.notes)
	a.mu.Unlock()
	a.show(w, r, "guestbook", "Guest book", notes)
}

// sign takes the guest book's form.
func (a *app) sign(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "The form cannot be read.", http.StatusBadRequest)
		return
	}
	text := strings.TrimSpace(r.PostForm.Get("text"))
	who := r.Header.Get("X-Forwarded-Preferred-Username")
	if who == "" {
		who = "somebody"
	}
	if text != "" {
		a.mu.Lock()
		a.notes = slices.Insert(a.notes, 0, note{who, text, time.Now().Format(time.TimeOnly)})
		a.notes = a.notes[:min(len(a.notes), keptNotes)]
		a.mu.Unlock()
	}
	http.Redirect(w, r, "/guestbook", http.StatusSeeOther)
}

func (a *app) time(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"time": time.Now().Format(time.TimeOnly)})
}

// clock is a stream of server-sent events, one a second, until the client leaves.
func (a *app) clock(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for now := time.Now(); ; {
		fmt.Fprintf(w, "data: %s\n\n", now.Format(time.TimeOnly))
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case now = <-tick.C:
		}
	}
}

// echo is a WebSocket that sends back each message until the client leaves.
func (a *app) echo(w http.ResponseWriter, r *http.Request) {
	// An older application checks no Origin, and behind a proxy it often cannot: its own name is another.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		a.log.DebugContext(r.Context(), "websocket refused", "error", err)
		return
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v)
}

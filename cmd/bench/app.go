package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Paths of the application; any path before them is as good.
const (
	plainPath  = "/plain"  // for whoever asks
	signedPath = "/signed" // for whom the query names: a bearer token, that user, and no cookie of ours
	downPath   = "/down"   // as many bytes as the query says
	upPath     = "/up"     // answers how many bytes it was sent
	socketPath = "/socket" // echoes what it is sent after an upgrade
)

// page is the 1 KiB that the application answers.
var page = strings.Repeat("0123456789abcdef0123456789abcde\n", 32)

// serveApp is the application.
func serveApp(ctx context.Context, _ []string) error {
	return serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path[max(strings.LastIndexByte(r.URL.Path, '/'), 0):] {
		case signedPath:
			if !signedIn(r) {
				http.Error(w, "not signed in", http.StatusForbidden)
				return
			}
			answerPage(w)
		case plainPath:
			answerPage(w)
		case downPath:
			sendDown(w, r)
		case upPath:
			n, err := io.Copy(io.Discard, r.Body)
			if err == nil {
				fmt.Fprint(w, n)
			}
		case socketPath:
			echo(w)
		default:
			http.NotFound(w, r)
		}
	}))
}

// signedIn tells whether a proxy said who asks, and gave their access token. oauth2-proxy has no other header for that token.
func signedIn(r *http.Request) bool {
	h := r.Header
	token := len(h.Get("Authorization")) >= accessTokenSize || len(h.Get("X-Forwarded-Access-Token")) >= accessTokenSize
	return token && h.Get("X-Forwarded-User") == r.URL.RawQuery && !strings.Contains(h.Get("Cookie"), "postern")
}

func answerPage(w http.ResponseWriter) {
	w.Header()["Content-Type"] = []string{"text/plain; charset=utf-8"}
	_, _ = io.WriteString(w, page) // a client that left is no matter of the measurement
}

func sendDown(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.RawQuery, 10, 64)
	if err != nil {
		http.Error(w, "no number", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", r.URL.RawQuery)
	_, _ = io.CopyN(w, zeros{}, n) // the client counts
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// echo is a WebSocket that answers each frame by the same bytes.
func echo(w http.ResponseWriter) {
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+socketAccept+"\r\n\r\n")
	_, _ = io.Copy(conn, in) // until the client goes
}

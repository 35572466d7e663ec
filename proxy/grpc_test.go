package proxy

import (
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// message frames a message as gRPC does: not compressed, its length, itself.
func message(text string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))
	return append(b, text...)
}

func readMessage(r io.Reader) (string, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	text := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, text)
	return string(text), err
}

// grpcApp echoes each message as it comes, and ends with its status in trailers. /denied is refused without any body.
func grpcApp(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		if r.Header.Get("Te") != "trailers" || r.ProtoMajor != 2 || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Authorization") != "Bearer tok" {
			t.Errorf("%s arrives with %v", r.Proto, r.Header)
		}
		if r.URL.Path == "/denied" {
			h.Set("Grpc-Status", "7")
			h.Set("Grpc-Message", "denied")
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		for {
			text, err := readMessage(r.Body)
			if err != nil {
				break
			}
			_, _ = w.Write(message(strings.ToUpper(text)))
			_ = http.NewResponseController(w).Flush()
		}
		h.Set(http.TrailerPrefix+"Grpc-Status", "0")
		h.Set(http.TrailerPrefix+"Grpc-Message", "done")
		h.Set(http.TrailerPrefix+"X-Trace-Bin", "AAE=")
		h.Set(http.TrailerPrefix+"Set-Cookie", "__Host-postern=evil")
	}
}

// A gRPC call through Postern: messages in both directions at once, trailers, and an answer that is trailers only.
func TestGRPC(t *testing.T) {
	h2c := func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		t.Cleanup(server.Close)
		return server
	}
	app := h2c(grpcApp(t))
	address := strings.Replace(app.URL, "http:", "h2c:", 1)
	for name, change := range map[string]func(*upstreamOptions){
		"one upstream": func(*upstreamOptions) {},
		"balanced":     alsoAt(t, address+"/"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, address, nil, change)
			edge := h2c(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fwd := asAlice(r)
				fwd.Client = forwarding{}.client(r)
				f.u.serve(w, r, fwd)
			}))
			client := &http.Transport{Protocols: new(http.Protocols)}
			client.Protocols.SetUnencryptedHTTP2(true)
			defer client.CloseIdleConnections()
			call := func(path string, body io.Reader) *http.Response {
				t.Helper()
				r, _ := http.NewRequestWithContext(t.Context(), "POST", edge.URL+path, body)
				r.Header.Set("Content-Type", "application/grpc")
				r.Header.Set("Te", "trailers")
				res, err := client.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { res.Body.Close() })
				return res
			}

			out, in := io.Pipe()
			res := call("/orders.Orders/Watch", out)
			for _, text := range []string{"one", "two", "three"} { // each is answered before the next is sent
				if _, err := in.Write(message(text)); err != nil {
					t.Fatal(err)
				}
				if got, err := readMessage(res.Body); err != nil || got != strings.ToUpper(text) {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			in.Close()
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("got %q, %v", rest, err)
			}
			if got := res.Trailer; got.Get("Grpc-Status") != "0" || got.Get("Grpc-Message") != "done" || got.Get("X-Trace-Bin") != "AAE=" || got["Set-Cookie"] != nil {
				t.Errorf("trailers %v", got)
			}

			res = call("/denied", strings.NewReader(string(message("x"))))
			if body, err := io.ReadAll(res.Body); err != nil || len(body) > 0 || res.Header.Get("Grpc-Status") != "7" || res.Header.Get("Grpc-Message") != "denied" {
				t.Errorf("trailers only: %v, %q, %v", res.Header, body, err)
			}
		})
	}
}

package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// deadlined is a body and the writer that its deadline is set at.
type deadlined struct {
	http.ResponseWriter
	conn net.Conn
}

func (d deadlined) SetReadDeadline(t time.Time) error { return d.conn.SetReadDeadline(t) }

func TestA191_ABodyThatStandsStillIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		x := &exchange{ResponseWriter: deadlined{conn: server}, r: &http.Request{ProtoMajor: 2, Body: server}}
		x.watchBody()
		go func() {
			for range 20 { // slowly, and for longer than any pause may be
				time.Sleep(bodyTimeout / 2)
				_, _ = client.Write([]byte("x"))
			}
		}()
		began := time.Now()
		n, err := io.Copy(io.Discard, x.r.Body)
		if n != 20 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v; want 20 and the deadline", n, err)
		}
		if took := time.Since(began); took < 10*bodyTimeout || took > 12*bodyTimeout {
			t.Errorf("cut after %v", took)
		}
	})
}

func TestAnHTTP2BodyMayRestOnceTheAnswerHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		x := &exchange{ResponseWriter: deadlined{conn: server}, r: &http.Request{ProtoMajor: 2, Body: server}}
		x.watchBody()
		x.body.release()
		time.AfterFunc(10*bodyTimeout, func() { client.Close() })
		if _, err := io.Copy(io.Discard, x.r.Body); err != nil {
			t.Errorf("a pause in a stream: %v", err)
		}
	})
}

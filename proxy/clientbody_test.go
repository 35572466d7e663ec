package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
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
		x := &exchange{ResponseWriter: deadlined{conn: server}, now: time.Now, r: &http.Request{ProtoMajor: 2, Body: server}}
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
		x := &exchange{ResponseWriter: deadlined{conn: server}, now: time.Now, r: &http.Request{ProtoMajor: 2, Body: server}}
		x.watchBody()
		x.body.release()
		time.AfterFunc(10*bodyTimeout, func() { client.Close() })
		if _, err := io.Copy(io.Discard, x.r.Body); err != nil {
			t.Errorf("a pause in a stream: %v", err)
		}
	})
}

func TestAGRPCBodyMayRestBeforeTheAnswer(t *testing.T) {
	for scheme, may := range map[string]bool{"h2c": true, "http": false} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			header := http.Header{"Content-Type": {"application/grpc+proto"}}
			x := &exchange{ResponseWriter: deadlined{conn: server}, r: &http.Request{ProtoMajor: 2, Body: server, Header: header},
				route: &route{upstream: &upstream{o: upstreamOptions{URLs: []*url.URL{{Scheme: scheme}}}}}}
			x.watchBody()
			x.letRest()
			time.AfterFunc(10*bodyTimeout, func() { client.Close() })
			if _, err := io.Copy(io.Discard, x.r.Body); (err == nil) != may {
				t.Errorf("to an application by %s, a pause in a stream: %v", scheme, err)
			}
		})
	}
}

func TestALargeUploadGoesOnBesideItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		x := &exchange{ResponseWriter: answered{deadlined{conn: server}}, r: &http.Request{ProtoMajor: 1, ContentLength: 1 << 20, Body: server}, now: time.Now}
		x.watchBody()
		x.WriteHeader(http.StatusOK)
		go func() {
			time.Sleep(bodyTimeout / 2)
			_, _ = client.Write([]byte("x"))
		}()
		if _, err := x.r.Body.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

// answered is the writer of an answer; the deadline is the connection's.
type answered struct{ deadlined }

func (answered) WriteHeader(int) {}

func TestA97_AnAnswerDoesNotWaitForTheRestOfABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		x := &exchange{ResponseWriter: answered{deadlined{conn: server}}, r: &http.Request{ProtoMajor: 1, ContentLength: -1, Body: server}, now: time.Now}
		x.watchBody()
		began := time.Now()
		x.WriteHeader(http.StatusOK)
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != restTimeout {
			t.Errorf("net/http waits %v for the rest: %v", time.Since(began), err)
		}
		go func() {
			for range 10 {
				time.Sleep(restTimeout / 2)
				_, _ = client.Write([]byte("x"))
			}
		}()
		if n, err := io.Copy(io.Discard, x.r.Body); n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who goes on reading gets %d of 10 bytes, then %v", n, err)
		}
	})
}

func TestTheDeadlineForTheRestOfABodyEndsWithTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		body, write := io.Pipe()
		x := &exchange{ResponseWriter: answered{deadlined{conn: server}}, r: &http.Request{ProtoMajor: 1, ContentLength: -1, Body: body}, now: time.Now}
		x.watchBody()
		go func() { // the application's side is waiting when the answer begins
			synctest.Wait()
			x.WriteHeader(http.StatusOK)
			write.Close()
		}()
		if _, err := io.Copy(io.Discard, x.r.Body); err != nil {
			t.Error(err)
		}
		time.AfterFunc(10*bodyTimeout, func() { client.Close() })
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the answer that goes on is cut: %v", err)
		}
	})
}

package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The transport reads once more after the end, and the server may have closed the body by then: an error would break the answer off that has begun.
func TestUploadThatEndedIsNoFailureOnceItIsClosed(t *testing.T) {
	body := &closing{r: strings.NewReader("all of it")}
	b := upload{body: body}
	if got, err := io.ReadAll(&b); string(got) != "all of it" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	body.closed = true
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF || b.failure() != nil {
		t.Errorf("after the end %d bytes, %v, failure %v", n, err, b.failure())
	}
}

func TestUploadThatBrokeOffDoesNotEndWell(t *testing.T) {
	b := upload{body: &closing{r: io.MultiReader(strings.NewReader("a part"), broken{})}}
	if got, err := io.ReadAll(&b); string(got) != "a part" || err != io.ErrUnexpectedEOF {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := b.Read(make([]byte, 1)); err != io.ErrUnexpectedEOF || b.failure() != io.ErrUnexpectedEOF {
		t.Errorf("then %v, failure %v", err, b.failure())
	}
}

// closing is a body as a server has it.
type closing struct {
	r      io.Reader
	closed bool
}

func (c *closing) Read(p []byte) (int, error) {
	if c.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return c.r.Read(p)
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// maxKeptHead bounds what is kept of a request beside its body.
const maxKeptHead = 64 << 10

// keptHeaders are what a kept request keeps of its header: what tells how to read the body, what answer is wanted, and what applications hold
// against forged and repeated requests. Cookies and Authorization are those of the browser that sends it in the end.
var keptHeaders = []string{
	"Content-Type", "Content-Encoding", "Content-Language", "Accept", "If-Match", "If-None-Match", "If-Unmodified-Since", "Idempotency-Key",
	"Prefer", "Referer", "X-Requested-With", "X-Csrf-Token", "X-Csrftoken", "X-Xsrf-Token",
}

// keptRequest is a request that waits for its person to sign in again. What has a number is sealed before the body; the numbers stay for good.
type keptRequest struct {
	Issuer  string      `cbor:"1,keyasint"` // who sent it
	Subject string      `cbor:"2,keyasint"`
	Method  string      `cbor:"3,keyasint"`
	Target  string      `cbor:"4,keyasint"` // path and query
	Header  http.Header `cbor:"5,keyasint"` // of keptHeaders alone
	At      int64       `cbor:"6,keyasint"` // Unix seconds
	Body    []byte      `cbor:"-"`
}

// errKeptSize says that a request is larger than what is kept.
var errKeptSize = errors.New("request is too large to be kept")

// readKept reads the body of r behind what k says of it. The two are one buffer, so that a large body is in memory once.
func (k *keptRequest) readKept(r *http.Request, maxBody int64) ([]byte, error) {
	head, err := cbor.Marshal(k)
	if err != nil {
		return nil, err
	}
	if len(head) > maxKeptHead {
		return nil, errKeptSize
	}
	var b bytes.Buffer
	b.Grow(binary.MaxVarintLen32 + len(head) + int(max(r.ContentLength, 0)) + bytes.MinRead)
	b.Write(binary.AppendUvarint(nil, uint64(len(head))))
	b.Write(head)
	n, err := b.ReadFrom(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	switch {
	case n > maxBody:
		return nil, errKeptSize
	case r.ContentLength >= 0 && n != r.ContentLength:
		return nil, io.ErrUnexpectedEOF
	}
	return b.Bytes(), nil
}

// keptDecoding takes texts as they came: a header or an address may hold bytes that are no UTF-8.
var keptDecoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	if err != nil {
		panic(err) // the option is a constant
	}
	return mode
}()

// parseKept is the reverse of readKept. The body is a part of plain.
func parseKept(plain []byte) (*keptRequest, error) {
	length, n := binary.Uvarint(plain)
	if n <= 0 || length > maxKeptHead || length > uint64(len(plain)-n) {
		return nil, errors.New("kept request is cut off")
	}
	rest := plain[n:]
	var k keptRequest
	if err := keptDecoding.Unmarshal(rest[:length], &k); err != nil {
		return nil, err
	}
	k.Body = rest[length:]
	return &k, nil
}

// at is when it was sent.
func (k *keptRequest) at() time.Time { return time.Unix(k.At, 0) }

// request is the kept request as r, which the browser sent in its place, would have been: from where r comes, with the cookies of r.
func (k *keptRequest) request(r *http.Request) (*http.Request, error) {
	address, err := url.ParseRequestURI(k.Target)
	if err != nil {
		return nil, err
	}
	out := r.Clone(r.Context())
	for _, name := range keptHeaders {
		delete(out.Header, name)
	}
	maps.Copy(out.Header, k.Header)
	out.Header.Set("Content-Length", strconv.Itoa(len(k.Body)))
	out.Method, out.URL, out.RequestURI = k.Method, address, k.Target
	out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(k.Body)), int64(len(k.Body)), nil
	return out, nil
}

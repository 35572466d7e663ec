package proxy

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestFormFieldsAreNamedWithoutValues(t *testing.T) {
	const multi = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nsecret\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../x \\\"y\\\".bin\"\r\nContent-Type: text/plain\r\n\r\nname=secret\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nsecret\r\n--b--\r\n"
	for _, c := range []struct {
		contentType, body string
		want              []string
		more              int
	}{
		{"application/x-www-form-urlencoded", "a=secret&b%20c=&a=again&=nameless&d", []string{"a", "b c", "d"}, 0},
		{"application/x-www-form-urlencoded; charset=utf-8", "a=1&%zz=2&b=3", []string{"a"}, 0}, // broken from there on
		{"multipart/form-data; boundary=b", multi, []string{"a", `f: x "y".bin`}, 0},
		{"multipart/form-data; boundary=other", multi, nil, 0},
		{"multipart/form-data", multi, nil, 0},
		{"application/json", `{"a":1}`, nil, 0},
		{"", "a=1", nil, 0},
		{"application/x-www-form-urlencoded", manyFields(maxFormFields + 7), nil, 7},
	} {
		names, more := formFields(c.contentType, []byte(c.body))
		if c.more > 0 {
			names = nil
		}
		if diff := cmp.Diff(c.want, names); diff != "" || more != c.more {
			t.Errorf("%s %.60q: %d more, names (-want +got):\n%s", c.contentType, c.body, more, diff)
		}
	}
}

func manyFields(n int) string {
	var pairs []string
	for i := range n {
		pairs = append(pairs, strings.Repeat("x", i+1)+"=1")
	}
	return strings.Join(pairs, "&")
}

// Whatever a form holds, its names are few and short, and broken forms break nothing.
func FuzzFormFieldsAreBounded(f *testing.F) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.SetBoundary("b")
	_ = w.WriteField("a", "1")
	_, _ = w.CreateFormFile("f", "x.bin")
	_ = w.Close()
	f.Add("multipart/form-data; boundary=b", b.Bytes())
	f.Add("multipart/form-data; boundary=b", b.Bytes()[:b.Len()/2])
	f.Add("application/x-www-form-urlencoded", []byte("a=1&b%20c=2&%zz"))
	f.Add("multipart/form-data; boundary=\"\"", []byte("--\r\n\r\n"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		names, more := formFields(contentType, body)
		if len(names) > maxFormFields || more > maxFormParts {
			t.Fatalf("%d names and %d more", len(names), more)
		}
		for _, name := range names {
			if name == "" || len(name) > maxFieldName {
				t.Fatalf("a name of %d bytes", len(name))
			}
		}
	})
}

func TestKeptRequestComesBackAsItWas(t *testing.T) {
	body := "a=\x00\xff&b"
	r := httptest.NewRequest(http.MethodPut, "/x", strings.NewReader(body))
	k := &keptRequest{Issuer: "https://id.example.com", Subject: "alice", Method: "PUT", Target: "/x?y=1", Header: http.Header{"Content-Type": {"text/plain"}}, At: 1_700_000_000}
	plain, err := k.readKept(r, int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseKept(plain)
	k.Body = []byte(body)
	if diff := cmp.Diff(k, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for n := range len(plain) - len(body) {
		if _, err := parseKept(plain[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for a kept request", n, len(plain))
		}
	}
	if _, err := k.readKept(httptest.NewRequest(http.MethodPut, "/x", strings.NewReader(body)), int64(len(body))-1); err != errKeptSize {
		t.Errorf("a body that is too large: %v", err)
	}
	k.Header["X-Csrf-Token"] = []string{strings.Repeat("x", maxKeptHead)}
	if _, err := k.readKept(httptest.NewRequest(http.MethodPut, "/x", nil), 100); err != errKeptSize {
		t.Errorf("a head that is too large: %v", err)
	}
}

// Of the old request only what is listed comes along; all else is what the browser sends now.
func TestKeptRequestTakesNoCredentialsAlong(t *testing.T) {
	now := httptest.NewRequest(http.MethodPost, "/x", strings.NewReader("postern-kept=x"))
	now.Header = http.Header{"Cookie": {"app=new"}, "Content-Type": {"application/x-www-form-urlencoded"}, "Content-Length": {"14"}, "Referer": {"https://a/oauth2/kept"}, "User-Agent": {"new"}}
	k := &keptRequest{Method: "PATCH", Target: "/y?z=%2F", Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte("{}")}
	r, err := k.request(now)
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Cookie": {"app=new"}, "User-Agent": {"new"}, "Content-Type": {"application/json"}, "Content-Length": {"2"}}
	if diff := cmp.Diff(want, r.Header); diff != "" || r.Method != "PATCH" || r.RequestURI != "/y?z=%2F" || r.URL.Path != "/y" || r.ContentLength != 2 {
		t.Errorf("%s %s %d, header (-want +got):\n%s", r.Method, r.RequestURI, r.ContentLength, diff)
	}
	for _, name := range []string{"Cookie", "Authorization", "Proxy-Authorization", "Host", "X-Forwarded-For", "Connection", "Transfer-Encoding", "Origin"} {
		if slices.Contains(keptHeaders, name) {
			t.Errorf("%s is kept", name)
		}
	}
}

func FuzzParseKeptNeverPanics(f *testing.F) {
	k := &keptRequest{Issuer: "i", Subject: "s", Method: "POST", Target: "/x", Header: http.Header{"Accept": {"*/*"}}}
	plain, err := k.readKept(httptest.NewRequest(http.MethodPost, "/x", strings.NewReader("body")), 10)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, plain []byte) {
		k, err := parseKept(plain)
		if err == nil && len(k.Body) > len(plain) {
			t.Fatalf("a body of %d bytes from %d", len(k.Body), len(plain))
		}
		if err == nil {
			_, _ = k.request(httptest.NewRequest(http.MethodPost, "/", nil))
		}
	})
}

// What an application reads of a kept request that is sent in the end is what the browser had sent: the same bytes, and the same form.
func FuzzKeptFormArrivesAsItWas(f *testing.F) {
	for _, body := range []string{
		"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n", "--b\nContent-Disposition: form-data; name=a\n\n\x00\xff\n--b--", "--b\r\n\r\n--b\r\n\r\n",
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../x\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--b--\r\nepilogue", "", "postern-kept=AAAAAAAAAAAAAAAAAAAAAA",
	} {
		f.Add("POST", "/x?y=%2F&z", "multipart/form-data; boundary=b", []byte(body))
		f.Add("PUT", "/a%20b;c", "application/x-www-form-urlencoded", []byte(body))
	}
	f.Add("PATCH", "//evil.example/", "\r\nCookie: a=b", []byte("x"))
	f.Add("GET", "http://evil.example/", "", []byte("x"))
	f.Fuzz(func(t *testing.T, method, target, contentType string, body []byte) {
		if !utf8.ValidString(method + target + contentType) { // CBOR's texts are UTF-8, as what net/http takes for a method is
			return
		}
		k := &keptRequest{Issuer: "i", Subject: "s", Method: method, Target: target, Header: http.Header{"Content-Type": {contentType}}, At: 1_700_000_000}
		sent := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		plain, err := k.readKept(sent, int64(len(body)))
		if err != nil {
			if err != errKeptSize {
				t.Fatal(err)
			}
			return
		}
		kept, err := parseKept(plain)
		if err != nil {
			t.Fatal(err)
		}
		now := httptest.NewRequest(http.MethodPost, "/now", strings.NewReader(keptField+"=x"))
		now.Header = http.Header{"Cookie": {"app=new"}, "Content-Type": {"application/x-www-form-urlencoded"}, "Content-Length": {"14"}, "Transfer-Encoding": {"chunked"}}
		now.Host = "wiki.example.com"
		r, err := kept.request(now)
		if err != nil {
			return // an address that is none
		}
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, body) || r.ContentLength != int64(len(body)) || r.Header.Get("Content-Length") != strconv.Itoa(len(body)) {
			t.Errorf("%d bytes of %q (%v), length %d, header %v", len(got), body, err, r.ContentLength, r.Header)
		}
		if r.Method != method || r.RequestURI != target || r.Host != "wiki.example.com" || r.Header.Get("Cookie") != "app=new" || r.Header.Get("Content-Type") != contentType {
			t.Errorf("%s %q %s with %q", r.Method, r.RequestURI, r.Host, r.Header)
		}
		if diff := cmp.Diff(formOf(contentType, body), formOf(r.Header.Get("Content-Type"), got)); diff != "" {
			t.Error(diff)
		}
	})
}

// formOf is a form as an application reads it, or what it says of one that it cannot read.
func formOf(contentType string, body []byte) string {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	err := r.ParseMultipartForm(1 << 20)
	if r.MultipartForm == nil {
		return fmt.Sprint(r.PostForm, err)
	}
	defer r.MultipartForm.RemoveAll()
	var files []string
	for name, headers := range r.MultipartForm.File {
		for _, h := range headers {
			files = append(files, fmt.Sprintf("%s: %s of %d bytes, %q", name, h.Filename, h.Size, h.Header))
		}
	}
	slices.Sort(files)
	return fmt.Sprint(r.PostForm, files, err)
}

// A form of the application's that looks like ours from outside reaches it whole.
func FuzzOtherFormsPassAsTheyAre(f *testing.F) {
	ours := keptField + "=" + strings.Repeat("A", int(keptFormLength)-len(keptField)-1)
	f.Add([]byte(ours), keptFormLength)
	f.Add([]byte(ours[:20]), keptFormLength)
	f.Add([]byte(ours+"&more=1"), keptFormLength)
	f.Add([]byte("a=1"), int64(3))
	f.Add([]byte(strings.Repeat("x", int(keptFormLength))), keptFormLength)
	f.Add([]byte{}, int64(-1))
	f.Fuzz(func(t *testing.T, body []byte, length int64) {
		r := httptest.NewRequest(http.MethodPost, "/x", bytes.NewReader(body))
		r.ContentLength = length
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		marker, ok := sendsKept(r)
		if ok {
			if form := keptField + "=" + marker; length != keptFormLength || !bytes.HasPrefix(body, []byte(form)) {
				t.Errorf("%q of %d bytes is taken for ours, with the marker %q", body, length, marker)
			}
			return
		}
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("the application gets %q of %q: %v", got, body, err)
		}
	})
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
)

// folder is a folder of static files that stands in place of an application.
type folder string

// serve answers with a file.
//
// Flow: GET and HEAD only → the path, decoded segment by segment, names a file that is not hidden → opened within the folder, which no
// symbolic link leaves → a folder is its index.html, never a list → http.ServeContent: ranges, conditions, type.
func (d folder) serve(l *leg) {
	if l.in.Method != http.MethodGet && l.in.Method != http.MethodHead {
		l.w.Header().Set("Allow", "GET, HEAD")
		l.fail(failure{http.StatusMethodNotAllowed, "method_refused", nil})
		return
	}
	rawPath, _, _ := strings.Cut(l.target, "?")
	asked, query, _ := requestTarget(l.in) // with strip_prefix, which may be all there is
	name, ok := fileName(rawPath)
	if !ok {
		l.fail(failure{http.StatusNotFound, "no_file", nil})
		return
	}
	root, err := os.OpenRoot(string(d)) // anew each time: a folder may be replaced as a whole
	if err != nil {
		l.fail(failure{http.StatusBadGateway, "no_folder", err})
		return
	}
	defer root.Close()
	asFolder := strings.HasSuffix(asked, "/")
	if info, err := root.Stat(name); !asFolder && err == nil && info.IsDir() {
		l.addSlash(asked, query)
		return
	}
	if asFolder {
		name = path.Join(name, "index.html")
	}
	file, info, err := openRegular(root, name)
	if err != nil {
		l.fail(failure{http.StatusNotFound, "no_file", err})
		return
	}
	defer file.Close()
	h := l.w.Header()
	h.Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	l.complete(h)
	l.answered = true
	content := &fileContent{ReadSeeker: file, l: l}
	http.ServeContent(l.w, l.in, name, info.ModTime(), content)
	if content.err != nil { // the client must not take a part for the whole
		panic(http.ErrAbortHandler)
	}
}

// fileName is the name within the folder that a path stands for. Each segment is decoded once and by itself, so that an escape can add no
// segment. Names that begin with a dot are hidden: .git, .env, .htpasswd.
func fileName(rawPath string) (name string, ok bool) {
	segments := strings.Split(strings.Trim(rawPath, "/"), "/")
	for i, s := range segments {
		s, err := url.PathUnescape(s)
		if err != nil || strings.HasPrefix(s, ".") || strings.ContainsAny(s, "/\\\x00") {
			return "", false
		}
		segments[i] = s
	}
	name = path.Join(segments...)
	if name == "" {
		name = "."
	}
	return name, fs.ValidPath(name)
}

// openRegular opens a regular file. Any other, such as a pipe, could hold the request up for ever.
func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("not a regular file")
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if info, err = file.Stat(); err != nil { // of what was opened
		_ = file.Close()
	}
	return file, info, err
}

// addSlash sends a browser from a folder's name to the folder, so that links in its index.html lead into it. The address is relative: it
// can name no other host, and holds behind any prefix.
func (l *leg) addSlash(path, query string) {
	h := l.w.Header()
	h.Set("Location", "./"+escapeASCII(path[strings.LastIndexByte(path, '/')+1:])+"/"+escapeASCII(query))
	l.complete(h)
	l.w.WriteHeader(http.StatusFound)
}

// fileContent is a file on its way to the client. It breaks off with the exchange: with the session, or after the route's timeout.
type fileContent struct {
	io.ReadSeeker
	l   *leg
	err error
}

// Read implements io.Reader.
func (c *fileContent) Read(p []byte) (int, error) {
	if c.l.Err() != nil {
		c.err = context.Cause(c.l)
		return 0, c.err
	}
	n, err := c.ReadSeeker.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

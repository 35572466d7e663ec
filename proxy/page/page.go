package page

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	template "github.com/DataDog/datadog-agent/pkg/template/html"
)

//go:embed templates/*.html texts/*.yaml page.css
var files embed.FS

// Options say what all pages have in common. The zero Options are Postern's own look in every language that it speaks.
type Options struct {
	// Title is the name of the product or site that every page shows. Default: Postern.
	Title string
	// Logo is an image that stands before the title: SVG, PNG, WebP or JPEG.
	Logo []byte
	// Colors are the site's own.
	Colors Colors
	// Support is where people get help.
	Support Support
	// Templates holds own templates, style and texts; nil: none. See own.go for its files.
	Templates fs.FS
	// Languages are offered, the first to whoever asks for none of them. Default: English first, and every other that there are texts of.
	Languages []string
	// Now is the clock that "in 5 min" is counted from. Default: [time.Now].
	Now func() time.Time
	// Log is told when an own template fails. Nil discards.
	Log *slog.Logger
}

// Support is a link for people who need help.
type Support struct {
	// URL is an https or mailto address; empty: no link.
	URL string
	// Text says where it leads. Default: Help, in the page's language.
	Text string
}

// Problem is what is wrong with an option.
type Problem struct {
	// Option names it as the configuration does, such as colors.accent.
	Option string
	// What is wrong, and Mend what to do about it.
	What, Mend string
}

// Problems are everything that is wrong with Options.
type Problems []Problem

// Error has one problem on each line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Option + ": " + p.What + ". " + p.Mend
	}
	return strings.Join(lines, "\n")
}

// Pages renders pages. It is safe for concurrent use.
type Pages struct {
	site       string
	logo, icon template.URL
	support    Support
	speak      *languages
	own        *template.Template // nil: ours
	style      template.CSS
	styleHash  string
	now        func() time.Time
	log        *slog.Logger
}

// New returns the pages of one site. Its error is [Problems]. It reads o.Templates and nothing else.
func New(o Options) (*Pages, error) {
	p := &Pages{site: line(cmp.Or(o.Title, "Postern")), now: o.Now, log: o.Log}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	own, problems := readOwn(o.Templates)
	problems = append(problems, p.brand(o, own.style)...)
	var more Problems
	p.speak, more = newLanguages(own.texts, o.Languages)
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, problems
	}
	if p.own, problems = p.ownTemplates(own.templates); len(problems) > 0 {
		return nil, problems
	}
	return p, nil
}

// builtin are the templates of this program.
var builtin = sync.OnceValue(func() *template.Template {
	set := template.New("")
	names, err := fs.Glob(files, "templates/*.html")
	for _, name := range names {
		data, readErr := files.ReadFile(name)
		err = errors.Join(err, readErr, add(set, strings.TrimPrefix(name, "templates/"), string(data)))
	}
	return template.Must(set, err)
})

// add puts the template of a file into a set. It goes by the file's name without .html.
func add(set *template.Template, file, text string) error {
	_, err := set.New(strings.TrimSuffix(file, ".html")).Parse(strings.TrimSuffix(text, "\n"))
	return err
}

// view is what every template sees.
type view struct {
	*wording
	Say                            func(key string, pairs ...any) (string, error) // a field: templates call no methods
	Site, Heading, Text, RequestID string
	Status                         int
	Style                          template.CSS
	Logo, Icon                     template.URL
	Support                        *Support
	Refresh                        string
	Links                          []Link
	Details                        []string
	Role                           string
	Action, Button, Cancel, URL    string
	Person, Problem                string
	Fields                         map[string]string
	Script                         template.JS
	ScriptURL                      string
	sessionFacts
	keptFacts
}

// sheet is one page before it is written.
type sheet struct {
	status   int
	template string
	view     view
	policy   policy
}

// policy is what a page's security headers depend on.
type policy struct {
	formAction string
	framed     bool
	script     string // the page's own script: its hash, or 'self'; empty: none
}

func (p *Pages) write(w http.ResponseWriter, r *http.Request, s sheet) {
	body := p.render(r, s)
	h := w.Header()
	// What an upstream or a caller said of another body is not true of this one.
	for _, k := range []string{"Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Range", "Etag", "Expires", "Last-Modified"} {
		h.Del(k)
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", s.view.Lang)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if s.policy.formAction != "'none'" {
		// With no-referrer a form is posted with "Origin: null", which looks like another site's to whoever checks it. Other sites
		// learn nothing of this page with same-origin either.
		h.Set("Referrer-Policy", "same-origin")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	ancestors := "'none'"
	if s.policy.framed {
		h.Del("X-Frame-Options") // it has no value for "anyone"
		ancestors = "*"
	}
	directives := []string{
		"default-src 'none'",
		"style-src " + p.styleHash,
		"img-src data:", // logo and icon, which is in the page so that browsers do not ask for /favicon.ico
		"form-action " + s.policy.formAction,
		"frame-ancestors " + ancestors,
		"base-uri 'none'",
	}
	if s.policy.script != "" {
		directives = append(directives, "script-src "+s.policy.script)
	}
	h.Set("Content-Security-Policy", strings.Join(directives, "; "))
	vary(h, "Accept", "Accept-Language", "Cookie", "Sec-Fetch-Dest", "Sec-Fetch-Mode")

	w.WriteHeader(s.status)
	if r.Method == http.MethodHead {
		return
	}
	// The client may have left; there is nobody to tell.
	_, _ = w.Write(body)
}

// render fills the page's template: the operator's own, else ours.
func (p *Pages) render(r *http.Request, s sheet) []byte {
	v := p.dress(s)
	if p.own != nil {
		body, err := execute(p.own, s.template, v)
		if err == nil {
			return body
		}
		p.log.ErrorContext(r.Context(), "own template failed", "page", s.template, "error", err)
	}
	body, err := execute(builtin(), s.template, v)
	if err != nil { // a fault of ours: the person sees the status at least
		return []byte("<!DOCTYPE html><html lang=\"en\"><title>Error</title><h1>" + strconv.Itoa(s.status) + "</h1></html>\n")
	}
	return body
}

// dress is the view of a page with what all pages have.
func (p *Pages) dress(s sheet) view {
	v := s.view
	v.Say = v.text
	v.Site, v.Style, v.Logo, v.Icon = p.site, p.style, p.logo, p.icon
	if p.support.URL != "" && !s.policy.framed { // what can be framed holds nothing but the way out
		v.Support = &Support{URL: p.support.URL, Text: cmp.Or(p.support.Text, v.say("foot.support"))}
	}
	return v
}

// maxPage bounds a page, in bytes. Ours stay far below it, logo and long fields included; an own template might not end.
const maxPage = 1 << 20

func execute(set *template.Template, name string, v view) ([]byte, error) {
	var body bounded
	err := set.ExecuteTemplate(&body, name, v)
	return body.Bytes(), err
}

// bounded is a buffer that takes maxPage bytes.
type bounded struct{ bytes.Buffer }

var errTooLong = errors.New("the page is longer than " + strconv.Itoa(maxPage) + " bytes")

func (b *bounded) Write(data []byte) (int, error) {
	if b.Len()+len(data) > maxPage {
		return 0, errTooLong
	}
	return b.Buffer.Write(data)
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// vary adds to Vary what decides whether someone gets a page, and which, unless it is there already.
func vary(h http.Header, names ...string) {
	var have []string
	for _, v := range h.Values("Vary") {
		for name := range strings.SplitSeq(v, ",") {
			have = append(have, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	if slices.Contains(have, "*") {
		return
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(have, strings.ToLower(name)) })
	if len(names) > 0 {
		h.Add("Vary", strings.Join(names, ", "))
	}
}

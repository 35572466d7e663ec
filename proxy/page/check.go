package page

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"text/template/parse"
	"time"

	template "github.com/DataDog/datadog-agent/pkg/template/html"
	"golang.org/x/net/html"
)

// maxTryOut is how long own templates may take for all pages; ours take a few milliseconds.
const maxTryOut = 2 * time.Second

// tryOut fills own templates with samples of every page. What acts on our page must act on theirs: a page that lacks a field of its form would lock
// people out.
func (p *Pages) tryOut(own *template.Template, stop *stopper) (problems Problems) {
	timer := time.AfterFunc(maxTryOut, func() { stop.now.Store(true) })
	defer timer.Stop()
	for _, s := range p.samples() {
		v := p.dress(s)
		theirs, err := execute(own, s.template, v)
		switch {
		case errors.Is(err, errEndless):
			return append(problems, Problem{"templates", s.template + ".html: " + errEndless.Error(), "Look for loops"})
		case errors.Is(err, errTooLong):
			return append(problems, Problem{"templates", s.template + ".html: " + errTooLong.Error(), "Look for loops"})
		case err != nil:
			problems = append(problems, Problem{"templates", where(err), "Compare it with Postern's own templates"})
			continue
		}
		ours, err := execute(builtin(), s.template, v)
		if err != nil {
			panic(err) // ours: a test shows every sample
		}
		have := actions(theirs)
		for _, act := range actions(ours) {
			if !slices.Contains(have, act) {
				problems = append(problems, Problem{"templates", s.template + ".html: the page lacks " + act, "Compare it with Postern's own " + s.template + ".html"})
			}
		}
	}
	if !timer.Stop() { // the templates would be stopped each time
		problems = append(problems, Problem{"templates", errEndless.Error(), "Look for loops"})
	}
	return unique(problems)
}

func unique(problems Problems) (out Problems) {
	for _, p := range problems {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// actions are what a page does: its links, its forms with their fields and buttons, its scripts, and where it goes by itself.
func actions(page []byte) (acts []string) {
	z := html.NewTokenizer(bytes.NewReader(page))
	form, script := "", false
	for {
		switch z.Next() {
		case html.ErrorToken:
			return acts
		case html.TextToken:
			if script {
				acts = append(acts, "the script "+strings.TrimSpace(string(z.Text())))
			}
		case html.EndTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "form":
				form = ""
			case "script":
				script = false
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			switch t.Data {
			case "html":
				acts = append(acts, `lang="`+value(t, "lang")+`" dir="`+value(t, "dir")+`" of html`)
			case "a":
				acts = append(acts, "the link to "+value(t, "href")+topOf(t)+idOf(t))
			case "form":
				if form = value(t, "action"); value(t, "method") != "post" {
					form += ", which must be posted"
				}
				acts = append(acts, "the form to "+form)
			case "input":
				field := "the field " + value(t, "name") + " of the form to " + form
				if value(t, "type") == "hidden" {
					field = "the hidden field " + value(t, "name") + " with its value in the form to " + form + " (" + value(t, "value") + ")"
				}
				acts = append(acts, field)
			case "button":
				acts = append(acts, "the button of the form to "+form)
			case "script":
				script = true
				if src := value(t, "src"); src != "" {
					acts = append(acts, "the script at "+src)
				}
			case "meta":
				if value(t, "http-equiv") != "" {
					acts = append(acts, "the meta element that goes on: "+value(t, "content"))
				}
			}
		}
	}
}

func value(t html.Token, key string) string {
	for _, a := range t.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func topOf(t html.Token) string {
	if value(t, "target") == "_top" {
		return ` with target="_top"`
	}
	return ""
}

func idOf(t html.Token) string {
	if id := value(t, "id"); id != "" {
		return ` with id="` + id + `"`
	}
	return ""
}

// stopper ends templates that would not end. Each round of a loop and each template asks it.
type stopper struct{ now atomic.Bool }

var errEndless = errors.New("the page does not end within " + maxTryOut.String())

func (s *stopper) tick() (bool, error) {
	if s.now.Load() {
		return false, errEndless
	}
	return true, nil
}

// watch puts the question into every template of a set that was not used yet.
func (s *stopper) watch(set *template.Template) {
	// An assignment writes nothing, so that nothing needs to be escaped.
	ask := template.Must(template.New("ask").Funcs(template.FuncMap{"tick": s.tick}).Parse("{{$_ := tick}}")).Tree.Root.Nodes[0]
	for _, t := range set.Templates() {
		if t.Tree != nil && t.Tree.Root != nil {
			watchLoops(t.Tree.Root, ask)
			prepend(t.Tree.Root, ask)
		}
	}
}

func watchLoops(list *parse.ListNode, ask parse.Node) {
	if list == nil {
		return
	}
	for _, node := range list.Nodes {
		switch node := node.(type) {
		case *parse.IfNode:
			watchLoops(node.List, ask)
			watchLoops(node.ElseList, ask)
		case *parse.WithNode:
			watchLoops(node.List, ask)
			watchLoops(node.ElseList, ask)
		case *parse.RangeNode:
			watchLoops(node.List, ask)
			watchLoops(node.ElseList, ask)
			prepend(node.List, ask)
		}
	}
}

func prepend(list *parse.ListNode, node parse.Node) {
	list.Nodes = slices.Insert(list.Nodes, 0, node.Copy())
}

// samples are the pages in every state: with everything on them, and with the least.
func (p *Pages) samples() []sheet {
	in := p.speak.all[0]()
	at := p.now()
	marker, drop := map[string]string{"sample": "value-1"}, map[string]string{"sample": "value-2", "rd": "/sample/back"}
	ended := 2
	return []sheet{
		p.notice(in, Notice{Status: http.StatusForbidden, Say: "loop", Ended: "idle", Account: "sample@example.com", RequestID: "sample",
			Links: []Link{{Say: "sign_in", URL: "/sample/sign-in?a=b&c=d", Primary: true}, {Text: "Sample", URL: "https://sample.example.com/"}}}),
		p.notice(in, Notice{Status: http.StatusOK, Say: "signed_out"}),
		p.notice(in, Notice{Status: http.StatusUnauthorized, Say: "framed", Links: []Link{{Say: "sign_in", URL: "/sample/sign-in", Primary: true, Top: true}}}),
		p.confirm(in, Confirm{Say: "sign_out", Action: "/sample/sign-out", Fields: marker, Cancel: "/sample/back", RequestID: "sample"}),
		p.confirm(in, Confirm{Say: "clear", Action: "/sample/clear"}),
		p.signIn(in, SignIn{Provider: "Sample", Action: "/sample/start", Fields: marker, RequestID: "sample"}),
		p.signIn(in, SignIn{Action: "/sample/start", Fields: marker, User: "sample@example.com", Problem: "wrong"}),
		p.session(in, SessionView{
			User: "sample", Email: "sample@example.com", Name: "Sample", Provider: "Sample", Groups: slices.Repeat([]string{"sample"}, maxGroups+1),
			SignedIn: at.Add(-time.Hour), Ends: at.Add(9 * time.Hour), IdleUntil: at.Add(time.Hour), RefreshAt: at.Add(time.Minute),
			SignOut: "/sample/sign-out", Home: "/sample/home", Ended: &ended, Unknown: true, End: "/sample/end", OtherSessions: true, More: "/sample/more", RequestID: "sample",
			Sessions: []SessionLine{
				{ID: "sample-1", Browser: "Firefox", SignedIn: at.Add(-time.Hour), Seen: at, This: true},
				{ID: "sample-2", Browser: "Other", SignedIn: at.Add(-72 * time.Hour), Seen: at.Add(-time.Hour)},
			},
		}),
		p.session(in, SessionView{User: "sample", SignOut: "/sample/sign-out"}),
		p.kept(in, Kept{Method: "POST", Path: "/sample", Type: "text/plain", Size: 5000, At: at, Fields: []string{"sample"}, MoreFields: 3,
			Send: "/sample/send", Drop: "/sample/drop", Marker: marker, DropMarker: drop, RequestID: "sample"}),
		p.kept(in, Kept{Method: "DELETE", Path: "/sample", Send: "/sample/send", Drop: "/sample/drop", Marker: marker, DropMarker: drop}),
		p.goOn(in, SignedIn, "/sample/on?a=b&c=d"),
		p.fragment(in, SigningIn, "/sample/start?rd=%2F", "/sample/fragment.js"),
		p.post(in, SigningOut, "https://sample.example.com/end", marker),
	}
}

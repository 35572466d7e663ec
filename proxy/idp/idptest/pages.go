package idptest

import (
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const pendingLife = 15 * time.Minute

//go:embed pages.html
var pagesHTML string

// pages are the provider's pages by name.
var pages = template.Must(template.New("pages").Parse(pagesHTML))

// person is one line of the sign-in page.
type person struct {
	Sub, Name, About, Initials string
	Current                    bool
}

// askWho shows the sign-in page.
func (s *Server) askWho(w http.ResponseWriter, req authRequest) {
	name := random(0)
	now := s.o.Now()
	s.mu.Lock()
	for old, p := range s.grants.pending {
		if now.After(p.expires) {
			delete(s.grants.pending, old)
		}
	}
	client := s.clients[req.client].Name
	s.grants.pending[name] = pending{request: req, expires: now.Add(pendingLife)}
	s.mu.Unlock()
	people := s.people()
	for i := range people {
		people[i].Current = people[i].Sub == req.loginHint
	}
	s.show(w, http.StatusOK, "sign_in", map[string]any{
		"Client": client, "People": people, "Action": s.EndpointURL(SignIn), "Request": name,
	})
}

// signIn takes the sign-in page's form.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	// Nobody may be signed in as someone else by another site's form.
	if !fromHere(r) {
		s.errorPage(w, http.StatusForbidden, "This form came from another site.")
		return
	}
	name, sub := r.PostForm.Get("request"), r.PostForm.Get("sub")
	s.mu.Lock()
	p, waiting := s.grants.pending[name]
	_, known := s.users[sub]
	// Used up only by an answer that can be taken, so that a person may try again.
	if waiting && (known || sub == "") {
		delete(s.grants.pending, name)
	}
	s.mu.Unlock()
	switch {
	case !waiting || s.o.Now().After(p.expires):
		s.errorPage(w, http.StatusBadRequest, "This sign-in page is out of date. Go back to the application and start again.")
	case sub == "":
		s.refuse(w, r, p.request, refusal{"access_denied", "the person cancelled"})
	case !known:
		s.errorPage(w, http.StatusBadRequest, "There is no such person.")
	default:
		s.grantCode(w, r, p.request, s.signInBrowser(w, r, sub))
	}
}

// askSignOut shows the page that asks whether to sign out.
func (s *Server) askSignOut(w http.ResponseWriter, form url.Values, b *browser) {
	var who string
	if b != nil {
		who = s.personOf(b.sub).Name
	}
	keep := map[string]string{}
	for _, name := range []string{"id_token_hint", "client_id", "post_logout_redirect_uri", "state"} {
		if v := form.Get(name); v != "" {
			keep[name] = v
		}
	}
	s.show(w, http.StatusOK, "ask_sign_out", map[string]any{"Name": who, "Keep": keep, "Action": s.EndpointURL(EndSession)})
}

// confirmed says that r is that page's form.
func confirmed(r *http.Request) bool {
	return r.Method == http.MethodPost && r.PostForm.Get("confirm") == "yes" && fromHere(r)
}

// fromHere says that no other site sent r. Clients that are no browsers send neither header.
func fromHere(r *http.Request) bool {
	var guard http.CrossOriginProtection
	return guard.Check(r) == nil
}

func (s *Server) signedOutPage(w http.ResponseWriter) {
	s.show(w, http.StatusOK, "signed_out", nil)
}

// home is the page about the browser's session at the provider.
func (s *Server) home(w http.ResponseWriter, r *http.Request) {
	data := map[string]any{"Action": s.EndpointURL(EndSession)}
	if b := s.browserOf(r); b != nil {
		data["Person"] = s.personOf(b.sub)
		data["Since"] = b.authTime.Format(time.TimeOnly)
	}
	s.show(w, http.StatusOK, "home", data)
}

func (s *Server) errorPage(w http.ResponseWriter, status int, sentence string) {
	s.show(w, status, "error", map[string]any{"Sentence": sentence})
}

// postPage is OAuth 2.0 Form Post Response Mode: a form that sends itself, or by its button without JavaScript.
func (s *Server) postPage(w http.ResponseWriter, target string, answer url.Values) {
	fields := map[string]string{}
	for name := range answer {
		fields[name] = answer.Get(name)
	}
	s.show(w, http.StatusOK, "form_post", map[string]any{"Target": target, "Fields": fields})
}

func (s *Server) show(w http.ResponseWriter, status int, name string, data map[string]any) {
	if data == nil {
		data = map[string]any{}
	}
	nonce := random(0)
	data["Title"], data["Nonce"] = s.o.Title, nonce
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'nonce-"+nonce+"'; script-src 'nonce-"+nonce+"'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin") // with no-referrer the forms here would come from the origin "null"
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		s.o.Log.Debug("page not written whole", "page", name, "err", err)
	}
}

func (s *Server) people() []person {
	s.mu.Lock()
	subs := append([]string(nil), s.order...)
	s.mu.Unlock()
	var all []person
	for _, sub := range subs {
		all = append(all, s.personOf(sub))
	}
	return all
}

func (s *Server) personOf(sub string) person {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims := s.users[sub].Claims
	p := person{Sub: sub, Name: sub}
	if name, ok := claims["name"].(string); ok && name != "" {
		p.Name = name
	}
	for word := range strings.FieldsSeq(p.Name) {
		p.Initials += string([]rune(word)[0])
	}
	switch groups := claims["groups"].(type) {
	case []string:
		p.About = strings.Join(groups, ", ")
	case []any:
		p.About = strings.Trim(fmt.Sprint(groups), "[]")
	}
	return p
}

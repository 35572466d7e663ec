package simtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// codeLife is how long a code works.
const codeLife = 10 * time.Minute

// issued is what a provider has given out. Server.mu guards it.
type issued struct {
	codes   map[string]*code
	access  map[string]*access
	refresh map[string]*refresh
	key     []byte // of JWTs
}

// grant is what one person, or an application's owner, allowed.
type grant struct {
	id, client, user string
	scope            []string
}

func newGrant(client, user string, scope []string) grant {
	return grant{id: rand.Text(), client: client, user: user, scope: scope}
}

type code struct {
	grant
	redirectURI, challenge string
	expires                time.Time
	spent                  bool
}

type access struct {
	grant
	expires time.Time
	revoked bool
}

// refresh is a refresh token. Dead ones stay, with the reason.
type refresh struct {
	grant
	dead string
}

func newIssued() issued {
	i := issued{codes: map[string]*code{}, access: map[string]*access{}, refresh: map[string]*refresh{}, key: make([]byte, 32)}
	_, _ = rand.Read(i.key)
	return i
}

// Holder is whose an access token is.
type Holder struct {
	User, Client string
	Scope        []string
	Expires      time.Time
}

// Whose tells whose an access token is that works now.
func (s *Server) Whose(token string) (Holder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whose(token)
}

func (s *Server) whose(token string) (Holder, error) {
	a := s.issued.access[token]
	switch {
	case a == nil:
		return Holder{}, errors.New("was not issued here")
	case a.revoked:
		return Holder{}, errors.New("is revoked")
	case !s.now().Before(a.expires):
		return Holder{}, fmt.Errorf("expired at %v", a.expires)
	}
	return Holder{User: a.user, Client: a.client, Scope: slices.Clone(a.scope), Expires: a.expires}, nil
}

// RevokeUser ends all that a person allowed.
func (s *Server) RevokeUser(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.issued.access {
		if a.user == name {
			a.revoked = true
		}
	}
	s.endRefresh("the person revoked it", func(g grant) bool { return g.user == name })
}

// endRefresh ends the refresh tokens of matching grants.
func (s *Server) endRefresh(why string, match func(grant) bool) {
	for _, r := range s.issued.refresh {
		if r.dead == "" && match(r.grant) {
			r.dead = why
		}
	}
}

// newCode is the code for what an authorization request asked for.
func (s *Server) newCode(p params, scope []string) string {
	value := rand.Text()
	s.issued.codes[value] = &code{
		grant:       newGrant(p.Get("client_id"), s.current, scope),
		redirectURI: p.Get("redirect_uri"), challenge: p.Get("code_challenge"), expires: s.now().Add(codeLife),
	}
	return value
}

// redeem spends a code. A redirect_uri or code_verifier that is there must be right, documented or not.
func (s *Server) redeem(p params, client Client) (grant, bool) {
	c := s.issued.codes[p.Get("code")]
	sum := sha256.Sum256([]byte(p.Get("code_verifier")))
	switch {
	case c == nil || c.client != client.ID:
		p.q.wrong("the code was not issued to this client")
	case c.spent:
		p.q.wrong("the code is spent")
	case !s.now().Before(c.expires):
		p.q.wrong("the code has expired")
	case p.Has("redirect_uri") && p.Get("redirect_uri") != c.redirectURI:
		p.q.wrong("redirect_uri is not that of the authorization request")
	case c.challenge != "" && c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]):
		p.q.wrong("code_verifier is not that of the code_challenge")
	default:
		c.spent = true
		return c.grant, true
	}
	return grant{}, false
}

// renew finds a refresh token that works.
func (s *Server) renew(p params, client Client) (*refresh, bool) {
	r := s.issued.refresh[p.Get("refresh_token")]
	switch {
	case r == nil || r.client != client.ID:
		p.q.wrong("the refresh token was not issued to this client")
	case r.dead != "":
		p.q.wrong("the refresh token no longer works: " + r.dead)
	default:
		return r, true
	}
	return nil, false
}

// spend ends a refresh token that is exchanged for a new one.
func (r *refresh) spend() { r.dead = "it is spent" }

// newAccess remembers an access token.
func (s *Server) newAccess(value string, g grant, life time.Duration) string {
	s.issued.access[value] = &access{grant: g, expires: s.now().Add(life)}
	return value
}

func (s *Server) newRefresh(g grant) string {
	value := digits()
	s.issued.refresh[value] = &refresh{grant: g}
	return value
}

// digits are 64 hexadecimal ones.
func digits() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// sign makes a JWT with a key that clients do not know.
func (s *Server) sign(claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: s.issued.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		panic(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		panic(err)
	}
	return token
}

// whoAmI is the simulators' own API.
func (s *Server) whoAmI(q *request) answer {
	h, bad := q.bearer()
	if bad != nil {
		return *bad
	}
	return answer{status: http.StatusOK, body: map[string]any{"user": h.User, "client": h.Client, "scope": strings.Join(h.Scope, " ")}}
}

// bearer is who asks an API. An expired token is no protocol error; any other that does not work is.
func (q *request) bearer() (Holder, *answer) {
	headers := q.Header.Values("Authorization")
	if len(headers) != 1 || !strings.HasPrefix(headers[0], "Bearer ") {
		q.wrong("there is no Authorization: Bearer")
		a := q.refuse(http.StatusUnauthorized, "invalid_token")
		return Holder{}, &a
	}
	token := strings.TrimPrefix(headers[0], "Bearer ")
	h, err := q.server.whose(token)
	if err != nil {
		if q.server.issued.access[token] == nil {
			q.wrong("the token " + err.Error())
		}
		a := q.refuse(http.StatusUnauthorized, "invalid_token")
		return Holder{}, &a
	}
	return h, nil
}

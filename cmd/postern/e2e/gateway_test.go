//go:build e2e

package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern/session/redistest"
)

// A gateway is everything that gateway.yaml names: four hosts, two providers, five applications of three kinds, Redis behind Sentinel.
type gateway struct {
	*postern
	corp, partners        *provider
	wiki, erp1, erp2, api *upstream
	browser               *browser
	front                 http.RoundTripper
	redis                 *redistest.Sentinel
}

const partnersSecret = "the-secret-of-the-partners"

func startGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{wiki: startUpstream(t), erp1: startUpstream(t), erp2: startUpstream(t), api: startH2C(t)}
	dir, ca := t.TempDir(), newAuthority(t)
	certificate := ca.issue(t, "*.example.com")
	g.redis = redistest.StartSentinel(t, redistest.SentinelOptions{})
	t.Cleanup(func() { secrets.Search(t, "Redis", g.redis.Master().Dump()) })
	sentinels, err := json.Marshal(g.redis.Addresses())
	if err != nil {
		t.Fatal(err)
	}
	clientKey := newKey(t)
	corpPort, partnersPort, port := freePort(t), freePort(t), freePort(t)
	config := adapt(t, "../../../config/testdata/target/gateway.yaml",
		"/etc/postern/tls/tls.crt", writeFile(t, dir, "tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})),
		"/etc/postern/tls/tls.key", writeFile(t, dir, "tls.key", keyPEM(t, certificate.PrivateKey.(*ecdsa.PrivateKey))),
		"/etc/postern/keys/current", writeFile(t, dir, "key", []byte(keygen(t)+"\n")),
		`["s1:26379", "s2:26379", "s3:26379"]`, string(sentinels),
		"https://id.example.com/realms/corp", providerURL(corpPort),
		"https://partners.example.net", providerURL(partnersPort),
		"/run/secrets/client-key.pem", writeFile(t, dir, "client-key.pem", keyPEM(t, clientKey)),
		"http://wiki.internal:8080", g.wiki.URL, "http://erp-1.internal:8080", g.erp1.URL, "http://erp-2.internal:8080", g.erp2.URL,
		"h2c://api.internal:9000", strings.Replace(g.api.URL, "http", "h2c", 1), "http://www.internal:8080", g.wiki.URL,
		"email_domains: [example.com]", "email_domains: [people.example]",
	)
	g.postern = newPostern(t, config, port, "https://wiki.example.com", "PARTNERS_SECRET="+partnersSecret)
	redirects := []string{}
	for _, host := range []string{"wiki", "erp", "api", "www"} {
		redirects = append(redirects, "https://"+host+".example.com/oauth2/callback")
	}
	public := jose.JSONWebKey{Key: clientKey.Public(), Use: "sig", Algorithm: "ES256"}
	thumbprint, err := public.Thumbprint(5) // crypto.SHA256, RFC 7638
	if err != nil {
		t.Fatal(err)
	}
	public.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	grants := []string{"authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"}
	g.corp = startProvider(t, providerSettings{Port: corpPort, Origin: "https://wiki.example.com", AccessTokenTTL: 5 * time.Minute, Gateway: true, Client: map[string]any{
		"client_id": "gateway", "redirect_uris": redirects, "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
		"jwks": map[string]any{"keys": []any{public}}, "client_secret": nil, "grant_types": grants,
	}})
	g.partners = startProvider(t, providerSettings{Port: partnersPort, Origin: "https://wiki.example.com", AccessTokenTTL: 5 * time.Minute, Client: map[string]any{
		"client_id": "gateway", "client_secret": partnersSecret,
	}})
	g.start(t)
	g.ready(t)

	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	front := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, g.listen)
		},
	}
	t.Cleanup(front.CloseIdleConnections)
	g.front = front
	key := sha256.Sum256(certificate.Leaf.RawSubjectPublicKeyInfo)
	hosts := map[string]string{}
	for _, host := range []string{"wiki", "erp", "api", "www"} {
		hosts[host+".example.com"] = g.listen
	}
	g.browser = startBrowser(t, hosts, base64.StdEncoding.EncodeToString(key[:]))
	return g
}

func keyPEM(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// startH2C is an application that speaks HTTP/2 without TLS alone, and gRPC in so far as its answers end in trailers.
func startH2C(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Trailer", "Grpc-Status")
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, r.Header})
		w.Header().Set("Grpc-Status", "0")
	}))
	u.Config.Protocols = new(http.Protocols)
	u.Config.Protocols.SetUnencryptedHTTP2(true)
	u.Start()
	t.Cleanup(u.Close)
	return u
}

// ask is a request of a program to a host of the gateway.
func (g *gateway) ask(t *testing.T, host, target string, session *http.Cookie, header ...string) response {
	t.Helper()
	return getBy(t, g.front, "https://"+host+".example.com"+target, session, header...)
}

// TestGateway is gateway.yaml as it stands, but for its addresses: what each of its routes says is seen from outside.
func TestGateway(t *testing.T) {
	g := startGateway(t)
	navigation := []string{"Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none"}

	alice := g.browser
	erp := "https://erp.example.com/"
	alice.open(erp)
	alice.signIn("alice")
	alice.arrives(erp)
	aliceAtERP := alice.cookie(erp, "__Host-postern")
	bob := alice.another()
	bob.open(erp)
	bob.signIn("bob")
	bob.arrives(erp) // reading is for every level
	bobAtERP := bob.cookie(erp, "__Host-postern")

	t.Run("erp", func(t *testing.T) {
		for range 4 { // at one application or the other
			saw := g.ask(t, "erp", "/orders?x=1", aliceAtERP).seen(t)
			for name, want := range map[string]string{"X-Remote-User": "alice", "X-Remote-Groups": "erp;payroll", "X-Forwarded-Email": "alice@people.example", "X-Forwarded-User": "", "Authorization": ""} {
				if got := saw.Headers.Get(name); got != want {
					t.Errorf("the application sees %s: %q, want %q", name, got, want)
				}
			}
		}
		if answer := g.ask(t, "erp", "/", nil); answer.status != http.StatusUnauthorized {
			t.Errorf("nobody: %d", answer.status)
		}
		if answer := g.ask(t, "erp", "/", bobAtERP); answer.status != http.StatusOK {
			t.Errorf("bob reading: %d", answer.status)
		}
		if answer := post(t, g.front, "https://erp.example.com/orders", bobAtERP); answer.status != http.StatusForbidden {
			t.Errorf("bob, who is at level 1, writing: %d", answer.status)
		}
		if answer := post(t, g.front, "https://erp.example.com/orders", aliceAtERP); answer.status != http.StatusOK {
			t.Errorf("alice, who is at level 3, writing: %d", answer.status)
		}
	})

	t.Run("api", func(t *testing.T) {
		api := "https://api.example.com/"
		if answer := g.ask(t, "api", "/orders", nil, navigation...); answer.status != http.StatusUnauthorized || answer.header.Get("Location") != "" {
			t.Errorf("nobody, where unauthenticated is deny: %d", answer.status)
		}
		alice := alice.in(t)
		alice.open(api + "oauth2/start?rd=/orders")
		alice.arrives(api + "orders") // the provider still knows her
		session := alice.cookie(api, "__Host-postern")
		first, second := g.ask(t, "api", "/orders", session).seen(t), g.ask(t, "api", "/orders", session).seen(t)
		if token := bearer(first); !strings.HasPrefix(token, "for-api://backend-") || bearer(second) != token {
			t.Errorf("the application gets %q, then %q: want one token for api://backend", token, bearer(second))
		}
		for _, a := range g.corp.tokenAnswers() {
			if a.AccessToken == bearer(first) && a.Grant != "urn:ietf:params:oauth:grant-type:token-exchange" {
				t.Errorf("it came from the grant %s", a.Grant)
			}
		}
		robot := g.corp.machineToken(t)
		if saw := g.ask(t, "api", "/orders", nil, "Authorization", "Bearer "+robot).seen(t); !strings.HasPrefix(bearer(saw), "for-api://backend-") || bearer(saw) == bearer(first) || saw.Headers.Get("X-Forwarded-User") != "robot" {
			t.Errorf("a program with a JWT for this audience: the application gets %q as %q", bearer(saw), saw.Headers.Get("X-Forwarded-User"))
		}
		for name, token := range map[string]string{"an opaque token": g.corp.last(t).AccessToken, "an ID token": idTokenOf(g.corp), "nonsense": "x.y.z"} {
			answer := g.ask(t, "api", "/orders", session, "Authorization", "Bearer "+token)
			if answer.status != http.StatusUnauthorized || !strings.Contains(answer.header.Get("Www-Authenticate"), "invalid_token") {
				t.Errorf("%s beside the cookie: %d %s", name, answer.status, answer.header.Get("Www-Authenticate"))
			}
		}
	})

	var strong *http.Cookie
	t.Run("payroll", func(t *testing.T) {
		answer := g.ask(t, "erp", "/payroll/slips", aliceAtERP)
		if challenge := answer.header.Get("Www-Authenticate"); answer.status != http.StatusUnauthorized ||
			!strings.Contains(challenge, "insufficient_user_authentication") || !strings.Contains(challenge, `acr_values="urn:example:mfa"`) || !strings.Contains(challenge, "900") {
			t.Errorf("a program with a weak session: %d %s", answer.status, challenge)
		}
		if answer := g.ask(t, "erp", "/payroll/slips", bobAtERP); answer.status != http.StatusForbidden {
			t.Errorf("bob, who is not of payroll, is asked for more: %d", answer.status)
		}
		alice := alice.in(t)
		alice.open(erp + "payroll/slips")
		alice.signInAgain("alice")
		alice.arrives(erp + "payroll/slips")
		alice.seen()
		strong = alice.cookie(erp, "__Host-postern")
		if strong.Value == aliceAtERP.Value {
			t.Error("the session has the same cookie after the step-up")
		}
		if answer := g.ask(t, "erp", "/payroll/slips", strong); answer.status != http.StatusOK {
			t.Errorf("after the step-up: %d", answer.status)
		}
		if answer := g.ask(t, "erp", "/", aliceAtERP); answer.status != http.StatusUnauthorized {
			t.Errorf("the session before: %d", answer.status)
		}
	})

	t.Run("wiki", func(t *testing.T) {
		wiki := "https://wiki.example.com/"
		carol := alice.another().in(t)
		carol.open(wiki + "page")
		carol.screenshot("choose")
		if page := carol.page(); !strings.Contains(page, "Staff") || !strings.Contains(page, "Partners") {
			t.Errorf("the page to choose says %s", page)
		}
		carol.click(`a[href*="provider=partners"]`)
		carol.signIn("bob")
		carol.arrives(wiki + "page")
		hasIdentity(t, carol.seen(), "bob", g.partners.last(t).AccessToken)
		session := carol.cookie(wiki, "__Host-postern-partners")
		if answer := g.ask(t, "wiki", "/", session); answer.status != http.StatusOK {
			t.Errorf("a partner: %d", answer.status)
		}
		if answer := g.ask(t, "erp", "/", session); answer.status != http.StatusUnauthorized {
			t.Errorf("a partner's cookie on a route of corp: %d", answer.status)
		}
	})

	t.Run("www", func(t *testing.T) {
		if saw := g.ask(t, "www", "/", nil, "X-Forwarded-User", "root").seen(t); saw.Headers.Get("X-Forwarded-User") != "" {
			t.Error("a stranger says who they are")
		}
		if saw := g.ask(t, "www", "/assets/x.css", nil).seen(t); saw.Target != "/assets/x.css" {
			t.Errorf("an asset: %s", saw.Target)
		}
		if answer := g.ask(t, "nowhere", "/", nil); answer.status != http.StatusMisdirectedRequest {
			t.Errorf("an unknown host: %d", answer.status)
		}
	})

	t.Run("balancing", func(t *testing.T) {
		g.erp1.Close()
		for range 6 {
			if answer := g.ask(t, "erp", "/orders", strong); answer.status != http.StatusOK {
				t.Errorf("with one of two applications: %d", answer.status)
			}
		}
	})
}

// post sends a form as a program.
func post(t *testing.T, transport http.RoundTripper, address string, session *http.Cookie) response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(url.Values{"a": {"b"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: session.Name, Value: session.Value})
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return response{status: resp.StatusCode, header: resp.Header}
}

// machineToken is a JWT for the audience api that the client robot got for itself.
func (p *provider) machineToken(t *testing.T) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "resource": {"urn:example:api"}, "scope": {"orders.read"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("robot", "robot-secret")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || strings.Count(answer.Token, ".") != 2 {
		t.Fatalf("the provider gives the robot no JWT: %s %v", resp.Status, err)
	}
	return answer.Token
}

// idTokenOf is the newest ID token that a provider gave.
func idTokenOf(p *provider) string {
	for _, a := range slices.Backward(p.tokenAnswers()) {
		if a.IDToken != "" {
			return a.IDToken
		}
	}
	return ""
}

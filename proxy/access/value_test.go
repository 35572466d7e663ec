package access_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"postern/proxy/access"
	"postern/session"
)

func TestHeaderValues(t *testing.T) {
	s := withClaims(t, `{"level":3,"dept":"R&D 100% Grün","roles":["a,b","c"],"mixed":["a",{"x":1}],"nothing":null,"empty":"","object":{"k":["v%",1,true,null]}}`)
	s.Identity = session.Identity{User: "alice", Email: "alice@example.com", Groups: []string{"erp", "staff"}}
	s.Tokens = session.Tokens{Access: strings.Repeat("t", 6000), ID: "id.id.id"}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:pass:word"))
	for _, tt := range []struct {
		text string
		want string // members of a list with | between them; "" for none
	}{
		{`user`, "alice"},
		{`groups.join(";")`, "erp;staff"},
		{`groups`, "erp|staff"},
		{`[user, email]`, "alice|alice@example.com"},
		{`claims.roles`, "a,b|c"},
		{`claims.level`, "3"},
		{`claims.dept`, "R&D 100% Grün"},
		{`claims.?dept`, "R&D 100% Grün"},
		{`claims.?missing`, ""},
		{`claims.missing`, ""},
		{`claims.nothing`, ""},
		{`claims.empty`, ""},
		{`claims.object`, ""},
		{`claims.mixed`, ""},
		{`groups.filter(g, g == "x")`, ""},
		{`preferred_username`, ""},
		{`first(preferred_username, user)`, "alice"},
		{`access_token`, strings.Repeat("t", 6000)},
		{`id_token`, "id.id.id"},
		{`basic(user, "pass:word")`, basic},
		{`basic("a:b", "c")`, ""},
		{`basic(preferred_username, "c")`, ""},
		{`basic("a\n", "c")`, ""},
		{`base64(user)`, "YWxpY2U="},
		{`base64(b"\x00\xff")`, "AP8="},
		{`request.host + request.path`, "erp.example.com/orders"},
		{`"fixed"`, "fixed"},
		{`json({"user": user, "groups": groups, "level": claims.level})`, `{"groups":["erp","staff"],"level":3,"user":"alice"}`},
		{`json(claims.dept)`, `"R\u0026D 100\u0025 Gr\u00fcn"`},
		{`json(claims.object)`, `{"k":["v\u0025",1,true,null]}`},
		{`json("😀")`, `"\ud83d\ude00"`},
		{`json(claims.missing)`, ""},
	} {
		v, err := new(access.Compiler).RequestHeader(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		texts, list, err := v.Eval(t.Context(), s, asked())
		if got := strings.Join(texts, "|"); got != tt.want || list && len(texts) == 0 || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %q, %v, want %q", tt.text, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, access.ErrAbsent) {
			t.Errorf("%s: %v", tt.text, err)
		}
		if strings.HasPrefix(tt.text, "json") && tt.want != "" && !json.Valid([]byte(texts[0])) {
			t.Errorf("%s: %s is not JSON", tt.text, texts[0])
		}
	}
}

// Where nobody is signed in, only what needs nobody has a value.
func TestHeaderValuesWithoutASession(t *testing.T) {
	for text, want := range map[string]string{`"fixed"`: "fixed", `request.method`: "GET", `user`: "", `user + "x"`: "", `access_token`: "", `first(user, "guest")`: "", `json(groups)`: ""} {
		v, err := new(access.Compiler).RequestHeader(text)
		if err != nil {
			t.Fatal(err)
		}
		texts, _, _ := v.Eval(t.Context(), nil, asked())
		if got := strings.Join(texts, ""); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if texts, _, err := (access.Value{}).Eval(t.Context(), alice.session, asked()); err == nil {
		t.Errorf("the zero Value has a value: %q", texts)
	}
}

// What CEL says of a failure could quote a token.
func TestHeaderValueErrorsHoldNoToken(t *testing.T) {
	v, err := new(access.Compiler).RequestHeader(`{"a": "b"}[access_token]`)
	if err != nil {
		t.Fatal(err)
	}
	s := &session.Session{Grant: session.Grant{Tokens: session.Tokens{Access: "canary-token"}}}
	if _, _, err := v.Eval(t.Context(), s, asked()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
}

func TestHeaderValuesThatDoNotCompile(t *testing.T) {
	for text, want := range map[string]string{
		`user == "x"`:      "yields a bool",
		`size(groups)`:     "yields a int",
		`{"a": user}`:      "yields a map",
		`[groups]`:         "yields a list",
		`session.created`:  "yields a google.protobuf.Timestamp",
		`nobody`:           "undeclared reference",
		`basic(user)`:      "no matching overload",
		`request.headers`:  "as a whole",
		`usr.split("@")[0`: "line 1, column",
	} {
		if _, err := new(access.Compiler).RequestHeader(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"access_token", "id_token"} {
		if _, err := new(access.Compiler).ResponseHeader(text); err == nil || !strings.Contains(err.Error(), "undeclared reference") {
			t.Errorf("%s in a response header: %v", text, err)
		}
	}
	if _, err := new(access.Compiler).ResponseHeader(`basic(user, "x")`); err != nil {
		t.Error(err)
	}
}

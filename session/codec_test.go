package session_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	"postern/session"
)

func newCodec(t testing.TB) *session.Codec {
	t.Helper()
	c, err := session.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func full() *session.Session {
	at := time.UnixMilli(1795262400123).UTC()
	return &session.Session{
		Grant: session.Grant{
			Issuer: issuer, Subject: alice, SID: "sid", AuthTime: at, Issued: at, ACR: "2",
			Identity: session.Identity{User: "u", Email: "e", Name: "Ä\xff", PreferredUsername: "p", Groups: []string{"a,b", "", "c"}},
			Extra:    map[string]string{"picture": "https://idp.example/a.png", "": "\xff"},
			Claims: map[string]any{
				"level": json.Number("12345678901234567890"), "deep": map[string]any{"a": []any{map[string]any{"b": []any{[]any{"c", true, nil}}}}},
			},
			Tokens: session.Tokens{Access: jwt(1193, "a"), Refresh: "opaque", ID: jwt(950, "i"), Obtained: at, Expiry: at.Add(time.Hour), Scope: "openid"},
		},
		Provider: "main", Created: at, Ends: at.Add(time.Hour), SignIn: "si", Browser: "Edge",
	}
}

// sealedElsewhere are the fields that are not in what Encode makes: the record has them.
var sealedElsewhere = cmp.Options{cmpopts.IgnoreUnexported(session.Session{}), cmpopts.IgnoreFields(session.Session{}, "Version", "Seen")}

func TestCodecKeepsEverything(t *testing.T) {
	s := full()
	// A field that is added to the types and forgotten in the codec must not go unnoticed.
	for _, v := range []reflect.Value{reflect.ValueOf(s.Grant), reflect.ValueOf(s.Identity), reflect.ValueOf(s.Tokens), reflect.ValueOf(*s)} {
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && v.Field(i).IsZero() && f.Name != "Version" && f.Name != "Seen" {
				t.Errorf("%s.%s is not set in this test", v.Type(), f.Name)
			}
		}
	}
	for _, token := range []string{
		"", ".", "..", "a.b.c", "YQ.YQ.YQ", "YQ.YQ.YR", "YQ==.YQ.YQ", "YQ.YQ", "YQ.YQ.YQ.YQ.YQ", ".YQ..YQ.", "Y\nQ.YQ.YQ", "ÿ.\xff.x", strings.Repeat("x", 5000),
	} {
		s.Tokens.Access, s.Tokens.Refresh, s.Tokens.ID = token, token, token
		b, err := newCodec(t).Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := newCodec(t).Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, s, sealedElsewhere); diff != "" {
			t.Errorf("token %q (-got +want):\n%s", token, diff)
		}
	}
	if b, err := newCodec(t).Encode(&session.Session{}); err != nil {
		t.Error(err)
	} else if got, err := newCodec(t).Decode(b); err != nil || !cmp.Equal(got, &session.Session{}, sealedElsewhere) {
		t.Errorf("empty session: %+v, %v", got, err)
	}
}

// performance.md, section 4: an access token of 1.2 KiB, an ID token of 1 KiB, 20 groups.
func TestStoredSize(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(5 * time.Minute)
	g.Subject = hex("sub", 16)
	g.SID = hex("sid", 16)
	g.Tokens.Access, g.Tokens.ID, g.Tokens.Refresh = jwt(1193, "at"), jwt(950, "id"), hex("refresh", 32)+hex("r2", 8)
	g.Identity.Groups = nil
	for i := range 20 {
		g.Identity.Groups = append(g.Identity.Groups, fmt.Sprintf("corp-team-%d-%s", i, hex(fmt.Sprint("at", i), 3)))
	}
	s, _ := f.signIn(g, session.CreateOptions{Browser: "Firefox"})
	rec, err := f.store.Get(t.Context(), s.Key())
	if err != nil {
		t.Fatal(err)
	}
	tokens := len(g.Tokens.Access) + len(g.Tokens.ID) + len(g.Tokens.Refresh)
	t.Logf("stored value: %d bytes for %d bytes of tokens (access %d, ID %d) and 20 groups", len(rec.Sealed), tokens, len(g.Tokens.Access), len(g.Tokens.ID))
	if len(rec.Sealed) > 1536 {
		t.Errorf("stored value has %d bytes, want at most 1536", len(rec.Sealed))
	}
}

// A188: what a newer binary wrote is no session, and no error of the store either.
func TestUnknownFormatIsNoSession(t *testing.T) {
	b, err := newCodec(t).Encode(full())
	if err != nil {
		t.Fatal(err)
	}
	b[0] = 99
	if _, err := newCodec(t).Decode(b); err == nil {
		t.Error("decoded another format")
	}
	f := replica(t, nil, nil)
	made, h := f.signIn(f.grant(0), session.CreateOptions{})
	rec, err := f.Newer(made)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Swap(t.Context(), made.Key(), rec, 1); err != nil {
		t.Fatal(err)
	}
	_, err = replica(t, f.store, nil).load(h)
	ended(t, err, session.ReasonStoreMiss)
}

func TestDecodeIsBounded(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := enc.EncodeAll(make([]byte, 256<<20), []byte{1})
	t.Logf("bomb of %d bytes", len(bomb))
	n := testing.AllocsPerRun(1, func() {
		if _, err := newCodec(t).Decode(bomb); err == nil {
			t.Error("decoded 256 MiB")
		}
	})
	t.Logf("%v allocations", n)
	for _, cbor := range []string{
		"\xba\xff\xff\xff\xff", "\x9a\xff\xff\xff\xff", "\x5a\xff\xff\xff\xff", "\x9f\x9f\x9f", strings.Repeat("\x81", 100000), "\xa1\x0a\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
	} {
		if _, err := newCodec(t).Decode(enc.EncodeAll([]byte(cbor), []byte{1})); err == nil {
			t.Errorf("decoded %.20q", cbor)
		}
	}
}

// FuzzDecodeNeverPanics also checks that what decodes encodes to the same session.
func FuzzDecodeNeverPanics(f *testing.F) {
	c := newCodec(f)
	b, err := c.Encode(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add([]byte{2, 0})
	raw, _ := base64.StdEncoding.DecodeString("AQAAAAD/////")
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := c.Decode(b)
		if err != nil {
			return
		}
		again, err := c.Encode(s)
		if err != nil {
			return // more than may be written
		}
		got, err := c.Decode(again)
		if err != nil {
			t.Fatalf("what was encoded does not decode: %v", err)
		}
		if diff := cmp.Diff(got, s, sealedElsewhere, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("changed (-got +want):\n%s", diff)
		}
	})
}

package session

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unique"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

const (
	// payloadFormat is the first byte of a stored session. A change that older binaries cannot ignore takes the next number;
	// new optional fields do not, because decoding skips fields that it does not know.
	payloadFormat = 1
	// sharedFormat is the same of a session whose tokens are in its grant. To older binaries it must be no session.
	sharedFormat = 2

	// maxPayload bounds a session before compression, when it is written and when it is read.
	maxPayload = 1 << 20
)

// dictionary is what compression knows before it begins: what tokens and sessions hold anyway, the most usual last. It is a part of the
// format: another one takes another number, and this one stays for reading.
const (
	dictionaryID = 1
	dictionary   = `"entitlements":["wids":["xms_"uti":"rh":"idtyp":"ver":"2.0","appid":"oid":"tid":"unique_name":"upn":"ipaddr":"cognito:groups":["token_use":"` +
		`"urn:zitadel:iam:org:project:roles":{"permissions":["org_id":"locale":"en","zoneinfo":"picture":"https://updated_at":"phone_number":` +
		`"client_id":"ext":{"username":"at_hash":"c_hash":"s_hash":"auth_time":"nonce":"amr":["pwd","mfa","acr":"1","urn:` +
		`"session_state":"allowed-origins":["https://"],"realm_access":{"roles":["default-roles-","offline_access","uma_authorization"]},` +
		`"resource_access":{"account":{"roles":["manage-account","manage-account-links","view-profile"]}},"typ":"Bearer","typ":"ID",` +
		`{"alg":"ES256","typ":"at+jwt","kid":"{"typ":"JWT","alg":"RS256","kid":"{"alg":"RS256","typ":"JWT","kid":"","typ":"JWT"}` +
		`MainOtherEdgeSafariChromeFirefoxpostern` +
		`{"exp":17,"iat":17,"nbf":17,"jti":"{"iss":"https://login.microsoftonline.com/common/v2.0https://accounts.google.com/realms/.auth0.com/.okta.com/oauth2/default",` +
		`"sub":"","aud":["account","],"azp":"","sid":"","scope":"openid profile email offline_access groups","scp":"email_verified":true,"name":"",` +
		`"preferred_username":"","given_name":"","family_name":"","email":"@","roles":["groups":["","admin","users"]}`
)

// errFormat says that a stored session was written in a format that this binary does not know.
var errFormat = errors.New("unknown session format")

// codec turns sessions into bytes and back. It is safe for concurrent use and starts no goroutines.
type codec struct {
	enc  cbor.EncMode
	dec  cbor.DecMode
	zenc *zstd.Encoder
	zdec *zstd.Decoder
}

func newCodec() (*codec, error) {
	enc, err := cbor.EncOptions{Sort: cbor.SortNone}.EncMode()
	if err != nil {
		return nil, fmt.Errorf("encoder: %w", err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  4,
		MaxArrayElements: maxPayload / 8,
		MaxMapPairs:      256,
		// What a provider sent as text comes back as it was, even when it is not.
		UTF8: cbor.UTF8DecodeInvalid,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	// The window and the lower memory matter for a million sessions' worth of short frames; the seal replaces the checksum.
	zenc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true), zstd.WithEncoderDictRaw(dictionaryID, []byte(dictionary)))
	if err != nil {
		return nil, fmt.Errorf("compressor: %w", err)
	}
	zdec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxPayload), zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderDictRaw(dictionaryID, []byte(dictionary)))
	if err != nil {
		return nil, fmt.Errorf("decompressor: %w", err)
	}
	return &codec{enc: enc, dec: dec, zenc: zenc, zdec: zdec}, nil
}

// stored is a session as it is written. The numbers are for ever.
type stored struct {
	Issuer    string   `cbor:"1,keyasint,omitempty"`
	Subject   string   `cbor:"2,keyasint,omitempty"`
	SID       string   `cbor:"3,keyasint,omitempty"`
	AuthTime  int64    `cbor:"4,keyasint,omitempty"`
	ACR       string   `cbor:"5,keyasint,omitempty"`
	User      string   `cbor:"6,keyasint,omitempty"`
	Email     string   `cbor:"7,keyasint,omitempty"`
	Name      string   `cbor:"8,keyasint,omitempty"`
	Preferred string   `cbor:"9,keyasint,omitempty"`
	Groups    []string `cbor:"10,keyasint,omitempty"`
	Access    packed   `cbor:"11,keyasint,omitempty"`
	Refresh   packed   `cbor:"12,keyasint,omitempty"`
	ID        packed   `cbor:"13,keyasint,omitempty"`
	Obtained  int64    `cbor:"14,keyasint,omitempty"`
	Expiry    int64    `cbor:"15,keyasint,omitempty"`
	Scope     string   `cbor:"16,keyasint,omitempty"`
	Provider  string   `cbor:"17,keyasint,omitempty"`
	Created   int64    `cbor:"18,keyasint,omitempty"`
	Ends      int64    `cbor:"19,keyasint,omitempty"`
	SignIn    string   `cbor:"20,keyasint,omitempty"`
	Browser   string   `cbor:"21,keyasint,omitempty"`
	Unknown   int      `cbor:"22,keyasint,omitempty"`

	Extra map[string]string `cbor:"23,keyasint,omitempty"`

	// Of a shared grant.
	Stamp int64  `cbor:"24,keyasint,omitempty"`
	Gone  Reason `cbor:"25,keyasint,omitempty"`

	Issued int64 `cbor:"26,keyasint,omitempty"`

	Claims []byte `cbor:"30,keyasint,omitempty"` // JSON
}

// packed is a token. One part is the token itself; more are the decoded parts of a JWT, which compress better than their base64.
type packed [][]byte

func pack(token string) packed {
	if token == "" {
		return nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 && len(parts) != 5 {
		return packed{[]byte(token)}
	}
	p := make(packed, len(parts))
	for i, part := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(b) != part {
			return packed{[]byte(token)} // not what would come back
		}
		p[i] = b
	}
	return p
}

func (p packed) token() string {
	if len(p) == 1 {
		return string(p[0])
	}
	parts := make([]string, len(p))
	for i, b := range p {
		parts[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	return strings.Join(parts, ".")
}

// encode turns s into its stored form, before sealing. What only the store knows (Seen, Version) is not in it.
func (c *codec) encode(s *Session) ([]byte, error) {
	plain, err := c.enc.Marshal(stored{
		Issuer: s.Issuer, Subject: s.Subject, SID: s.SID, AuthTime: millis(s.AuthTime), ACR: s.ACR,
		User: s.Identity.User, Email: s.Identity.Email, Name: s.Identity.Name,
		Preferred: s.Identity.PreferredUsername, Groups: s.Identity.Groups,
		Access: pack(s.Tokens.Access), Refresh: pack(s.Tokens.Refresh), ID: pack(s.Tokens.ID),
		Obtained: millis(s.Tokens.Obtained), Expiry: millis(s.Tokens.Expiry), Scope: s.Tokens.Scope,
		Provider: s.Provider, Created: millis(s.Created), Ends: millis(s.Ends),
		SignIn: s.SignIn, Browser: s.Browser, Unknown: s.unknown, Extra: s.Extra,
		Stamp: s.stamp, Gone: s.gone, Issued: millis(s.Issued), Claims: packClaims(s.Claims),
	})
	if err != nil {
		return nil, fmt.Errorf("encode session: %w", err)
	}
	if len(plain) > maxPayload {
		return nil, fmt.Errorf("encode session: %d bytes are more than %d", len(plain), maxPayload)
	}
	format := byte(payloadFormat)
	if s.shares {
		format = sharedFormat
	}
	return c.zenc.EncodeAll(plain, []byte{format}), nil
}

// decode is the inverse of encode. It never panics and never needs more than a bounded amount of memory, whatever payload is.
func (c *codec) decode(payload []byte) (*Session, error) {
	if len(payload) == 0 || payload[0] != payloadFormat && payload[0] != sharedFormat {
		return nil, errFormat
	}
	plain, err := c.zdec.DecodeAll(payload[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("decompress session: %w", err)
	}
	var w stored
	if err := c.dec.Unmarshal(plain, &w); err != nil {
		return nil, fmt.Errorf("decode session: %w", err)
	}
	for i, g := range w.Groups {
		w.Groups[i] = shared(g)
	}
	claims, err := unpackClaims(w.Claims)
	if err != nil {
		return nil, fmt.Errorf("decode session: %w", err)
	}
	return &Session{
		Grant: Grant{
			Issuer: shared(w.Issuer), Subject: w.Subject, SID: w.SID, AuthTime: fromMillis(w.AuthTime), Issued: fromMillis(w.Issued), ACR: shared(w.ACR),
			Identity: Identity{User: w.User, Email: w.Email, Name: w.Name, PreferredUsername: w.Preferred, Groups: w.Groups},
			Extra:    w.Extra, Claims: claims,
			Tokens: Tokens{
				Access: w.Access.token(), Refresh: w.Refresh.token(), ID: w.ID.token(),
				Obtained: fromMillis(w.Obtained), Expiry: fromMillis(w.Expiry), Scope: shared(w.Scope),
			},
		},
		Provider: shared(w.Provider), Created: fromMillis(w.Created), Ends: fromMillis(w.Ends),
		SignIn: w.SignIn, Browser: shared(w.Browser), unknown: w.Unknown,
		shares: payload[0] == sharedFormat, stamp: w.Stamp, gone: w.Gone,
	}, nil
}

// shared is text, in one copy for all sessions that hold it: of the names of groups thousands of sessions in the cache have the same.
func shared(text string) string { return unique.Make(text).Value() }

// millis is t in milliseconds; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// join puts parts one after the other, each behind its length, so that no two lists of parts come out the same.
func join(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

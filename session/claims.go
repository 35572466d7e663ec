package session

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxClaims bounds what is stored of Grant.Claims, as JSON. Whoever fills it keeps to less; more is left out as a whole, so that no rule
// decides on a part.
const maxClaims = 64 << 10

// packClaims writes claims as JSON, nil where there are none or too many. It is JSON and not CBOR, since nothing says how deep they are.
func packClaims(claims map[string]any) []byte {
	if len(claims) == 0 {
		return nil
	}
	b, err := json.Marshal(claims)
	if err != nil || len(b) > maxClaims {
		return nil
	}
	return b
}

func unpackClaims(b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var claims map[string]any
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&claims); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return claims, nil
}

// weighClaims is about what a value of JSON takes in memory.
func weighClaims(v any) int {
	switch v := v.(type) {
	case string:
		return 16 + len(v)
	case json.Number:
		return 16 + len(v)
	case []any:
		w := 24
		for _, e := range v {
			w += 16 + weighClaims(e)
		}
		return w
	case map[string]any:
		w := 48
		for name, e := range v {
			w += 48 + len(name) + weighClaims(e)
		}
		return w
	}
	return 16
}

package proxy

import (
	"slices"
	"strings"
	"testing"
)

func TestExpireEverywhereTakesTheLargestFirst(t *testing.T) {
	lines := expireEverywhere([]string{"a=1; b=" + strings.Repeat("x", 99), `__Host-c=33; bad"name=1; =none`}, "wiki.example.com", true)
	want := []string{
		"b=; Path=/; Max-Age=0; Secure", "b=; Path=/; Max-Age=0; Secure; Domain=wiki.example.com", "b=; Path=/; Max-Age=0; Secure; Domain=example.com",
		"__Host-c=; Path=/; Max-Age=0; Secure", "__Host-c=; Path=/; Max-Age=0; Secure; Domain=wiki.example.com",
	}
	if !slices.Equal(lines[:len(want)], want) {
		t.Errorf("%q", lines)
	}
	for _, line := range lines {
		if strings.Contains(line, "bad") {
			t.Errorf("%q", line)
		}
	}
	var many strings.Builder
	for range 5000 {
		many.WriteString("name-" + strings.Repeat("x", many.Len()%50) + "=1; ")
	}
	size := 0
	for _, line := range expireEverywhere([]string{many.String()}, "127.0.0.1", false) {
		size += len(line)
		if strings.Contains(line, "Domain") || strings.Contains(line, "Secure") {
			t.Fatalf("%q", line)
		}
	}
	if size > maxExpiring {
		t.Errorf("%d bytes", size)
	}
}

package page_test

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

// What people must be able to read or see, light and dark: WCAG 2.2, 1.4.3 (text, 4.5:1) and 1.4.11 (edges of controls, focus, 3:1).
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, ok := strings.Cut(string(css), "prefers-color-scheme: dark")
	if !ok {
		t.Fatal("no dark scheme")
	}
	for scheme, text := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(text, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for _, tt := range []struct {
			front, back string
			least       float64
		}{
			{"text", "card", 7}, {"text", "ground", 7}, {"text", "tint", 7},
			{"soft", "card", 4.5}, {"soft", "ground", 4.5},
			{"accent", "card", 4.5},
			{"on-accent", "accent", 4.5}, {"on-accent", "accent-hover", 4.5},
			{"edge", "card", 3},
		} {
			a, okA := colours[tt.front]
			b, okB := colours[tt.back]
			if !okA || !okB {
				t.Fatalf("%s: no colour %s or %s", scheme, tt.front, tt.back)
			}
			if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < tt.least {
				t.Errorf("%s: %s on %s is %.2f:1, want %v:1", scheme, tt.front, tt.back, got, tt.least)
			}
		}
	}
}

// luminance is WCAG's relative luminance of #rrggbb.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	var c [3]int
	if _, err := fmt.Sscanf(colour, "#%02x%02x%02x", &c[0], &c[1], &c[2]); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v := float64(c[i]) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}

// The Content-Security-Policy would block it, and the page would look broken.
func TestStyleLoadsNothing(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"url(", "@import", "</", "http", "/*"} {
		if strings.Contains(string(css), s) {
			t.Errorf("page.css holds %q", s)
		}
	}
	for _, s := range samples() {
		b := strings.Replace(body(t, get(t, s.show)), `<script src="/oauth2/fragment.js"></script>`, "", 1) // its own
		for _, bad := range []string{" style=", "<script", " onclick", "src=", "ZgotmplZ"} {
			if strings.Contains(b, bad) {
				t.Errorf("%s holds %q", s.name, bad)
			}
		}
	}
}

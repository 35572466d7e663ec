package page

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// readable is the least contrast of text: WCAG 2.2, 1.4.3.
const readable = 4.5

// Colors are those of a site, as #rgb or #rrggbb. Empty ones are ours.
type Colors struct {
	// Accent is the colour of buttons and links, AccentDark that of the dark scheme. Default: Accent, made as light as it has to be.
	Accent, AccentDark string
	// Background is what the cards stand on, BackgroundDark that of the dark scheme.
	Background, BackgroundDark string
}

// color is red, green and blue.
type color [3]uint8

var hexColor = regexp.MustCompile(`^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)

func parseColor(s string) (c color, ok bool) {
	if !hexColor.MatchString(s) {
		return c, false
	}
	digits := s[1:]
	if len(digits) == 3 {
		digits = digits[:1] + digits[:1] + digits[1:2] + digits[1:2] + digits[2:] + digits[2:]
	}
	for i := range c {
		n, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
		if err != nil {
			return c, false
		}
		c[i] = uint8(n)
	}
	return c, true
}

func (c color) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// luminance is WCAG's relative luminance.
func (c color) luminance() float64 {
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

func contrast(a, b color) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// mixed is c with a share of another colour in it, 0 to 1.
func (c color) mixed(with color, share float64) color {
	for i := range c {
		c[i] = uint8(math.Round(float64(c[i])*(1-share) + float64(with[i])*share))
	}
	return c
}

// moved goes from c towards another colour until it can be told from all of these.
func (c color) moved(towards color, from ...color) color {
	for share := 0.0; share < 1; share += 0.02 {
		if m := c.mixed(towards, share); leastContrast(m, from) >= readable {
			return m
		}
	}
	return towards
}

func leastContrast(c color, others []color) float64 {
	least := math.Inf(1)
	for _, o := range others {
		least = min(least, contrast(c, o))
	}
	return least
}

// scheme is one of the two sets of colours of page.css.
type scheme struct {
	media, suffix string // its media query, and how the options that set it end
	far           color  // where colours of text go to be told from the background better
	colors        map[string]color
}

var cssColor = regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`)

// schemes reads the colours of our style: light and dark.
func schemes() []scheme {
	light, dark, _ := strings.Cut(builtinStyle(), "prefers-color-scheme: dark")
	all := []scheme{{media: "light", far: color{}}, {media: "dark", suffix: "_dark", far: color{255, 255, 255}}}
	for i, css := range []string{light, dark} {
		all[i].colors = map[string]color{}
		for _, m := range cssColor.FindAllStringSubmatch(css, -1) {
			all[i].colors[m[1]], _ = parseColor(m[2])
		}
	}
	return all
}

// palette returns the style that sets a site's colours, and its accent. Nothing but numbers that were read from them gets into it. Text must be
// readable on each: WCAG 2.2, 1.4.3.
func (c Colors) palette() (css string, accent color, problems Problems) {
	if c == (Colors{}) {
		return "", schemes()[0].colors["accent"], nil
	}
	given := map[string]color{}
	for name, value := range map[string]string{"accent": c.Accent, "accent_dark": c.AccentDark, "background": c.Background, "background_dark": c.BackgroundDark} {
		parsed, ok := parseColor(value)
		switch {
		case ok:
			given[name] = parsed
		case value != "":
			return "", accent, Problems{{"colors." + name, "is not a colour", "Write it as #rgb or #rrggbb, in quotes"}}
		}
	}
	for _, s := range schemes() {
		problems = append(problems, s.paint(given)...)
		if s.media == "light" {
			accent = s.colors["accent"]
		}
		css += s.css()
	}
	return css, accent, problems
}

// paint puts the given colours into a scheme.
func (s scheme) paint(given map[string]color) (problems Problems) {
	p := s.colors
	if ground, ok := given["background"+s.suffix]; ok {
		near := color{255 - s.far[0], 255 - s.far[1], 255 - s.far[2]}
		for _, front := range []string{"text", "soft"} {
			if got := contrast(ground, p[front]); got < readable {
				return Problems{{"colors.background" + s.suffix, fmt.Sprintf("text in %v on it has a contrast of %.1f:1, and needs %v:1", p[front], got, readable),
					fmt.Sprintf("Take one such as %v", ground.moved(near, p["text"], p["soft"]))}}
			}
		}
		p["ground"] = ground
	}
	accent, ok := given["accent"+s.suffix]
	if !ok {
		if accent, ok = given["accent"]; ok {
			accent = accent.moved(s.far, p["card"])
		}
	}
	if ok {
		p["accent"] = accent
		p["accent-hover"] = accent.mixed(p["text"], 0.2)
		p["on-accent"] = p["card"]
		p["tint"] = p["card"].mixed(accent, 0.1)
	}
	// Links stand on cards, and the words on buttons are of the card's colour.
	if got := contrast(p["accent"], p["card"]); got < readable {
		problems = append(problems, Problem{"colors.accent" + s.suffix, fmt.Sprintf("%v has a contrast of %.1f:1 to the card's %v, and text needs %v:1", p["accent"], got, p["card"], readable),
			fmt.Sprintf("Take one such as %v", p["accent"].moved(s.far, p["card"]))})
	}
	return problems
}

// css sets the colours that [scheme.paint] may have changed.
func (s scheme) css() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n@media (prefers-color-scheme: %s) { :root {", s.media)
	for _, name := range []string{"ground", "accent", "accent-hover", "on-accent", "tint"} {
		fmt.Fprintf(&b, " --%s: %v;", name, s.colors[name])
	}
	b.WriteString(" } }")
	return b.String()
}

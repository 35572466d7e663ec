package page

import "time"

// moment is a time as people read it and as machines do.
type moment struct {
	Machine, Relative, Absolute string
}

// moment returns nil for the zero time, which is unknown.
func (p *Pages) moment(in *wording, t time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &moment{
		Machine:  t.Format(time.RFC3339),
		Relative: relative(in, t.Sub(p.now())),
		// Every language reads it alike. The zone is named: a page without script cannot know the reader's.
		Absolute: t.Format("2006-01-02 15:04 MST"),
	}
}

// past is the moment of what has happened, even if another machine's clock is a little ahead.
func (p *Pages) past(in *wording, t time.Time) *moment {
	if now := p.now(); t.After(now) {
		t = now
	}
	return p.moment(in, t)
}

// relative says how far away a moment is.
func relative(in *wording, d time.Duration) string {
	switch {
	case d >= time.Minute:
		return in.say("time.in", "span", span(in, d))
	case d > 0:
		return in.say("time.soon")
	case d > -time.Minute:
		return in.say("time.now")
	}
	return in.say("time.ago", "span", span(in, -d))
}

// span says how long d is, in its two largest units. Hours and minutes are abbreviated and days begin at two, so that no language needs to
// know how its words change with a number.
func span(in *wording, d time.Duration) string {
	minutes := int(d / time.Minute)
	hours, days := minutes/60, minutes/(24*60)
	switch {
	case days >= 2:
		return two(in, in.say("time.days", "n", days), "time.hours", hours%24)
	case hours >= 1:
		return two(in, in.say("time.hours", "n", hours), "time.minutes", minutes%60)
	}
	return in.say("time.minutes", "n", minutes)
}

func two(in *wording, large, unit string, n int) string {
	if n == 0 {
		return large
	}
	return in.say("time.two", "a", large, "b", in.say(unit, "n", n))
}

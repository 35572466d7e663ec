package page

import (
	"fmt"
	"net/http"
	"time"
)

// Kept is a request that a person sent when the session was over. The page asks whether to send it now.
type Kept struct {
	// Method, Path and Type say what would be sent where; Size is the body's in bytes. Type may be empty.
	Method, Path, Type string
	Size               int64
	// At is when it was sent first.
	At time.Time
	// Fields are the names of the fields and files in it; MoreFields counts further ones.
	Fields     []string
	MoreFields int
	// Send is the address that it is for: relative or http(s). The button posts Marker there.
	Send string
	// Drop is where the other button posts DropMarker, for who does not want to send it.
	Drop string
	// Marker and DropMarker name the request.
	Marker, DropMarker map[string]string
	// RequestID lets an operator find the request in the log.
	RequestID string
}

// keptFacts are those of a view of [Kept].
type keptFacts struct {
	What, Type, Size string
	At               *moment
	FieldNames       []string
	MoreFields       int
	Drop             string
	DropMarker       map[string]string
}

// Kept writes the question. What a person typed is not shown: somebody else may be looking.
func (p *Pages) Kept(w http.ResponseWriter, r *http.Request, k Kept) {
	p.write(w, r, p.kept(p.speak.to(r), k))
}

func (p *Pages) kept(in *wording, k Kept) sheet {
	v := view{
		wording: in,
		Heading: in.say("ask.title"),
		Text:    in.say("ask.text"),
		Action:  safeURL(k.Send), Button: in.say("ask.send"), Fields: fields(k.Marker),
		RequestID: line(k.RequestID),
		keptFacts: keptFacts{
			What: line(k.Method + " " + k.Path), Type: line(k.Type), Size: bytesOf(k.Size), At: p.past(in, k.At),
			MoreFields: k.MoreFields, Drop: safeURL(k.Drop), DropMarker: fields(k.DropMarker),
		},
	}
	for _, name := range k.Fields {
		if name = line(name); name != "" {
			v.FieldNames = append(v.FieldNames, name)
		}
	}
	// Where the application sends the browser afterwards nobody here knows, and browsers hold each hop to form-action.
	return sheet{http.StatusOK, "kept", v, policy{formAction: "'self' https:"}}
}

// bytesOf writes a size as every language does: in whole units, so that none needs to know where a decimal comma stands.
func bytesOf(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", (n+1<<19)>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", (n+1<<9)>>10)
	}
	return fmt.Sprintf("%d B", n)
}

package proxy

import (
	"bytes"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
)

// maxFormFields bounds the fields of a form that are named to the person.
const maxFormFields = 50

// maxFormParts bounds the fields that are counted, maxFieldName what is looked at of one name.
const (
	maxFormParts = 1000
	maxFieldName = 1 << 10
)

// formFields names the fields of a form, and the files in it, for the page that asks whether to send it. more counts those beyond the bound. Values
// are none of them. What is no form, or is broken, has no names from where it breaks.
func formFields(contentType string, body []byte) (names []string, more int) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, 0
	}
	add := func(name string) bool {
		switch {
		case name == "" || slices.Contains(names, name):
		case len(names) < maxFormFields:
			names = append(names, name)
		default:
			more++
		}
		return more < maxFormParts
	}
	switch media {
	case "application/x-www-form-urlencoded":
		for pair := range bytes.SplitSeq(body, []byte("&")) {
			raw, _, _ := bytes.Cut(pair, []byte("="))
			if name, err := url.QueryUnescape(string(raw[:min(len(raw), maxFieldName)])); err != nil || !add(name) {
				break
			}
		}
	case "multipart/form-data":
		parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for {
			part, err := parts.NextRawPart()
			if err != nil {
				break
			}
			name := part.FormName()
			if file := part.FileName(); file != "" {
				name += ": " + file
			}
			if !add(name[:min(len(name), maxFieldName)]) {
				break
			}
		}
	}
	return names, more
}

package idptest

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"testing"
)

// Callback is what the provider sends back to a client by way of the browser.
type Callback struct {
	// URL is where it goes, with the parameters of a query answer.
	URL string
	// Params are code, state, iss or error.
	Params url.Values
	// Posted says that it was response_mode form_post.
	Posted bool
}

var (
	formTarget = regexp.MustCompile(`<form id="back" method="post" action="([^"]*)"`)
	formField  = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// Visit opens an authorization URL as a browser without cookies would, and returns what would go back to the client, without
// going there. The provider must not be interactive.
func (s *Server) Visit(t testing.TB, authURL string) Callback {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	browser := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := browser.Get(authURL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	back, err := readCallback(resp, string(body))
	if err != nil {
		t.Fatalf("visit %s: %v", authURL, err)
	}
	return back
}

func readCallback(resp *http.Response, body string) (Callback, error) {
	if resp.StatusCode/100 == 3 {
		target, err := resp.Location()
		if err != nil {
			return Callback{}, err
		}
		return Callback{URL: target.String(), Params: target.Query()}, nil
	}
	target := formTarget.FindStringSubmatch(body)
	if resp.StatusCode != http.StatusOK || target == nil {
		return Callback{}, fmt.Errorf("%s: %w", resp.Status, errors.New("neither a redirect nor a form: "+body))
	}
	back := Callback{URL: html.UnescapeString(target[1]), Params: url.Values{}, Posted: true}
	for _, field := range formField.FindAllStringSubmatch(body, -1) {
		back.Params.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	return back, nil
}

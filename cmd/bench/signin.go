package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
)

// signIn goes through the provider as a browser does, until the application says that user is signed in.
func signIn(ctx context.Context, address string) (visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return visitor{}, err
	}
	client := &http.Client{Jar: jar, Timeout: within}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+signedPath+"?"+user, nil)
	if err != nil {
		return visitor{}, err
	}
	r.Header.Set("Accept", "text/html")
	r.Header.Set("User-Agent", "Mozilla/5.0")
	resp, err := client.Do(r)
	if err != nil {
		return visitor{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return visitor{}, err
	}
	if resp.StatusCode != http.StatusOK || string(body) != page {
		return visitor{}, fmt.Errorf("%s: %d %.300s", resp.Request.URL.Path, resp.StatusCode, body)
	}
	var cookies []string
	for _, c := range jar.Cookies(r.URL) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	return visitor{user, strings.Join(cookies, "; ")}, nil
}

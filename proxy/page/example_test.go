package page_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"postern/proxy/page"
)

func ExamplePages_Notice() {
	pages := page.New(page.Options{Title: "Example Wiki"})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "2")
		pages.Notice(w, r, page.Notice{
			Status: http.StatusServiceUnavailable,
			Title:  "Back in a moment",
			Text:   "You are still signed in.",
			Links:  []page.Link{{Text: "Try again", URL: r.URL.RequestURI(), Primary: true}},
		})
	})

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/wiki/Main", nil))
	fmt.Println(w.Code, w.Header().Get("Cache-Control"))

	// Output:
	// 503 no-store
}

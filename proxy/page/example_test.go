package page_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"postern/proxy/page"
)

func ExamplePages_Notice() {
	pages, err := page.New(page.Options{Title: "Example Wiki"})
	if err != nil {
		panic(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "2")
		pages.Notice(w, r, page.Notice{
			Status: http.StatusServiceUnavailable,
			Say:    "store_down",
			Links:  []page.Link{{Say: "try_again", URL: r.URL.RequestURI(), Primary: true}},
		})
	})

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/wiki/Main", nil))
	fmt.Println(w.Code, w.Header().Get("Cache-Control"))

	// Output:
	// 503 no-store
}

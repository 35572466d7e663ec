// Package e2e holds the end-to-end tests: the built program as its own process, npm oidc-provider (a certified provider that
// nobody here wrote), real Redis servers and Chromium. `make e2e` installs what is needed and runs them.
//
// Start in journey_test.go. stack_test.go starts the processes, browser_test.go drives the browser, and provider.mjs is the
// provider. With POSTERN_SCREENSHOTS=folder each page is kept as a picture, for people to look at.
package e2e

// Package chaos breaks things under load and holds what people see against what Postern promises: real replicas of the built program
// behind a balancer, real Redis servers, a strict identity provider, and an application that says who it believes a request is from.
// `make chaos` runs it; `make chaos CHAOS=-short` is the short form of `make check`.
//
// It checks promises, never timings:
//
//   - no request is answered as another user, nor with another's access token
//   - no request that starts more than max_stale after an end was acknowledged is accepted
//   - no refresh token is sent twice beyond design.md, "Refresh" 6: the provider writes down each arrival and what became of it
//   - no session is lost that the provider honours and whose end nobody asked for
//   - an answer is 200 or 503 whatever fails, and no Set-Cookie deletes the cookie of a live session
//   - in the end no goroutine and no connection is left over
//
// At the end of each test logs (at debug), metrics, pages, traces, all keys and values of Redis, what `postern check --print` prints, environments and command lines
// are searched for every secret that was around: keys, tokens, codes, states, cookies.
//
// A broken promise is reported with the seed of the run and a timeline of what led to it: faults, and what concerns the session.
// `go test -tags=chaos ./cmd/postern/chaos -run=TestChaos/sentinel -seed=7 -duration=2m` runs that schedule of people and faults again;
// what races inside the programs differs from run to run.
//
// # The map
//
//	main_test.go      flags, the built programs, and the clock that can be stepped
//	world_test.go     a world: replicas (kill, freeze, replace, step the clock), balancer, application, what is left over
//	store_test.go     Redis in its shapes (standalone, Sentinel, Cluster) and what can happen to each
//	provider_test.go  the provider, its faults, and the judge of refresh tokens
//	browser_test.go   browsers: sign in, ask, sign out, replay an old cookie; every answer is held against the promises here
//	search_test.go    nothing secret is left where it must not be: postern/proxy/proxytest/canary
//	timeline_test.go  what happened, what was broken, how often
//	random_test.go    TestChaos: seeded people and faults
//
// The other files are scenarios with numbers: one refresh for many requests and a refresh storm (refresh_test.go), Redis failing under
// load (outage_test.go), a killed lease holder (holder_test.go), operations of Redis for each request and the idle timeout across
// replicas (count_test.go), keys that rotate under load (keys_test.go).
package chaos

// Package attack attacks the built program from the outside: each row of the table of known attacks is a test named for it, and each
// published defect of comparable software names the rows that cover it. `make attack` runs all and prints the table.
//
// A test sees only what an attacker, an application, a provider or an operator sees: the bytes of answers, the bytes that reached the
// application, the calls of the provider, the keys in Redis, and the log. It knows nothing of Postern's packages.
//
// At the end of each test the program's log (at debug), its metrics, its environment and command line, all keys and values of Redis, and
// the pages that were seen are searched for every secret that was around: passwords, keys, tokens, codes, states, cookies.
//
// # The map
//
//	rows_test.go     the rows and the defects: what has a test, and why the others do not apply
//	main_test.go     the built program; the printed table; that rows and tests agree
//	world_test.go    a world: the program with its file, Redis, a provider that a test makes hostile, an application
//	app_test.go      the application: it records the bytes of requests and answers with the bytes that a test wants
//	wire_test.go     a client that sends bytes; h2_test.go one that sends HTTP/2 frames
//	browser_test.go  a browser with a cookie jar
//	search_test.go   that the search for secrets sees every place
//	log_test.go      what the program wrote
//
// Each test ends in a search for everything secret that it had to do with, wherever Postern could have left it: postern/proxy/proxytest/canary.
// floor_test.go measures what attacks on resources take; `make floor` runs it in full size.
//
// The other files are the rows by groups. `make mutants` breaks one defence after the other in a copy of the source and expects that the
// named test turns red: mutants_test.go has the list.
package attack

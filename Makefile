export GOTOOLCHAIN = auto
# The profile is for the program as it ships (make build); everything else would compile each library once more for it.
export GOFLAGS += -pgo=off

# How long `make fuzz` runs each target.
FUZZTIME ?= 1m
# What `postern version` says of a build by hand.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

STATICCHECK = go tool -modfile=.ci/tools.mod staticcheck

.PHONY: help demo build test e2e chaos attack floor mutants deploy-check check lint gosec govulncheck sbom reproducible bench pgo fuzz

help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: ## Try Postern: a provider, an application and Postern in one process, nothing to install.
	go build ./cmd/demo
	exec ./demo

build: ## Build the postern program.
	CGO_ENABLED=0 go build -pgo=auto -trimpath -ldflags '-s -w -X main.version=$(VERSION)' ./cmd/postern

test: ## Run the unit and flow tests with the race detector and a real Redis.
	.ci/install test
	CGO_ENABLED=1 go test -race -shuffle=on -timeout=5m ./...
	go test -run=AllocatesNoMore ./proxy

e2e: ## Drive a browser through Postern, npm oidc-provider and Redis. SCREENSHOTS=folder keeps pictures of the pages.
	.ci/install e2e
	POSTERN_SCREENSHOTS='$(abspath $(SCREENSHOTS))' go test -tags=e2e -count=1 -timeout=10m ./cmd/postern/e2e

chaos: ## Break replicas, Redis, network, provider and clocks under load, and hold what people see against the promises. CHAOS="-seed=7" repeats a run; CHAOS=-short is short.
	.ci/install test
	go test -tags=chaos -count=1 -parallel=6 -timeout=30m -v ./cmd/postern/chaos $(CHAOS)

attack: ## Attack the built program: one test for each row of the table of known attacks. ATTACK=-run=A55 runs one, ATTACK=-program=PATH attacks a built one.
	.ci/install test
	cd cmd/postern/attack && go test -tags=attack -count=1 -parallel=3 -timeout=15m $(ATTACK)

floor: ## Strain the built program: thousands of clients and sockets, gigabytes up and down. It prints what memory and goroutines that takes.
	.ci/install test
	cd cmd/postern/attack && go test -tags=attack -count=1 -parallel=1 -timeout=20m -full -run='StrangersWrite|SlowAndRestless|LargeUpload|AnswerWithoutEndStreams|HugeKeySet|ManyWebSockets' $(ATTACK)

mutants: ## Break one defence after the other in a copy of the source, and see that the attacks notice. MUTANTS=-run=/A55 breaks those of one row.
	.ci/install test
	go test -tags=mutants -count=1 -timeout=60m -v ./cmd/postern/attack $(MUTANTS)

# Never from the cache: Go does not see that a file outside the module has changed.
deploy-check: ## Render, judge and partly run what is in deploy; nothing is deployed.
	.ci/install deploy
	cd deploy/check && go test -count=1 -timeout=10m .

lint: ## Check the form of the code, go.mod, and that the generated parts are current.
	@unformatted=$$(gofmt -l .ci cmd config deploy proxy session); test -z "$$unformatted" || { echo "gofmt these: $$unformatted"; exit 1; }
	go vet -tags=e2e,chaos,attack ./...
	go vet -tags=mutants ./cmd/postern/attack
	go vet -modfile=.ci/tools.mod ./.ci/sbom
	$(STATICCHECK) -tags=e2e,chaos,attack ./...
	program=$$(go tool -modfile=.ci/tools.mod -n staticcheck) && cd deploy/check && $$program .
	go mod tidy -diff
	go mod verify
	go test -run='^Test(Floors|Reference|Schema)' ./cmd/postern ./config

# Left out: unread errors that the code throws away on purpose (G104; staticcheck looks at those), files and programs that the operator or a test names (G304,
# G204), and math/rand where only jitter comes of it (G404). Every other finding is mended, or explained where it stands.
gosec: ## Look for what gosec knows; it takes minutes.
	go tool -modfile=.ci/tools.mod gosec -quiet -exclude=G104,G204,G304,G404 ./...

govulncheck: ## Look the linked modules up in Go's vulnerability database, which must be reachable.
	go tool -modfile=.ci/tools.mod govulncheck ./cmd/postern

sbom: build ## Write what the program consists of (CycloneDX) and the licences of its modules to sbom/; a licence that nobody has looked at fails.
	go run -modfile=.ci/tools.mod ./.ci/sbom ./postern sbom

reproducible: ## Build a commit twice, in two folders, with the build cache and with an empty one, and compare: VERSION and the commit alone make the program.
	.ci/reproducible

check: lint deploy-check e2e attack ## Everything beside `make test` that must hold: lint, deployment files, e2e, the attacks, short chaos, the demo, a static build and its licences, a quick bench.
	$(MAKE) sbom
	@size=$$(wc -c < postern); test "$$size" -le 30000000 || { echo "postern has $$size bytes, more than 30 MB: does the linker keep every method again, because something calls reflect's MethodByName (text/template does)?"; exit 1; }
	$(MAKE) chaos CHAOS=-short
	go run ./cmd/bench --quick

bench: ## Print what Postern costs beside a bare ReverseProxy, nginx, Apache and oauth2-proxy, and hold it against the targets. BENCH=--only=rules measures a part.
	.ci/install bench
	go run ./cmd/bench $(BENCH)

# make build finds the profile by its name. Refresh it when the way of a request has changed much, on a machine that does nothing else. What the tests' own provider
# does is left out.
pgo: ## Refresh the profile by which the compiler optimises the program, cmd/postern/default.pgo.
	go test -trimpath -run='^$$' -bench='^BenchmarkServed' -benchtime=10s -cpuprofile=postern.prof -o postern.test ./proxy
	go tool pprof -proto -nodefraction=0 -focus='net/http\.\(\*conn\)\.serve' -ignore='idptest|rsa|bigmod' postern.test postern.prof > cmd/postern/default.pgo
	rm postern.test postern.prof

fuzz: ## Fuzz each target for FUZZTIME (default 1m), one on each processor. What is found wrong is kept in testdata/fuzz.
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; export dir cache=$$(go env GOCACHE)/fuzz/postern; \
	grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' cmd config proxy session | sed -E 's|^(.*)/[^/]+:[0-9]+:func (.*)|\1 \2|' > "$$dir/targets"; \
	for package in $$(cut -d' ' -f1 "$$dir/targets" | sort -u); do \
		mkdir -p "$$dir/$$package"; \
		go test -c -fuzz=. -o "$$dir/$$package/test" "./$$package"; \
	done; \
	xargs -n2 -P"$$(nproc)" sh -c 'echo "$$0 $$1"; cd "$$0"; exec "$$dir/$$0/test" -test.run="^$$" -test.fuzz="^$$1\$$" -test.parallel=1 -test.fuzztime=$(FUZZTIME) -test.fuzzminimizetime=1s -test.fuzzcachedir="$$cache/$$0"' < "$$dir/targets"

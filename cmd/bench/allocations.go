package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// allocated finds the counts in what go test prints of its benchmarks.
var allocated = regexp.MustCompile(`(?m)^Benchmark(\w+?)(?:-\d+)?\s.*\s(\d+) allocs/op`)

// countAllocations runs the benchmarks of the hot path, which count what `make test` holds to a bound.
func (s *stack) countAllocations(ctx context.Context) ([]line, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^Benchmark(SignedIn|BareProxy)$", "-benchtime=1000x", "postern/proxy").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	counts := map[string]int{}
	for _, found := range allocated.FindAllStringSubmatch(string(out), -1) {
		if counts[found[1]], err = strconv.Atoi(found[2]); err != nil {
			return nil, err
		}
	}
	if len(counts) != 2 {
		return nil, fmt.Errorf("go test counted nothing:\n%s", out)
	}
	return []line{{"allocations of a signed-in request, above bare", "10", fmt.Sprint(counts["SignedIn"] - counts["BareProxy"])}}, nil
}

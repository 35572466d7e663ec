//go:build chaos

package chaos_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
)

// The flags of a run: go test -tags=chaos ./cmd/postern/chaos -seed=7 -run=TestChaos.
var (
	seedFlag     = flag.Uint64("seed", 0, "seed of the random runs; 0 takes a new one and prints it")
	durationFlag = flag.Duration("duration", 0, "how long each random run lasts; 0 is 60s, with -short 12s")
	sessionsFlag = flag.Int("sessions", 0, "sessions of the refresh storm; 0 is 1000, with -short 60")
	stepsFlag    = flag.Bool("clock-steps", false, "step the replicas' clocks in random runs, with -short too")
)

// program is the built postern, steppable the one whose clock can be stepped, see stepClock; empty when it was not built.
var program, steppable string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "postern-chaos-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := proctest.Build(dir, "./cmd/postern"); err != nil {
		return 0, err
	}
	program = filepath.Join(dir, "postern")
	if *stepsFlag || !testing.Short() {
		if steppable, err = buildSteppable(dir); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// seed is that of the flag, or a new one.
func seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return rand.Uint64N(1_000_000)
}

// long returns full, or with -short the other.
func long[T any](full, short T) T {
	if testing.Short() {
		return short
	}
	return full
}

func duration() time.Duration {
	if *durationFlag != 0 {
		return *durationFlag
	}
	return long(time.Minute, 12*time.Second)
}

// clockVariable names the file that a steppable program takes its clock's step from: a little-endian int64 of seconds.
const clockVariable = "CHAOS_CLOCK"

// buildSteppable builds the very same source with another standard library (go build -overlay): time.Now adds the seconds that a file
// holds. So nothing in the product knows of it. libfaketime cannot do this: Go programs do not ask the C library for the time.
//
// As when a real clock is stepped, wall times jump, while timers and the differences between two readings do not.
func buildSteppable(dir string) (string, error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const reads = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), reads) != 1 {
		return "", fmt.Errorf("%s: time.Now is not what is known here; adapt buildSteppable", source)
	}
	files := map[string]string{
		source: strings.Replace(string(text), reads, reads+"\tsec += steppedBy()\n", 1),
		filepath.Join(filepath.Dir(source), "chaos_step.go"): stepSource,
	}
	replace := map[string]string{}
	for path, content := range files {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(replace[path], []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "steppable")
	if err := os.Mkdir(out, 0o700); err != nil {
		return "", err
	}
	if err := proctest.Build(out, "-overlay="+file, "./cmd/postern"); err != nil {
		return "", err
	}
	return filepath.Join(out, "postern"), nil
}

const stepSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var stepped = mapStep()

func steppedBy() int64 {
	if stepped == nil {
		return 0
	}
	return atomic.LoadInt64(stepped)
}

func mapStep() *int64 {
	path, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	m, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*int64)(unsafe.Pointer(&m[0]))
}
`

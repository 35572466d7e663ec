//go:build chaos

package chaos_test

import (
	"errors"
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
	stepsFlag    = flag.Bool("clock-steps", true, "step the replicas' clocks in random runs; never with -short")
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
	if *stepsFlag && !testing.Short() {
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

// buildSteppable builds the very same source with another standard library: time.Now adds the seconds that a file holds. So nothing in
// the product knows of it. libfaketime cannot do this, since Go programs do not ask the C library for the time, and go build -overlay
// does not reach a toolchain in the module cache.
//
// As when a real clock is stepped, wall times jump, while timers and the differences between two readings do not.
func buildSteppable(dir string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find GOROOT: %w", err)
	}
	goroot, err := steppableGoroot(strings.TrimSpace(string(out)), filepath.Join(dir, "goroot"))
	if err != nil {
		return "", fmt.Errorf("make a standard library: %w", err)
	}
	programs := filepath.Join(dir, "steppable")
	if err := os.Mkdir(programs, 0o700); err != nil {
		return "", err
	}
	build := proctest.BuildCommand(programs, "./cmd/postern")
	build.Path = filepath.Join(goroot, "bin", "go")
	build.Env = append(build.Env, "GOROOT="+goroot, "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with another clock: %w\n%s", err, out)
	}
	return filepath.Join(programs, "postern"), nil
}

// steppableGoroot makes a GOROOT of links to another, but for the package time.
func steppableGoroot(from, to string) (string, error) {
	for _, folder := range []string{"", "src", "src/time"} {
		if err := os.Mkdir(filepath.Join(to, folder), 0o700); err != nil {
			return "", err
		}
		entries, err := os.ReadDir(filepath.Join(from, folder))
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			name := filepath.Join(folder, e.Name())
			if name == "src" || name == "src/time" || name == "src/time/time.go" {
				continue
			}
			if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				return "", err
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(from, "src/time/time.go"))
	if err != nil {
		return "", err
	}
	const reads = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), reads) != 1 {
		return "", errors.New("time.Now is not what is known here; adapt steppableGoroot")
	}
	stepped := strings.Replace(string(text), reads, reads+"\tsec += steppedBy()\n", 1)
	return to, errors.Join(
		os.WriteFile(filepath.Join(to, "src/time/time.go"), []byte(stepped), 0o600),
		os.WriteFile(filepath.Join(to, "src/time/chaos_step.go"), []byte(stepSource), 0o600),
	)
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

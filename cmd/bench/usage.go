package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of /proc/PID/stat on Linux, whatever the kernel's own.
const clockTick = 10 * time.Millisecond

// cpu is the user and system time of a process and of those that it has started, so far, that of ended threads included.
func (p *process) cpu() (time.Duration, error) {
	all, err := p.tree()
	if err != nil {
		return 0, err
	}
	sum := time.Duration(0)
	for _, s := range all {
		sum += s.cpu
	}
	return sum, nil
}

// memory is the resident memory of all of them in MiB. What they share counts for each.
func (p *process) memory() (float64, error) {
	all, err := p.tree()
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, s := range all {
		mib, err := fromStatus(s.pid, "VmRSS:")
		if err != nil {
			return 0, err
		}
		sum += mib
	}
	return sum, nil
}

// peak is the most resident memory that a process had since forgetPeak, in MiB.
func (p *process) peak() (float64, error) { return fromStatus(p.cmd.Process.Pid, "VmHWM:") }

func (p *process) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}

// fromStatus is a size in /proc/PID/status, in MiB.
func fromStatus(pid int, name string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/status", name)
}

// A stat is what /proc/PID/stat says.
type stat struct {
	pid, parent int
	cpu         time.Duration
}

// tree is the process and all that it has started, directly or not.
func (p *process) tree() ([]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]stat{}
	var tree []stat
	for _, file := range files {
		s, err := readStat(file)
		if err != nil {
			continue // it has ended since
		}
		children[s.parent] = append(children[s.parent], s)
		if s.pid == p.cmd.Process.Pid {
			tree = append(tree, s)
		}
	}
	if len(tree) == 0 {
		return nil, fmt.Errorf("%s is not running: %s", filepath.Base(p.cmd.Path), p.log)
	}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i].pid]...)
	}
	return tree, nil
}

func readStat(file string) (s stat, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if _, err := fmt.Sscanf(file, "/proc/%d/stat", &s.pid); err != nil {
		return s, err
	}
	// The name of the program, the second field, may hold anything: the fields are counted from its end.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return s, fmt.Errorf("unexpected /proc/PID/stat: %q", b)
	}
	var user, system int
	_, err = fmt.Sscan(fields[1]+" "+fields[11]+" "+fields[12], &s.parent, &user, &system)
	s.cpu = time.Duration(user+system) * clockTick
	return s, err
}

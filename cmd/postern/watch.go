package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"
)

const (
	// watchEvery is how often the files are looked at. Reading them is dearer than asking the system for notices, and sees everything: Kubernetes swaps a
	// symlink to a folder, editors rename, network file systems tell nothing. A change is taken once two looks have shown the same, since somebody
	// who writes, or who changes several files, is not always at the end of it.
	watchEvery = time.Second
	// maxWatched bounds what is read of a file; none that is larger can be used.
	maxWatched = 4 << 20
	// maxNames bounds the names that are read of a folder.
	maxNames = 10_000
)

// contents are what files hold, and which names folders hold, by their own names: a hash, which is zero for what cannot be read.
type contents map[string][sha256.Size]byte

// look reads files.
func look(files ...string) contents {
	c := contents{}
	for _, file := range files {
		c[file] = hash(file)
	}
	return c
}

func hash(name string) (sum [sha256.Size]byte) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() && !info.IsDir() { // opening a pipe could wait for ever
		return sum
	}
	f, err := os.Open(name)
	if err != nil {
		return sum
	}
	defer f.Close()
	h := sha256.New()
	if info.IsDir() {
		names, _ := f.Readdirnames(maxNames) // io.EOF: there are none
		slices.Sort(names)
		fmt.Fprintf(h, "%q", names)
		return [sha256.Size]byte(h.Sum(nil))
	}
	if _, err := io.Copy(h, io.LimitReader(f, maxWatched)); err != nil {
		return sum
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// watcher notices that files changed, and how.
type watcher struct {
	seen contents // what was last taken or refused
	next contents // what the last look showed, if that was something else
}

// watch begins anew with files that hold c.
func (w *watcher) watch(c contents) { w.seen, w.next = c, nil }

// changed looks at the files. It is true when they have changed and are at rest.
func (w *watcher) changed() bool {
	now := look(slices.Collect(maps.Keys(w.seen))...)
	if maps.Equal(now, w.seen) {
		w.next = nil
		return false
	}
	atRest := maps.Equal(now, w.next)
	w.next = now
	return atRest
}

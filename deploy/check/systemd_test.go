package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// units are systemd's files in a folder of their own, with the program where they look for it.
func units(t *testing.T) (service, socket string) {
	t.Helper()
	dir := t.TempDir()
	place := func(name string) string {
		text, err := os.ReadFile("../systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		write(t, file, strings.ReplaceAll(string(text), "/usr/local/bin/postern", postern))
		return file
	}
	return place("postern.service"), place("postern.socket")
}

// systemd says in words what it does not know in a unit, and loads it all the same.
func TestSystemdKnowsEverythingInItsUnits(t *testing.T) {
	service, socket := units(t)
	out, err := exec.Command("systemd-analyze", "verify", service, socket).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSystemdFindsTheServiceClosed(t *testing.T) {
	service, _ := units(t)
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", service).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The socket has the name by which Postern takes it.
func TestSocketHasPosternsName(t *testing.T) {
	_, socket := units(t)
	text, err := os.ReadFile(socket)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\nFileDescriptorName=listen\n") {
		t.Error("Postern would refuse it")
	}
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal: what a person types goes into keys, and program is what a program reads from.
func openTerminal(t *testing.T) (keys, program *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return keys, program
}

// echoes reports whether a terminal shows what is typed.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func TestTerminalDoesNotShowThePassword(t *testing.T) {
	keys, program := openTerminal(t)
	notes := newScreen()
	person := newTerminal(program, notes, notes)
	got := make(chan string)
	go func() {
		text, err := person.hidden(t.Context())
		if err != nil {
			text = err.Error()
		}
		got <- text
	}()
	for echoes(t, program) { // until the password is asked for; what is typed before that is shown by every terminal
	}
	if _, err := keys.WriteString("canary password \n"); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "canary password " {
		t.Errorf("got %q", text)
	}
	if !echoes(t, program) {
		t.Error("the terminal stays silent")
	}
	shown, fd := make([]byte, 100), int(keys.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	if n, _ := syscall.Read(fd, shown); n > 0 && strings.Contains(string(shown[:n]), "canary") {
		t.Errorf("the terminal showed %q", shown[:n])
	}
}

// Ctrl-C at the password must not leave a terminal that shows nothing.
func TestTerminalIsRestoredAfterAnInterrupt(t *testing.T) {
	keys, program := openTerminal(t)
	cmd := signInFrom(t, program, fmt.Sprintf(breakoutYAML, "http://127.0.0.1:1", "s"))
	cmd.err.find("User name: ")
	if _, err := keys.WriteString("ada\n"); err != nil {
		t.Fatal(err)
	}
	for echoes(t, program) { // until the password is asked for
	}
	cmd.interrupt()
	if _, err := cmd.ends(); err == nil || err.Error() != "interrupted" {
		t.Errorf("error %v, want interrupted", err)
	}
	if !echoes(t, program) {
		t.Error("the terminal stays silent")
	}
}

func TestLoginOpensABrowser(t *testing.T) {
	dir := t.TempDir()
	opened := filepath.Join(dir, "opened")
	if err := syscall.Mkfifo(opened, 0o600); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nprintf %s \"$*\" > " + opened + "\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("DISPLAY", ":0")
	c := newCorp(t)
	cmd := signIn(t, c.yaml(), "corp", "--open")
	address, err := os.ReadFile(opened)
	if err != nil {
		t.Fatal(err)
	}
	if string(address) != cmd.address() {
		t.Errorf("the browser got %s, want %s", address, cmd.address())
	}
	c.register(cmd.redirectURI())
	cmd.visit(string(address))
	if _, err := cmd.ends(); err != nil {
		t.Error(err)
	}
}

// Without a display, or a browser, the address is there to be copied.
func TestLoginWithoutABrowser(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
	if err := openBrowser("http://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "display") {
		t.Errorf("error %v, want that there is no display", err)
	}
	t.Setenv("WAYLAND_DISPLAY", "wayland-0")
	if err := openBrowser("http://127.0.0.1:1"); !errors.Is(err, fs.ErrNotExist) && err == nil {
		t.Error("no error without xdg-open")
	}
	c := newCorp(t)
	got, err := c.signsIn(t, c.yaml(), "--open")
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, "No browser was opened: ", " user alice\n")
}

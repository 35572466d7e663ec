package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestSystemdIsTold(t *testing.T) {
	at := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", at)
	heard := func() string {
		b := make([]byte, 200)
		n, err := systemd.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	r := start(t, "drain_delay: 0s", "  - {access: public, upstream: \"http://127.0.0.1:1\"}")
	if got := heard(); got != "READY=1" {
		t.Errorf("at start: %q", got)
	}
	r.terminate()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	if got := heard(); got != "STOPPING=1" {
		t.Errorf("at the end: %q", got)
	}
	notifyReloading()
	state, usec, _ := strings.Cut(heard(), "\nMONOTONIC_USEC=")
	var n int64
	if _, err := fmt.Sscan(usec, &n); state != "RELOADING=1" || err != nil || n <= 0 {
		t.Errorf("at a change: %q %q", state, usec)
	}
	t.Setenv("NOTIFY_SOCKET", at+"-nobody")
	notify("READY=1") // nobody hears it
}

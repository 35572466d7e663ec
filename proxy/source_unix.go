//go:build unix

package proxy

import (
	"io"
	"net"
	"syscall"
)

// plainSocket is what is under conn, if that changes nothing of what comes; else nil.
func plainSocket(conn net.Conn) syscall.RawConn {
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// readNow reads without waiting: sockets of package net never block. Nothing to read is EAGAIN.
func readNow(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

//go:build unix

package wire

import "syscall"

const canPeek = true

// nothingToRead tells a socket that is open and on which nothing has come. Sockets of package net never block.
func nothingToRead(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return err == syscall.EAGAIN
}

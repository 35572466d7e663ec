//go:build !unix

package proxy

import (
	"net"
	"syscall"
)

// plainSocket is nil where nothing can be read without a buffer to wait with.
func plainSocket(net.Conn) syscall.RawConn { return nil }

func readNow(uintptr, []byte) (int, error) { return 0, syscall.EINVAL }

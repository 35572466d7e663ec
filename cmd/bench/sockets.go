package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// The handshake's key and its answer are those of RFC 6455, section 1.3.
const (
	socketKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	socketAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// socketFrame is a masked text of five letters, from the same RFC, section 5.7.
var socketFrame = []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}

// openSockets opens many WebSockets at once, sees that each echoes, and looks at the memory of a Postern that did nothing else, and of a bare proxy.
func (s *stack) openSockets(ctx context.Context) ([]line, error) {
	n, err := s.possibleSockets()
	if err != nil {
		return nil, err
	}
	bare, at, err := s.startPart(ctx, "bare", s.app)
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	in, err := s.startPostern(ctx, plain)
	if err != nil {
		return nil, err
	}
	defer in.proxy.stop()
	bareEach, err := s.memoryOfSockets(ctx, bare, at, n)
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	each, err := s.memoryOfSockets(ctx, in.proxy, in.address, n)
	return []line{{fmt.Sprintf("an open WebSocket, of %d", n), "48 KiB", fmt.Sprintf("%.0f KiB (bare: %.0f KiB)", each, bareEach)}}, err
}

// possibleSockets is how many a proxy can hold: it has two connections for each, and some more.
func (s *stack) possibleSockets() (int, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, err
	}
	const others = 200
	if files.Max < 2*others {
		return 0, errors.New("the limit of open files is too low (ulimit -n)")
	}
	return int(min(uint64(s.sockets), (files.Max-others)/2)), nil
}

// memoryOfSockets is what each of n costs a proxy, in KiB.
func (s *stack) memoryOfSockets(ctx context.Context, p *process, at string, n int) (float64, error) {
	before, err := p.memory()
	if err != nil {
		return 0, err
	}
	conns, failures := make([]net.Conn, n), make([]error, s.connections)
	var opening sync.WaitGroup
	for w := range failures {
		opening.Go(func() {
			for i := w; i < n && failures[w] == nil; i += len(failures) {
				conns[i], failures[w] = openSocket(ctx, at, s.alice)
			}
		})
	}
	opening.Wait()
	after, err := p.memory()
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
	return (after - before) * 1024 / float64(n), errors.Join(append(failures, err)...)
}

func openSocket(ctx context.Context, at string, v visitor) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	if err := greet(conn, at, v); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open a WebSocket: %w", err)
	}
	return conn, nil
}

// greet opens the WebSocket and sees that it echoes.
func greet(conn net.Conn, at string, v visitor) error {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://%[2]s\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", socketPath, at, v.Cookie, socketKey)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 1<<10)
	status, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if len(status) < 12 || status[9:12] != "101" {
		return fmt.Errorf("got %q", status)
	}
	for line := status; line != "\r\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			return err
		}
	}
	if _, err := conn.Write(socketFrame); err != nil {
		return err
	}
	echoed := make([]byte, len(socketFrame))
	if _, err := io.ReadFull(in, echoed); err != nil {
		return err
	}
	if !bytes.Equal(echoed, socketFrame) {
		return fmt.Errorf("the echo was %x", echoed)
	}
	return nil
}

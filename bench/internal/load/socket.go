//go:build linux

package load

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errAgain tells that a socket has nothing to read or no room to write. It is a
// net.Error that timed out, because crypto/tls takes such a failed read for one
// that can be tried again.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "would block" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// stream is a socket, or TLS over one, that never blocks.
type stream interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
}

// socket is a TCP socket. Its reads and writes go to the kernel without telling
// the Go scheduler, which is right only because they do not block.
type socket struct{ fd int }

// Time to connect and to shake hands.
const connectTimeout = 3 * time.Second

// dial opens a connection and makes it non-blocking.
func dial(addr netip.AddrPort, conf *tls.Config) (*socket, stream, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if ip := addr.Addr().Unmap(); ip.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	s := &socket{fd: fd}
	st, err := s.connect(to, conf)
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	return s, st, nil
}

func (s *socket) connect(to unix.Sockaddr, conf *tls.Config) (stream, error) {
	patience := unix.NsecToTimeval(int64(connectTimeout))
	for _, err := range []error{
		unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
	} {
		if err != nil {
			return nil, err
		}
	}
	for {
		err := unix.Connect(s.fd, to)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EINPROGRESS {
			return nil, unix.ETIMEDOUT
		}
		if err != nil {
			return nil, err
		}
		break
	}
	if conf == nil {
		return s, unix.SetNonblock(s.fd, true)
	}
	under := &tlsSocket{socket: s, shaking: true}
	t := tls.Client(under, conf)
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	under.shaking = false
	if len(conf.NextProtos) > 0 && t.ConnectionState().NegotiatedProtocol != conf.NextProtos[0] {
		return nil, errors.New("server does not speak " + conf.NextProtos[0])
	}
	return t, unix.SetNonblock(s.fd, true)
}

// Read reads once.
func (s *socket) Read(p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, errAgain
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// Write writes once, perhaps less than p.
func (s *socket) Write(p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
			unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, errAgain
		case errno != 0:
			return 0, errno
		default:
			return int(n), nil
		}
	}
}

// tlsSocket is the socket as crypto/tls wants it: a write is whole or fails.
type tlsSocket struct {
	*socket
	shaking bool // the socket still blocks, so the scheduler has to know
}

func (s *tlsSocket) Read(p []byte) (int, error) {
	if !s.shaking {
		return s.socket.Read(p)
	}
	n, err := unix.Read(s.fd, p)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(0, n), err
}

// Write waits for room in the rare case that there is none: a TLS record that
// was written in part cannot be taken back.
func (s *tlsSocket) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := s.socket.Write(p[done:])
		done += n
		if err == errAgain {
			ready := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			if n, err := unix.Poll(ready, int(connectTimeout/time.Millisecond)); n == 0 && err == nil {
				return done, unix.ETIMEDOUT
			}
			continue
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// The rest of net.Conn, of which crypto/tls uses nothing here.

func (s *tlsSocket) Close() error                     { return nil }
func (s *tlsSocket) LocalAddr() net.Addr              { return nil }
func (s *tlsSocket) RemoteAddr() net.Addr             { return nil }
func (s *tlsSocket) SetDeadline(time.Time) error      { return nil }
func (s *tlsSocket) SetReadDeadline(time.Time) error  { return nil }
func (s *tlsSocket) SetWriteDeadline(time.Time) error { return nil }

package server

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// mostUnsent is how much of a response the kernel takes before it is sent. Its own
// bound is 4 MB for each connection, so that a few hundred clients who do not read
// would use up the memory that all sockets of the machine share.
const mostUnsent = 128 << 10

// inheritOptions sets what accepted connections inherit from the socket (tcp(7)).
func inheritOptions(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		for _, o := range [...]struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAliveIdle / time.Second)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
			{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostUnsent},
		} {
			if err := unix.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil && failed == nil {
				failed = err
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// refuseNew makes the system drop requests for new connections on a listening
// socket, while it still completes those that have begun. Closing a listening
// socket resets every connection that waits in it to be accepted; with this the
// queue can be emptied to its end first. Who is dropped tries again a second
// later, as TCP does, and finds the socket closed or its successor open.
//
// It is a classic BPF program that sees each segment from its TCP header on
// (socket(7), SO_ATTACH_FILTER): a segment with SYN set, the second bit of byte
// 13, is cut to nothing, every other passes.
func refuseNew(l *net.TCPListener) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x02, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 30},
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	if err != nil {
		return err
	}
	return failed
}

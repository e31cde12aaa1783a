package sock

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe is what the looks at a socket need, made once so that a look allocates
// nothing. They may come from several goroutines, so they take turns.
type probe struct {
	mu     sync.Mutex
	peek   func(fd uintptr)
	poll   func(fd uintptr)
	n      int
	err    error
	one    [1]byte
	events [1]unix.PollFd
}

func (p *probe) init() {
	p.peek = func(fd uintptr) {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p.one)), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		p.n, p.err = int(n), nil
		if errno != 0 {
			p.n, p.err = 0, errno
		}
	}
	p.poll = func(fd uintptr) {
		p.events[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
		p.n, p.err = unix.Poll(p.events[:], 0)
	}
}

// Gone reports whether the peer has closed its side or reset the connection,
// without reading. It sees this behind unread data too (POLLRDHUP, poll(2)).
func (c *Conn) Gone() bool {
	p := &c.look
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.raw.Control(p.poll) != nil {
		return true
	}
	const gone = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR | unix.POLLNVAL
	return p.err == nil && p.n > 0 && p.events[0].Revents&gone != 0
}

// Quiet reports whether an idle connection is open and has nothing to read, so
// that a message can be sent on it.
func (c *Conn) Quiet() bool {
	_, err := c.peek()
	return err == syscall.EAGAIN
}

// Ended reports whether the peer has ended its side, or the connection broke, and
// everything it sent has been read: whoever waits to read waits in vain.
func (c *Conn) Ended() bool {
	n, err := c.peek()
	return n == 0 && err != syscall.EAGAIN && err != syscall.EINTR
}

func (c *Conn) peek() (n int, err error) {
	p := &c.look
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := c.raw.Control(p.peek); err != nil {
		return 0, err
	}
	return p.n, p.err
}

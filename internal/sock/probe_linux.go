package sock

import "golang.org/x/sys/unix"

// Gone reports whether the peer has closed its side or reset the connection,
// without reading. It sees this behind unread data too (POLLRDHUP, poll(2)).
func (c *Conn) Gone() bool {
	gone := true
	err := c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return gone || err != nil
}

// Quiet reports whether an idle connection is open and has nothing to read, so
// that a message can be sent on it.
func (c *Conn) Quiet() bool {
	_, err := c.peek()
	return err == unix.EAGAIN
}

// Ended reports whether the peer has ended its side, or the connection broke, and
// everything it sent has been read: whoever waits to read waits in vain.
func (c *Conn) Ended() bool {
	n, err := c.peek()
	return n == 0 && err != unix.EAGAIN
}

func (c *Conn) peek() (n int, err error) {
	cerr := c.raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	if cerr != nil {
		return 0, cerr
	}
	return max(n, 0), err
}

//go:build linux

package load

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

var errTimeout = errors.New("no answer in time")

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// conn is one connection and the requests on it.
type conn struct {
	w      *worker
	index  int32
	socket *socket // nil: lost
	stream stream
	slots  []slot

	out []byte // to be written from off on
	off int

	http1 reader
	http2 *framer // nil: HTTP/1.1
}

// open connects and joins the worker's epoll set, edge-triggered in both
// directions: a write that finds room costs no event.
func (c *conn) open() error {
	s, st, err := dial(c.w.run.target.Addr, c.w.run.target.TLS)
	if err != nil {
		return err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: c.index}
	if err := unix.EpollCtl(c.w.epoll, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
		unix.Close(s.fd)
		return err
	}
	c.socket, c.stream = s, st
	c.out, c.off = nil, 0
	c.http1 = reader{partial: c.http1.partial[:0]}
	if c.w.run.target.Streams > 0 {
		c.http2 = newFramer(c)
		c.flush()
	}
	return nil
}

func (c *conn) close() {
	if c.socket != nil {
		unix.Close(c.socket.fd)
		c.socket, c.stream = nil, nil
	}
}

// usable tells whether a further request may begin on the connection.
func (c *conn) usable() bool {
	return c.socket != nil && !c.http1.closing && (c.http2 == nil || !c.http2.goingAway)
}

// begin puts the next request into a slot. What is to be written waits for flush.
func (c *conn) begin(s *slot, due, now int64) {
	r := c.w.request()
	s.busy, s.due, s.sent = true, due, now
	if c.http2 != nil {
		c.http2.ask(s, r)
		return
	}
	s.noBody = r.method == "HEAD"
	c.out, c.off = r.http1, 0
}

// flush writes what the socket takes; an event brings the rest.
func (c *conn) flush() {
	for c.socket != nil && c.off < len(c.out) {
		n, err := c.stream.Write(c.out[c.off:])
		c.off += n
		if err == errAgain {
			return
		}
		if err != nil {
			// The answer, or the end of the connection, tells more.
			return
		}
	}
	c.out, c.off = c.out[:0], 0
}

// ready handles an event.
func (c *conn) ready(events uint32) {
	if c.socket == nil {
		return
	}
	if events&unix.EPOLLOUT != 0 && c.off < len(c.out) {
		c.flush()
	}
	if events&^unix.EPOLLOUT != 0 {
		if err := c.receive(events); err != nil {
			c.w.fail(c, err)
		}
	}
}

// receive reads until there is no more and hands the bytes to the protocol.
func (c *conn) receive(events uint32) error {
	buf := c.w.buf
	for {
		n, err := c.stream.Read(buf)
		if n > 0 {
			if err := c.feed(buf[:n]); err != nil {
				return err
			}
			c.flush()
		}
		switch {
		case err == errAgain:
			return nil
		case err != nil:
			return err
		case n < len(buf) && c.w.run.target.TLS == nil && events&unix.EPOLLRDHUP == 0:
			// A short read of a stream socket has emptied it (epoll(7)).
			return nil
		}
	}
}

func (c *conn) feed(p []byte) error {
	if c.http2 != nil {
		if err := c.http2.feed(p); err != nil {
			return err
		}
		if c.http2.goingAway && c.http2.underWay() == 0 {
			return io.EOF
		}
		return nil
	}
	s := &c.slots[0]
	for len(p) > 0 {
		if !s.busy {
			return errExtra
		}
		n, done, err := c.http1.next(p, s.noBody)
		if err != nil {
			return err
		}
		p = p[n:]
		if !done {
			continue
		}
		if c.off < len(c.out) {
			// An answer that did not wait for the whole request. What is left of it
			// is not sent.
			c.http1.closing = true
		}
		c.w.complete(s, c.http1.status, c.http1.length)
		if c.http1.closing {
			return io.EOF
		}
		if len(p) > 0 {
			return errExtra
		}
	}
	return nil
}

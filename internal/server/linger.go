package server

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/sock"
)

// Closing a socket with unread input makes the kernel answer with a reset, and a
// reset makes the client's kernel drop what it has received but not handed to
// the client: the response that says why. So a connection whose client may still
// be sending ends its output, and reads away what comes until the client closes
// too, or this takes too long (RFC 9112 §9.6).
const (
	lingerIdle  = 2 * time.Second
	lingerTotal = 30 * time.Second
)

// parting is how the last exchange of a connection ended.
type parting struct {
	due    bool // there was one
	broken bool // the response was cut
	ended  bool // the request was read whole
}

// part prepares the end of the connection behind its last response.
func (c *conn) part() {
	broken, ended := c.cause.broken, c.cause.ended
	switch {
	case !c.cause.due:
	case broken:
		// A reset: an end of input would stand behind what the client does not read,
		// in the kernel's memory, and for a body that ends with the connection it would
		// be taken for the end of it.
		if l, ok := c.sock.Conn.(interface{ SetLinger(sec int) error }); ok {
			_ = l.SetLinger(0) // without it the client sees a short body, late
		}
	case ended && c.slot.in.empty() && c.sock.Quiet():
	default:
		c.linger()
	}
}

// linger ends the output and reads until the client has closed.
func (c *conn) linger() {
	if c.closeWrite() != nil {
		return
	}
	c.sock.In.Floor = 0
	to := sink(c.slot.in.own[:])
	for end := time.Now().Add(lingerTotal); ; {
		now := time.Now()
		if !now.Before(end) || c.sock.ReadWithin(now, min(lingerIdle, end.Sub(now))) != nil {
			return
		}
		if _, err := c.sock.Receive(&to); err != nil {
			return
		}
	}
}

// sink takes bytes that nobody wants.
type sink []byte

// Buffer returns the same memory every time.
func (s *sink) Buffer() []byte { return *s }

// Sent is never called.
func (s *sink) Sent() {}

var _ sock.Receiver = (*sink)(nil)

package server

import (
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// The sweeper is one goroutine for the whole server. Four times a second it looks
// at what goes on, and does what would otherwise cost every request a timer or a
// reading of the clock:
//
//   - an exchange that has been at work since the last look, and whose client has
//     closed, is cancelled; one that waits for a target looks after it,
//   - a connection whose client has closed together with its last request ends,
//   - a tunnel in which nothing moves is cut,
//   - a stream of HTTP/2 that waits for its client for too long, or to whom its
//     client is too slow, is cut (see watch),
//   - the Date of responses is moved on.
//
// So all of these are late by up to two ticks, which is why nothing is done here
// whose exact time matters to anybody.
const sweepTick = 250 * time.Millisecond

// After patientTicks the sweeper looks at an exchange only every patientTicks, so
// that thousands of long streams do not cost thousands of system calls a tick.
const patientTicks = 4

// sweep runs until stop is closed.
func (s *Server) sweep(tick time.Duration, stop <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-t.C:
			s.date.set(now)
			for _, l := range s.all() {
				l.conns.each(func(c *conn) { c.sweep(tick) })
				l.streams.each(func(h *stream) { h.watch.sweep(tick, h) })
			}
		}
	}
}

// sweep looks at one connection.
func (c *conn) sweep(tick time.Duration) {
	v := c.state.v.Load()
	if v != c.seen {
		c.seen, c.seenFor = v, 0
		return
	}
	c.seenFor++
	switch v & stateMask {
	case idle:
		// The end of input that came together with the last request was not told of
		// (see sock); one that comes now is.
		if c.seenFor == 1 && c.sock.Ended() && c.state.hold(idle) {
			c.sock.Interrupt()
			c.state.release(poked)
		}
	case busy:
		if c.seenFor > patientTicks && c.seenFor%patientTicks != 0 {
			return
		}
		gone := c.sock.Gone()
		if c.state.hold(busy) {
			switch s := c.slot; {
			case s == nil:
			case gone:
				s.x.Cancel()
			default:
				s.x.Probe()
			}
			c.state.release(busy)
		}
	case tunnelled:
		if t := c.tunnel.Load(); t != nil && t.silent(tick) {
			t.cut()
		}
	}
}

// httpDate keeps the Date field of responses (RFC 9110 §6.6.1), as a whole line.
type httpDate struct {
	now  atomic.Pointer[dateLine]
	unix int64 // the sweeper's: the second that now holds
}

const dateFormat = "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n"

type dateLine [len(dateFormat)]byte

// set makes t the date.
func (d *httpDate) set(t time.Time) {
	if d.unix == t.Unix() {
		return
	}
	d.unix = t.Unix()
	var l dateLine
	t.UTC().AppendFormat(l[:0], dateFormat)
	d.now.Store(&l)
}

// line is the field with its line end.
func (d *httpDate) line() []byte { return d.now.Load()[:] }

// value is the date alone.
func (d *httpDate) value() []byte {
	l := d.line()
	return l[len("Date: ") : len(l)-2]
}

var _ exchange.Driver = (*conn)(nil)

package server

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// A conn is one client connection that speaks HTTP/1, and the goroutine that
// drives it. Its life:
//
//	handshake → (read → process)* → end
//
// read waits for bytes, once. process handles every request that is in the
// buffer, one after the other, and tells whether to read on; it is the only place
// that knows requests, so that another way of waiting can drive it too.
//
// While it waits for a request the conn holds a goroutine, this struct and
// firstBuffer bytes; everything else is in a slot, which it has only from the
// first byte of a request to the moment when nothing is left to do.
type conn struct {
	server *Server
	l      *listener
	set    *settings // what held when it was accepted
	sock   *sock.Conn
	tls    *tls.Conn // nil: plain
	wire   *wire     // what tls stands on
	slot   *slot     // nil: idle
	state  state
	bound  atomic.Bool // writes have an end that TLS has set, and stay within it
	tunnel atomic.Pointer[tunnel]
	h2     *h2server // where it was handed over to
	away   bool      // it was, and is not this goroutine's any more

	key    netip.Addr // what the gate counts it as
	now    time.Time  // a recent reading of the clock
	headBy time.Time  // when the head that has begun must be complete; zero: none has begun
	lookAt int        // where the search for the end of that head goes on
	used   bool       // a request has been served
	peeked bool       // Buffer was asked for since the wait began

	// What Turn leaves to react: a head that it parsed, or the end.
	pending    http1.Framing
	pendingErr error
	parsed     bool
	over       bool
	cause      parting
	fresh      bool // no byte has been read yet: HTTP/2 may begin

	seen    uint64 // the sweeper's: the state it saw last,
	seenFor int    // and for how many ticks

	info  exchange.Conn
	first [firstBuffer]byte
}

// slot is what a conn holds while it is busy.
type slot struct {
	x       exchange.Exchange
	in      input
	body    body
	out     output
	place   place
	spoiled bool // not to be used again
}

// serve is the goroutine of a conn.
func (c *conn) serve() {
	defer c.end()
	if c.set.tls != nil && !c.handshake() {
		return
	}
	for {
		switch {
		case c.tls == nil && c.used && c.slot == nil:
			if !c.react() {
				return
			}
		case !c.read() || !c.process():
			return
		}
	}
}

// react serves simple requests from inside the wait for them: those that are in
// the buffer whole and lead to nothing that reads. It reports whether the
// connection goes on outside, where whatever is pending is done.
func (c *conn) react() bool {
	if !c.arm() {
		return false
	}
	c.peeked, c.over = false, false
	err := c.sock.Loop(c)
	switch {
	case c.over:
		return false
	case err == nil:
		return c.process()
	}
	if c.slot != nil {
		c.free()
	}
	return c.outlasts(err)
}

// Turn handles n bytes that a wait has brought. It is called inside the wait, so
// it leaves to react all that could read or close.
func (c *conn) Turn(n int) bool {
	room := c.room()
	c.begin(n, true)
	if n == room {
		return false // there may be more
	}
	for {
		f, err := c.parse()
		if err != nil || !c.simple(f) {
			c.pending, c.pendingErr, c.parsed = f, err, true
			return false
		}
		if !c.exchange(f) {
			c.over = true
			return false
		}
		if c.slot.in.spent() {
			c.rest()
			return c.arm()
		}
	}
}

// room is how much the read that has just been made could take.
func (c *conn) room() int {
	if c.slot == nil {
		return len(c.first)
	}
	return len(c.slot.in.free())
}

// simple reports whether a request can be served without reading on: its body is
// there, and it asks for no tunnel.
func (c *conn) simple(f http1.Framing) bool {
	return f.Kind == http1.NoBody && c.slot.x.Request.Upgrade == nil
}

// Wait gives back what Buffer took in vain.
func (c *conn) Wait() {
	if c.slot != nil {
		c.free()
	}
}

// end closes the connection, unless it was handed over.
func (c *conn) end() {
	if c.away {
		return
	}
	if c.slot != nil {
		c.part()
	}
	c.state.leave(gone)
	if c.slot != nil {
		c.free()
	}
	if c.tls != nil {
		_ = c.tls.Close() // sends the closing alert, which may fail for many good reasons
	} else {
		_ = c.sock.Close()
	}
	c.l.forget(c)
}

// free gives the slot back. The conn is not busy any more.
func (c *conn) free() {
	s := c.slot
	c.slot = nil
	if s.x.Canceled() {
		s.x.Reset() // it was told between its end and the end of being busy, and the next one must not hear of it
	}
	if !s.spoiled {
		c.server.freeSlot(s)
	}
}

// Sent is never called: the server does not use SendReceive.
func (c *conn) Sent() {}

// Buffer is where bytes of a head go. The first attempt of a wait reads into the
// conn's own few bytes, and only when it finds nothing and the connection wakes
// up later is a slot taken.
func (c *conn) Buffer() []byte {
	if c.slot == nil {
		if !c.peeked {
			c.peeked = true
			return c.first[:]
		}
		c.slot = c.server.getSlot()
	}
	return c.slot.in.free()
}

// read waits for input, and reports whether there is some that process can use.
func (c *conn) read() bool {
	if c.slot == nil {
		return c.await()
	}
	return c.readOn()
}

// await waits for the first byte of a request.
func (c *conn) await() bool {
	if c.now.IsZero() {
		c.now = time.Now()
	}
	for {
		if !c.arm() {
			return false
		}
		n, err := c.receive()
		if n > 0 {
			c.begin(n, false)
			return true
		}
		if c.slot != nil {
			c.free()
		}
		if !c.outlasts(err) {
			return false
		}
	}
}

// arm bounds the wait for a request. It reports false when the connection is of
// no use any more.
func (c *conn) arm() bool {
	if c.sock.ReadWithin(c.now, c.set.idle) != nil {
		return false
	}
	// In this order: a drain first says that it drains, and then shortens the
	// waits it finds, so either it finds this one or it is seen here.
	return !c.l.draining.Load() || c.sock.SetReadDeadline(c.l.quietUntil(c.now)) == nil
}

// outlasts reports whether the connection goes on behind a wait for a request
// that failed: not when the client has gone, or nothing came, not even at the last
// moment.
func (c *conn) outlasts(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.sock.Quiet() || c.l.cutting.Load() {
		return false
	}
	c.forgetDeadline()
	c.now = time.Now()
	return true
}

// receive waits for the beginning of a request.
func (c *conn) receive() (int, error) {
	c.peeked = false
	if c.tls == nil {
		return c.sock.Receive(c)
	}
	return c.tls.Read(c.first[:])
}

// begin makes the conn busy: n bytes of a request are there. Inside a wait it must
// not read.
func (c *conn) begin(n int, inside bool) {
	direct := c.slot != nil
	if !direct {
		c.slot = c.server.getSlot()
		copy(c.slot.in.b, c.first[:n])
	}
	c.slot.in.w = n
	c.slot.x.Revive() // from what the sweeper did to it behind its last use
	if c.state.wake() {
		c.forgetDeadline()
	}
	switch {
	case direct || n < firstBuffer || inside: // that was all, or Turn sees to it
	case c.tls != nil:
		c.takeBuffered()
	case !c.sock.Quiet():
		n, _ := c.sock.Receive(c) // there is something; an error shows again at the next read
		c.slot.in.w += n
	}
}

// takeBuffered takes what TLS has read from the socket already, up to the room
// there is.
func (c *conn) takeBuffered() {
	in := &c.slot.in
	c.wire.noWait = true
	for len(in.free()) > 0 {
		n, err := c.tls.Read(in.free())
		in.w += n
		if err != nil {
			break
		}
	}
	c.wire.noWait = false
}

// forgetDeadline lifts a deadline of reads that another goroutine has set behind
// the back of c.sock.
func (c *conn) forgetDeadline() {
	_ = c.sock.Conn.SetReadDeadline(time.Time{}) // an error shows at the next read
	_ = c.sock.SetReadDeadline(time.Time{})
}

// startHead begins the time that a head may take.
func (c *conn) startHead() {
	c.now = time.Now()
	c.headBy = c.now.Add(c.set.header)
	by := c.headBy
	if c.set.header == 0 {
		by = time.Time{}
	}
	_ = c.sock.SetReadDeadline(by) // an error shows at the read
}

// readOn waits for more of a head that has begun. A head that does not come in
// time is answered with 408.
func (c *conn) readOn() bool {
	if c.headBy.IsZero() {
		c.startHead()
	}
	n, err := c.readMore()
	c.slot.in.w += n
	if n > 0 {
		return true
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.refuse(&exchange.Error{
			Code: exchange.RequestTimeout, Side: exchange.Client, Close: true,
			Detail: "The head of the request did not come in time.", Cause: err,
		})
	}
	return false
}

// readMore reads behind what is there. There must be room.
func (c *conn) readMore() (int, error) {
	if c.tls == nil {
		return c.sock.Receive(c)
	}
	return c.tls.Read(c.slot.in.free())
}

// rest makes the conn idle.
func (c *conn) rest() {
	c.state.leave(idle)
	c.free()
}

// process handles every request that is whole in the buffer, in order. It
// reports whether the connection goes on and wants to be read.
func (c *conn) process() bool {
	for {
		in := &c.slot.in
		if c.fresh {
			switch prefaceOf(in.unread()) {
			case prefaceWhole:
				c.handOver(in.unread())
				return false
			case prefacePart:
				return true
			}
			c.fresh = false
		}
		f, err := c.next()
		switch {
		case err == http1.ErrIncomplete:
			if !in.grow(&c.server.buffers, c.set.head.Head+1) {
				c.refuse(headTooLarge())
				return false
			}
			return true
		case err != nil:
			c.refuse(exchange.AsError(err))
			return false
		case !c.exchange(f):
			return false
		}
		if in.spent() {
			c.rest()
			return true
		}
	}
}

// next is parse, or what Turn has parsed and left.
func (c *conn) next() (http1.Framing, error) {
	if !c.parsed {
		return c.parse()
	}
	c.parsed = false
	return c.pending, c.pendingErr
}

// parse reads a head. What it finds is in the slot's exchange.
func (c *conn) parse() (http1.Framing, error) {
	in, x := &c.slot.in, &c.slot.x
	b := in.unread()
	if !c.headBy.IsZero() && len(b) <= c.set.head.Head {
		var end int
		if end, c.lookAt = http1.HeadEnd(b, c.lookAt); end == 0 {
			return http1.Framing{}, http1.ErrIncomplete
		}
	}
	n, f, err := http1.ParseRequest(b, c.set.head, &x.Request)
	if err != nil {
		return f, err
	}
	in.r += n
	in.keep = in.r
	c.headBy, c.lookAt = time.Time{}, 0
	return f, nil
}

func headTooLarge() *exchange.Error {
	return &exchange.Error{
		Code: exchange.HeadersTooLarge, Side: exchange.Client, Close: true,
		Detail: "The head of the request is larger than this gateway takes.",
	}
}

// send writes p whole to the socket. The end that an earlier write set, when it
// had to wait for the client, may have passed long ago: this write has its own.
func (c *conn) send(p []byte) (int, error) {
	if !c.bound.Load() {
		_ = c.sock.SetWriteDeadline(time.Time{}) // an error shows at the write
	}
	return c.sock.Write(p)
}

// write sends p whole.
func (c *conn) write(p []byte) error {
	if c.tls == nil {
		_, err := c.send(p)
		return err
	}
	c.wire.cork()
	_, err := c.tls.Write(p)
	return errors.Join(err, c.wire.uncork())
}

// closeWrite ends the output and leaves the input open.
func (c *conn) closeWrite() error {
	if c.tls != nil {
		if err := c.tls.CloseWrite(); err != nil {
			return err
		}
	}
	return c.sock.CloseWrite()
}

// cut makes everything that the conn does or waits for fail now. Any goroutine
// may call it, again and again until the conn has gone.
func (c *conn) cut() {
	if c.state.hold(busy) {
		if s := c.slot; s != nil {
			s.x.Cancel()
		}
		c.state.release(busy)
	}
	if t := c.tunnel.Load(); t != nil {
		t.cut()
	}
	c.sock.Interrupt()
}

var (
	_ sock.Receiver = (*conn)(nil)
	_ sock.Reactor  = (*conn)(nil)
)

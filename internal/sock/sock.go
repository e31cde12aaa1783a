// Package sock is the gateway's view of a stream socket: reads that hold no
// buffer while they wait, one call that sends a message and waits for the
// answer, deadlines that cost nothing while traffic flows, and a floor under the
// pace of a peer. Both sides of the gateway stand on it; it knows no protocol.
//
// # Waiting
//
// net.Conn.Read tries the read, finds nothing (EAGAIN), parks, and tries again:
// two system calls for a reply that is never there at the first. SendReceive
// writes from inside the read, behind the poller's preparation, so it can park
// at once without losing the wake-up. Receive asks for its buffer only when there
// is something to read, so an idle connection holds none.
//
// Loop goes further for a side that only reacts: it stays inside one read for as
// long as each message is answered there, so that every wait is preceded by a read
// that found all there was, and none is tried in vain. The kernel tells of a
// readable socket once; whatever comes behind that read is told of anew. An end of
// input that came together with the last bytes is not: Ended tells here too.
//
// # Deadlines
//
// Moving a deadline in the runtime costs a lock and a timer for every call, so
// one is moved only when it is too early, or later than an eighth of its length:
// a wait of d ends after between d and 9d/8.
//
// # Pace
//
// A peer that moves one byte every few seconds makes progress for ever. Only the
// time spent waiting for the peer counts, so a slow producer behind the gateway
// is not held against the client.
package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrTooSlow is the error of a read or write whose peer fell below Pace.Floor.
var ErrTooSlow = errors.New("sock: peer is slower than the minimum rate")

// Receiver is asked for memory when there is something to read.
type Receiver interface {
	// Sent tells that the message was written whole. It runs before the wait, on
	// the goroutine of the call.
	Sent()
	// Buffer returns where to read to; it is not empty.
	Buffer() []byte
}

// Reactor is what Loop drives.
type Reactor interface {
	// Buffer returns where to read to, when there may be something to read.
	Buffer() []byte
	// Turn handles n bytes that were read. It reports whether to wait for more:
	// not when the buffer was full, or when it wants to read by itself, which it
	// must not before Loop has returned. Nor must it close the connection.
	Turn(n int) bool
	// Wait tells that the buffer was asked for in vain.
	Wait()
}

// Pace is the floor under how fast a peer moves bytes in one direction.
type Pace struct {
	Floor  int64         // bytes per second; 0: none
	Grace  time.Duration // how long the peer is waited for before the floor holds
	waited time.Duration
	moved  int64
}

// Begin starts a new message.
func (p *Pace) Begin() { p.waited, p.moved = 0, 0 }

func (p *Pace) slow() bool {
	return p.Floor > 0 && p.waited > p.Grace && float64(p.moved) < float64(p.Floor)*p.waited.Seconds()
}

// Conn is a TCP or Unix stream connection. Reads belong to one goroutine at a
// time, writes to one, which may be another; Close, Interrupt, Gone and Quiet
// may be called from any.
type Conn struct {
	net.Conn
	raw syscall.RawConn

	// In and Out are the paces of reads and writes. Set them before the first use.
	In, Out Pace
	// Stall is how long a write may go without any progress; 0: no limit.
	Stall time.Duration

	readEnd  time.Time
	writeEnd time.Time

	rd   reading
	wr   writing
	look probe

	interrupted atomic.Bool
}

// reading is the state of the read under way. Its step is made once, so that a
// read allocates nothing.
type reading struct {
	step   func(fd uintptr) bool
	turns  func(fd uintptr) bool
	loop   Reactor
	to     Receiver
	own    slice // the Receiver of Read
	send   []byte
	began  time.Time // when the wait began; zero while not waiting or not paced
	n      int
	err    error
	parked bool // send has been written, and the first read is left out
}

type writing struct {
	step func(fd uintptr) bool
	b    []byte
	n    int
	err  error
}

// New takes over c, which must be a *net.TCPConn or *net.UnixConn.
func New(c net.Conn) (*Conn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("sock: not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Conn{Conn: c, raw: raw}
	s.rd.step = s.readStep
	s.rd.turns = s.loopStep
	s.wr.step = s.writeStep
	s.look.init()
	return s, nil
}

// ReadWithin makes reads fail with os.ErrDeadlineExceeded when nothing comes for
// d, counted from now; 0: they wait for ever.
func (c *Conn) ReadWithin(now time.Time, d time.Duration) error {
	return within(now, d, &c.readEnd, c.Conn.SetReadDeadline)
}

func within(now time.Time, d time.Duration, end *time.Time, set func(time.Time) error) error {
	if d <= 0 {
		if end.IsZero() {
			return nil
		}
		*end = time.Time{}
		return set(*end)
	}
	earliest := now.Add(d)
	latest := earliest.Add(d / 8)
	if !end.Before(earliest) && !end.After(latest) {
		return nil
	}
	*end = latest
	return set(latest)
}

// SetReadDeadline sets an exact end for reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if t.Equal(c.readEnd) {
		return nil
	}
	c.readEnd = t
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline sets an exact end for writes; Stall moves it again.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if t.Equal(c.writeEnd) {
		return nil
	}
	c.writeEnd = t
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Interrupt makes every read and write that waits, or comes, fail now. Unlike
// Close it never waits for one to return. The connection is of no use after.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	_ = c.Conn.SetDeadline(time.Unix(1, 0))
}

// Read reads what is there, waiting for the first byte.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.rd.own = p
	n, err := c.receive(nil, &c.rd.own)
	c.rd.own = nil
	return n, err
}

type slice []byte

func (s *slice) Sent()          {}
func (s *slice) Buffer() []byte { return *s }

// Receive waits until there is something to read and reads it once. It returns
// io.EOF at the end of input.
func (c *Conn) Receive(to Receiver) (int, error) { return c.receive(nil, to) }

// SendReceive writes msg whole, calls to.Sent, and then does what Receive does.
// When the write fails there is nothing read and sent is false. It may only be
// called when the peer owes nothing before it gets msg.
func (c *Conn) SendReceive(msg []byte, to Receiver) (n int, sent bool, err error) {
	r := &c.rd
	r.parked = false
	n, err = c.receive(msg, to)
	if r.parked {
		return n, true, err
	}
	if err != nil || n != 0 {
		return n, false, err
	}
	// The socket's buffer was full: write the rest the usual way.
	if _, err = c.Write(r.send); err != nil {
		return 0, false, err
	}
	r.send = nil
	to.Sent()
	n, err = c.receive(nil, to)
	return n, true, err
}

// Loop reads and calls r.Turn with what was there, again and again. It returns nil
// when Turn wants no more, and the error of the read otherwise.
func (c *Conn) Loop(r Reactor) error {
	c.rd.loop, c.rd.err = r, nil
	err := c.raw.Read(c.rd.turns)
	c.rd.loop = nil
	if c.rd.err != nil {
		return c.rd.err
	}
	return err
}

// loopStep runs inside the poller's read lock, like readStep.
func (c *Conn) loopStep(fd uintptr) bool {
	r := c.rd.loop
	n, err := ignoringEINTR(read, int(fd), r.Buffer())
	switch {
	case err == syscall.EAGAIN:
		r.Wait()
		return false
	case err != nil:
		c.rd.err = os.NewSyscallError("read", err)
		return true
	case n == 0:
		c.rd.err = io.EOF
		return true
	}
	return !r.Turn(n)
}

func (c *Conn) receive(send []byte, to Receiver) (int, error) {
	r := &c.rd
	r.send, r.to, r.n, r.err, r.began = send, to, 0, nil, time.Time{}
	err := c.raw.Read(r.step)
	r.to = nil
	if !r.began.IsZero() {
		c.In.waited += time.Since(r.began)
	}
	c.In.moved += int64(r.n)
	switch {
	case r.err != nil:
		return r.n, r.err
	case err != nil:
		return r.n, err
	case c.In.slow():
		return r.n, ErrTooSlow
	}
	return r.n, nil
}

// readStep runs inside the poller's read lock, and returns false to wait until
// the socket is readable.
func (c *Conn) readStep(fd uintptr) bool {
	r := &c.rd
	if len(r.send) > 0 {
		n, err := ignoringEINTR(write, int(fd), r.send)
		if n > 0 {
			r.send = r.send[n:]
		}
		switch {
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			r.err = os.NewSyscallError("write", err)
			return true
		case len(r.send) > 0:
			return true
		}
		r.parked = true
		r.to.Sent()
		return false
	}
	n, err := ignoringEINTR(read, int(fd), r.to.Buffer())
	switch {
	case err == syscall.EAGAIN:
		if c.In.Floor > 0 && r.began.IsZero() {
			r.began = time.Now()
		}
		return false
	case err != nil:
		r.err = os.NewSyscallError("read", err)
	case n == 0:
		r.err = io.EOF
	default:
		r.n = n
	}
	return true
}

// Write writes all of p. A write that has to wait fails with
// os.ErrDeadlineExceeded when nothing moves for Stall, and with ErrTooSlow below
// the pace.
func (c *Conn) Write(p []byte) (int, error) {
	w := &c.wr
	done := 0
	for done < len(p) {
		w.b, w.n, w.err = p[done:], 0, nil
		err := c.raw.Write(w.step)
		w.b = nil
		done += w.n
		c.Out.moved += int64(w.n)
		switch {
		case w.err == syscall.EAGAIN, errors.Is(err, os.ErrDeadlineExceeded) && c.Stall > 0:
			// It has to wait, or the end that an earlier wait set has passed since.
			n, err := c.waitWrite(p[done:])
			done += n
			if err != nil {
				return done, err
			}
		case w.err != nil:
			return done, os.NewSyscallError("write", w.err)
		case err != nil:
			return done, err
		}
	}
	return done, nil
}

// writeStep tries once and never waits.
func (c *Conn) writeStep(fd uintptr) bool {
	c.wr.n, c.wr.err = ignoringEINTR(write, int(fd), c.wr.b)
	if c.wr.n < 0 {
		c.wr.n = 0
	}
	return true
}

// waitWrite writes some of p when the socket takes it. It looks at the pace at
// least once every grace period.
func (c *Conn) waitWrite(p []byte) (int, error) {
	began := time.Now()
	slice := c.Stall
	if c.Out.Floor > 0 && (slice == 0 || c.Out.Grace < slice) {
		slice = max(c.Out.Grace, time.Second)
	}
	for {
		now := time.Now()
		if slice > 0 {
			if err := within(now, slice, &c.writeEnd, c.Conn.SetWriteDeadline); err != nil {
				return 0, err
			}
			if c.interrupted.Load() {
				c.Interrupt() // the deadline that was just set has undone it
			}
		}
		n, err := c.writeSome(p)
		waited := time.Since(now)
		c.Out.waited += waited
		c.Out.moved += int64(n)
		switch {
		case c.Out.slow():
			return n, ErrTooSlow
		case n > 0:
			return n, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case slice == 0 || c.interrupted.Load() || c.Stall > 0 && time.Since(began) >= c.Stall:
			return n, err
		}
	}
}

// writeSome waits until the socket takes at least one byte of p.
func (c *Conn) writeSome(p []byte) (int, error) {
	var n int
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		n, failed = ignoringEINTR(write, int(fd), p)
		return failed != syscall.EAGAIN
	})
	switch {
	case failed != nil && failed != syscall.EAGAIN:
		return 0, os.NewSyscallError("write", failed)
	case n > 0:
		return n, nil
	}
	return 0, err
}

// CloseWrite ends the output and keeps reading.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

func ignoringEINTR(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

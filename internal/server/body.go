package server

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// A body is a request body as it comes in. Its pieces are spans of the input
// buffer, without the framing.
//
// # Two goroutines
//
// A target may read it on a goroutine of its own, while the connection's writes
// the response, and while either finds that nobody wants the rest any more. mu is
// held by who reads; closing sets a flag and then moves the deadline of the
// socket into the past, which wakes a reader that waits. A reader sets its
// deadline before it looks at the flag, so one of the two notices the other. When
// the exchange ends the connection's goroutine closes the body, waits for mu, and
// has the socket to itself again.
//
// # Time
//
// The wait for each piece is bounded by body_idle_timeout, all waits together by
// min_body_rate, and until the response head is there by the exchange's Deadline.
type body struct {
	c     *conn
	frame http1.Framing

	mu     sync.Mutex // held while reading
	dec    http1.Decoder
	ahead  []byte // decoded, and not given out yet,
	after  error  // and what comes with it
	looked bool   // ahead and after hold something
	err    error  // how the body ended, for every later Next
	seen   int64  // bytes taken off the input, framing not counted
	taken  int64  // bytes given out
	waited time.Duration
	flows  bool // the last read filled its buffer
	asked  bool // Buffer was asked for since the read began
	paced  bool

	closing  sync.Mutex // guards closing: the flag, and what it does to the socket
	closed   atomic.Bool
	woken    bool        // the socket's deadline was moved behind its back
	expects  atomic.Bool // the client waits for 100 (Continue)
	answered atomic.Bool // the response head is there
}

// Limits on what is read only to be thrown away, so that a connection can go on
// or a client read its answer. Beyond them the connection is closed.
const (
	drainBytes = 64 << 10
	drainTime  = time.Second
)

var (
	errBodyClosed = errors.New("server: the request body was given up")
	errCut        = errors.New("server: the connection was closed inside a request")
)

// begin makes b the body of the request in c's slot.
func (b *body) begin(c *conn, f http1.Framing) {
	x := &c.slot.x
	b.c, b.frame = c, f
	b.ahead, b.after, b.looked, b.err = nil, nil, false, nil
	b.seen, b.taken, b.waited = 0, 0, 0
	b.flows, b.paced, b.woken = false, false, false
	b.closed.Store(false)
	b.answered.Store(false)
	b.expects.Store(x.Request.Expect)
	b.dec.Reset(f, exchange.Client, c.set.head, &x.Request.Trailer)
	if f.Kind != http1.NoBody {
		x.Request.Body = b
	}
}

// Next returns the next piece. See exchange.Body.
func (b *body) Next() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil && !b.look() {
		if err := b.fill(); err != nil {
			b.err = err
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	if b.closed.Load() {
		b.err = exchange.AsError(errBodyClosed)
		return nil, b.err
	}
	piece, err := b.ahead, b.after
	b.ahead, b.after, b.looked = nil, nil, false
	b.err = err
	b.taken += int64(len(piece))
	if most := b.c.slot.x.Request.MaxBody; most > 0 && b.taken > most {
		b.err = tooLarge()
		return nil, b.err
	}
	return piece, err
}

// Ready reports whether Next would not wait.
func (b *body) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.closed.Load() || b.look() {
		return true
	}
	if b.c.tls == nil {
		return false
	}
	b.c.takeBuffered() // behind what is there: pieces that were given out stay as they are
	return b.look()
}

// Close gives the rest of the body up. Like Cancel it may be called from any
// goroutine.
func (b *body) Close() error {
	b.Cancel()
	return nil
}

// Cancel makes a Next that waits, and every later one, fail.
func (b *body) Cancel() {
	if b.frame.Kind == http1.NoBody || b.closed.Load() {
		return
	}
	b.closing.Lock()
	defer b.closing.Unlock()
	if b.closed.Swap(true) {
		return
	}
	if b.mu.TryLock() {
		b.mu.Unlock() // nobody reads, and who comes will see the flag
		return
	}
	b.woken = true
	_ = b.c.sock.Conn.SetReadDeadline(time.Unix(1, 0)) // fails when the socket is closed: as good
}

// end waits until nobody reads the body any more. It was cancelled before.
func (b *body) end() {
	if b.frame.Kind == http1.NoBody {
		return
	}
	b.closing.Lock()
	defer b.closing.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.woken {
		b.woken = false
		b.c.forgetDeadline()
	}
	if b.paced {
		b.c.sock.In.Floor = 0
	}
}

// look decodes what is in the buffer. It reports whether there is something to
// give out: a piece, an end, or an error.
func (b *body) look() bool {
	in := &b.c.slot.in
	for !b.looked {
		piece, n, err := b.dec.Next(in.unread())
		in.r += n
		b.seen += int64(len(piece))
		switch {
		case err == http1.ErrIncomplete, err == nil && len(piece) == 0:
			return false
		case len(piece) > 0 || err != nil:
			b.ahead, b.after, b.looked = piece, err, true
		}
	}
	return true
}

// shift makes room behind what is kept. Pieces that were given out become
// invalid.
func (in *input) shift() {
	switch {
	case in.empty():
		in.r, in.w = in.keep, in.keep
	case len(in.free()) < leastRoom:
		in.rewind()
	}
}

// Buffer is where the next bytes go. While nothing is there to read, the wait
// should not hold a large buffer, so the first attempt uses what is free behind
// the head, unless the last read has shown that the body flows.
func (b *body) Buffer() []byte {
	in := &b.c.slot.in
	if b.asked || b.flows {
		in.enlarge(&b.c.server.buffers)
	}
	b.asked = true
	return in.free()
}

// Sent is never called.
func (b *body) Sent() {}

// leastRoom is the room below which a body gets a large buffer at once.
const leastRoom = 1 << 10

// makeRoom makes room to read to.
func (b *body) makeRoom() {
	in := &b.c.slot.in
	in.shift()
	if len(in.free()) < leastRoom {
		in.enlarge(&b.c.server.buffers)
	}
}

// fill reads from the client once.
func (b *body) fill() error {
	c := b.c
	in := &c.slot.in
	b.makeRoom()
	if !b.paced && c.set.rate > 0 {
		b.paced = true
		c.sock.In = sock.Pace{Floor: c.set.rate, Grace: c.server.timing.grace}
	}
	for {
		began := time.Now()
		within, byDeadline := b.patience(began)
		if within < 0 {
			return late(nil)
		}
		if err := c.sock.ReadWithin(began, within); err != nil {
			return clientGone(err)
		}
		if b.closed.Load() {
			return exchange.AsError(errBodyClosed)
		}
		n, room, err := b.read()
		b.waited += time.Since(began)
		in.w += n
		b.flows = n == room
		switch {
		case errors.Is(err, sock.ErrTooSlow):
			return late(err)
		case n > 0:
			return nil
		case b.closed.Load():
			return exchange.AsError(errBodyClosed)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return clientGone(err)
		case !byDeadline || !b.answered.Load():
			return late(err)
		}
		// It was the time for the response head that ended, and the head is there.
	}
}

// patience is how long to wait for the next bytes, 0 for ever, below 0 not at
// all. byDeadline says that it is the exchange's deadline that ends it.
func (b *body) patience(now time.Time) (d time.Duration, byDeadline bool) {
	d = b.c.set.bodyIdle
	by := b.c.slot.x.Deadline
	if by.IsZero() || b.answered.Load() {
		return d, false
	}
	left := by.Sub(now)
	if left <= 0 {
		return -1, true
	}
	if d == 0 || left < d {
		return left, true
	}
	return d, false
}

// read reads once, at most room bytes.
func (b *body) read() (n, room int, err error) {
	c := b.c
	if c.tls == nil {
		b.asked = false
		n, err = c.sock.Receive(b)
		return n, len(c.slot.in.free()), err
	}
	if b.flows {
		c.slot.in.enlarge(&c.server.buffers)
	}
	to := c.slot.in.free()
	n, err = c.tls.Read(to)
	return n, len(to), err
}

func tooLarge() *exchange.Error {
	return &exchange.Error{
		Code: exchange.PayloadTooLarge, Side: exchange.Client, Close: true,
		Detail: "The body is larger than this resource takes.",
	}
}

func late(cause error) *exchange.Error {
	return &exchange.Error{
		Code: exchange.RequestTimeout, Side: exchange.Client, Close: true, Cause: cause,
		Detail: "The body of the request did not come in time.",
	}
}

func clientGone(cause error) *exchange.Error {
	if cause == io.EOF || cause == nil {
		cause = errCut
	}
	return &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client, Close: true, Cause: cause}
}

// over reports whether the whole body has been read from the client.
func (b *body) over() bool {
	return b.dec.Ended()
}

// harmless reports whether the connection is likely to be able to go on behind
// this body, as far as one can tell when the response begins.
func (b *body) harmless() bool {
	if b.frame.Kind == http1.NoBody {
		return true
	}
	if !b.mu.TryLock() {
		return true // it is being read this moment
	}
	defer b.mu.Unlock()
	switch {
	case b.over():
		return true
	case b.err != nil:
		return false
	case b.look() && b.over():
		return true
	case b.expects.Load():
		return false // the client may send the body or not; nobody can tell
	case b.frame.Kind == http1.ByLength:
		return b.frame.Length-b.seen <= drainBytes
	}
	return true
}

// drain reads the rest of the body away, if the connection goes on and it is
// little, and reports whether the next request can follow. The exchange is over
// and the body cancelled.
func (b *body) drain(keep bool) bool {
	if b.frame.Kind == http1.NoBody || b.over() {
		return true
	}
	if !keep || b.err != nil && !errors.Is(b.err, errBodyClosed) {
		return false
	}
	c, in := b.c, &b.c.slot.in
	until := b.seen + drainBytes
	_ = c.sock.SetReadDeadline(time.Now().Add(drainTime)) // an error shows at the read
	for {
		b.looked = false
		switch ok := b.look(); {
		case b.over():
			return true
		case ok && b.after != nil, b.seen > until:
			return false
		case ok:
			continue
		}
		b.makeRoom()
		n, _, err := b.read()
		if n == 0 || err != nil {
			return false
		}
		in.w += n
	}
}

var (
	_ exchange.Body     = (*body)(nil)
	_ exchange.Canceler = (*body)(nil)
	_ sock.Receiver     = (*body)(nil)
)

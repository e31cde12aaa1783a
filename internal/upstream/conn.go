package upstream

import (
	"crypto/tls"
	"io"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// conn is one connection to an endpoint. Between exchanges the endpoint owns it,
// during one the call does; only Cancel and abort may be called by others.
type conn struct {
	sock *sock.Conn
	tls  *tls.Conn // nil: plain text
	wire *wire     // what tls stands on
	ep   *endpoint

	large     bool          // the last response did not fit into a small buffer
	idleSince time.Time     // when it was last in use; of an idle connection
	idleFor   time.Duration // how long it may stay idle

	canceled atomic.Bool // the client has gone
	aborted  atomic.Bool // the request cannot be completed
	awaiting atomic.Bool // a request was sent, and no byte of a response has come
	ended    atomic.Bool // the target ended its side instead
}

// Probe stops a wait for a response when the target has ended its side without
// one, which the wait may have missed (see sock).
func (c *conn) Probe() {
	if c.awaiting.Load() && c.sock.Ended() {
		c.ended.Store(true)
		c.sock.Interrupt()
	}
}

// Cancel stops what waits on the connection because the client has gone. The
// connection is of no use after. A Cancel may come after the exchange that it was
// meant for: x.OnCancel(nil) says so, and then the connection is not used again.
func (c *conn) Cancel() {
	c.canceled.Store(true)
	c.sock.Interrupt()
}

// abort stops what waits on the connection because the request broke off.
func (c *conn) abort() {
	c.aborted.Store(true)
	c.sock.Interrupt()
}

// hold makes an interruption hold that a deadline, set since, has undone. Call it
// behind every change of a deadline.
func (c *conn) hold() {
	if c.stopped() {
		c.sock.Interrupt()
	}
}

func (c *conn) stopped() bool { return c.canceled.Load() || c.aborted.Load() || c.ended.Load() }

// within bounds the reads that follow: nothing may be late by more than an eighth
// of d; 0: no bound.
func (c *conn) within(now time.Time, d time.Duration) {
	_ = c.sock.ReadWithin(now, d) // fails on a closed socket only, as the read then does
	c.hold()
}

// until bounds the reads that follow exactly.
func (c *conn) until(t time.Time) {
	_ = c.sock.SetReadDeadline(t)
	c.hold()
}

// send writes msg whole.
func (c *conn) send(msg []byte) error {
	var err error
	if c.tls != nil {
		_, err = c.tls.Write(msg)
	} else {
		_, err = c.sock.Write(msg)
	}
	return err
}

// receive reads once, waiting for the first byte.
func (c *conn) receive(to sock.Receiver) (int, error) {
	if c.tls == nil {
		return c.sock.Receive(to)
	}
	n, err := c.tls.Read(to.Buffer())
	if err == io.EOF && c.wire.ended {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// wire is the socket below TLS. It remembers that the connection ended: an end that
// TLS did not announce may be somebody's on the way, and a message that ends with
// the connection is not complete then (RFC 9112 §9.8). crypto/tls does not tell.
type wire struct {
	*sock.Conn
	ended bool
}

// Read reads from the socket.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.ended = w.ended || err == io.EOF
	return n, err
}

// sendReceive writes msg whole, tells to, and reads once.
func (c *conn) sendReceive(msg []byte, to sock.Receiver) (int, error) {
	if c.tls == nil {
		c.awaiting.Store(true)
		n, _, err := c.sock.SendReceive(msg, to)
		c.awaiting.Store(false)
		return n, err
	}
	if err := c.send(msg); err != nil {
		return 0, err
	}
	to.Sent()
	return c.receive(to)
}

// close ends a connection on which nothing is under way: over TLS with a notice.
func (c *conn) close() {
	if c.tls != nil {
		_ = c.tls.Close()
		return
	}
	_ = c.sock.Close()
}

// cut ends a connection in the middle of something. It also stops a write that
// another goroutine waits in.
func (c *conn) cut() { _ = c.sock.Close() }

var (
	_ exchange.Canceler = (*conn)(nil)
	_ exchange.Prober   = (*conn)(nil)
)

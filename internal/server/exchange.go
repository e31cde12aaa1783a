package server

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// One exchange on an HTTP/1 connection, from its head to the point where the
// next one may begin:
//
//	admission → Handler.Serve → response → request body given up →
//	response body closed → Handler.Done → rest of the request body read away
//
// The request body is given up before the response body is closed, because a
// target's Close waits for the goroutine that sends the request body, and that
// one may be waiting for the client.

// errTooLate is Interim's answer once the response has begun.
var errTooLate = errors.New("server: the response has begun")

// exchange serves the request whose head is in the slot. It reports whether
// another one may follow on this connection.
func (c *conn) exchange(f http1.Framing) bool {
	s := c.slot
	x := &s.x
	c.now, c.used = time.Now(), true
	x.Conn, x.Driver, x.Start = &c.info, c, c.now
	x.Request.TLS = c.tls != nil
	s.out.reset(c)
	s.body.begin(c, f)

	served, keep, err := c.answer(f)
	s.place.leave()
	x.Aborted = err
	c.finish(served)
	ended := s.body.drain(keep)
	s.out.end()
	x.Reset()
	s.in.settle(&c.server.buffers)
	if keep && ended {
		return true
	}
	c.cause = parting{due: true, broken: err != nil && !s.out.apologised, ended: ended}
	s.spoiled = errors.Is(err, errPanicked) // nobody knows who still has its memory
	return false
}

// refuse answers what is no request, or not a whole one, and ends the
// connection. What the Handler gets has x.Err and as much of the request as
// could be read.
func (c *conn) refuse(e *exchange.Error) {
	in := &c.slot.in
	x := &c.slot.x
	x.Err = e
	if x.Request.Method == "" {
		x.Request.Proto = exchange.HTTP11 // what the answer speaks; the client's version was not read
	}
	in.r, in.keep = in.w, in.w // what was read is neither overwritten nor looked at again
	c.exchange(http1.Framing{})
	c.cause.ended = false // the client may be about to send the rest of it
}

// answer lets the Handler decide and writes its response. served says that the
// Handler's Done is owed. An error means that the response was not written whole,
// or not at all.
func (c *conn) answer(f http1.Framing) (served, keep bool, err error) {
	s := c.slot
	x := &s.x
	defer func() {
		if p := recover(); p != nil {
			c.server.panicked(p, c.info.Listener)
			keep, err = false, errors.Join(errPanicked, c.apologise())
		}
	}()
	if x.Err == nil && c.set.redirect && redirect(x, c.set.httpsPort) {
		keep, err = c.respond(f)
		return false, keep, err
	}
	if x.Err == nil {
		x.Err = s.place.enter(c.server.admission.Load())
	}
	served = true
	c.server.handler.Serve(x)
	s.body.answered.Store(true)
	if x.Response.Status == http.StatusSwitchingProtocols {
		s.place.leave()
		return true, false, c.join()
	}
	keep, err = c.respond(f)
	return true, keep, err
}

// apologise answers for a Handler that panicked or left no response: with 500
// when nothing was sent yet. The error is that of writing.
func (c *conn) apologise() error {
	o := &c.slot.out
	if o.sent {
		return nil
	}
	o.begin()
	o.b = append(o.b[:0], apology...)
	o.apologised = true
	c.slot.x.Response.Status = http.StatusInternalServerError
	return o.flush()
}

var errPanicked = errors.New("server: the handler panicked")

const apologyBody = `{"type":"about:blank","title":"Internal error","status":500,"code":"internal"}` + "\n"

// apology is written when there is nobody left to ask for a better one.
var apology = "HTTP/1.1 500 Internal Server Error\r\n" +
	"Content-Type: application/problem+json\r\n" +
	"Content-Length: " + strconv.Itoa(len(apologyBody)) + "\r\n" +
	"Connection: close\r\n\r\n" + apologyBody

// Interim sends an informational response. It may be called until Serve returns.
func (c *conn) Interim(status int, h *exchange.Header) error {
	s := c.slot
	if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return errors.New("server: not an interim status")
	}
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	if s.out.began {
		return errTooLate
	}
	if s.x.Request.Proto == exchange.HTTP10 {
		return nil // RFC 9110 §15.2: it knows none
	}
	if status == http.StatusContinue && !s.body.expects.CompareAndSwap(true, false) {
		return nil // nobody waits for it, or it was sent
	}
	s.x.Request.Expect = s.x.Request.Expect && status != http.StatusContinue
	var room [512]byte
	b := http1.AppendStatusLine(room[:0], status)
	if h != nil {
		b = http1.AppendHeaderExcept(b, h, ownFields)
	}
	b = append(b, "\r\n"...)
	s.out.written += int64(len(b))
	return c.write(b)
}

// finish does what every exchange ends with: nobody works for it any more, and
// it is recorded.
func (c *conn) finish(served bool) {
	s := c.slot
	x := &s.x
	s.body.Cancel()
	c.server.close(x)
	s.body.end()
	c.now = time.Now()
	x.BytesIn += s.body.taken
	x.BytesOut += s.out.written
	x.Elapsed, x.ClientWait = c.now.Sub(x.Start), s.body.waited+s.out.waited
	if served {
		c.server.done(x)
	}
}

// close closes what x holds, whatever it does.
func (s *Server) close(x *exchange.Exchange) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, x.Conn.Listener)
		}
	}()
	if b := x.Request.Body; b != nil {
		_ = b.Close() // it is over: there is nobody to tell
	}
	if b := x.Response.Body; b != nil {
		_ = b.Close()
	}
	if t := x.Response.Tunnel; t != nil {
		_ = t.Close()
	}
}

// done hands x to the Handler's Done.
func (s *Server) done(x *exchange.Exchange) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, x.Conn.Listener)
		}
	}()
	s.handler.Done(x)
}

package server

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// output writes a response in as few system calls as it can: head and the pieces
// of the body that are there gather in one buffer and leave together; what is
// larger fills the buffer up and then goes out from where it lies. Nothing waits
// for more while the body has nothing ready, so that events are not held back.
type output struct {
	c    *conn
	lent *buffer
	b    []byte // gathered, usually in lent

	mu      sync.Mutex // guards what follows until the response begins: interim responses
	began   bool
	written int64 // interim responses included

	sent       bool          // some of the response was, or was tried to be
	apologised bool          // what was sent is the driver's own
	waited     time.Duration // for the client, from the second write on
	err        error         // the first failure; nothing is written after
}

// gatherMost is the largest piece that is copied to save a system call: about
// what copying costs as much as one.
const gatherMost = 24 << 10

// ownFields are those that the driver writes itself, from what it decided.
var ownFields = http1.SkipOf(exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection,
	exchange.TransferEncoding, exchange.ContentLength, exchange.Upgrade, exchange.TE)

// isOwn reports whether a field is one of ownFields.
func isOwn(id exchange.HeaderID) bool { return id != exchange.Other && ownFields&(1<<id) != 0 }

func (o *output) reset(c *conn) {
	o.c, o.began, o.written = c, false, 0
	o.sent, o.apologised, o.waited, o.err = false, false, 0, nil
}

// begin ends the time of interim responses.
func (o *output) begin() {
	o.mu.Lock()
	o.began = true
	o.mu.Unlock()
	o.open()
}

// open makes sure that there is a buffer.
func (o *output) open() {
	if o.lent == nil {
		o.lent = o.c.server.buffers.getSmall()
		o.b = o.lent.b[:0]
	}
}

// end gives the buffer back. What is gathered is lost.
func (o *output) end() {
	o.c.server.buffers.put(o.lent)
	o.lent, o.b = nil, nil
}

// flush writes what was gathered.
func (o *output) flush() error {
	if len(o.b) == 0 {
		return o.err
	}
	b := o.b
	o.b = o.b[:0]
	return o.send(b)
}

// send writes p now. Only writes behind the first are timed: the first one of a
// response fits into the socket's memory, and a clock costs more than it.
func (o *output) send(p []byte) error {
	if o.err != nil {
		return o.err
	}
	if !o.sent {
		o.sent = true
		o.err = o.c.write(p)
	} else {
		began := time.Now()
		o.err = o.c.write(p)
		o.waited += time.Since(began)
	}
	if o.err == nil {
		o.written += int64(len(p))
	}
	return o.err
}

// add takes a piece of the body. It is copied, or written before add returns.
func (o *output) add(p []byte) error {
	o.open()
	if len(p) <= cap(o.b)-len(o.b) {
		o.b = append(o.b, p...)
		return o.err
	}
	if len(p) <= gatherMost && len(o.b)+len(p) <= largeBuffer && cap(o.b) < largeBuffer {
		large := o.c.server.buffers.getLarge()
		o.b = append(append(large.b[:0], o.b...), p...)
		o.c.server.buffers.put(o.lent)
		o.lent = large
		return o.err
	}
	if len(o.b) > 0 {
		n := cap(o.b) - len(o.b)
		o.b = append(o.b, p[:n]...)
		p = p[n:]
		if err := o.flush(); err != nil {
			return err
		}
	}
	if len(p) <= cap(o.b)/2 {
		o.b = append(o.b, p...)
		return nil
	}
	return o.send(p)
}

// chunkLine is the most that a chunk adds to its data: 16 digits and two line ends.
const chunkLine = 20

// chunk takes a piece of a chunked body.
func (o *output) chunk(p []byte) error {
	o.open()
	if cap(o.b)-len(o.b) < 2*chunkLine {
		if err := o.flush(); err != nil {
			return err
		}
	}
	o.b = http1.AppendChunkHead(o.b, len(p))
	if err := o.add(p); err != nil {
		return err
	}
	o.b = append(o.b, "\r\n"...)
	return nil
}

// respond writes the response. keep says that the connection can go on behind
// it. An error means that the client did not get all of it.
func (c *conn) respond(f http1.Framing) (keep bool, err error) {
	s := c.slot
	x := &s.x
	r := &x.Response
	if r.Status < 200 || r.Status > 999 {
		return false, errors.Join(errNoResponse, c.apologise())
	}
	frame := http1.ResponseFraming(x.Request.Proto, x.Request.Method, r)
	keep = f.KeepAlive && frame.KeepAlive && !r.Close && s.body.harmless()
	if c.l.draining.Load() && s.in.empty() { // what was sent behind it is answered first
		keep = false
	}
	o := &s.out
	o.begin()
	c.sock.Out.Begin()
	c.appendHead(frame, keep)
	if frame.Kind != http1.NoBody {
		if err := c.copyBody(frame); err != nil {
			return false, err
		}
	}
	return keep, o.flush()
}

var errNoResponse = errors.New("server: the handler left no response")

// appendHead gathers the head of the response.
func (c *conn) appendHead(frame http1.Framing, keep bool) {
	x := &c.slot.x
	r := &x.Response
	b := http1.AppendStatusLine(c.slot.out.b, r.Status)
	b = http1.AppendHeaderExcept(b, &r.Header, ownFields)
	if !r.Header.Has(exchange.Date) {
		b = append(b, c.server.date.line()...)
	}
	if frame.Kind == http1.NoBody {
		if x.Request.Method == http.MethodHead && frame.Length >= 0 || frame.Length > 0 {
			b = append(b, "Content-Length: "...)
			b = strconv.AppendInt(b, frame.Length, 10)
			b = append(b, "\r\n"...)
		}
	} else {
		b = http1.AppendFraming(b, frame)
	}
	switch {
	case !keep:
		b = append(b, "Connection: close\r\n"...)
	case x.Request.Proto == exchange.HTTP10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	c.slot.out.b = append(b, "\r\n"...)
}

// copyBody takes the body to the client, framed. The end is gathered, not yet
// written.
func (c *conn) copyBody(frame http1.Framing) error {
	r := &c.slot.x.Response
	o := &c.slot.out
	left := frame.Length
	for end := r.Body == nil; !end; {
		if len(o.b) > 0 && !r.Body.Ready() {
			if err := o.flush(); err != nil {
				return err
			}
			o.end() // events may be hours apart
		}
		piece, err := r.Body.Next()
		if err != nil && err != io.EOF {
			return err
		}
		end = err == io.EOF
		if len(piece) == 0 {
			continue
		}
		switch frame.Kind {
		case http1.Chunked:
			err = o.chunk(piece)
		case http1.ByLength:
			if left -= int64(len(piece)); left < 0 {
				return errTooLong
			}
			err = o.add(piece)
		default:
			err = o.add(piece)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case frame.Kind == http1.Chunked:
		o.open()
		o.b = http1.AppendLastChunk(o.b, &r.Trailer)
	case frame.Kind == http1.ByLength && left > 0:
		return errTooShort
	}
	return nil
}

// Errors of a response whose body is not as long as its head says.
var (
	errTooLong  = errors.New("server: the response body is longer than its Content-Length")
	errTooShort = errors.New("server: the response body is shorter than its Content-Length")
)

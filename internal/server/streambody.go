package server

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// streamBody is a request body on HTTP/2. It may be read and closed by several
// goroutines as body may; how long its client is waited for is the watch's.
type streamBody struct {
	t *stream

	mu     sync.Mutex // held while reading
	lent   *buffer
	err    error // how the body ended
	taken  int64
	waited time.Duration

	closed   atomic.Bool
	answered atomic.Bool
}

func (b *streamBody) begin(t *stream) {
	b.t, b.lent, b.err, b.taken, b.waited = t, nil, nil, 0, 0
	b.closed.Store(false)
	b.answered.Store(false)
}

// Next returns the next piece. See exchange.Body.
func (b *streamBody) Next() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.t
	q := &t.x.Request
	if b.err != nil {
		return nil, b.err
	}
	if b.closed.Load() {
		b.err = exchange.AsError(errBodyClosed)
		return nil, b.err
	}
	if b.lent == nil {
		b.lent = b.room(q.ContentLength)
		t.goOn()
	}
	if d := t.x.Deadline; !d.IsZero() && !b.answered.Load() {
		t.watch.by.Store(d.UnixNano())
	}
	began := time.Now()
	t.watch.reading.Store(true)
	n, err := t.r.Body.Read(b.lent.b)
	t.watch.reading.Store(false)
	b.waited += time.Since(began)
	t.watch.got.Add(int64(n))
	b.taken += int64(n)
	switch {
	case err == io.EOF:
		b.err = b.trailer()
	case err != nil:
		b.err = b.blame(err)
	}
	if q.MaxBody > 0 && b.taken > q.MaxBody {
		b.err = tooLarge()
	}
	if b.err != nil && b.err != io.EOF {
		return nil, b.err
	}
	return b.lent.b[:n], b.err
}

func (b *streamBody) room(length int64) *buffer {
	if length > 0 && length <= smallBuffer {
		return b.t.conn.server.buffers.getSmall()
	}
	return b.t.conn.server.buffers.getLarge()
}

// blame says what a failed read means.
func (b *streamBody) blame(err error) error {
	switch e := b.t.watch.cutBy.Load(); {
	case e != nil:
		return e
	case b.closed.Load():
		return exchange.AsError(errBodyClosed)
	case b.t.r.Context().Err() != nil:
		return clientGone(err)
	}
	e := badRequest("The body is not as long as its Content-Length says.")
	e.Cause = err
	return e
}

// trailer takes over the trailer, by the rules of HTTP/1's.
func (b *streamBody) trailer() error {
	t := b.t
	if len(t.r.Trailer) == 0 {
		return io.EOF
	}
	room := 8
	for name, values := range t.r.Trailer {
		for _, v := range values {
			room += len(name) + len(v) + 4
		}
	}
	// Not scratch memory: the exchange's own goroutine may be taking from it.
	text := append(make([]byte, 0, room), "0\r\n"...)
	for name, values := range t.r.Trailer {
		for _, v := range values {
			text = append(append(text, name...), ": "...)
			text = append(append(text, v...), "\r\n"...)
		}
	}
	text = append(text, "\r\n"...)
	var d http1.Decoder
	d.Reset(http1.Framing{Kind: http1.Chunked}, exchange.Client, t.conn.set.head, &t.x.Request.Trailer)
	_, _, err := d.Next(text)
	return err
}

// Ready is true only at the end: net/http does not tell what it holds.
func (b *streamBody) Ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil || b.closed.Load()
}

// Close gives the rest of the body up.
func (b *streamBody) Close() error {
	b.Cancel()
	return nil
}

// Cancel makes a Next that waits, and every later one, fail.
func (b *streamBody) Cancel() {
	if !b.closed.Swap(true) {
		_ = b.t.r.Body.Close() // what it held is thrown away
	}
}

// end waits until nobody reads any more. The body was cancelled before.
func (b *streamBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.conn.server.buffers.put(b.lent)
	b.lent = nil
}

// free lets go of what the body refers to.
func (b *streamBody) free() { b.t = nil }

var (
	_ exchange.Body     = (*streamBody)(nil)
	_ exchange.Canceler = (*streamBody)(nil)
)

package server

import (
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// A watch is what the sweeper knows of a stream of HTTP/2: whether it waits for
// its client this moment, and how many bytes have moved. On HTTP/1 the socket
// itself keeps these times (see sock); here one socket carries many streams, and
// a client can starve one of them while it feeds the others.
type watch struct {
	reading, writing atomic.Bool  // waits for the client to send, to let send
	got, put         atomic.Int64 // bytes
	by               atomic.Int64 // when the body must be there, Unix nanoseconds; 0: no such time
	cutBy            atomic.Pointer[exchange.Error]

	in, out waitFor // the sweeper's
	ticks   int     // how often it has looked
}

// waitFor is one direction of a watch.
type waitFor struct {
	seen    int64         // bytes at the last look
	stalled time.Duration // since something moved
	waited  time.Duration // in all
}

// reset begins a new stream.
func (w *watch) reset() {
	w.reading.Store(false)
	w.writing.Store(false)
	w.got.Store(0)
	w.put.Store(0)
	w.by.Store(0)
	w.cutBy.Store(nil)
	w.in, w.out, w.ticks = waitFor{}, waitFor{}, 0
}

// tick takes in that the stream waited, or not, at one more look. It reports
// whether the client is too slow: it let nothing move for most, or is below rate
// after grace.
func (f *waitFor) tick(tick time.Duration, waits bool, moved int64, most, grace time.Duration, rate int64) bool {
	if moved != f.seen {
		f.seen, f.stalled = moved, 0
	}
	if !waits {
		f.stalled = 0
		return false
	}
	f.stalled += tick
	f.waited += tick
	return most > 0 && f.stalled > most ||
		rate > 0 && f.waited > grace && float64(moved) < float64(rate)*f.waited.Seconds()
}

// sweep looks at a stream. It must not wait.
func (w *watch) sweep(tick time.Duration, t *stream) {
	if w.ticks++; w.ticks > 1 && (w.ticks <= patientTicks || w.ticks%patientTicks == 0) {
		t.x.Probe()
	}
	set, grace := t.conn.set, t.conn.server.timing.grace
	t.x.Probe()
	if by := w.by.Load(); w.reading.Load() && by != 0 && !t.body.answered.Load() && time.Now().UnixNano() > by {
		t.cutReading()
	}
	if w.in.tick(tick, w.reading.Load(), w.got.Load(), set.bodyIdle, grace, set.rate) {
		t.cutReading()
	}
	if w.out.tick(tick, w.writing.Load(), w.put.Load(), set.writeIdle, grace, set.rate) {
		t.cutWriting()
	}
}

// cutReading makes the read that waits fail.
func (t *stream) cutReading() {
	t.watch.cutBy.CompareAndSwap(nil, late(sock.ErrTooSlow))
	_ = t.r.Body.Close() // the body is of no use any more
}

// cutWriting makes the write that waits fail, by resetting the stream. net/http
// may take its time to hear of it, so that happens beside.
func (t *stream) cutWriting() {
	if !t.watch.cutBy.CompareAndSwap(nil, clientGone(sock.ErrTooSlow)) {
		return
	}
	if w, ok := t.w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		t.others.Go(func() { _ = w.SetWriteDeadline(time.Unix(1, 0)) })
	}
}

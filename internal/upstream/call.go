package upstream

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// call is the work for one exchange. It is the Receiver of its connection and the
// Body of its response.
type call struct {
	u    *Upstream
	x    *exchange.Exchange
	wish wish
	ep   *endpoint // counted as in flight there; nil: on none
	conn *conn     // in use; nil: none

	now    time.Time // when the try began
	from   time.Time // since when the target owes the response's head
	last   time.Time // when the connection was last read from
	tries  int       // made after the first
	close  bool      // x.Response.Close as it was before
	reused bool      // the connection carried an exchange before

	outgoing
	incoming
}

// outgoing is the request. hand and rest, behind it, are what was taken from the
// body so far.
type outgoing struct {
	framing    http1.Framing
	hand, rest []byte
	whole      bool // nothing is to come behind them
	inline     bool // they go out with the head
	pumped     bool // more of the body was taken, and let go
	expecting  bool // the client waits for a 100, and the target was asked for one
	gathered   *buffer
	out        *buffer // the message; given back once it is sent
	pump       pump
}

// incoming is the response, as far as it has been read.
type incoming struct {
	in         *buffer // b[start:end] is unread; nil: nothing is
	start, end int
	scanned    int // of an incomplete head
	interims   int
	grow       bool // the last read filled its buffer
	keep       bool // the connection can go on behind this message
	dec        http1.Decoder
	left       int64 // of a body by length
	piece      []byte
	pieceErr   error
}

// begin makes k ready for x. What an earlier exchange left open is cut.
func (k *call) begin(u *Upstream, x *exchange.Exchange) {
	if k.x != nil {
		k.abandon()
		k.putGathered()
		k.putIn()
	}
	k.u, k.x = u, x
	clear(k.wish.tried)
	k.wish = wish{tried: k.wish.tried[:0]}
	k.tries, k.reused, k.close = 0, false, x.Response.Close
	k.hand, k.rest, k.expecting, k.pumped = nil, nil, false, false
	k.resetReply()
	x.Usage.Name = u.name
	if u.balance == "hash" {
		k.wish.key = u.hashKey.of(x)
	}
}

func (k *call) resetReply() {
	k.putIn()
	k.scanned, k.interims, k.grow, k.keep, k.left = 0, 0, false, false, 0
	k.piece, k.pieceErr = nil, nil
}

// run makes tries until one succeeds or none may follow.
func (k *call) run() error {
	if f := k.takeBody(); f != nil {
		return k.fail(f)
	}
	for {
		f := k.try()
		switch {
		case f != nil && !k.mayRepeat(f):
			return k.fail(f)
		case f == nil && (!k.unwelcome() || !k.mayRepeat(nil)):
			if !k.pump.running() {
				k.putGathered()
			}
			return nil
		}
		k.abandon()
		k.resetReply()
		k.clearResponse()
		if f := k.pause(); f != nil {
			return k.fail(f)
		}
	}
}

// fail ends the exchange without a response.
func (k *call) fail(f *fault) error {
	if k.expecting || k.pump.started() && (k.pump.running() || !k.pump.clean()) {
		f.err.Close = true // nobody reads the rest of the client's body
	}
	k.abandon()
	k.putGathered()
	k.resetReply()
	k.clearResponse()
	return f.err
}

func (k *call) clearResponse() {
	r := &k.x.Response
	r.Header.Reset()
	r.Trailer.Reset()
	*r = exchange.Response{Header: r.Header, Trailer: r.Trailer, Close: k.close}
}

// takeBody takes what is there of the request body without waiting, as far as it
// fits beside the head. The rest is for the pump.
func (k *call) takeBody() *fault {
	q := &k.x.Request
	k.framing = http1.RequestFraming(q)
	k.whole = q.Body == nil
	if k.whole {
		return nil
	}
	if !q.Body.Ready() {
		k.expecting = q.Expect
		return nil
	}
	piece, err := q.Body.Next()
	k.hand = piece
	for err == nil && q.Body.Ready() {
		// The piece holds only until the next one.
		if k.gathered == nil {
			if len(piece) > smallBuffer {
				break
			}
			k.gathered = k.u.buffers.get(smallBuffer)
			k.hand = append(k.gathered.b[:0], piece...)
		}
		if piece, err = q.Body.Next(); len(piece) > smallBuffer-len(k.hand) {
			k.rest = piece
			break
		}
		k.hand = append(k.hand, piece...)
	}
	held := int64(len(k.hand) + len(k.rest))
	k.whole = err == io.EOF // not errors.Is: an *exchange.Error may have io.EOF as its cause
	switch {
	case err != nil && !k.whole:
		return fromClient(err)
	case k.framing.Kind == http1.Chunked:
	case held > k.framing.Length:
		return &fault{err: exchange.AsError(errLong)}
	case k.whole && held < k.framing.Length:
		return &fault{err: exchange.AsError(errShort)}
	}
	return nil
}

// try chooses an endpoint and asks it.
func (k *call) try() *fault {
	for {
		e := k.u.set.Load().choose(&k.wish)
		if e == nil {
			if f := k.resolved(); f != nil {
				return f
			}
			if e = k.u.set.Load().choose(&k.wish); e == nil {
				return noTarget(nil)
			}
		}
		k.enter(e)
		f := k.ask()
		if f == nil || f.kind != moved {
			return f
		}
	}
}

// enter makes e the call's endpoint, in place of the one before.
func (k *call) enter(e *endpoint) {
	k.leave()
	e.enter()
	k.ep = e
	k.wish.tried = append(k.wish.tried, e)
	k.x.Usage.Target = e.name
}

func (k *call) leave() {
	if k.ep != nil {
		k.ep.leave()
		k.ep = nil
	}
}

// ask sends the request to the call's endpoint and reads the response's head. A
// kept connection may have been closed by the other side at the very moment when it
// is used again: when it breaks before a byte of a response has come, and the
// request can do no harm a second time, it is sent once more over one that is
// known to be good.
func (k *call) ask() *fault {
	f := k.askOver(false)
	if f != nil && f.kind == reset && f.silent && k.reused && k.repeatable() {
		k.cutOff()
		k.resetReply()
		k.ep.sweep(time.Now(), 0) // the others were probably closed with it
		f = k.askOver(true)
	}
	if f != nil && f.kind != other && f.kind != connect && !f.spare { // open counts its own
		k.ep.fail()
	}
	return f
}

func (k *call) askOver(fresh bool) *fault {
	k.now = time.Now()
	k.from = k.now
	x := k.x
	x.Usage.Attempts++
	f := k.connect(fresh)
	if f == nil {
		x.Usage.Reused = k.reused
		x.Usage.Sent = k.now.Sub(x.Start)
		f = k.converse()
	}
	if f != nil {
		x.Usage.Waited += time.Since(k.now)
	}
	return f
}

// connect gets a connection: one that is kept, unless it is to be a fresh one, or a
// new one, or, when there may not be more, the next that becomes free. A request
// that cannot be repeated must not meet a connection which is closed already.
func (k *call) connect(fresh bool) *fault {
	e := k.ep
	sure := fresh || !k.repeatable()
	if !fresh || e.full() {
		if k.conn = e.take(k.now, sure); k.conn != nil {
			k.reused = true
			return nil
		}
	}
	k.reused = false
	ok, w := e.reserveOrWait()
	switch {
	case ok:
		return k.open()
	case w == nil:
		return noSlot()
	}
	g, f := k.wait(w)
	switch {
	case f != nil:
		return f
	case g.retired:
		return &fault{kind: moved, spare: true}
	case g.c == nil:
		return k.open()
	case sure && !g.c.sock.Quiet():
		g.c.close()
		return k.open() // in its place
	}
	k.conn, k.reused = g.c, true
	k.from = time.Now()
	return nil
}

// wait waits for a connection to become free, as long as the exchange and one try
// may last.
func (k *call) wait(w *waiter) (grant, *fault) {
	ctx, stop := k.x.Context()
	defer stop()
	if k.u.timeout > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, k.u.timeout)
		defer done()
	}
	select {
	case g := <-w.got:
		return g, nil
	case <-ctx.Done():
	}
	if g, granted := k.ep.forget(w); granted {
		k.ep.giveBack(g)
	}
	if k.x.Canceled() {
		return grant{}, clientGone(ctx.Err())
	}
	return grant{}, noSlot()
}

// converse sends the request over the call's connection and reads the response's
// head.
func (k *call) converse() *fault {
	c := k.conn
	if !k.x.OnCancel(c) {
		return clientGone(context.Canceled)
	}
	if f := k.arm(k.from); f != nil {
		return f
	}
	msg := k.message()
	var n int
	var err error
	if k.whole && k.inline {
		n, err = c.sendReceive(msg, k)
		k.x.Usage.BytesOut += int64(len(k.hand) + len(k.rest))
	} else if err = c.send(msg); err == nil {
		k.Sent()
		if k.expecting {
			k.awaitContinue()
		} else {
			k.startPump()
		}
		n, err = c.receive(k)
	}
	k.Sent()
	return k.await(n, err)
}

// Sent gives the message's memory back.
func (k *call) Sent() {
	if k.out != nil {
		k.u.buffers.put(k.out)
		k.out = nil
	}
}

// exact is below what time left a deadline of the exchange is set exactly. Setting
// one costs as much as choosing a target; above, it may be late by an eighth.
const exact = 2 * time.Second

// arm bounds the wait for the response's head: by the timeout of one try and by the
// exchange's deadline.
func (k *call) arm(now time.Time) *fault {
	c := k.conn
	d := k.u.timeout
	if d > 0 {
		d = max(k.from.Add(d).Sub(now), 1)
	}
	if by := k.x.Deadline; !by.IsZero() {
		left := by.Sub(now)
		switch {
		case left <= 0:
			return timedOut(os.ErrDeadlineExceeded)
		case left <= exact && (d == 0 || left < d):
			c.until(by)
			return nil
		case d == 0 || left < d:
			d = left
		}
	}
	c.within(now, d)
	return nil
}

// await reads until the response's head is complete. n and err are of the first
// read.
func (k *call) await(n int, err error) *fault {
	for {
		if n > 0 {
			k.end += n
			k.conn.large = k.end >= smallBuffer
			if done, f := k.heads(); done || f != nil {
				return f
			}
		}
		if err != nil {
			if f := k.stopped(err); f != nil {
				return f
			}
		}
		if f := k.room(); f != nil {
			return f
		}
		n, err = k.conn.receive(k)
	}
}

// stopped says what a failed read of the head means; nil: read on.
func (k *call) stopped(err error) *fault {
	c := k.conn
	switch {
	case c.canceled.Load():
		return clientGone(err)
	case c.aborted.Load():
		return k.pump.result()
	case c.ended.Load():
		return broken(io.EOF, k.interims > 0 || k.start < k.end)
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return broken(err, k.interims > 0 || k.start < k.end)
	}
	now := time.Now()
	flowing := k.pump.running()
	if by := k.x.Deadline; !by.IsZero() && !now.Before(by) {
		if flowing && k.pump.reading() {
			return clientLate()
		}
		return timedOut(err)
	}
	if k.expecting {
		if f := k.goOn(nil); f != nil {
			return f
		}
		return k.arm(time.Now())
	}
	if k.pump.started() {
		if flowing {
			k.from = now // the target owes nothing yet
		} else {
			k.from = k.pump.ended
		}
	}
	if d := k.u.timeout; d > 0 && now.Sub(k.from) >= d {
		return timedOut(err)
	}
	return k.arm(now)
}

// awaitContinue bounds the wait for a 100.
func (k *call) awaitContinue() {
	by := time.Now().Add(k.u.times.expect)
	if end := k.x.Deadline; !end.IsZero() && end.Before(by) {
		by = end
	}
	k.conn.until(by)
}

// goOn tells the client to send its body, and begins to pass it on.
func (k *call) goOn(h *exchange.Header) *fault {
	k.expecting = false
	k.x.Request.Expect = false
	if err := k.x.Driver.Interim(100, h); err != nil {
		return clientGone(err)
	}
	k.startPump()
	return nil
}

// release ends the use of the connection behind a message that has ended: it is
// kept if another may follow.
func (k *call) release() {
	c, e := k.conn, k.ep
	k.conn = nil
	alone := k.x.OnCancel(nil) // otherwise a Cancel is under way to it
	if alone && k.keep && k.start == k.end && c.idleFor > 0 {
		c.idleSince = k.last
		e.put(c)
	} else {
		c.close()
		e.drop()
	}
	k.leave()
}

// putGathered gives back what was gathered of the request's body.
func (k *call) putGathered() {
	if k.gathered != nil {
		k.u.buffers.put(k.gathered)
		k.gathered, k.hand = nil, nil
	}
}

// cutOff ends the connection, if there is one, and the pump with it; the call stays
// on its endpoint.
func (k *call) cutOff() {
	k.stopPump()
	k.Sent()
	if k.conn == nil {
		return
	}
	k.x.OnCancel(nil)
	k.conn.cut()
	k.conn = nil
	k.ep.drop()
}

// abandon gives up whatever is under way.
func (k *call) abandon() {
	k.cutOff()
	k.leave()
}

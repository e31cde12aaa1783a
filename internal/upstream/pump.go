package upstream

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// The pump passes on a request body that is not wholly in hand, on a goroutine of
// its own, while the call waits for the response. It owns x.Request.Body and
// x.Request.Trailer until it has ended, which stopPump makes sure of.
//
// A response may come while the body still flows. It is passed on at once; the pump
// goes on until the response has ended. Then neither connection can be used again:
// the target's, because a request is unfinished on it, and the client's, because
// nobody has read what it still sends.
type pump struct {
	on      bool
	body    exchange.Body
	trailer *exchange.Header
	c       *conn
	buffers *buffers
	hand    [2][]byte // goes first
	whole   bool      // nothing is behind hand
	chunked bool
	left    int64 // of a body by length
	out     *buffer

	state atomic.Uint32
	done  chan struct{}
	// What follows is written before done is closed, and fault before the connection
	// is aborted.
	fault *fault
	sent  int64 // bytes of body
	ended time.Time
}

// What the pump is doing.
const (
	pumpReads  uint32 = iota // waits for the client
	pumpWrites               // waits for the target
	pumpsLast                // writes the last bytes of the request
)

// startPump begins to pass on the rest of the request.
func (k *call) startPump() {
	p := &k.pump
	p.on, p.c, p.buffers = true, k.conn, &k.u.buffers
	p.body, p.trailer = k.x.Request.Body, k.trailer()
	p.hand, p.whole = [2][]byte{}, k.whole
	p.chunked, p.left = k.framing.Kind == http1.Chunked, k.framing.Length
	p.fault, p.sent = nil, 0
	k.pumped = k.pumped || !k.whole
	switch held := len(k.hand) + len(k.rest); {
	case k.inline:
		p.left -= int64(held)
		k.x.Usage.BytesOut += int64(held)
	default:
		p.hand = [2][]byte{k.hand, k.rest}
	}
	p.state.Store(pumpReads)
	p.done = make(chan struct{})
	go p.run()
}

// started reports whether the try has a pump.
func (p *pump) started() bool { return p.on }

// running reports whether the request is still being sent.
func (p *pump) running() bool {
	if !p.on {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// reading reports whether it is the client that a running pump waits for.
func (p *pump) reading() bool { return p.state.Load() == pumpReads }

// clean reports whether the request has been sent whole; the pump is not running.
func (p *pump) clean() bool { return !p.on || p.fault == nil }

// result is why a pump that aborted the connection did so. It waits for its end.
func (p *pump) result() *fault {
	<-p.done
	return p.fault
}

// lastBytes is how long a response waits for the last write of its request to
// return: both happen at the same moment when a target answers at once.
const lastBytes = 100 * time.Millisecond

// pumpAtHead reports whether the request still flows now that the response's head
// is there. A client that failed in the meantime is the result instead.
func (k *call) pumpAtHead() (flowing bool, f *fault) {
	p := &k.pump
	if p.running() && p.state.Load() == pumpsLast {
		late := time.NewTimer(lastBytes)
		select {
		case <-p.done:
		case <-late.C:
		}
		late.Stop()
	}
	switch {
	case p.running():
		return true, nil
	case p.on && p.c.aborted.Load():
		return false, p.fault
	}
	k.countPump()
	return false, nil
}

// countPump books what a pump that has ended sent.
func (k *call) countPump() {
	if k.pump.on {
		k.x.Usage.BytesOut += k.pump.sent
		k.pump.sent = 0
	}
}

// stopPump ends the pump, if there is one, and waits for it. One that is not
// through takes the connection with it, and the rest of the client's body.
func (k *call) stopPump() {
	p := &k.pump
	if !p.on {
		return
	}
	if p.running() {
		p.c.cut()
		if b, ok := p.body.(exchange.Canceler); ok {
			b.Cancel()
		}
		<-p.done
	}
	k.countPump()
	p.on = false
	p.body, p.trailer, p.c, p.hand = nil, nil, nil, [2][]byte{}
}

func (p *pump) run() {
	p.fault = p.pass()
	if p.out != nil {
		p.buffers.put(p.out)
		p.out = nil
	}
	p.ended = time.Now()
	if f := p.fault; f != nil && f.kind != reset {
		p.c.abort() // a target that does not read may still answer; a request that breaks off may not
	}
	close(p.done)
}

// pass writes the rest of the request.
func (p *pump) pass() *fault {
	for i, piece := range p.hand {
		if f := p.add(piece); f != nil {
			return f
		}
		p.hand[i] = nil
	}
	for !p.whole {
		if !p.chunked && p.left == 0 {
			break
		}
		if f := p.flushUnless(p.body.Ready()); f != nil {
			return f
		}
		p.state.Store(pumpReads)
		piece, err := p.body.Next()
		p.state.Store(pumpWrites)
		if f := p.add(piece); f != nil {
			return f
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fromClient(err)
		}
	}
	if !p.chunked {
		if p.left > 0 {
			return &fault{err: exchange.AsError(errShort)}
		}
		return nil
	}
	p.need()
	p.out.b = http1.AppendLastChunk(p.out.b, p.trailer)
	p.state.Store(pumpsLast)
	return p.flush()
}

// add passes on a piece of the body: by length as it is, chunked by way of the
// buffer, where pieces that come together become one write.
func (p *pump) add(piece []byte) *fault {
	if len(piece) == 0 {
		return nil
	}
	if !p.chunked {
		if p.left -= int64(len(piece)); p.left < 0 {
			return &fault{err: exchange.AsError(errLong)}
		}
		if p.left == 0 {
			p.state.Store(pumpsLast)
		}
		return p.write(piece, len(piece))
	}
	for len(piece) > 0 {
		p.need()
		room := cap(p.out.b) - len(p.out.b) - chunkOverhead
		if room < min(len(piece), smallBuffer) {
			if f := p.flush(); f != nil {
				return f
			}
			continue
		}
		n := min(len(piece), room)
		p.out.b = appendChunk(p.out.b, piece[:n])
		p.sent += int64(n)
		piece = piece[n:]
	}
	return nil
}

// chunkOverhead is the room for a chunk's size line and its end.
const chunkOverhead = 32

func (p *pump) need() {
	if p.out == nil {
		p.out = p.buffers.get(largeBuffer)
		p.out.b = p.out.b[:0]
	}
}

// flushUnless writes what is buffered unless more is coming at once.
func (p *pump) flushUnless(more bool) *fault {
	if more || p.out == nil {
		return nil
	}
	return p.flush()
}

func (p *pump) flush() *fault {
	f := p.write(p.out.b, 0)
	p.buffers.put(p.out)
	p.out = nil
	return f
}

// write sends b, n bytes of which are body that is not counted yet.
func (p *pump) write(b []byte, n int) *fault {
	p.state.CompareAndSwap(pumpReads, pumpWrites)
	err := p.c.send(b)
	switch {
	case err == nil:
		p.sent += int64(n)
		return nil
	case p.c.canceled.Load():
		return clientGone(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return timedOut(err) // nothing moved for the timeout of one try
	}
	return broken(err, false)
}

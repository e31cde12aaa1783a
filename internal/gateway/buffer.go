package gateway

import (
	"io"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// A filter that reads a whole body costs memory that the client decides on. All
// such bodies share one budget, limits.buffer_memory; a body that does not fit
// any more is refused with 503 rather than taken from the others.

// memory is the budget. It is taken in steps, so that a body of which only the
// declared length is large does not reserve what never comes.
type memory struct {
	limit atomic.Int64 // 0: no limit
	used  atomic.Int64
}

func (m *memory) acquire(n int64) bool {
	if limit := m.limit.Load(); m.used.Add(n) <= limit || limit == 0 {
		return true
	}
	m.used.Add(-n)
	return false
}

func (m *memory) release(n int64) { m.used.Add(-n) }

// bufferStep is the least a body takes from the budget at a time.
const bufferStep = 16 << 10

// buffered is a body that was read whole. Closing it frees its share.
type buffered struct {
	exchange.Bytes
	memory *memory
	held   int64
	source exchange.Body
}

// Close frees the memory.
func (b *buffered) Close() error {
	b.memory.release(b.held)
	b.held = 0
	return b.source.Close()
}

// buffer reads the request body to its end and puts the buffered one in its
// place. The error is an *exchange.Error.
func (m *memory) buffer(x *exchange.Exchange) error {
	r := &x.Request
	if r.Body == nil {
		return nil
	}
	if r.Expect {
		if err := x.Driver.Interim(100, nil); err != nil {
			return &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client, Cause: err}
		}
		r.Expect = false
	}
	b := &buffered{memory: m, source: r.Body}
	var all []byte
	for {
		piece, err := r.Body.Next()
		if need := int64(len(all) + len(piece)); need > b.held {
			step := max(need-b.held, min(b.held, 1<<20), bufferStep)
			if !m.acquire(step) {
				m.release(b.held)
				return &exchange.Error{
					Code: exchange.Overloaded, Side: exchange.Gateway, Close: true,
					Detail: "The gateway has no memory left for request bodies. Try again later.",
					Header: []exchange.Field{{Name: exchange.RetryAfter.Name(), Value: []byte("1"), ID: exchange.RetryAfter}},
				}
			}
			b.held += step
		}
		all = append(all, piece...)
		switch {
		case err == io.EOF:
			b.Reset(all)
			r.Body, r.ContentLength = b, int64(len(all))
			return nil
		case err != nil:
			m.release(b.held)
			return err
		}
	}
}

package redis

import (
	"sync/atomic"
	"time"
)

const (
	maxConsecutive = 3  // failures in a row that open the breaker
	minCalls       = 20 // in one second, below which their failures say nothing
)

// breaker counts how calls end and says whether more are made. It begins open; the
// keeper closes it. The zero breaker needs its channels.
type breaker struct {
	up          atomic.Bool
	consecutive atomic.Int32
	failed      atomic.Int64 // when the last of consecutive was noticed, Unix ns
	// second is the calls of one second: its number (32 bits), calls (16) and
	// failures (16), both no further than 65535.
	second  atomic.Uint64
	opened  atomic.Uint64 // how often
	why     atomic.Pointer[error]
	tripped chan struct{} // of one: it has opened
	changed chan struct{} // of one: it has opened or closed
}

// ended counts a call that was sent at some time, and opens the breaker if it was one
// failure too many. It reports whether it did. Calls that were in flight together
// fail together, as one failure in a row: a single pause must not open it.
func (b *breaker) ended(sent, now time.Time, failed bool, err error) bool {
	calls, failures := b.count(uint64(now.Unix()), failed)
	if !failed {
		if b.consecutive.Load() != 0 {
			b.consecutive.Store(0)
		}
		return false
	}
	inARow := b.consecutive.Load()
	if last := b.failed.Load(); inARow == 0 || sent.UnixNano() > last {
		if b.failed.CompareAndSwap(last, now.UnixNano()) {
			inARow = b.consecutive.Add(1)
		}
	}
	if inARow >= maxConsecutive || calls >= minCalls && 2*failures >= calls {
		return b.open(err)
	}
	return false
}

func (b *breaker) count(second uint64, failed bool) (calls, failures uint64) {
	const most = 1<<16 - 1
	for {
		w := b.second.Load()
		if w>>32 == second&(1<<32-1) {
			calls, failures = w>>16&most, w&most
		} else {
			calls, failures = 0, 0
		}
		if calls < most {
			calls++
			if failed {
				failures++
			}
		}
		if b.second.CompareAndSwap(w, second<<32|calls<<16|failures) {
			return calls, failures
		}
	}
}

// open reports whether it was closed.
func (b *breaker) open(err error) bool {
	if !b.up.CompareAndSwap(true, false) {
		return false
	}
	b.why.Store(&err)
	b.opened.Add(1)
	notify(b.tripped)
	notify(b.changed)
	return true
}

// reason is the error that opened it.
func (b *breaker) reason() error { return *b.why.Load() }

// restore closes the breaker: calls are made again.
func (b *breaker) restore() {
	b.consecutive.Store(0)
	b.second.Store(0)
	if b.up.CompareAndSwap(false, true) {
		notify(b.changed)
	}
}

// close has it stay open for good, quietly.
func (b *breaker) close() { b.up.Store(false) }

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

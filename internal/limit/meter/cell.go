package meter

import (
	"math"
	"sync/atomic"
	"time"
)

// Cell is the state of one key under one Limit; the zero Cell is a key that was
// never seen. It is 24 bytes, must not be copied, and any goroutine may use it.
//
// What the words hold, by algorithm:
//
//	buckets        a: when the bucket will be empty                     (8 bytes of the 24 used)
//	FixedWindow    a: the window's number and count                     (8)
//	SlidingWindow  a, b: the same of the newest even and odd window     (16)
//	SlidingLog     log: the requests of the last window    (8, and 88 + 16 a request remembered)
//	Concurrency    a: units at work                                     (8)
//
// Every change is one compare-and-swap of one word; SlidingLog alone has a mutex
// per key, the price of exactness. Nothing allocates but the log, when it grows.
//
// # Clocks
//
// The time may come from many goroutines, slightly out of order, and its clock
// may be set. A time behind what the cell has seen is taken for a late one as
// long as it is late by at most one refill (buckets) or window, or by one second
// where that is longer: it is then counted as if it had come in order, so that no
// disorder ever admits more than order does. Behind that, the clock was set back:
// the cell is moved to the new time with all it counts, at most the capacity. So
// setting a clock back refuses for at most one refill or window (or one second)
// longer than the limit itself; setting it forward gives at most one capacity.
type Cell struct {
	a, b atomic.Uint64
	log  atomic.Pointer[ring]
}

// retired is the word of a cell that is out of use. No algorithm reaches it: for
// buckets it is far behind all times, for the others far above all counts.
const retired = math.MaxUint64

// Take charges cost units at the time now if they fit, and says so. A cost of 0
// (or less) always fits and changes nothing. When live is false the cell was
// retired and nothing was charged: look the key up again.
func (l *Limit) Take(c *Cell, now, cost int64) (v Verdict, live bool) {
	cost = max(cost, 0)
	switch l.Algorithm {
	case TokenBucket, LeakyBucket:
		return l.takeBucket(c, now, cost, true)
	case FixedWindow:
		return l.takeFixed(c, now, cost, true)
	case SlidingWindow:
		return l.takeSliding(c, now, cost, true)
	case SlidingLog:
		return l.takeLog(c, now, cost, true)
	default:
		return l.takeSlots(c, cost, true)
	}
}

// Peek is what Take would say; it charges nothing. A retired cell answers like
// one never seen.
func (l *Limit) Peek(c *Cell, now, cost int64) Verdict {
	cost = max(cost, 0)
	var v Verdict
	var live bool
	switch l.Algorithm {
	case TokenBucket, LeakyBucket:
		v, live = l.takeBucket(c, now, cost, false)
	case FixedWindow:
		v, live = l.takeFixed(c, now, cost, false)
	case SlidingWindow:
		v, live = l.takeSliding(c, now, cost, false)
	case SlidingLog:
		v, live = l.takeLog(c, now, cost, false)
	default:
		v, live = l.takeSlots(c, cost, false)
	}
	if !live {
		return l.Peek(new(Cell), now, cost)
	}
	return v
}

// Refund gives back what Take took; now is what Take was given. What has left
// the window since is not given back twice; a bucket that leaked between Take and
// Refund keeps that leak, at most cost. On a retired cell it does nothing.
func (l *Limit) Refund(c *Cell, now, cost int64) {
	if cost <= 0 {
		return
	}
	switch l.Algorithm {
	case TokenBucket, LeakyBucket:
		l.refundBucket(c, now, cost)
	case FixedWindow:
		refundWindow(&c.a, l.Index(now), cost)
	case SlidingWindow:
		index := l.Index(now)
		refundWindow(c.slot(index), index, cost)
	case SlidingLog:
		l.refundLog(c, now, cost)
	default:
		for {
			w := c.a.Load()
			if w == retired || c.a.CompareAndSwap(w, w-min(w, uint64(cost))) {
				return
			}
		}
	}
}

// Force charges what was decided elsewhere, above the limit if need be, but no
// further than twice the capacity. False means that the cell was retired and
// nothing was charged.
func (l *Limit) Force(c *Cell, now, cost int64) (live bool) {
	cost = min(max(cost, 0), 2*l.Capacity)
	switch l.Algorithm {
	case TokenBucket, LeakyBucket:
		return l.forceBucket(c, now, cost)
	case FixedWindow:
		return l.forceFixed(c, now, cost)
	case SlidingWindow:
		return l.forceSliding(c, now, cost)
	case SlidingLog:
		return l.forceLog(c, now, cost)
	default:
		for {
			w := c.a.Load()
			if w == retired {
				return false
			}
			if c.a.CompareAndSwap(w, w+uint64(l.room(int64(w), cost))) {
				return true
			}
		}
	}
}

// room is how much of a forced cost counts on top of used.
func (l *Limit) room(used, cost int64) int64 { return max(min(cost, 2*l.Capacity-used), 0) }

// Used is how many units count at now, rounded up: the debt of a bucket, what is
// in the window, what is at work. 0 means that the cell is as if never seen, as a
// retired one is.
func (l *Limit) Used(c *Cell, now int64) int64 {
	switch l.Algorithm {
	case TokenBucket, LeakyBucket:
		n := l.parts(now)
		_, empty, _ := l.empty(c, n)
		return ceil(empty-n, l.Den)
	case FixedWindow:
		s, _ := l.fixed(c, now)
		return s.count
	case SlidingWindow:
		s, _ := l.sliding(c, now)
		return ceil(s.used, l.Window)
	case SlidingLog:
		return l.usedLog(c, now)
	default:
		if w := c.a.Load(); w != retired {
			return int64(w)
		}
		return 0
	}
}

// Retire takes the cell out of use for good if nothing is used at now, or always
// with evenIfUsed, and reports whether it did. Nobody's charge is lost in between:
// a Take either comes before, and then it counts as used, or learns that the cell
// is not live.
func (l *Limit) Retire(c *Cell, now int64, evenIfUsed bool) bool {
	switch l.Algorithm {
	case SlidingWindow:
		return l.retireSliding(c, now, evenIfUsed)
	case SlidingLog:
		return l.retireLog(c, now, evenIfUsed)
	}
	for {
		w := c.a.Load()
		if w == retired {
			return true
		}
		if !evenIfUsed && l.Used(c, now) > 0 {
			return false
		}
		// If the word changed since it was loaded, what Used saw is old.
		if c.a.CompareAndSwap(w, retired) {
			return true
		}
	}
}

// verdict is what follows from how much is used where that is a plain count; Reset
// and the time of Retry are left to the caller.
func (l *Limit) verdict(used, cost int64) Verdict {
	left := l.Capacity - used
	v := Verdict{OK: cost == 0 || cost <= left, Remaining: max(left, 0)}
	if v.OK {
		v.Remaining = max(left-cost, 0)
	} else if cost > l.Capacity {
		v.Retry = Never
	}
	return v
}

// takeSlots is Take (charge) or Peek of Concurrency.
func (l *Limit) takeSlots(c *Cell, cost int64, charge bool) (Verdict, bool) {
	for {
		w := c.a.Load()
		if w == retired {
			return Verdict{}, false
		}
		v := l.verdict(int64(w), cost)
		if !v.OK && v.Retry != Never {
			v.Retry = time.Second
		}
		if !v.OK || !charge || cost == 0 || c.a.CompareAndSwap(w, w+uint64(cost)) {
			return v, true
		}
	}
}

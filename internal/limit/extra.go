package limit

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// extra is what only some entries need beside their cell: keys of limits that
// several gateways share, and quotas that are saved.
type extra struct {
	c *counter
	// key is the counter's name in the store, or in the embedded file. It stays valid
	// when the table has dropped the entry.
	key string
	// period is the number of the calendar period that key is of; quotas only.
	period int64

	// lease is what this gateway holds of a leased limit.
	lease meter.Lease
	// dry is what the store said last, when it refused this limit or another of the
	// same request; nil: it did not.
	dry atomic.Pointer[drought]
	// waiting is the units that requests want who wait for a settlement under way.
	waiting atomic.Int64
	settled notice
	// touched is the limiter time of the last settlement or refusal.
	touched atomic.Int64

	// queued says that the extra is in a stack of the settler or of the flusher, linked
	// by next; wants, that the lease asks for a refill.
	queued atomic.Bool
	wants  atomic.Bool
	next   *extra
	again  bool // the settler's own: it may be tried once more
	calm   bool // the settler's own: it is among those that can wait

	// A saved quota: entry holds the count, loaded says that the count of before the
	// start is in it, under mu while it is read.
	entry  *entry
	loaded atomic.Bool
	mu     sync.Mutex
}

// drought is what the store said of a key, remembered: until then, costs of at
// least cost are refused here without asking again. It does not change.
type drought struct {
	cost      int64 // mildest: nothing is refused
	remaining int64
	until     int64 // limiter time, Unix ns; when the cost fits again
	full      int64 // limiter time of the verdict's Reset
	never     bool  // the cost never fits
}

// mildest is the cost of a drought that only remembers what was left.
const mildest = math.MaxInt64

// verdict is what the store would say again; ok is false when it has to be asked.
func (d *drought) verdict(now, cost int64) (v meter.Verdict, ok bool) {
	if d == nil || cost < d.cost {
		return v, false
	}
	if now >= d.until && !(d.never && now < d.full) {
		return v, false
	}
	v = meter.Verdict{Remaining: d.remaining, Reset: nanoseconds(d.full - now), Retry: nanoseconds(d.until - now)}
	if d.never {
		v.Retry = meter.Never
	}
	return v, true
}

// state is what is left now, as far as this gateway knows.
func (d *drought) state(now int64, l *meter.Limit) (v meter.Verdict, ok bool) {
	switch {
	case d == nil || now >= d.full && l.Num == 0:
		return v, false
	case l.Num == 0:
		return meter.Verdict{Remaining: d.remaining, Reset: nanoseconds(d.full - now)}, true
	}
	v.Reset = nanoseconds(d.full - now)
	v.Remaining = max(d.remaining, l.Capacity-(int64((v.Reset+l.Tick-1)/l.Tick)*l.Num+l.Den-1)/l.Den)
	return v, true
}

// remember keeps a refusal of a cost, or with mildest what is left.
func (x *extra) remember(now, cost int64, v meter.Verdict) {
	d := &drought{cost: cost, remaining: v.Remaining, full: now + int64(v.Reset), until: now + int64(v.Retry)}
	if v.Retry == meter.Never {
		d.never, d.until = true, now
	}
	x.dry.Store(d)
}

// stack is extras that requests hand to a goroutine: pushed by any, taken all at
// once by one.
type stack struct {
	head atomic.Pointer[extra]
	wake chan struct{} // one token when somebody pushed
}

func newStack() *stack { return &stack{wake: make(chan struct{}, 1)} }

// push hands x over, unless it already is. It never waits.
func (s *stack) push(x *extra) {
	if x.queued.Load() || !x.queued.CompareAndSwap(false, true) {
		return
	}
	for {
		x.next = s.head.Load()
		if s.head.CompareAndSwap(x.next, x) {
			break
		}
	}
}

// rouse wakes the goroutine that takes.
func (s *stack) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take yields all that was pushed. What is pushed again meanwhile comes next time.
func (s *stack) take(yield func(*extra)) {
	for x := s.head.Swap(nil); x != nil; {
		next := x.next
		x.next = nil
		x.queued.Store(false)
		yield(x)
		x = next
	}
}

// notice wakes everybody who waits for something that happens again and again.
// The zero notice is ready.
type notice struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next tell closes.
func (n *notice) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notice) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

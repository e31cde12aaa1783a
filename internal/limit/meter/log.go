package meter

import (
	"sync"
	"time"
)

// The sliding log is exact: it remembers when each cost was charged and counts
// those in (now-W, now]. Its error is 0 at the tick's resolution, and its price is
// 16 bytes a request remembered and a mutex per key.
//
// It never holds more than Capacity/Scale pairs: costs of the same tick share one,
// and when costs are fractions of a request and the ring is full, the new one joins
// the newest pair under the later tick. That keeps the older of the two a little
// longer, so it may refuse too early but never admits more.

// pair is units charged at a tick.
type pair struct{ tick, cost int64 }

// ring is the log of one key, oldest pair first. It grows by doubling up to the
// limit's size and is never made smaller.
type ring struct {
	mu      sync.Mutex
	retired bool
	pairs   []pair
	head, n int
	sum     int64 // of the costs
	last    int64 // newest tick seen: what has left the window then has left it for late ones too
}

// ring is the cell's log, made when it has none.
func (c *Cell) ring() *ring {
	for {
		if r := c.log.Load(); r != nil {
			return r
		}
		c.log.CompareAndSwap(nil, new(ring))
	}
}

func (r *ring) at(i int) *pair {
	i += r.head
	if i >= len(r.pairs) {
		i -= len(r.pairs)
	}
	return &r.pairs[i]
}

func (r *ring) newest() *pair { return r.at(r.n - 1) }

// settle drops what has left the window at tick. If the clock was set back (see
// Cell), everything from the future moves to tick. After it last is tick, or later
// when tick is late.
func (r *ring) settle(l *Limit, tick int64) {
	if r.last > tick+max(l.Window, l.second()) {
		r.last = tick
		for i := range r.n {
			p := r.at(i)
			p.tick = min(p.tick, tick)
		}
	}
	r.last = max(r.last, tick)
	for r.n > 0 && r.at(0).tick <= tick-l.Window {
		r.sum -= r.at(0).cost
		r.head++
		if r.head == len(r.pairs) {
			r.head = 0
		}
		r.n--
	}
}

// add charges cost, more than 0, at the newest tick seen.
func (r *ring) add(l *Limit, cost int64) {
	r.sum += cost
	most := max(int(l.Capacity/l.Scale), 1)
	if r.n > 0 && (r.newest().tick == r.last || r.n >= most) {
		p := r.newest()
		p.tick = r.last
		p.cost += cost
		return
	}
	if r.n == len(r.pairs) {
		pairs := make([]pair, min(max(2*r.n, 4), max(most, r.n+1)))
		for i := range r.n {
			pairs[i] = *r.at(i)
		}
		r.pairs, r.head = pairs, 0
	}
	r.n++
	*r.newest() = pair{r.last, cost}
}

// takeLog is Take (charge) or Peek.
func (l *Limit) takeLog(c *Cell, now, cost int64, charge bool) (Verdict, bool) {
	if !charge && c.log.Load() == nil { // a look makes no log
		v := l.verdict(0, cost)
		if v.OK && cost > 0 {
			v.Reset = l.Spread()
		}
		return v, true
	}
	r, tick := c.ring(), l.tick(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retired {
		return Verdict{}, false
	}
	r.settle(l, tick)
	v := l.verdict(r.sum, cost)
	empty := tick // when the log will be
	if r.n > 0 {
		empty = r.newest().tick + l.Window
	}
	switch {
	case v.OK && cost > 0:
		empty = r.last + l.Window
		if charge {
			r.add(l, cost)
		}
	case !v.OK && v.Retry != Never:
		need := r.sum + cost - l.Capacity // units that have to leave the window first
		for i := 0; need > 0; i++ {
			p := r.at(i)
			need -= p.cost
			v.Retry = time.Duration(p.tick+l.Window-tick) * l.Tick
		}
	}
	v.Reset = time.Duration(empty-tick) * l.Tick
	return v, true
}

// refundLog takes cost from the oldest pairs that can hold a charge of now: of the
// same tick, or later ones that it joined.
func (l *Limit) refundLog(c *Cell, now, cost int64) {
	r := c.log.Load()
	if r == nil {
		return
	}
	tick := l.tick(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := 0
	for i := range r.n {
		p := *r.at(i)
		if p.tick >= tick {
			back := min(p.cost, cost)
			p.cost -= back
			r.sum -= back
			cost -= back
		}
		if p.cost > 0 {
			*r.at(kept) = p
			kept++
		}
	}
	r.n = kept
}

func (l *Limit) forceLog(c *Cell, now, cost int64) bool {
	r := c.ring()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retired {
		return false
	}
	tick := l.tick(now)
	r.settle(l, tick)
	if add := l.room(r.sum, cost); add > 0 {
		r.add(l, add)
	}
	return true
}

func (l *Limit) usedLog(c *Cell, now int64) int64 {
	r := c.log.Load()
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(l, l.tick(now))
	return r.sum
}

func (l *Limit) retireLog(c *Cell, now int64, evenIfUsed bool) bool {
	r := c.ring()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retired {
		return true
	}
	r.settle(l, l.tick(now))
	if r.sum > 0 && !evenIfUsed {
		return false
	}
	r.retired, r.pairs, r.n, r.sum = true, nil, 0, 0
	return true
}

package meter

import "time"

// Token and leaky bucket, both as the virtual scheduling of GCRA (ITU-T I.371,
// annex A): the state is one time, when the bucket will be empty if nothing more
// comes, in parts since Epoch (TAT, the theoretical arrival time).
//
//	n      = now in parts            a tick is Num parts
//	debt   = max(TAT, n) - n         what has not leaked yet
//	Take   : debt + cost·Den ≤ Capacity·Den           admitted now
//	         debt + cost·Den ≤ (Capacity+Queue)·Den   admitted, waits for the excess to leak
//	         else refused, nothing changes
//
// The word is TAT with its sign bit turned over, so that the zero word is a time
// before all others: a bucket that was never used.
//
// Worst case against the exact log: in any time T at most Capacity + rate·(T + 1
// tick) units are admitted, so Capacity + N in a window of the rate's own N per
// window; with a queue, they leave at that pace (a single cost above the Capacity
// leaves whole), and at most Queue more wait.
// Never less than the rate: a cost that fits is refused only while debt is owed.

const sign = 1 << 63

// parts is now in parts since Epoch.
func (l *Limit) parts(now int64) int64 {
	since, tick := clamp(now)-Epoch, int64(l.Tick)
	n := since / tick
	if n*tick > since { // before Epoch: towards the past, as after it
		n--
	}
	return n * l.Num
}

// top is the largest debt, in parts, that Take leaves.
func (l *Limit) top() int64 { return (l.Capacity + l.Queue) * l.Den }

// empty is the cell's word and when the bucket will be empty, not before n. A
// cell from so far in the future that the clock must have been set back is moved
// to n, full.
func (l *Limit) empty(c *Cell, n int64) (w uint64, tat int64, live bool) {
	for {
		w = c.a.Load()
		if w == retired {
			return w, n, false
		}
		tat = int64(w ^ sign)
		if tat <= n {
			return w, n, true
		}
		top := l.top()
		ahead := uint64(tat) - uint64(n) // may exceed an int64 when decades lie between
		// Two ticks more, for the rounding of Spread and of now.
		if ahead <= uint64(top) || ahead <= uint64(top+max(top, l.Num*l.second())+2*l.Num) {
			return w, tat, true
		}
		c.a.CompareAndSwap(w, uint64(n+top)^sign)
	}
}

// takeBucket is Take (charge) or Peek.
func (l *Limit) takeBucket(c *Cell, now, cost int64, charge bool) (Verdict, bool) {
	n := l.parts(now)
	top := l.top()
	for {
		w, tat, live := l.empty(c, n)
		if !live {
			return Verdict{}, false
		}
		debt := tat - n
		if cost == 0 {
			v := l.level(debt)
			v.OK = true
			return v, true
		}
		if cost > l.Capacity+l.Queue {
			v := l.level(debt)
			v.Retry = Never
			return v, true
		}
		add := cost * l.Den
		if over := debt + add - top; over > 0 {
			v := l.level(debt)
			v.Retry = l.leak(over)
			return v, true
		}
		if charge && !c.a.CompareAndSwap(w, uint64(tat+add)^sign) {
			continue
		}
		v := l.level(debt + add)
		v.OK = true
		if l.Queue > 0 {
			v.Delay = l.leak(max(debt+add-l.Capacity*l.Den, 0))
		}
		return v, true
	}
}

// level is the verdict's part that follows from the debt.
func (l *Limit) level(debt int64) Verdict {
	return Verdict{Remaining: max(l.Capacity-ceil(debt, l.Den), 0), Reset: l.leak(debt)}
}

// leak is how long parts take to leak, in whole ticks.
func (l *Limit) leak(parts int64) time.Duration {
	if l.Num == 1 { // the usual rates: spares a division
		return time.Duration(parts) * l.Tick
	}
	return time.Duration(ceil(parts, l.Num)) * l.Tick
}

func (l *Limit) refundBucket(c *Cell, now, cost int64) {
	n := l.parts(now)
	back := min(cost, 2*l.Capacity+l.Queue) * l.Den
	for {
		w, tat, live := l.empty(c, n)
		if !live || tat == n || c.a.CompareAndSwap(w, uint64(max(tat-back, n))^sign) {
			return
		}
	}
}

func (l *Limit) forceBucket(c *Cell, now, cost int64) bool {
	n := l.parts(now)
	for {
		w, tat, live := l.empty(c, n)
		if !live {
			return false
		}
		next := max(tat, min(tat+cost*l.Den, n+2*l.Capacity*l.Den))
		if next == tat || c.a.CompareAndSwap(w, uint64(next)^sign) {
			return true
		}
	}
}

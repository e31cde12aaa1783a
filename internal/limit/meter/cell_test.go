package meter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// names are the algorithms that measure time.
var names = map[Algorithm]string{
	TokenBucket: "token bucket", LeakyBucket: "leaky bucket", FixedWindow: "fixed window",
	SlidingWindow: "sliding window", SlidingLog: "sliding log",
}

// each runs a property for every algorithm that measures time.
func each(t *testing.T, property func(t *rapid.T, a Algorithm)) {
	for a := TokenBucket; a < Concurrency; a++ {
		t.Run(names[a], func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { property(t, a) })
		})
	}
}

// drawGap draws the time to the next request of a limit: none, a few ticks, about
// one request's share of the time, or up to two windows.
func drawGap(t *rapid.T, l *Limit) int64 {
	spread := int64(l.Spread())
	return rapid.OneOf(
		rapid.Just(int64(0)),
		rapid.Int64Range(0, 3*int64(l.Tick)),
		rapid.Int64Range(0, 2*spread/(l.Capacity/l.Scale)),
		rapid.Int64Range(0, 2*spread),
	).Draw(t, "gap")
}

// drawCost draws a cost in units: mostly one request, sometimes parts or many or
// more than fits.
func drawCost(t *rapid.T, l *Limit) int64 {
	return rapid.OneOf(
		rapid.Just(l.Scale), rapid.Just(l.Scale),
		rapid.Int64Range(0, 2*l.Scale),
		rapid.Int64Range(0, l.Capacity+l.Queue+1),
	).Draw(t, "cost")
}

// units are those of the key's first 20 to 60 steps.
func steps(t *rapid.T) int { return rapid.IntRange(20, 60).Draw(t, "steps") }

// copied is an independent copy of a cell.
func copied(c *Cell) *Cell {
	n := new(Cell)
	n.a.Store(c.a.Load())
	n.b.Store(c.b.Load())
	if r := c.log.Load(); r != nil {
		n.log.Store(&ring{retired: r.retired, pairs: append([]pair(nil), r.pairs...), head: r.head, n: r.n, sum: r.sum, last: r.last})
	}
	return n
}

// modelOf is the algorithm's model.
func modelOf(l *Limit, units int64, per time.Duration) model {
	f := fixedModel{capacity: l.Capacity, window: l.Window}
	switch l.Algorithm {
	case FixedWindow:
		return &f
	case SlidingWindow:
		return (*slidingModel)(&f)
	case SlidingLog:
		return (*logModel)(&f)
	default:
		return newBucketModel(l, units, per)
	}
}

// TestTakeIsTheModel: over any history in order, Take admits what the definition
// admits, and leaves what it leaves. The sliding log only with whole requests, see
// TestSlidingLogWithFractions.
func TestTakeIsTheModel(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		scale := int64(1000)
		if a == SlidingLog {
			scale = 1
		}
		l, units, per := drawLimit(t, a, scale)
		m := modelOf(&l, units, per)
		var c Cell
		now := at + rapid.Int64Range(0, int64(days)).Draw(t, "start")
		for range steps(t) {
			now += drawGap(t, &l)
			cost := drawCost(t, &l)
			want := l.Peek(&c, now, cost)
			v, live := l.Take(&c, now, cost)
			if !live || v != want {
				t.Fatalf("Peek said %+v, Take %+v", want, v)
			}
			if ok, left := m.take(l.tick(now), cost); v.OK != ok || v.Remaining != left {
				t.Fatalf("%+v at %d, cost %d: %+v; the model says %v, %d left", l, now, cost, v, ok, left)
			}
			if b, ok := m.(*bucketModel); ok {
				checkBucketTimes(t, &l, b, v)
			}
			checkRetry(t, &l, &c, now, cost)
		}
	})
}

// checkRetry: a refused cost is admitted after exactly Retry and not one tick
// sooner; after Retry in whole seconds, rounded up as in Retry-After, and not one
// second sooner.
func checkRetry(t rapid.TB, l *Limit, c *Cell, now, cost int64) {
	t.Helper()
	v := l.Peek(c, now, cost)
	if v.OK || v.Retry == Never {
		return
	}
	seconds := (v.Retry + time.Second - 1).Truncate(time.Second)
	for _, tc := range []struct {
		wait time.Duration
		ok   bool
	}{
		{seconds - time.Second, false}, {v.Retry - l.Tick, false}, {v.Retry, true}, {seconds, true},
	} {
		if got := l.Peek(copied(c), now+int64(tc.wait), cost); got.OK != tc.ok {
			t.Fatalf("%+v at %d, cost %d: %+v; waiting %v: %+v", *l, now, cost, v, tc.wait, got)
		}
	}
}

// TestErrorAgainstTheExactLog: how much more than the exact log each algorithm can
// admit, over any history: the sum of what was admitted in any stretch of time, and
// so in any window, is within the bound that its file states.
func TestErrorAgainstTheExactLog(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		l, _, _ := drawLimit(t, a, 1000)
		var c Cell
		var log []logged
		now := at
		for range 2 * steps(t) {
			now += drawGap(t, &l)
			cost := drawCost(t, &l)
			if v, _ := l.Take(&c, now, cost); v.OK {
				log = append(log, logged{l.tick(now), cost})
			}
		}
		checkBound(t, &l, log)
	})
}

// checkBound checks every stretch of time between two admissions.
func checkBound(t rapid.TB, l *Limit, log []logged) {
	t.Helper()
	for i := range log {
		var n int64
		for j := i; j < len(log); j++ {
			n += log[j].cost
			T := log[j].tick - log[i].tick
			within := true
			switch l.Algorithm {
			case TokenBucket, LeakyBucket:
				within = n*l.Den <= l.top()+T*l.Num
			case FixedWindow:
				within = T >= l.Window || n <= 2*l.Capacity
			case SlidingWindow:
				within = T > l.Window || n*l.Window <= l.Capacity*(l.Window+T)
			case SlidingLog:
				within = T >= l.Window || n <= l.Capacity
			}
			if !within {
				t.Fatalf("%+v: %d units in %d ticks", *l, n, T)
			}
		}
	}
}

// TestWorstCase drives each algorithm to the edge of its bound: all that fits just
// before a turn, then all that fits for one window more.
func TestWorstCase(t *testing.T) {
	for _, tc := range []struct {
		l    Limit
		most int64 // units admitted within one window
	}{
		{must(t, TokenBucket, 60, time.Minute, Options{Burst: 40}), 40 + 59},
		{must(t, TokenBucket, 60, time.Minute, Options{Burst: 1}), 1 + 59},
		{must(t, LeakyBucket, 60, time.Minute, Options{Burst: 40, Queue: 5}), 40 + 5 + 59},
		{must(t, FixedWindow, 60, time.Minute, Options{}), 2 * 60},
		{must(t, SlidingWindow, 60, time.Minute, Options{}), 2*60 - 1},
		{must(t, SlidingLog, 60, time.Minute, Options{}), 60},
	} {
		var c Cell
		var n int64
		start := at - at%int64(time.Minute) + int64(time.Minute) - int64(tc.l.Tick)
		for now := start; now < start+int64(time.Minute); now += int64(time.Minute) / 600 {
			for {
				if v, _ := tc.l.Take(&c, now, 1); !v.OK {
					break
				}
				n++
			}
		}
		if n != tc.most {
			t.Errorf("%s: %d admitted in one window, want %d", names[tc.l.Algorithm], n, tc.most)
		}
	}
}

// TestRefundIsAsIfNeverTaken: a Take refunded at once leaves no trace, whatever
// came before; a refused one has none to leave.
func TestRefundIsAsIfNeverTaken(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		l, _, _ := drawLimit(t, a)
		var c Cell
		now := at
		for range steps(t) {
			now += drawGap(t, &l)
			cost := drawCost(t, &l)
			before := copied(&c)
			v, _ := l.Take(&c, now, cost)
			if !rapid.Bool().Draw(t, "refund") {
				continue
			}
			if v.OK {
				l.Refund(&c, now, cost)
			}
			for _, probe := range []int64{1, l.Scale, l.Capacity} {
				later := now + drawGap(t, &l)
				if got, want := l.Peek(copied(&c), later, probe), l.Peek(copied(before), later, probe); got.OK != want.OK || got.Remaining != want.Remaining || got.Retry != want.Retry {
					t.Fatalf("%+v, cost %d: after a refund %+v, without %+v", l, probe, got, want)
				}
			}
		}
	})
}

func TestRefundAndForceBounds(t *testing.T) {
	for a := TokenBucket; a <= Concurrency; a++ {
		l := must(t, a, 10, time.Minute, Options{})
		l.Capacity = 10
		if l.Den > 0 {
			l = must(t, a, 10, time.Minute, Options{Burst: 10})
		}
		var c Cell
		l.Refund(&c, at, 5)
		if n := l.Used(&c, at); n != 0 {
			t.Errorf("%d: refund of nothing: %d used", a, n)
		}
		for _, want := range []int64{8, 16, 20, 20} {
			if !l.Force(&c, at, 8) || l.Used(&c, at) != want {
				t.Errorf("%d: forced to %d, want %d", a, l.Used(&c, at), want)
			}
		}
		if v, _ := l.Take(&c, at, 1); v.OK || v.Remaining != 0 || v.Retry <= 0 {
			t.Errorf("%d: above the limit: %+v", a, v)
		}
		if v, _ := l.Take(&c, at, 0); !v.OK || v.Retry != 0 {
			t.Errorf("%d: cost 0 above the limit: %+v", a, v)
		}
		if a != Concurrency {
			checkRetry(t, &l, &c, at, 1)
		}
		l.Refund(&c, at, 15)
		if n := l.Used(&c, at); n != 5 {
			t.Errorf("%d: %d used after the refund, want 5", a, n)
		}
		l.Refund(&c, at, 1<<62)
		if n := l.Used(&c, at); n != 0 || !l.Retire(&c, at, false) {
			t.Errorf("%d: %d used after the last refund, or not retired", a, n)
		}
		l.Refund(&c, at, 1)
		if l.Force(&c, at, 1) || l.Used(&c, at) != 0 || !l.Peek(&c, at, 10).OK || !l.Retire(&c, at, false) {
			t.Errorf("%d: a retired cell lives", a)
		}
	}
}

func TestConcurrency(t *testing.T) {
	l := must(t, Concurrency, 3, 0, Options{})
	var c Cell
	for i, want := range []Verdict{
		{OK: true, Remaining: 2}, {OK: true, Remaining: 1}, {OK: true}, {Retry: time.Second},
	} {
		if v, live := l.Take(&c, at, 1); v != want || !live {
			t.Errorf("%d: %+v, want %+v", i, v, want)
		}
	}
	l.Refund(&c, at, 1)
	if v := l.Peek(&c, at+int64(days), 2); v != (Verdict{Remaining: 1, Retry: time.Second}) {
		t.Errorf("two of one: %+v", v)
	}
	if v := l.Peek(&c, at, 4); v.Retry != Never {
		t.Errorf("four of three: %+v", v)
	}
	if l.Retire(&c, at, false) || !l.Retire(&c, at, true) {
		t.Error("retired in use, or not at all")
	}
}

func TestUsedAndRetire(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		l, _, _ := drawLimit(t, a, 1000)
		var c Cell
		now := at
		for range 5 {
			now += drawGap(t, &l)
			l.Take(&c, now, drawCost(t, &l))
		}
		now += drawGap(t, &l)
		used := l.Used(&c, now)
		if v := l.Peek(&c, now, 0); used <= l.Capacity && v.Remaining != l.Capacity-used {
			t.Fatalf("%d used, %+v", used, v)
		}
		if retired := l.Retire(&c, now, false); retired != (used == 0) {
			t.Fatalf("%d used, retired: %v", used, retired)
		}
		forgotten := now + 3*int64(l.Spread()+time.Duration(l.Queue)*l.Spread()/time.Duration(l.Capacity))
		if !l.Retire(&c, forgotten, false) {
			t.Fatalf("%d used after three windows", l.Used(&c, forgotten))
		}
	})
}

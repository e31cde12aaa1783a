package meter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// patience is the longest that a cost which fits may be refused after the clock
// was set back, see Cell: once what the limit itself may ask for, and once more for
// the step.
func patience(l *Limit) time.Duration {
	spread := time.Duration(ceil(l.Capacity+l.Queue, l.Capacity)) * l.Spread()
	if spread < time.Second {
		return 3*spread + time.Second // in whole windows
	}
	return 3 * spread
}

// TestClockSetBack: wherever the clock goes, and however far, a cost is never
// refused for longer than one refill or window more than the limit itself asks
// for, and what Retry says stays true.
func TestClockSetBack(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		l, _, _ := drawLimit(t, a, 1000)
		var c Cell
		now := at
		for range steps(t) / 2 {
			now += drawGap(t, &l)
			l.Take(&c, now, drawCost(t, &l))
		}
		for range 3 {
			now -= rapid.OneOf(
				rapid.Int64Range(0, 2*int64(l.Tick)),
				rapid.Int64Range(0, 3*int64(l.Spread())),
				rapid.Int64Range(0, 8*year),
			).Draw(t, "back")
			cost := rapid.Int64Range(1, l.Capacity).Draw(t, "cost")
			v := l.Peek(&c, now, cost)
			if v.Retry < 0 || v.Retry > patience(&l) {
				t.Fatalf("%+v: refused for %v: %+v", l, v.Retry, v)
			}
			checkRetry(t, &l, &c, now, cost)
			if w, live := l.Take(&c, now, cost); w != v || !live {
				t.Fatalf("Peek said %+v, Take %+v", v, w)
			}
			now += int64(l.Peek(&c, now, cost).Retry)
			if v, _ := l.Take(&c, now, cost); !v.OK {
				t.Fatalf("%+v: still refused: %+v", l, v)
			}
			if used := l.Used(&c, now); used > l.Capacity+l.Queue {
				t.Fatalf("%+v: %d used", l, used)
			}
		}
	})
}

// TestClockSetBackIsForgotten: looking is enough to move a cell to the new time, so
// that one refused over and over is not refused until the old time comes again.
func TestClockSetBackIsForgotten(t *testing.T) {
	for a := TokenBucket; a < Concurrency; a++ {
		l := must(t, a, 10, time.Second, Options{})
		var c Cell
		l.Take(&c, at, 10)
		now, waited := at-int64(days), time.Duration(0)
		for ; !l.Peek(&c, now, 1).OK; waited += 10 * time.Millisecond {
			now += 10 * ms
			if waited > patience(&l) {
				t.Fatalf("%s: still refused after %v", names[a], waited)
			}
		}
	}
}

// TestClockSetForward gives at most one capacity.
func TestClockSetForward(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		l, _, _ := drawLimit(t, a)
		var c Cell
		now := at
		for range steps(t) / 2 {
			now += drawGap(t, &l)
			l.Take(&c, now, drawCost(t, &l))
		}
		now += rapid.Int64Range(0, 8*year).Draw(t, "forward")
		var n int64
		for range 2*(l.Capacity+l.Queue) + 1 {
			if n > 3000 {
				t.Skip("large")
			}
			if v, _ := l.Take(&c, now, 1); !v.OK {
				break
			}
			n++
		}
		if n > l.Capacity+l.Queue {
			t.Fatalf("%+v: %d admitted at once", l, n)
		}
	})
}

// TestClockForthAndBack: each jump ahead gives at most one capacity, and coming back
// gives nothing.
func TestClockForthAndBack(t *testing.T) {
	for a := TokenBucket; a < Concurrency; a++ {
		for _, jump := range []time.Duration{time.Second, time.Minute, time.Hour, 100 * days} {
			l := must(t, a, 10, time.Minute, Options{})
			if l.Den > 0 {
				l = must(t, a, 10, time.Minute, Options{Burst: 10})
			}
			var c Cell
			var n int64
			for i := range int64(100) {
				for range 20 {
					if v, _ := l.Take(&c, at+i%2*int64(jump), 1); v.OK {
						n++
					}
				}
			}
			if n > 10*(1+50) {
				t.Errorf("%s: %d admitted with 50 jumps of %v", names[a], n, jump)
			}
		}
	}
}

// TestDisorderAdmitsNoMoreThanOrder: times that come late, by up to a window or a
// second, are counted as if they had come in order, at the time of the newest
// charge: so all bounds of order hold.
func TestDisorderAdmitsNoMoreThanOrder(t *testing.T) {
	each(t, func(t *rapid.T, a Algorithm) {
		l, _, _ := drawLimit(t, a, 1000)
		var c Cell
		var log []logged
		now, newest := at, int64(0)
		sums := map[int64]int64{}
		for range 2 * steps(t) {
			now += drawGap(t, &l)
			late := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, max(second, int64(l.Spread())))).Draw(t, "late")
			cost := drawCost(t, &l)
			v, _ := l.Take(&c, now-late, cost)
			if a == SlidingLog { // remembers what it has seen, the others what they charged
				newest = max(newest, now-late)
			}
			if v.OK && cost > 0 {
				newest = max(newest, now-late)
				log = append(log, logged{l.tick(newest), cost})
				sums[l.Index(newest)] += cost
			}
			checkRetry(t, &l, &c, now-late, cost)
		}
		checkBound(t, &l, log)
		for index, n := range sums {
			if (a == FixedWindow || a == SlidingWindow) && n > l.Capacity {
				t.Fatalf("%+v: %d units in window %d", l, n, index)
			}
		}
	})
}

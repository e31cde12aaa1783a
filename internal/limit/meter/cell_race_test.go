package meter

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// together runs f in n goroutines that start at once, and waits for them.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// TestAtOnce: at one instant, goroutines on all cores get exactly the capacity,
// whatever they are refunded in between.
func TestAtOnce(t *testing.T) {
	for a := TokenBucket; a <= Concurrency; a++ {
		l := must(t, a, 1000, time.Second, Options{})
		var c Cell
		var admitted, refused atomic.Int64
		together(16, func(i int) {
			for j := range 500 {
				v, live := l.Take(&c, at, 1)
				switch {
				case !live:
					t.Error("not live")
				case !v.OK:
					refused.Add(1)
				case j%5 == 0:
					l.Refund(&c, at, 1)
				default:
					admitted.Add(1)
				}
			}
		})
		for {
			if v, _ := l.Take(&c, at, 1); !v.OK {
				break
			}
			admitted.Add(1)
		}
		if admitted.Load() != 1000 {
			t.Errorf("algorithm %d: %d admitted, %d refused, want 1000 admitted", a, admitted.Load(), refused.Load())
		}
	}
}

// TestMovingTime: goroutines share a clock that moves with every request; each
// reads it, may be held up for up to a second, and takes. All bounds hold on the
// total, and a bucket that is never empty lets through to the unit what has leaked.
func TestMovingTime(t *testing.T) {
	const per, gap = 10 * time.Millisecond, 25 * time.Microsecond
	for a := TokenBucket; a < Concurrency; a++ {
		l := must(t, a, 100, per, Options{})
		l.Capacity = 100
		var c Cell
		var clock, total atomic.Int64
		start := at - at%second
		clock.Store(start)
		l.Take(&c, start, 1)
		total.Store(1)
		// 16 · 2000 requests in 0.8 s of fake time, four times the limit.
		together(16, func(i int) {
			for j := range 2000 {
				now := clock.Add(int64(gap))
				if j%7 == i%7 {
					runtime.Gosched()
				}
				if v, _ := l.Take(&c, now, 1); v.OK {
					total.Add(1)
				}
			}
		})
		end, got := clock.Load(), total.Load()
		leaked := (end - start) / int64(per/100)
		if l.Den > 0 && got != leaked+l.Used(&c, end) {
			t.Errorf("%s: %d admitted, but %d leaked and %d owed", names[a], got, leaked, l.Used(&c, end))
		}
		if most := leaked + 100; got > most || got < most/2 {
			t.Errorf("%s: %d admitted, want at most %d and not much less", names[a], got, most)
		}
	}
}

// TestSlotsAtOnce: never more at work than the limit.
func TestSlotsAtOnce(t *testing.T) {
	l := must(t, Concurrency, 3, 0, Options{})
	var c Cell
	var working, most atomic.Int64
	together(8, func(int) {
		for range 2000 {
			if v, _ := l.Take(&c, at, 1); !v.OK {
				continue
			}
			n := working.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			runtime.Gosched()
			working.Add(-1)
			l.Refund(&c, at, 1)
		}
	})
	if most.Load() > 3 || l.Used(&c, at) != 0 {
		t.Errorf("%d at work at once, %d left behind", most.Load(), l.Used(&c, at))
	}
}

// TestRetireAgainstTake: a charge and a retirement at once: one of them wins, and a
// cell that was not retired has the charge. The sliding window's two words are met
// on either side of a window's turn.
func TestRetireAgainstTake(t *testing.T) {
	for a := TokenBucket; a <= Concurrency; a++ {
		l := must(t, a, 10, time.Second, Options{})
		for i := range int64(2000) {
			var c Cell
			var charged, gone bool
			now := at - at%second + i%2*second
			together(2, func(who int) {
				if who == 0 {
					_, charged = l.Take(&c, now, 1)
				} else {
					gone = l.Retire(&c, now-i%3*second/2, false)
				}
			})
			_, live := l.Take(&c, now, 0)
			if charged == gone || live == gone {
				t.Fatalf("algorithm %d: charged %v, retired %v, live %v", a, charged, gone, live)
			}
			if charged && l.Used(&c, now) != 1 {
				t.Fatalf("algorithm %d: %d used", a, l.Used(&c, now))
			}
		}
	}
}

// TestHalfRetired: between its two words a sliding window's retirement is already
// seen, and only one that may lose charges goes on with another's.
func TestHalfRetired(t *testing.T) {
	l := must(t, SlidingWindow, 10, time.Second, Options{})
	for _, half := range []int64{0, 1} {
		var c Cell
		l.Take(&c, at, 1)
		c.slot(half).Store(retired)
		if _, live := l.Take(&c, at, 1); live || l.Force(&c, at, 1) || l.Used(&c, at) != 0 {
			t.Errorf("word %d retired, but live", half)
		}
		l.Refund(&c, at, 1)
		if half == 0 && l.Retire(&c, at, false) {
			t.Error("two retired one cell")
		}
		if !l.Retire(&c, at, true) || c.a.Load() != retired || c.b.Load() != retired {
			t.Errorf("word %d retired: the other one is not", half)
		}
	}
}

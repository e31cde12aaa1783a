package meter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSlidingLog(t *testing.T) {
	const s = time.Second
	l := must(t, SlidingLog, 4, 10*s, Options{})
	runSteps(t, &l, at, []step{
		{0, 1, Verdict{OK: true, Remaining: 3, Reset: 10 * s}},
		{3 * s, 2, Verdict{OK: true, Remaining: 1, Reset: 10 * s}},
		{s, 1, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},
		{s, 1, Verdict{Remaining: 0, Reset: 9 * s, Retry: 5 * s}},
		{0, 2, Verdict{Remaining: 0, Reset: 9 * s, Retry: 8 * s}},
		{0, 4, Verdict{Remaining: 0, Reset: 9 * s, Retry: 9 * s}},
		{0, 5, Verdict{Remaining: 0, Reset: 9 * s, Retry: Never}},
		{0, 0, Verdict{OK: true, Remaining: 0, Reset: 9 * s}},
		{5 * s, 1, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},
		{10 * s, 0, Verdict{OK: true, Remaining: 4}},
		{0, 4, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},
	})
}

// TestSlidingLogWithFractions: with costs of parts of requests the ring is bounded
// by the requests; merging the newest keeps it strict, its sum true, and Retry too.
func TestSlidingLogWithFractions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := New(SlidingLog, rapid.Int64Range(1, 8).Draw(t, "n"), 10*time.Second, Options{Scale: 1000})
		if err != nil {
			t.Fatal(err)
		}
		var c Cell
		var log []logged
		now := at
		for range 100 {
			now += rapid.Int64Range(0, int64(time.Second)).Draw(t, "gap")
			cost := rapid.Int64Range(0, 1200).Draw(t, "cost")
			v, _ := l.Take(&c, now, cost)
			tick := l.tick(now)
			if v.OK {
				log = append(log, logged{tick, cost})
			}
			used, exact := l.Used(&c, now), sum(log, tick-l.Window, tick)
			if used < exact || used > l.Capacity || v.Remaining != l.Capacity-used {
				t.Fatalf("%d counted, %d in the window, %+v", used, exact, v)
			}
			if r := c.log.Load(); r != nil && (r.n > int(l.Capacity/l.Scale) || len(r.pairs) > max(int(l.Capacity/l.Scale), 1)) {
				t.Fatalf("%d pairs of room for %d", r.n, len(r.pairs))
			}
			checkRetry(t, &l, &c, now, cost)
		}
		checkBound(t, &l, log)
	})
}

// TestSlidingLogRefundsTheRightOne: giving back an older charge leaves the younger
// ones in the window for their full time, and the room of its pair free.
func TestSlidingLogRefundsTheRightOne(t *testing.T) {
	l := must(t, SlidingLog, 3, 10*time.Second, Options{})
	var c Cell
	for i := range int64(3) {
		l.Take(&c, at+i*second, 1)
	}
	l.Refund(&c, at+second, 1)
	if v, _ := l.Take(&c, at+3*second, 1); !v.OK {
		t.Fatalf("after the refund: %+v", v)
	}
	for i, want := range []time.Duration{7 * time.Second, 9 * time.Second, 10 * time.Second} {
		if v := l.Peek(&c, at+3*second, int64(i+1)); v.Retry != want {
			t.Errorf("%d more: %+v, want Retry %v", i+1, v, want)
		}
	}
}

func TestSlidingLogSize(t *testing.T) {
	l := must(t, SlidingLog, maxLog, time.Hour, Options{Scale: 1000})
	var c Cell
	for i := range int64(3 * maxLog) {
		l.Take(&c, at+i*ms, 500)
	}
	if r := c.log.Load(); len(r.pairs) != maxLog || r.n != maxLog {
		t.Errorf("%d pairs of room for %d, want %d", r.n, len(r.pairs), maxLog)
	}
	l.Retire(&c, at, true)
	if r := c.log.Load(); r.pairs != nil {
		t.Error("a retired log keeps its pairs")
	}
}

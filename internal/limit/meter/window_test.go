package meter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFixedWindow(t *testing.T) {
	const s = time.Second
	l := must(t, FixedWindow, 3, 10*s, Options{})
	start := at - at%int64(10*s) + int64(4*s)
	runSteps(t, &l, start, []step{
		{0, 2, Verdict{OK: true, Remaining: 1, Reset: 6 * s}},
		{s, 2, Verdict{Remaining: 1, Reset: 5 * s, Retry: 5 * s}},
		{0, 1, Verdict{OK: true, Remaining: 0, Reset: 5 * s}},
		{0, 4, Verdict{Remaining: 0, Reset: 5 * s, Retry: Never}},
		{5*s - 1, 1, Verdict{Remaining: 0, Reset: time.Microsecond, Retry: time.Microsecond}},
		{1, 3, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},
		{0, 0, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},
	})
}

func TestSlidingWindow(t *testing.T) {
	const s = time.Second
	l := must(t, SlidingWindow, 10, 10*s, Options{})
	start := at - at%int64(10*s)
	runSteps(t, &l, start, []step{
		{0, 8, Verdict{OK: true, Remaining: 2, Reset: 10 * s}},
		{5 * s, 3, Verdict{Remaining: 2, Reset: 5 * s, Retry: 6250 * time.Millisecond}}, // 8·(10-1.25) = 70
		{5 * s, 2, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},                      // 8 + 2
		{0, 1, Verdict{Remaining: 0, Reset: 10 * s, Retry: 1250 * time.Millisecond}},
		{5 * s, 4, Verdict{OK: true, Remaining: 0, Reset: 5 * s}}, // 4 + 6
		{0, 10, Verdict{Remaining: 0, Reset: 5 * s, Retry: 15 * s}},
		{0, 11, Verdict{Remaining: 0, Reset: 5 * s, Retry: Never}},
		{15 * s, 10, Verdict{OK: true, Remaining: 0, Reset: 10 * s}},
	})
}

// TestSlidingWindowError: the estimate is off the exact count by no more than the
// share of the last window's counter that it guesses about: above by what overlaps,
// below by what does not.
func TestSlidingWindowError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, _, _ := drawLimit(t, SlidingWindow)
		var c Cell
		var log []logged
		now := at
		for range 2 * steps(t) {
			now += drawGap(t, &l)
			cost := drawCost(t, &l)
			if v, _ := l.Take(&c, now, cost); v.OK {
				log = append(log, logged{l.tick(now), cost})
			}
			s, _ := l.sliding(&c, now)
			tick := l.tick(now)
			exact := sum(log, tick-l.Window, tick) * l.Window
			if s.used-exact > s.prev*(l.Window-s.pos) || exact-s.used > s.prev*s.pos {
				t.Fatalf("%+v: estimate %d, exact %d, prev %d at %d of %d", l, s.used, exact, s.prev, s.pos, l.Window)
			}
		}
	})
}

func TestCalendar(t *testing.T) {
	for _, tc := range []struct {
		period    Period
		now, ends string
		same      bool // as the window of the row before
	}{
		{Day, "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z", false},
		{Day, "2026-11-25T23:59:59.999999999Z", "2026-11-26T00:00:00Z", true},
		{Day, "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z", false},
		{Day, "2028-02-29T12:00:00Z", "2028-03-01T00:00:00Z", false},
		{Week, "1970-01-01T00:00:00Z", "1970-01-05T00:00:00Z", false},
		{Week, "1970-01-05T00:00:00Z", "1970-01-12T00:00:00Z", false},
		{Week, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z", false},
		{Week, "2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z", true},
		{Week, "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z", false},
		{Week, "2026-12-31T00:00:00Z", "2027-01-04T00:00:00Z", false},
		{Week, "2027-01-01T00:00:00Z", "2027-01-04T00:00:00Z", true},
		{Month, "1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z", false},
		{Month, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", false},
		{Month, "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z", true},
		{Month, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", false},
		{Month, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z", false},
		{Month, "2028-02-29T23:59:59Z", "2028-03-01T00:00:00Z", true},
	} {
		l := must(t, FixedWindow, 5, 0, Options{Period: tc.period})
		now, _ := time.Parse(time.RFC3339Nano, tc.now)
		ends, _ := time.Parse(time.RFC3339Nano, tc.ends)
		// The end is told in whole microseconds, rounded up.
		want := ends.Sub(now.Truncate(time.Microsecond))
		var c Cell
		v, _ := l.Take(&c, now.UnixNano(), 5)
		if l.Ends(now.UnixNano()) != want || v.Reset != want {
			t.Errorf("%d %s: ends in %v, Reset %v, want %v", tc.period, tc.now, l.Ends(now.UnixNano()), v.Reset, want)
		}
		checkRetry(t, &l, &c, now.UnixNano(), 1)
		index := l.Index(now.UnixNano())
		if index != l.Index(ends.UnixNano()-1) || index+1 != l.Index(ends.UnixNano()) {
			t.Errorf("%d %s: window %d does not end at %s", tc.period, tc.now, index, tc.ends)
		}
		if tc.same && l.Index(now.Add(-time.Nanosecond).UnixNano()) != index {
			t.Errorf("%d %s: not the window of the row before", tc.period, tc.now)
		}
	}
}

func TestIndexOfWindows(t *testing.T) {
	l := must(t, SlidingWindow, 5, 90*time.Second, Options{})
	if got := l.Index(at); got != at/int64(90*time.Second) {
		t.Errorf("window %d", got)
	}
	b := must(t, TokenBucket, 5, time.Second, Options{})
	if b.Index(at) != 0 || b.Ends(at) != 0 {
		t.Error("a bucket has a window")
	}
}

func TestSaveAndLoad(t *testing.T) {
	l := must(t, FixedWindow, 10, 0, Options{Period: Month})
	var c Cell
	if i, n := l.Save(&c); i != 0 || n != 0 {
		t.Errorf("never charged: %d, %d", i, n)
	}
	l.Take(&c, at, 7)
	index, count := l.Save(&c)
	if index != l.Index(at) || count != 7 {
		t.Errorf("saved %d, %d, want %d, 7", index, count, l.Index(at))
	}
	var d Cell
	l.Load(&d, index, count)
	if v := l.Peek(&d, at, 1); !v.OK || v.Remaining != 2 {
		t.Errorf("loaded: %+v", v)
	}
	if v := l.Peek(&d, at+int64(l.Ends(at)), 10); !v.OK {
		t.Errorf("the next month: %+v", v)
	}
	l.Load(&d, index, 25) // the limit was higher when it was saved
	if v := l.Peek(&d, at, 1); v.OK || v.Remaining != 0 || v.Retry != l.Ends(at) {
		t.Errorf("above the limit: %+v", v)
	}
	l.Load(&d, index, 1<<62)
	if n := l.Used(&d, at); n != 2*maxCount {
		t.Errorf("%d used, want the most that is kept", n)
	}
	l.Load(&d, index, -1)
	if n := l.Used(&d, at); n != 0 {
		t.Errorf("%d used", n)
	}
	l.Retire(&d, at, true)
	l.Load(&d, index, 3)
	if i, n := l.Save(&d); i != 0 || n != 0 {
		t.Errorf("a retired cell is %d, %d", i, n)
	}
}

// TestIdleWindows: a counter left alone for any time up to its 2^23 windows counts
// nothing.
func TestIdleWindows(t *testing.T) {
	for _, a := range []Algorithm{FixedWindow, SlidingWindow} {
		rapid.Check(t, func(t *rapid.T) {
			l, err := New(a, 5, time.Second, Options{})
			if err != nil {
				t.Fatal(err)
			}
			now := rapid.Int64Range(0, 3_000_000_000).Draw(t, "second") * second
			idle := rapid.OneOf(rapid.Int64Range(2, 10), rapid.Int64Range(2, 1<<23-2)).Draw(t, "idle") * second
			var c Cell
			l.Take(&c, now, 3)
			l.Take(&c, now+second, 1)
			if n := l.Used(&c, now+second+idle); n != 0 && now+second+idle < latest {
				t.Fatalf("%d used after %d windows", n, idle/second)
			}
		})
	}
}

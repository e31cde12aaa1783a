package meter

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// at is the start of most tests, 2026-11-25T02:00:00.123456789Z.
var at = time.Date(2026, 11, 25, 2, 0, 0, 123456789, time.UTC).UnixNano()

const (
	days = 24 * time.Hour
	ms   = int64(time.Millisecond)
)

func must(t testing.TB, a Algorithm, n int64, per time.Duration, o Options) Limit {
	t.Helper()
	l, err := New(a, n, per, o)
	if err != nil {
		t.Fatalf("New(%d, %d, %v, %+v): %v", a, n, per, o, err)
	}
	return l
}

func TestNewChoosesTheFinestExactTick(t *testing.T) {
	for _, tc := range []struct {
		name     string
		n        int64
		per      time.Duration
		o        Options
		tick     time.Duration
		num, den int64
		capacity int64
	}{
		{"100/s", 100, time.Second, Options{}, time.Microsecond, 1, 10_000, 100},
		{"100/s burst 200", 100, time.Second, Options{Burst: 200}, time.Microsecond, 1, 10_000, 200},
		{"100/s in thousandths", 100, time.Second, Options{Scale: 1000}, time.Microsecond, 1, 10, 100_000},
		{"300/90s", 300, 90 * time.Second, Options{}, time.Microsecond, 1, 300_000, 4},
		{"999983/d", 999983, days, Options{}, time.Millisecond, 999983, 86_400_000, 12},
		{"999983/d in thousandths", 999983, days, Options{Scale: 1000}, time.Millisecond, 999983, 86_400, 12_000},
		{"1000003/7d", 1000003, 7 * days, Options{}, time.Millisecond, 1000003, 604_800_000, 2},
		{"1/d", 1, days, Options{}, time.Microsecond, 1, 86_400_000_000, 1},
		{"1/d burst 10000", 1, days, Options{Burst: 10_000}, time.Microsecond, 1, 86_400_000_000, 10_000},
		{"7/d burst 60000", 7, days, Options{Burst: 60_000}, 10 * time.Microsecond, 7, 8_640_000_000, 60_000},
		{"1000000/s", 1_000_000, time.Second, Options{}, time.Microsecond, 1, 1, 1_000_000},
		{"1000000007/s", 1_000_000_007, time.Second, Options{}, time.Second, 1_000_000_007, 1, 1_000_000_007},
	} {
		l := must(t, TokenBucket, tc.n, tc.per, tc.o)
		if l.Tick != tc.tick || l.Num != tc.num || l.Den != tc.den || l.Capacity != tc.capacity {
			t.Errorf("%s: tick %v, %d/%d, capacity %d; want %v, %d/%d, %d",
				tc.name, l.Tick, l.Num, l.Den, l.Capacity, tc.tick, tc.num, tc.den, tc.capacity)
		}
	}
	w := must(t, SlidingWindow, 1_000_000, time.Hour, Options{})
	if w.Tick != 10*time.Microsecond || w.Window != 360_000_000 {
		t.Errorf("1000000/h: tick %v, window %d", w.Tick, w.Window)
	}
	w = must(t, FixedWindow, maxCount, 36*time.Hour+time.Millisecond, Options{}) // nothing is multiplied
	if w.Tick != time.Millisecond || w.Window != 129_600_001 {
		t.Errorf("2^38/36h: tick %v, window %d", w.Tick, w.Window)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		a    Algorithm
		n    int64
		per  time.Duration
		o    Options
		want string
	}{
		{9, 1, 1, Options{}, "no algorithm 9"},
		{TokenBucket, 0, time.Second, Options{}, "at least 1"},
		{TokenBucket, -5, time.Second, Options{}, "at least 1"},
		{TokenBucket, 1, 0, Options{}, "must be positive"},
		{SlidingLog, 1, -1, Options{}, "must be positive"},
		{TokenBucket, 1, time.Second, Options{Burst: -1}, "negative"},
		{TokenBucket, 1, time.Second, Options{Scale: -1}, "negative"},
		{TokenBucket, 1, time.Second, Options{Queue: 1}, "only a leaky bucket has a queue"},
		{FixedWindow, 1, time.Second, Options{Burst: 1}, "only buckets have a burst"},
		{SlidingWindow, 1, time.Second, Options{Period: Day}, "only a fixed window"},
		{FixedWindow, 1, time.Second, Options{Period: 7}, "only a fixed window"},
		{TokenBucket, math.MaxInt64, time.Second, Options{}, "too many"},
		{TokenBucket, math.MaxInt64 / 1000, time.Second, Options{Scale: 1000}, "too many"},
		{TokenBucket, 1 << 50, 1, Options{}, "too fast"},
		{TokenBucket, 1 << 40, time.Second, Options{}, "too fast"},
		{TokenBucket, 1, time.Second, Options{Burst: 1 << 53}, "burst of"},
		{LeakyBucket, 1, time.Second, Options{Queue: 1 << 53}, "queue of"},
		{TokenBucket, 1000003, 7 * days, Options{Burst: 1 << 40}, "too large for 1000003"},
		{TokenBucket, 1, days, Options{Burst: 100_000}, "35 years"},
		{SlidingLog, 10_001, time.Second, Options{}, "at most 10000"},
		{FixedWindow, 1 << 39, time.Second, Options{}, "too many to count in one window"},
		{SlidingWindow, 1 << 38, 31 * days, Options{}, "shorter or rounder window"},
		{FixedWindow, 1, 1500 * time.Nanosecond, Options{}, "whole number of microseconds"},
	} {
		_, err := New(tc.a, tc.n, tc.per, tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%d, %d, %v, %+v): %v, want %q", tc.a, tc.n, tc.per, tc.o, err, tc.want)
		}
	}
}

// rates are shapes of limits that people write, and awkward ones.
var rates = []struct {
	n   int64
	per time.Duration
}{
	{100, time.Second},
	{300, 90 * time.Second},
	{999983, days},
	{7, 3 * time.Second},
	{1, time.Hour},
	{10, time.Minute},
	{1000003, 7 * days},
	{1, time.Second},
	{12345, time.Hour},
	{3, 100 * time.Millisecond},
	{10_000, time.Second},
	{9973, 7 * time.Minute},
}

// drawLimit draws a limit of the algorithm, at most about most requests wide.
func drawLimit(t *rapid.T, a Algorithm, scales ...int64) (Limit, int64, time.Duration) {
	r := rapid.SampledFrom(rates).Draw(t, "rate")
	if rapid.Bool().Draw(t, "odd") {
		r.n = rapid.Int64Range(1, 5000).Draw(t, "n")
		r.per = time.Duration(rapid.Int64Range(1, 100).Draw(t, "k")) *
			rapid.SampledFrom([]time.Duration{10 * time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(t, "unit")
	}
	o := Options{Scale: rapid.SampledFrom(append(scales, 1)).Draw(t, "scale")}
	if a == TokenBucket || a == LeakyBucket {
		o.Burst = rapid.Int64Range(0, 20).Draw(t, "burst")
	}
	if a == LeakyBucket {
		o.Queue = rapid.Int64Range(0, 20).Draw(t, "queue")
	}
	if a == SlidingLog {
		r.n = min(r.n, 50)
	}
	l, err := New(a, r.n, r.per, o)
	if err != nil {
		t.Fatalf("New(%d, %d, %v, %+v): %v", a, r.n, r.per, o, err)
	}
	return l, r.n * o.Scale, r.per
}

// TestNewKeepsItsBounds: the fraction is the rate exactly, reduced, and within
// the bounds that keep doubles and int64 exact for 35 years.
func TestNewKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, units, per := drawLimit(t, LeakyBucket, 1000)
		checkBounds(t, &l, units, per)
	})
}

func checkBounds(t rapid.TB, l *Limit, units int64, per time.Duration) {
	rate := big.NewRat(units, int64(per))
	got := new(big.Rat).Mul(big.NewRat(l.Num, l.Den), big.NewRat(1, int64(l.Tick)))
	if got.Cmp(rate) != 0 || gcd(l.Num, l.Den) != 1 {
		t.Fatalf("rate %v, want %v: %+v", got, rate, l)
	}
	if (l.Capacity+l.Queue)*l.Den > maxParts || l.Num > maxTime/(lifetime/int64(l.Tick)) {
		t.Fatalf("out of bounds: %+v", l)
	}
}

func TestShare(t *testing.T) {
	for _, tc := range []struct {
		l               Limit
		gateways        int
		capacity, queue int64
	}{
		{must(t, TokenBucket, 100, time.Second, Options{Burst: 200}), 4, 50, 0},
		{must(t, TokenBucket, 100, time.Second, Options{Burst: 200}), 1, 200, 0},
		{must(t, TokenBucket, 100, time.Second, Options{Burst: 200}), 0, 200, 0},
		{must(t, TokenBucket, 10, time.Second, Options{Scale: 1000}), 100, 1000, 0},
		{must(t, LeakyBucket, 10, time.Second, Options{Queue: 10}), 3, 3, 3},
		{must(t, FixedWindow, 100, time.Minute, Options{}), 3, 33, 0},
		{must(t, SlidingWindow, 2, time.Minute, Options{}), 3, 1, 0},
		{must(t, SlidingLog, 100, time.Minute, Options{}), 10, 10, 0},
		{must(t, Concurrency, 50, 0, Options{}), 4, 12, 0},
	} {
		s := tc.l.Share(tc.gateways)
		if s.Capacity != tc.capacity || s.Queue != tc.queue || s.Window != tc.l.Window || s.Num != tc.l.Num || s.Tick != tc.l.Tick {
			t.Errorf("Share(%d) of %+v: %+v", tc.gateways, tc.l, s)
		}
		if tc.l.Den > 0 && s.Den != tc.l.Den*int64(max(tc.gateways, 1)) {
			t.Errorf("Share(%d) of %+v leaks %d/%d", tc.gateways, tc.l, s.Num, s.Den)
		}
	}
}

// TestShareOfMany: whatever the number, the share is at least one request, at most
// the whole, and its arithmetic fits.
func TestShareOfMany(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SampledFrom([]Algorithm{TokenBucket, LeakyBucket, FixedWindow, SlidingLog}).Draw(t, "algorithm")
		l, _, _ := drawLimit(t, a, 1000)
		g := rapid.OneOf(rapid.IntRange(2, 500), rapid.IntRange(2, math.MaxInt)).Draw(t, "gateways")
		s := l.Share(g)
		if s.Capacity < l.Scale || s.Capacity > max(l.Capacity/2, l.Scale) {
			t.Fatalf("a share of %d has capacity %d of %d", g, s.Capacity, l.Capacity)
		}
		if g <= 500 && s.Den != l.Den*int64(g) {
			t.Fatalf("a share of %d leaks %d/%d, the whole %d/%d", g, s.Num, s.Den, l.Num, l.Den)
		}
		var c Cell
		if v, _ := s.Take(&c, at, s.Scale); !v.OK {
			t.Fatalf("a share of %d admits nothing: %+v", g, v)
		}
		if then := at + 2*int64(s.Spread()); s.Spread() < 10_000*days && !s.Peek(&c, then, s.Capacity).OK {
			t.Fatalf("after twice %v a share of %d is not full", s.Spread(), g)
		}
	})
}

// TestShareKeepsTheTimeOfBuckets: a cell goes on under another share; what it owes
// takes as long to leak as before.
func TestShareKeepsTheTimeOfBuckets(t *testing.T) {
	l := must(t, TokenBucket, 100, time.Second, Options{})
	var c Cell
	l.Take(&c, at, 60)
	s := l.Share(4) // 25/s, burst 25: 600 ms are 15 units
	if v := s.Peek(&c, at, 0); v.Reset != 600*time.Millisecond || v.Remaining != 10 {
		t.Errorf("the share of 4: %+v, want 10 left, full in 600 ms", v)
	}
	s.Take(&c, at, 10)
	if v := l.Peek(&c, at, 0); v.Reset != time.Second || v.Remaining != 0 {
		t.Errorf("the whole again: %+v, want nothing left, full in 1 s", v)
	}
}

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		l    Limit
		want time.Duration
	}{
		{must(t, TokenBucket, 100, time.Second, Options{Burst: 200}), 2 * time.Second},
		{must(t, LeakyBucket, 300, 90*time.Second, Options{Queue: 9}), 1200 * time.Millisecond},
		{must(t, TokenBucket, 3, time.Second, Options{Burst: 1}), 333334 * time.Microsecond},
		{must(t, FixedWindow, 5, 90*time.Second, Options{}), 90 * time.Second},
		{must(t, SlidingWindow, 5, time.Minute, Options{}), time.Minute},
		{must(t, SlidingLog, 5, time.Minute, Options{}), time.Minute},
		{must(t, FixedWindow, 5, 0, Options{Period: Day}), days},
		{must(t, FixedWindow, 5, 0, Options{Period: Week}), 7 * days},
		{must(t, FixedWindow, 5, 0, Options{Period: Month}), 31 * days},
		{must(t, Concurrency, 5, 0, Options{}), 0},
	} {
		if got := tc.l.Spread(); got != tc.want {
			t.Errorf("Spread of %+v: %v, want %v", tc.l, got, tc.want)
		}
	}
}

// FuzzNewAndTake: whatever New accepts keeps the laws of Take.
func FuzzNewAndTake(f *testing.F) {
	f.Add(uint8(0), int64(100), int64(time.Second), int64(200), int64(0), int64(1), uint8(0), at, int64(1))
	f.Add(uint8(1), int64(300), int64(90*time.Second), int64(0), int64(5), int64(1000), uint8(0), at, int64(1500))
	f.Add(uint8(2), int64(9), int64(0), int64(0), int64(0), int64(1), uint8(3), int64(0), int64(4))
	f.Add(uint8(3), int64(9), int64(time.Minute), int64(0), int64(0), int64(1), uint8(0), int64(math.MaxInt64), int64(4))
	f.Add(uint8(4), int64(50), int64(time.Hour), int64(0), int64(0), int64(1000), uint8(0), int64(math.MinInt64), int64(math.MaxInt64))
	f.Add(uint8(5), int64(50), int64(0), int64(0), int64(0), int64(1), uint8(0), at, int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, a uint8, n, per, burst, queue, scale int64, period uint8, now, cost int64) {
		l, err := New(Algorithm(a), n, time.Duration(per), Options{Burst: burst, Queue: queue, Scale: scale, Period: Period(period)})
		if err != nil {
			return
		}
		s := l.Share(int(uint64(cost)%7 + 1))
		for _, l := range []*Limit{&l, &s} {
			takeLaws(t, l, now, cost)
		}
	})
}

// takeLaws checks what holds for every limit, at every time, with every cost.
func takeLaws(t *testing.T, l *Limit, now, cost int64) {
	var c Cell
	most := l.Capacity + l.Queue
	for i := range 5 {
		now := now/8 + int64(i)*(now/8+1)/4
		used := l.Used(&c, now)
		want := l.Peek(&c, now, cost)
		v, live := l.Take(&c, now, cost)
		if !live || v != want {
			t.Fatalf("Peek said %+v, Take %+v, %v", want, v, live)
		}
		if v.OK != (used+max(cost, 0) <= most || cost <= 0) && l.Algorithm != SlidingWindow && l.Den <= 1 {
			t.Fatalf("%d used of %d, cost %d: %+v", used, most, cost, v)
		}
		if v.Remaining < 0 || v.Remaining > l.Capacity || v.Reset < 0 || v.Delay < 0 || v.OK != (v.Retry == 0) {
			t.Fatalf("impossible: %+v", v)
		}
		if (v.Retry == Never) != (cost > most) {
			t.Fatalf("cost %d of %d: %+v", cost, most, v)
		}
		if after := l.Used(&c, now); v.OK && after-used > max(cost, 0) || !v.OK && after != used || after > most {
			t.Fatalf("used %d, then %d: cost %d, %+v", used, after, cost, v)
		}
		if !v.OK && v.Retry > 0 && l.Algorithm != Concurrency && clamp(now)+int64(v.Retry) < latest {
			if v := l.Peek(&c, clamp(now)+int64(v.Retry), cost); !v.OK {
				t.Fatalf("Retry lied: %+v", v)
			}
		}
	}
	l.Force(&c, now, cost)
	if used := l.Used(&c, now); used < 0 || used > max(2*l.Capacity, most) {
		t.Fatalf("forced to %d of %d", used, l.Capacity)
	}
	if !l.Retire(&c, now, true) {
		t.Fatal("not retired")
	}
	if _, live := l.Take(&c, now, cost); live {
		t.Fatal("alive after Retire")
	}
}

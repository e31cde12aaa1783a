package meter

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// limits are one of each, as people have them.
func limits(t testing.TB) []struct {
	name string
	l    Limit
} {
	return []struct {
		name string
		l    Limit
	}{
		{"token-bucket", must(t, TokenBucket, 100, time.Second, Options{Burst: 200})},
		{"leaky-bucket-queue", must(t, LeakyBucket, 300, 90*time.Second, Options{Burst: 10, Queue: 10, Scale: 1000})},
		{"fixed-window", must(t, FixedWindow, 100, time.Second, Options{})},
		{"day-quota", must(t, FixedWindow, 1_000_000, 0, Options{Period: Day})},
		{"month-quota", must(t, FixedWindow, 1_000_000, 0, Options{Period: Month})},
		{"sliding-window", must(t, SlidingWindow, 100, time.Second, Options{})},
		{"sliding-log", must(t, SlidingLog, 100, time.Second, Options{})},
		{"concurrency", must(t, Concurrency, 100, 0, Options{})},
	}
}

func TestCellSize(t *testing.T) {
	if n := unsafe.Sizeof(Cell{}); n > 24 {
		t.Errorf("a Cell has %d bytes", n)
	}
}

func TestNoAlloc(t *testing.T) {
	for _, tc := range limits(t) {
		var c Cell
		for i := range int64(1000) { // the log has grown to its size
			tc.l.Take(&c, at+i*ms, tc.l.Scale)
		}
		now := at + second
		if n := testing.AllocsPerRun(1000, func() {
			now += 3 * ms
			tc.l.Peek(&c, now, tc.l.Scale)
			if v, _ := tc.l.Take(&c, now, tc.l.Scale); v.OK && now%2 == 0 {
				tc.l.Refund(&c, now, tc.l.Scale)
			}
			tc.l.Used(&c, now)
			tc.l.Force(&c, now, 0)
		}); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
		var unseen Cell
		if n := testing.AllocsPerRun(100, func() { tc.l.Peek(&unseen, now, 1) }); n != 0 {
			t.Errorf("%s: %v allocations to look at a key never seen", tc.name, n)
		}
	}
}

// BenchmarkTakeHot is one client at full speed on all cores: nearly all is refused.
// BenchmarkTakeHotAdmitted has a limit that nobody reaches, so that every Take
// writes. BenchmarkTakeMany is a million clients.

func BenchmarkTakeHot(b *testing.B) {
	for _, tc := range limits(b) {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			var c Cell
			var lane atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				now := at + lane.Add(1)
				for pb.Next() {
					now += 100
					tc.l.Take(&c, now, tc.l.Scale)
				}
			})
		})
	}
}

func BenchmarkTakeHotAdmitted(b *testing.B) {
	for _, tc := range []struct {
		name string
		l    Limit
	}{
		{"token-bucket", must(b, TokenBucket, 1e8, time.Second, Options{})},
		{"fixed-window", must(b, FixedWindow, 1e9, time.Second, Options{})},
		{"sliding-window", must(b, SlidingWindow, 1e9, time.Second, Options{})},
		{"sliding-log", must(b, SlidingLog, 10_000, time.Millisecond, Options{})},
		{"concurrency", must(b, Concurrency, 1e15, 0, Options{})},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			var c Cell
			var lane, refused atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				now := at + lane.Add(1)
				var n int64
				for pb.Next() {
					now += 100
					if v, _ := tc.l.Take(&c, now, 1); !v.OK {
						n++
					}
				}
				refused.Add(n)
			})
			b.ReportMetric(float64(refused.Load())/float64(b.N), "refused/op")
		})
	}
}

func BenchmarkTakeMany(b *testing.B) {
	const clients = 1 << 20
	for _, tc := range limits(b) {
		if tc.l.Algorithm == SlidingLog {
			continue // a log each would measure the allocator
		}
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			cells := make([]Cell, clients)
			for i := range cells { // the pages are there
				tc.l.Take(&cells[i], at, 0)
				cells[i].b.Store(0)
			}
			var lane atomic.Uint64
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				i, now := lane.Add(1)<<40, at
				for pb.Next() {
					now += 100
					i = i*6364136223846793005 + 1442695040888963407
					tc.l.Take(&cells[i>>44], now, tc.l.Scale)
				}
			})
		})
	}
}

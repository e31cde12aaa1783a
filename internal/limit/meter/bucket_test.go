package meter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// step is one call of a table: after a pause, at a cost, what Take says.
type step struct {
	after time.Duration
	cost  int64
	want  Verdict
}

func runSteps(t *testing.T, l *Limit, start int64, table []step) {
	t.Helper()
	if len(table) == 0 {
		t.Fatal("no cases")
	}
	var c Cell
	now := start
	for i, s := range table {
		now += int64(s.after)
		if v, live := l.Take(&c, now, s.cost); v != s.want || !live {
			t.Errorf("step %d:\n got %+v, %v\nwant %+v", i, v, live, s.want)
		}
	}
}

func TestTokenBucket(t *testing.T) {
	const s = time.Second
	l := must(t, TokenBucket, 10, s, Options{Burst: 5})
	runSteps(t, &l, at, []step{
		{0, 2, Verdict{OK: true, Remaining: 3, Reset: s / 5}},
		{0, 3, Verdict{OK: true, Remaining: 0, Reset: s / 2}},
		{0, 1, Verdict{Remaining: 0, Reset: s / 2, Retry: s / 10}},
		{s / 20, 1, Verdict{Remaining: 0, Reset: s * 9 / 20, Retry: s / 20}},
		{s / 20, 1, Verdict{OK: true, Remaining: 0, Reset: s / 2}},
		{0, 5, Verdict{Remaining: 0, Reset: s / 2, Retry: s / 2}},
		{0, 6, Verdict{Remaining: 0, Reset: s / 2, Retry: Never}},
		{0, 0, Verdict{OK: true, Remaining: 0, Reset: s / 2}},
		{0, -7, Verdict{OK: true, Remaining: 0, Reset: s / 2}},
		{time.Hour, 5, Verdict{OK: true, Remaining: 0, Reset: s / 2}},
	})
}

func TestTokenBucketOfFractions(t *testing.T) {
	const s = time.Second
	l := must(t, TokenBucket, 300, 90*s, Options{Burst: 2, Scale: 1000}) // 10/3 a second
	runSteps(t, &l, at, []step{
		{0, 500, Verdict{OK: true, Remaining: 1500, Reset: 150 * time.Millisecond}},
		{0, 1501, Verdict{Remaining: 1500, Reset: 150 * time.Millisecond, Retry: 300 * time.Microsecond}},
		{0, 1500, Verdict{OK: true, Remaining: 0, Reset: 600 * time.Millisecond}},
		{299 * time.Microsecond, 1, Verdict{Remaining: 0, Reset: 599701 * time.Microsecond, Retry: time.Microsecond}},
		{time.Microsecond, 1, Verdict{OK: true, Remaining: 0, Reset: 600 * time.Millisecond}},
	})
}

func TestLeakyBucketQueues(t *testing.T) {
	const s = time.Second
	l := must(t, LeakyBucket, 10, s, Options{Burst: 1, Queue: 2})
	runSteps(t, &l, at, []step{
		{0, 1, Verdict{OK: true, Remaining: 0, Reset: s / 10}},
		{0, 1, Verdict{OK: true, Remaining: 0, Reset: s / 5, Delay: s / 10}},
		{0, 1, Verdict{OK: true, Remaining: 0, Reset: s * 3 / 10, Delay: s / 5}},
		{0, 1, Verdict{Remaining: 0, Reset: s * 3 / 10, Retry: s / 10}},
		{0, 0, Verdict{OK: true, Remaining: 0, Reset: s * 3 / 10}},
		{s / 10, 1, Verdict{OK: true, Remaining: 0, Reset: s * 3 / 10, Delay: s / 5}},
		{0, 4, Verdict{Remaining: 0, Reset: s * 3 / 10, Retry: Never}},
		{s, 3, Verdict{OK: true, Remaining: 0, Reset: s * 3 / 10, Delay: s / 5}},
	})
}

// checkBucketTimes compares Reset and Delay with the model.
func checkBucketTimes(t *rapid.T, l *Limit, m *bucketModel, v Verdict) {
	if want := time.Duration(m.ticks(l.Capacity)) * l.Tick; v.Reset != want {
		t.Fatalf("%+v: %+v, the model is full in %v", l, v, want)
	}
	if want := time.Duration(m.ticks(0)) * l.Tick; v.OK && l.Queue > 0 && v.Delay != want && v.Delay != 0 {
		t.Fatalf("%+v: %+v, the model has it wait %v", l, v, want)
	}
}

// TestQueueShapes: what a leaky bucket lets go, after the delays it gave, is in any
// stretch of time at most the burst and the rate, and in the order of arrival. (One
// request that costs more than the burst leaves whole.)
func TestQueueShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, _, _ := drawLimit(t, LeakyBucket, 1000)
		var c Cell
		var log []logged
		now, last := at, int64(0)
		for range 2 * steps(t) {
			now += drawGap(t, &l)
			cost := min(max(drawCost(t, &l), 1), l.Capacity)
			v, _ := l.Take(&c, now, cost)
			if !v.OK {
				continue
			}
			leaves := l.tick(now + int64(v.Delay))
			if leaves < last {
				t.Fatalf("overtaken: %d before %d", leaves, last)
			}
			last = leaves
			log = append(log, logged{leaves, cost})
		}
		without := l
		without.Queue = 0
		// A delay is rounded up to a tick, so it may eat up to one tick's leak.
		for i := range log {
			var n int64
			for j := i; j < len(log); j++ {
				n += log[j].cost
				if T := log[j].tick - log[i].tick; n*l.Den > without.top()+(T+1)*l.Num {
					t.Fatalf("%+v: %d units left in %d ticks", l, n, T)
				}
			}
		}
	})
}

// TestBucketsForDecades: the arithmetic is exact at both ends of the time that is
// promised, and does not break outside of it.
func TestBucketsForDecades(t *testing.T) {
	for _, r := range rates {
		for _, scale := range []int64{1, 1000} {
			l := must(t, TokenBucket, r.n, r.per, Options{Scale: scale})
			for _, start := range []int64{0, 1, Epoch - 1, Epoch, Epoch + 1, Epoch + lifetime, Epoch + lifetime + year, latest - int64(time.Hour)} {
				m := newBucketModel(&l, r.n*scale, r.per)
				var c Cell
				for now := start; now < start+int64(30*time.Minute); now += int64(7 * time.Minute) {
					for _, cost := range []int64{l.Capacity, 1, scale} {
						v, _ := l.Take(&c, now, cost)
						if ok, left := m.take(l.tick(now), cost); ok != v.OK || left != v.Remaining {
							t.Fatalf("%d/%v at %d: %+v, want %v, %d", r.n, r.per, now, v, ok, left)
						}
						if now < latest-int64(12*time.Hour) {
							checkRetry(t, &l, &c, now, cost)
						}
					}
				}
			}
		}
	}
}

// TestBucketAfterAge: one cell used now and 35 years later owes nothing.
func TestBucketAfterAge(t *testing.T) {
	l := must(t, TokenBucket, 1_000_000_007, time.Second, Options{})
	var c Cell
	for now := Epoch; now <= Epoch+lifetime; now += year {
		if v, _ := l.Take(&c, now, l.Capacity); !v.OK || v.Remaining != 0 {
			t.Fatalf("in year %d: %+v", (now-Epoch)/year, v)
		}
		if v, _ := l.Take(&c, now, 1); v.OK {
			t.Fatalf("in year %d: %+v", (now-Epoch)/year, v)
		}
	}
}

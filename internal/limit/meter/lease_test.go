package meter

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const leaseStart = Epoch + int64(400*24*time.Hour)

// granted gives a fresh lease units.
func granted(tb testing.TB, l *Limit, units int64) *Lease {
	tb.Helper()
	lease := &Lease{}
	if _, next := lease.Take(leaseStart, 1); next != Ask {
		tb.Fatal("a lease without units decided by itself")
	}
	s, ok := lease.Begin(leaseStart, 1, &LeaseParams{Limit: l, Slack: l.Capacity / 10, Peers: 1})
	if !ok || s.Need != 1 || s.Ask != 1 || s.Hold != 0 {
		tb.Fatalf("the first settlement asks %+v, %v", s, ok)
	}
	if v := lease.End(leaseStart, Granted{Granted: units + 1, Valid: Usable}, false); !v.OK || v.Remaining != min(units, l.Capacity) {
		tb.Fatalf("granted: %+v", v)
	}
	return lease
}

func bucketOf(tb testing.TB, n int64) Limit {
	tb.Helper()
	l, err := New(TokenBucket, n, time.Second, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// While goroutines take and refund and settlements come and go, no unit is used
// that was not granted.
func TestRacesMakeNoUnits(t *testing.T) {
	l := bucketOf(t, 1_000_000)
	p := &LeaseParams{Limit: &l, Slack: 10_000, Peers: 2}
	var lease Lease
	var pool Pool
	var now, given, admitted, refunded atomic.Int64
	now.Store(leaseStart)
	var mu sync.Mutex
	settle := func(need int64) {
		s, ok := lease.Begin(now.Load(), need, p)
		if !ok {
			return
		}
		mu.Lock()
		g := pool.Settle(&l, now.Load(), "a", s)
		mu.Unlock()
		given.Add(g.Granted - s.Give)
		if v := lease.End(now.Load(), g, false); v.OK && need > 0 {
			admitted.Add(need)
		}
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 30_000 {
				at := now.Add(100)
				v, next := lease.Take(at, 1)
				switch {
				case next == Ask:
					settle(1)
				case v.OK:
					admitted.Add(1)
					if next == Refill {
						settle(0)
					}
					if n%7 == i {
						refunded.Add(1)
						lease.Refund(at, 1)
					}
				}
			}
		})
	}
	wg.Wait()
	if left := lease.Held(); left < 0 || admitted.Load()-refunded.Load()+left > given.Load() {
		t.Fatalf("%d granted, %d admitted, %d refunded, %d left", given.Load(), admitted.Load(), refunded.Load(), left)
	}
	if admitted.Load() < 1000 {
		t.Fatalf("only %d admitted", admitted.Load())
	}
}

func TestExpiredLeasesAdmitNothing(t *testing.T) {
	l := bucketOf(t, 1000)
	lease := granted(t, &l, 100)
	late := leaseStart + int64(Usable)
	if _, next := lease.Take(late-1, 1); next == Ask {
		t.Fatal("the lease ended too early")
	}
	if _, next := lease.Take(late, 1); next != Ask {
		t.Fatal("a lease was used behind its end")
	}
	s, ok := lease.Begin(late, 1, &LeaseParams{Limit: &l, Slack: 100, Peers: 1})
	if !ok || s.Hold != 0 || s.Give != 99 {
		t.Fatalf("what is void is offered back, not kept: %+v", s)
	}
	// A process that was stopped until behind the answer's validity has nothing.
	if v := lease.End(late+int64(Lifetime), Granted{Granted: 5, Valid: Usable}, false); !v.OK {
		t.Fatalf("the need was granted: %+v", v)
	}
	if _, next := lease.Take(late+int64(Lifetime), 1); next != Ask {
		t.Fatal("an answer that came too late was used")
	}
}

func TestRefundsOfAnEndedWindowAreVoid(t *testing.T) {
	l, err := New(FixedWindow, 1000, time.Second, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &LeaseParams{Limit: &l, Slack: 100, Peers: 1}
	var lease Lease
	var pool Pool
	now := leaseStart + int64(900*time.Millisecond)
	ask := func(now, need int64) {
		s, ok := lease.Begin(now, need, p)
		if !ok {
			t.Fatal("not begun")
		}
		lease.End(now, pool.Settle(&l, now, "a", s), false)
	}
	ask(now, 500)
	next := leaseStart + int64(time.Second)
	ask(next, 900)
	held := lease.Held()
	lease.Refund(now, 500)
	if lease.Held() != held {
		t.Fatalf("%d units of the last window came back", lease.Held()-held)
	}
	lease.Refund(next, 900)
	if lease.Held() != held+900 {
		t.Fatalf("%d units came back", lease.Held()-held)
	}
}

func TestDryLeasesRefuseWithoutAsking(t *testing.T) {
	l := bucketOf(t, 1000)
	p := &LeaseParams{Limit: &l, Slack: 100, Peers: 2}
	var pool Pool
	pool.Take(&l, leaseStart, 1000)
	var lease Lease
	s, _ := lease.Begin(leaseStart, 3, p)
	v := lease.End(leaseStart, pool.Settle(&l, leaseStart, "a", s), false)
	if v.OK || v.Retry < shortPace || v.Retry > longPace {
		t.Fatalf("refused: %+v", v)
	}
	v, next := lease.Take(leaseStart+1, 3)
	if v.OK || next != Done {
		t.Fatalf("a dry lease asked again: %v", next)
	}
	if _, next = lease.Take(leaseStart+int64(v.Retry)+1, 3); next != Ask {
		t.Fatal("a dry lease does not ask when its time has come")
	}
	s, _ = lease.Begin(leaseStart+int64(v.Retry)+1, 3, p)
	if v = lease.End(leaseStart+int64(v.Retry)+1, pool.Settle(&l, leaseStart+int64(v.Retry)+1, "a", s), false); !v.OK {
		t.Fatalf("Retry was not true: %+v", v)
	}
	if v, next = lease.Take(leaseStart+int64(longPace), 1001); next != Done || v.Retry != Never {
		t.Fatalf("a cost above the capacity: %+v, %v", v, next)
	}
}

// A window's client is told its end, however soon the gateway asks again.
func TestRetryOfADryWindowIsTrue(t *testing.T) {
	for _, a := range []Algorithm{FixedWindow, SlidingWindow} {
		l, err := New(a, 100, 2*time.Second, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := &LeaseParams{Limit: &l, Slack: 20, Peers: 1}
		var pool Pool
		var lease Lease
		now := leaseStart + int64(100*time.Millisecond)
		var refused Verdict
		for refused.Retry == 0 {
			now += int64(time.Millisecond)
			v, next := lease.Take(now, 1)
			if next != Done {
				if s, ok := lease.Begin(now, map[Next]int64{Ask: 1}[next], p); ok {
					end := lease.End(now, pool.Settle(&l, now, "a", s), false)
					if next == Ask {
						v = end
					}
				}
			}
			refused = v
		}
		if v := pool.Peek(&l, now+int64(time.Second), 1); a == FixedWindow && v.OK {
			t.Errorf("%d: admitted before %v", a, refused.Retry)
		}
		if v := pool.Peek(&l, now+int64(refused.Retry), 1); !v.OK {
			t.Errorf("%d: %v after a refusal that said so, %+v", a, refused.Retry, v)
		}
	}
}

func TestCostsTogetherTakeWhatIsLeftHereAndThere(t *testing.T) {
	l := bucketOf(t, 1000)
	lease := granted(t, &l, 40)
	s, ok := lease.Begin(leaseStart, 100, &LeaseParams{Limit: &l, Slack: 100, Peers: 1})
	if !ok || s.Need != 60 || s.Hold != 40 {
		t.Fatalf("%+v", s)
	}
	if v, next := lease.Take(leaseStart, 1); next != Ask {
		t.Fatalf("what is reserved was used: %+v", v)
	}
	if v := lease.End(leaseStart, Granted{Granted: 60, Valid: Usable}, false); !v.OK || v.Remaining != 0 {
		t.Fatalf("%+v", v)
	}

	lease = granted(t, &l, 40)
	lease.Begin(leaseStart, 100, &LeaseParams{Limit: &l, Slack: 100, Peers: 1})
	if v := lease.End(leaseStart, Granted{Valid: Usable, Retry: time.Second}, false); v.OK || lease.Held() != 40 {
		t.Fatalf("%+v, %d left of 40", v, lease.Held())
	}
}

func TestIdleAndDrainedLeasesGoBack(t *testing.T) {
	l := bucketOf(t, 10_000)
	p := &LeaseParams{Limit: &l, Slack: 100, Peers: 1}
	lease := granted(t, &l, 50)
	for ms := int64(0); ms <= 1000; ms += 250 {
		if lease.Idle(leaseStart+ms*int64(time.Millisecond)) != (ms == 1000) {
			t.Fatalf("idle after %d ms", ms)
		}
	}
	s, ok := lease.Begin(leaseStart+int64(time.Second), 0, p)
	if !ok || s.Give != 50 || s.Hold != 0 || s.Ask != 0 {
		t.Fatalf("%+v, %v", s, ok)
	}

	lease = granted(t, &l, 50)
	lease.Drain()
	if !lease.Idle(leaseStart) {
		t.Fatal("drained, but nothing to do")
	}
	if s, ok = lease.Begin(leaseStart, 0, p); !ok || s.Give != 50 || s.Ask != 0 {
		t.Fatalf("%+v, %v", s, ok)
	}
	if lease.End(leaseStart, Granted{Valid: Usable}, false); lease.Idle(leaseStart) {
		t.Fatal("something left")
	}
}

func TestWorth(t *testing.T) {
	l := bucketOf(t, 10_000)
	for _, c := range []struct {
		slack int64
		peers int
		want  bool
	}{{100, 4, true}, {100, 10, true}, {100, 11, false}, {39, 4, false}, {10, 0, true}} {
		if p := (LeaseParams{Limit: &l, Slack: c.slack, Peers: c.peers}); p.Worth() != c.want {
			t.Errorf("%d of slack among %d: %v", c.slack, c.peers, !c.want)
		}
	}
}

// Without leases the pool decides as Limit.Take does.
func TestPoolTakesAsCellsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SampledFrom([]Algorithm{TokenBucket, LeakyBucket, FixedWindow, SlidingWindow}).Draw(t, "algorithm")
		o := Options{}
		if a == LeakyBucket {
			o.Queue = rapid.Int64Range(0, 10).Draw(t, "queue")
		}
		per := rapid.SampledFrom([]time.Duration{time.Second, 90 * time.Second, 3 * time.Minute}).Draw(t, "per")
		l, err := New(a, rapid.Int64Range(1, 300).Draw(t, "n"), per, o)
		if err != nil {
			t.Fatal(err)
		}
		var p Pool
		var c Cell
		now := leaseStart
		for range 60 {
			now += rapid.Int64Range(0, int64(per)/20).Draw(t, "wait")
			if rapid.IntRange(0, 30).Draw(t, "long") == 0 {
				now += rapid.Int64Range(0, 3*int64(per)).Draw(t, "pause")
			}
			cost := rapid.Int64Range(0, l.Capacity/3+2).Draw(t, "cost")
			want, _ := l.Take(&c, now, cost)
			if peek := p.Peek(&l, now, cost); peek != want {
				t.Fatalf("Peek of %d: %+v, want %+v", cost, peek, want)
			}
			if got := p.Take(&l, now, cost); got != want {
				t.Fatalf("Take of %d: %+v, want %+v", cost, got, want)
			}
			if rapid.IntRange(0, 9).Draw(t, "post") == 0 {
				p.Post(&l, now, cost)
				l.Force(&c, now, cost)
			}
		}
	})
}

// A settlement that needs what is not there is told when it will be.
func TestRetryOfSettlementsIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SampledFrom([]Algorithm{TokenBucket, FixedWindow, SlidingWindow}).Draw(t, "algorithm")
		l, err := New(a, rapid.Int64Range(5, 5000).Draw(t, "n"), time.Minute, Options{})
		if err != nil {
			t.Fatal(err)
		}
		now := leaseStart + rapid.Int64Range(0, int64(time.Minute)).Draw(t, "at")
		var p, q Pool
		for range rapid.IntRange(1, 9).Draw(t, "n") {
			cost := rapid.Int64Range(0, l.Capacity).Draw(t, "cost")
			p.Take(&l, now, cost)
			q.Take(&l, now, cost)
			now += rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "wait")
		}
		need := rapid.Int64Range(1, l.Capacity).Draw(t, "need")
		g := p.Settle(&l, now, "a", Settle{Need: need, Ask: need})
		q.Settle(&l, now, "a", Settle{Need: need, Ask: need})
		if (g.Retry == 0) != (g.Granted == need) {
			t.Fatalf("%+v for %d", g, need)
		}
		if g.Retry > 0 {
			if e := p.Settle(&l, now+int64(g.Retry-l.Tick), "a", Settle{Need: need, Ask: need}); e.Granted > 0 && l.Tick < g.Retry {
				t.Fatalf("%d were there before %v", need, g.Retry)
			}
			if e := q.Settle(&l, now+int64(g.Retry), "a", Settle{Need: need, Ask: need}); e.Granted != need {
				t.Fatalf("%d were not there after %v: %+v", need, g.Retry, e)
			}
		}
	})
}

// A settlement that was given up and is executed behind a newer one changes nothing.
func TestLateSettlementsChangeNothing(t *testing.T) {
	l := bucketOf(t, 1000)
	var p Pool
	p.Settle(&l, leaseStart, "a", Settle{Ask: 100, Sent: 10})
	p.Settle(&l, leaseStart, "a", Settle{Hold: 100, Ask: 100, Sent: 12})
	before := p
	before.leases = map[string]lent{"a": p.leases["a"]}
	if g := p.Settle(&l, leaseStart, "a", Settle{Hold: 50, Give: 50, Need: 1, Ask: 100, Sent: 11}); g.Granted != 0 {
		t.Fatalf("%+v", g)
	}
	if p.debt != before.debt || p.held != before.held || p.leases["a"] != before.leases["a"] {
		t.Fatalf("%+v, was %+v", p, before)
	}
}

func TestTakeDoesNotAllocate(t *testing.T) {
	l := bucketOf(t, 1_000_000)
	lease := granted(t, &l, 500_000)
	if n := testing.AllocsPerRun(1000, func() {
		if v, _ := lease.Take(leaseStart+1, 1); !v.OK {
			t.Fatal("refused")
		}
		lease.Refund(leaseStart+1, 1)
	}); n != 0 {
		t.Errorf("a Take and a Refund allocate %v times", n)
	}
	p := &LeaseParams{Limit: &l, Slack: 100, Peers: 2}
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := lease.Begin(leaseStart+2, 1, p); ok {
			lease.End(leaseStart+2, Granted{Granted: 1, Valid: Usable}, false)
		}
	}); n != 0 {
		t.Errorf("a settlement allocates %v times", n)
	}
}

// One hot client on all cores.
func BenchmarkLeaseTake(b *testing.B) {
	l := bucketOf(b, 1_000_000)
	lease := granted(b, &l, 1<<40)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v, _ := lease.Take(leaseStart+1, 1); !v.OK {
				b.Error("refused")
				return
			}
		}
	})
}

func BenchmarkLeaseRefusal(b *testing.B) {
	l := bucketOf(b, 1000)
	lease := granted(b, &l, 0)
	lease.dry.Store(leaseStart + int64(time.Hour))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v, _ := lease.Take(leaseStart+1, 1); v.OK {
				b.Error("admitted")
				return
			}
		}
	})
}

func BenchmarkPoolSettle(b *testing.B) {
	l := bucketOf(b, 1_000_000_000)
	var p Pool
	b.ReportAllocs()
	for n := range b.N {
		p.Settle(&l, leaseStart+int64(n)*1000, "gateway", Settle{Hold: 10, Give: 5, Ask: 100, Slack: 1000, Sent: int64(n)})
	}
}

func TestALeaseSaysWhatIsLeftOfTheWholeLimit(t *testing.T) {
	limit, err := New(TokenBucket, 10_000, time.Second, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &LeaseParams{Limit: &limit, Slack: 100, Peers: 1}
	var pool Pool
	var l Lease
	now := Epoch + int64(time.Hour)
	for i := range int64(400) {
		at := now + i*int64(5*time.Millisecond)
		v, next := l.Take(at, 1)
		if next == Ask {
			s, ok := l.Begin(at, 1, p)
			if !ok {
				t.Fatal("nobody else settles")
			}
			v = l.End(at, pool.Settle(&limit, at, "a", s), false)
		}
		if !v.OK || v.Remaining < 1 || v.Remaining > limit.Capacity {
			t.Fatalf("request %d: %+v of %d", i, v, limit.Capacity)
		}
		if missing := limit.Capacity - v.Remaining; missing > 0 != (v.Reset > 0) {
			t.Fatalf("request %d: %d are missing, full in %v", i, missing, v.Reset)
		}
	}
}

package limit

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// million is how many clients the measurements have.
const million = 1_000_000

// lengths counts durations: 16 steps in each power of two.
type lengths struct {
	count [64 * 16]int
	n     int
	most  time.Duration
}

func (l *lengths) add(d time.Duration) {
	v := uint64(max(d, 1))
	e := max(bits.Len64(v)-5, 0)
	l.count[e*16+int(v>>e)]++ // v>>e is below 32
	l.n++
	l.most = max(l.most, d)
}

// quantile is the length that a share of q does not exceed, within 1/16.
func (l *lengths) quantile(q float64) time.Duration {
	left := int(q * float64(l.n))
	for i, n := range l.count {
		if left -= n; left < 0 {
			e := max(i/16-1, 0)
			return time.Duration((i - e*16 + 1) << e)
		}
	}
	return l.most
}

// grow fills a table with a million keys while another goroutine looks up keys
// that are there and a third sweeps, and says how long each insert and each look-up
// took.
func grow(tab *table, keys uint64) (inserts, lookups *lengths) {
	inserts, lookups = new(lengths), new(lengths)
	var there atomic.Uint64
	there.Store(1)
	tab.take(number(nil, 0), noon, 1)
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		die := rand.New(rand.NewPCG(1, 2))
		var key []byte
		for !done.Load() {
			key = number(key, die.Uint64N(there.Load()))
			began := time.Now()
			e := tab.find(key)
			lookups.add(time.Since(began))
			if e == nil {
				panic("a key is lost")
			}
			runtime.Gosched()
		}
	})
	var key []byte
	for n := uint64(1); n < keys; n++ {
		key = number(key, n)
		began := time.Now()
		tab.take(key, noon, 1)
		inserts.add(time.Since(began))
		there.Store(n + 1)
		if n%1000 == 0 {
			tab.sweep(noon, 1000)
		}
	}
	done.Store(true)
	wg.Wait()
	return inserts, lookups
}

// BenchmarkPauses is how long an insert and a look-up take at most while a table
// grows to a million keys. The scheduler and the collector are in it.
func BenchmarkPauses(b *testing.B) {
	for b.Loop() {
		inserts, lookups := grow(newTable(bucket(b, 100, time.Second, 200), 2*million), million)
		b.ReportMetric(float64(inserts.quantile(0.5)), "insert-p50-ns")
		b.ReportMetric(float64(inserts.quantile(0.999)), "insert-p99.9-ns")
		b.ReportMetric(float64(inserts.most), "insert-max-ns")
		b.ReportMetric(float64(lookups.quantile(0.5)), "find-p50-ns")
		b.ReportMetric(float64(lookups.quantile(0.999)), "find-p99.9-ns")
		b.ReportMetric(float64(lookups.most), "find-max-ns")
	}
}

// ran is how long the calling thread has run on a core. What it waited for one,
// while other programs ran, is not in it.
func ran(t testing.TB) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// worked is how long all threads of the process have run on a core.
func worked(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// parallel is b.RunParallel, and reports the time on all cores that one turn takes,
// which other programs on the machine do not make longer.
func parallel(b *testing.B, body func(*testing.PB)) {
	b.ReportAllocs()
	b.ResetTimer()
	began := worked(b)
	b.RunParallel(body)
	b.ReportMetric(float64(worked(b)-began)/float64(b.N), "cpu-ns/op")
}

// TestNoPauseAtAMillionClients holds every insert, split, sweep and look-up while a
// table grows to a million keys to a millisecond of work, and the longest things
// that are done under a lock to 100 µs in the median. The kernel and the collector
// are in it, so what a busy machine spoils is tried again.
func TestNoPauseAtAMillionClients(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes time mean nothing")
	}
	const most, usual = time.Millisecond, 100 * time.Microsecond
	for try := 1; ; try++ {
		late := false
		for name, all := range pauses(t) {
			slices.Sort(all)
			n := len(all)
			t.Logf("%d %s: median %v, p99.9 %v, most %v", n, name, all[n/2], all[n*999/1000], all[n-1])
			late = late || all[n/2] > usual || all[n*999/1000] > most // the most is BenchmarkPauses'
		}
		if !late {
			return
		}
		if try == 3 {
			t.Fatal("the limiter pauses too long")
		}
	}
}

// pauses grows a table to a million keys and returns how long everything took.
func pauses(t *testing.T) map[string][]time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tab := newTable(bucket(t, 100, time.Second, 200), 2*million)
	all := map[string][]time.Duration{}
	note := func(what string, since time.Duration) { all[what] = append(all[what], ran(t)-since) }
	var key []byte
	tab.take(number(nil, 0), noon, 1)
	for n := uint64(1); n < million; n++ {
		key = number(key, n)
		before, s := tab.dir.Load(), tab.dir.Load().shard(tab.hash(key))
		moves := s.moves.Load()
		began := ran(t)
		tab.take(key, noon, 1)
		switch {
		case tab.dir.Load() != before:
			note("doublings", began)
		case s.moves.Load() != moves:
			note("splits", began)
		default:
			note("inserts", began)
		}
		if n%100 == 0 {
			began = ran(t)
			tab.sweep(noon, 1)
			note("sweeps of a shard", began)
			began = ran(t)
			tab.find(number(key, n/2))
			note("look-ups", began)
		}
	}
	return all
}

// BenchmarkHotClient is one client from all cores: a look-up and a charge. The
// budget is 150 ns.
func BenchmarkHotClient(b *testing.B) {
	tab := newTable(bucket(b, 1_000_000_000, time.Second, 1_000_000_000), million)
	for n := range uint64(100_000) {
		tab.entry(number(nil, n), noon)
	}
	key := number(nil, 77)
	parallel(b, func(pb *testing.PB) {
		for now := int64(noon); pb.Next(); now += 100 {
			tab.take(key, now, 1)
		}
	})
}

// BenchmarkManyClients is clients of their own for each core: 1,000 in all, which
// the caches hold, and a million, which they do not.
func BenchmarkManyClients(b *testing.B) {
	for _, c := range []struct {
		name string
		keys uint64
	}{{"thousand", 1000}, {"million", million}} {
		b.Run(c.name, func(b *testing.B) {
			tab := newTable(bucket(b, 1000, time.Second, 1000), million)
			for n := range c.keys {
				tab.entry(number(nil, n), noon)
			}
			runtime.GC()
			var cores atomic.Uint64
			parallel(b, func(pb *testing.PB) {
				n := cores.Add(1) * 0x9e3779b97f4a7c15
				key := make([]byte, 0, 64)
				for now := int64(noon); pb.Next(); now += 100 {
					n = n*6364136223846793005 + 1442695040888963407
					key = number(key, n>>33%c.keys)
					tab.take(key, now, 1)
				}
			})
		})
	}
}

// BenchmarkFlood is new keys in a full table: each evicts another.
func BenchmarkFlood(b *testing.B) {
	tab := newTable(bucket(b, 1, time.Hour, 1), million)
	for n := range uint64(million) {
		tab.take(number(nil, n), noon, 1)
	}
	var next atomic.Uint64
	next.Store(million)
	parallel(b, func(pb *testing.PB) {
		key := make([]byte, 0, 64)
		for pb.Next() {
			key = number(key, next.Add(1))
			tab.take(key, noon, 1)
		}
	})
}

// BenchmarkSweep is the sweep of one entry, none of which is idle.
func BenchmarkSweep(b *testing.B) {
	tab := newTable(bucket(b, 1, time.Hour, 1), million)
	for n := range uint64(million) {
		tab.take(number(nil, n), noon, 1)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += 1000 {
		tab.sweep(noon, 1000)
	}
}

// BenchmarkKey is the making of a key.
func BenchmarkKey(b *testing.B) {
	for name, per := range map[string][]string{"client": {"client"}, "ip": {"ip"}, "header": {"header:X-Many"}, "client-route": {"client", "route"}} {
		b.Run(name, func(b *testing.B) {
			k, err := newKeyMaker(per)
			if err != nil {
				b.Fatal(err)
			}
			x, room := asked(), make([]byte, 0, keyRoom)
			b.ReportAllocs()
			for b.Loop() {
				room = k.append(room[:0], x)
			}
		})
	}
}

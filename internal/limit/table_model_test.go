package limit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// TestTablesAreAMapOfCells holds a table, whatever is done with it, to a plain map
// of cells in which nothing is ever dropped: no key gets another answer.
func TestTablesAreAMapOfCells(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := bucket(t, 5, time.Second, 10)
		tab := newTable(l, 10_000)
		model := map[string]*meter.Cell{}
		now := int64(noon)
		keys := uint64(rapid.IntRange(1, 3000).Draw(r, "keys"))
		die := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		var key []byte
		for range rapid.IntRange(1, 5000).Draw(r, "steps") {
			key = number(key, die.Uint64N(keys))
			switch die.IntN(8) {
			case 0:
				now += die.Int64N(int64(time.Second))
			case 1:
				tab.sweep(now, die.IntN(2000))
			case 2:
				if e := tab.find(key); e != nil && e.key != string(key) {
					r.Fatalf("%s is found for %s", e.key, key)
				}
			default:
				c := model[string(key)]
				if c == nil {
					c = new(meter.Cell)
					model[string(key)] = c
				}
				cost := 1 + die.Int64N(3)
				want, _ := l.Take(c, now, cost)
				got, e := tab.take(key, now, cost)
				if got != want {
					r.Fatalf("%s: %+v, want %+v", key, got, want)
				}
				if tab.find(key) != e {
					r.Fatalf("%s was charged and is not there", key)
				}
			}
		}
		tab.all(func(e *entry) bool {
			delete(model, e.key)
			return true
		})
		for key, c := range model {
			if n := l.Used(c, now); n != 0 {
				r.Fatalf("%s is gone, and had used %d", key, n)
			}
		}
	})
}

// rush has several goroutines charge some keys while others sweep, list and look
// up, and returns how many requests of each key were admitted. The time goes by
// step a request.
func rush(t *testing.T, tab *table, keys, requests int, step int64) (admitted []atomic.Int64, end int64) {
	t.Helper()
	admitted = make([]atomic.Int64, keys)
	var now atomic.Int64
	now.Store(noon)
	var takers, others sync.WaitGroup
	var done atomic.Bool
	for g := range uint64(4) {
		takers.Go(func() {
			die := rand.New(rand.NewPCG(g, 7))
			var key []byte
			for range requests / 4 {
				n := die.Uint64N(uint64(keys))
				if die.IntN(2) == 0 {
					n %= 16 // some are hot
				}
				key = number(key, n)
				v, e := tab.take(key, now.Add(step), 1)
				if v.OK {
					admitted[n].Add(1)
				}
				if e.key != string(key) {
					t.Errorf("%s was charged for %s", e.key, key)
				}
			}
		})
	}
	others.Go(func() {
		for !done.Load() {
			tab.sweep(now.Load(), 300)
		}
	})
	others.Go(func() {
		var key []byte
		for n := uint64(0); !done.Load(); n++ {
			key = number(key, n%uint64(2*keys))
			if e := tab.find(key); e != nil && e.key != string(key) {
				t.Errorf("%s is found for %s", e.key, key)
			}
			if n%1000 == 0 {
				seen := map[string]bool{}
				tab.all(func(e *entry) bool {
					// One that was dropped and came back may be met twice, in other places.
					seen[e.key] = true
					return true
				})
			}
		}
	})
	takers.Wait()
	done.Store(true)
	others.Wait()
	return admitted, now.Load()
}

func rushes() int {
	if raceEnabled || testing.Short() {
		return 60_000
	}
	return 1_000_000
}

// Nothing charged is lost while the table grows under the callers.
func TestGrowingLosesNoCharge(t *testing.T) {
	const burst = 5
	for range 5 {
		tab := newTable(bucket(t, 1, 24*time.Hour, burst), 1_000_000)
		admitted, _ := rush(t, tab, 5000, rushes()/4, 0)
		tab.check(t)
		for n := range admitted {
			if got := admitted[n].Load(); got > burst {
				t.Errorf("key %d got %d, %d are the limit", n, got, burst)
			}
		}
		for n := range 16 { // these came often enough
			if got := admitted[n].Load(); got != burst {
				t.Errorf("key %d got %d, want %d", n, got, burst)
			}
		}
	}
}

// Sweeping drops entries all the time here, since buckets fill again quickly; no
// key gets more than its rate and burst.
func TestSweepingAdmitsNoMoreThanTheLimit(t *testing.T) {
	const burst, rate, step = 20, 1000, 2000
	tab := newTable(bucket(t, rate, time.Second, burst), 1_000_000)
	var swept atomic.Int64
	tab.retire = func(*entry, int64, bool) bool { swept.Add(1); return true }
	admitted, end := rush(t, tab, 3000, rushes(), step)
	tab.check(t)
	most := burst + (end-noon)*rate/int64(time.Second) + 1
	for n := range admitted {
		if got := admitted[n].Load(); got > most {
			t.Errorf("key %d got %d, %d are the limit", n, got, most)
		}
	}
	if swept.Load() < 100 {
		t.Errorf("only %d entries were dropped", swept.Load())
	}
}

// With more keys than there is room for a key gets its limit afresh only when it
// was evicted.
func TestEvictingForgetsOnlyWhoWasEvicted(t *testing.T) {
	const burst, keys = 5, 2000
	tab := newTable(bucket(t, 1, 24*time.Hour, burst), 500)
	var mu sync.Mutex
	lives := map[string]int64{}
	tab.retire = func(e *entry, _ int64, force bool) bool {
		if force {
			mu.Lock()
			lives[e.key]++
			mu.Unlock()
		}
		return true
	}
	admitted, _ := rush(t, tab, keys, rushes()/2, 0)
	tab.check(t)
	all := uint64(0)
	for n := range admitted {
		evicted := lives[string(number(nil, uint64(n)))]
		all += uint64(evicted)
		if got, most := admitted[n].Load(), burst*(1+evicted); got > most {
			t.Errorf("key %d got %d and was evicted %d times: %d are the limit", n, got, evicted, most)
		}
	}
	if tab.evictions() != all || tab.losses() > all || all < 1000 || tab.len() > 500 {
		t.Errorf("%d evictions, %d counted, %d keys left", all, tab.evictions(), tab.len())
	}
}

// Concurrency counts what is at work: an entry with work is never swept, so that
// what was taken is given back to where it came from.
func TestSweepingKeepsWhatIsAtWork(t *testing.T) {
	l, err := meter.New(meter.Concurrency, 3, 0, meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab := newTable(&l, 1000)
	var wg sync.WaitGroup
	var working, most [8]atomic.Int64
	for g := range uint64(4) {
		wg.Go(func() {
			die := rand.New(rand.NewPCG(g, 9))
			var key []byte
			for range rushes() / 8 {
				n := die.Uint64N(8)
				key = number(key, n)
				v, e := tab.take(key, noon, 1)
				if v.OK {
					if w := working[n].Add(1); w > most[n].Load() {
						most[n].Store(w)
					}
				}
				tab.sweep(noon, 1)
				if v.OK {
					working[n].Add(-1)
					l.Refund(&e.cell, noon, 1)
				}
			}
		})
	}
	wg.Wait()
	for n := range most {
		if got := most[n].Load(); got > 3 {
			t.Errorf("%d at work, 3 are the limit", got)
		}
	}
	if tab.sweep(noon, 1000); tab.len() != 0 {
		t.Errorf("%d entries are left", tab.len())
	}
}

package limit

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// bucket is a token bucket.
func bucket(t testing.TB, n int64, per time.Duration, burst int64) *meter.Limit {
	t.Helper()
	l, err := meter.New(meter.TokenBucket, n, per, meter.Options{Burst: burst})
	if err != nil {
		t.Fatal(err)
	}
	return &l
}

// admitted is how many of n takes of one unit a key gets.
func admitted(t *table, key []byte, now int64, n int) (yes int) {
	for range n {
		if v, _ := t.take(key, now, 1); v.OK {
			yes++
		}
	}
	return yes
}

func TestAnEntryIsOneCacheLine(t *testing.T) {
	if size := unsafe.Sizeof(entry{}); size != 64 {
		t.Errorf("an entry has %d bytes", size)
	}
	if at := unsafe.Offsetof(shard{}.slots); at != 64 {
		t.Errorf("the slots begin at %d", at)
	}
	tab := newTable(bucket(t, 1, time.Second, 1), 10_000)
	for n := range uint64(1000) {
		if e := tab.entry(number(nil, n), noon); uintptr(unsafe.Pointer(e))%64 != 0 {
			t.Fatalf("an entry lies across two lines: %p", e)
		}
	}
}

func TestKeysAreFoundAgain(t *testing.T) {
	tab := newTable(bucket(t, 1, time.Second, 1), 1_000_000)
	if tab.find([]byte("k")) != nil || tab.len() != 0 || tab.sweep(noon, 10) != 0 {
		t.Error("an empty table is not empty")
	}
	tab.all(func(*entry) bool { t.Error("an empty table has an entry"); return true })
	const keys = 50_000
	entries := map[string]*entry{}
	for n := range uint64(keys) {
		key := number(nil, n)
		if tab.find(key) != nil {
			t.Fatalf("%s was there before", key)
		}
		e := tab.entry(key, noon)
		entries[string(key)] = e
		key[0] = 'x' // the table has a copy
		if e.key != string(number(nil, n)) {
			t.Fatalf("got %q", e.key)
		}
	}
	for key, e := range entries {
		if tab.find([]byte(key)) != e || tab.entry([]byte(key), noon) != e || tab.renew([]byte(key), noon) != e {
			t.Fatalf("%s is not the same any more", key)
		}
	}
	if tab.len() != keys || tab.evictions() != 0 {
		t.Errorf("%d keys, %d evictions", tab.len(), tab.evictions())
	}
	seen := map[*entry]int{}
	tab.all(func(e *entry) bool { seen[e]++; return true })
	for key, e := range entries {
		if seen[e] != 1 {
			t.Fatalf("all yielded %s %d times", key, seen[e])
		}
	}
	some := 0
	tab.all(func(*entry) bool { some++; return some < 7 })
	if len(seen) != keys || some != 7 {
		t.Errorf("all yielded %d, and %d instead of 7", len(seen), some)
	}
	tab.check(t)
}

// check holds a table at rest to its invariants.
func (t *table) check(tb testing.TB) {
	tb.Helper()
	d := t.dir.Load()
	total, longest := 0, 0
	for i := range d.shards {
		s := d.shards[i].Load()
		if i > 0 && s == d.shards[i-1].Load() {
			continue
		}
		entries := 0
		for slot := range s.slots {
			chain := 0
			for e := s.slots[slot].Load(); e != nil; e = e.next.Load() {
				entries++
				chain++
				if e.hash%slots != uint64(slot) || d.shard(e.hash) != s {
					tb.Errorf("%s is in the wrong place", e.key)
				}
			}
			longest = max(longest, chain)
		}
		if entries != s.entries || entries > full || s.moves.Load() != 2*uint32(s.bits) && s.moves.Load()%2 != 0 {
			tb.Errorf("a shard of %d bits counts %d entries and has %d", s.bits, s.entries, entries)
		}
		total += entries
	}
	if total != t.len() || longest > 12 {
		tb.Errorf("%d entries, %d counted; the longest chain has %d", total, t.len(), longest)
	}
}

func TestAKeyIsCountedInOneCell(t *testing.T) {
	tab := newTable(bucket(t, 10, time.Hour, 10), 100)
	if got := admitted(tab, []byte("a"), noon, 50); got != 10 {
		t.Errorf("%d admitted, want 10", got)
	}
	if got := admitted(tab, []byte("b"), noon, 5); got != 5 {
		t.Errorf("%d admitted, want 5", got)
	}
	if _, e := tab.take([]byte("a"), noon, 1); e != tab.find([]byte("a")) {
		t.Error("take returned another entry")
	}
}

// An entry in somebody's hands may be dropped. What it says then is "ask again",
// and what the key had used is not forgotten before nothing is left of it.
func TestDroppedEntriesMakeCallersLookAgain(t *testing.T) {
	l := bucket(t, 10, time.Second, 10)
	tab := newTable(l, 100)
	key := []byte("a")
	_, e := tab.take(key, noon, 1)
	if tab.sweep(noon, 1000) != 0 || tab.find(key) != e {
		t.Error("an entry in use was dropped")
	}
	later := int64(noon + time.Second)
	if tab.sweep(later, 1000) != 1 || tab.find(key) != nil || tab.len() != 0 {
		t.Error("an idle entry was kept")
	}
	if _, live := l.Take(&e.cell, later, 1); live {
		t.Error("the cell of a dropped entry was charged")
	}
	if fresh := tab.renew(key, later); fresh == e || tab.find(key) != fresh {
		t.Error("the dropped entry came back")
	}
	if got := admitted(tab, key, later, 20); got != 10 {
		t.Errorf("%d admitted, want 10", got)
	}
}

func TestSweepsGoOnWhereTheLastEnded(t *testing.T) {
	tab := newTable(bucket(t, 10, time.Second, 10), 100_000)
	const keys = 20_000
	for n := range uint64(keys) {
		now := int64(noon)
		if n%4 == 0 {
			now += int64(10 * time.Second) // these are in use for longer
		}
		tab.take(number(nil, n), now, 1)
	}
	later := int64(noon + 5*time.Second)
	calls, dropped := 0, 0
	for tab.len() > keys/4 && calls < 1000 {
		n := tab.sweep(later, 500)
		if n > 500+full {
			t.Fatalf("a sweep of 500 dropped %d", n)
		}
		dropped += n
		calls++
	}
	if dropped != keys*3/4 || calls > 2*keys/500 {
		t.Errorf("%d dropped in %d sweeps", dropped, calls)
	}
	tab.all(func(e *entry) bool {
		if tab.limit.Used(&e.cell, later) == 0 {
			t.Errorf("%s is idle", e.key)
		}
		return true
	})
	if n := tab.sweep(later+int64(time.Minute), 1<<30) + tab.sweep(later+int64(time.Minute), 1<<30); n != keys/4 || tab.len() != 0 {
		t.Errorf("%d dropped at last, %d left", n, tab.len())
	}
	tab.check(t)
}

// A flood of new keys must not make a heavy client's use forgotten: then anybody
// could get a fresh limit by making up keys.
func TestAFloodOfNewKeysDoesNotResetAHeavyClient(t *testing.T) {
	const room, heavies, burst = 1000, 50, 100
	flood := uint64(500_000)
	if raceEnabled {
		flood /= 20
	}
	tab := newTable(bucket(t, 1, time.Hour, burst), room)
	var heavy []*entry
	for n := range uint64(heavies) {
		key := fmt.Appendf(nil, "heavy-%d", n)
		if got := admitted(tab, key, noon, burst+10); got != burst {
			t.Fatalf("%d admitted", got)
		}
		heavy = append(heavy, tab.find(key))
	}
	for n := range flood {
		if v, _ := tab.take(number(nil, n), noon, 1); !v.OK {
			t.Fatal("a new key was refused")
		}
		if tab.len() > room {
			t.Fatalf("%d keys, %d are the most", tab.len(), room)
		}
	}
	for n, e := range heavy {
		key := fmt.Appendf(nil, "heavy-%d", n)
		if tab.find(key) != e {
			t.Errorf("%s was evicted", key)
		}
		if got := admitted(tab, key, noon, burst); got != 0 {
			t.Errorf("%s got %d more", key, got)
		}
	}
	if want := flood + heavies - room; tab.evictions() != want || tab.losses() != want {
		t.Errorf("%d evictions, %d of them of entries in use, want %d", tab.evictions(), tab.losses(), want)
	}
	tab.check(t)
}

// In a full table whose new keys are used as the old ones are, a light entry goes
// sooner than a heavy one, but every one goes at last.
func TestTheLeastUsedGoesFirst(t *testing.T) {
	const room = 4096
	rounds := uint64(100_000)
	if raceEnabled {
		rounds = 5_000
	}
	tab := newTable(bucket(t, 1, time.Hour, 100), room)
	for n := range uint64(room) {
		tab.take(number(nil, n), noon, 1+int64(n)%4) // a quarter each of 1, 2, 3 and 4
	}
	var gone [6]float64
	tab.retire = func(e *entry, now int64, force bool) bool {
		gone[tab.limit.Used(&e.cell, now)]++
		return force
	}
	for n := range rounds {
		tab.take(number(nil, room+n), noon, 1+int64(n)%4)
	}
	share := func(n int) float64 { return gone[n] / float64(rounds) }
	if share(1) < 0.24 || share(4) > 0.26 || share(0) > 0 {
		t.Errorf("evicted by use: %v", gone)
	}
	if n := uint64(gone[1] + gone[2] + gone[3] + gone[4]); n != rounds || tab.evictions() != rounds || tab.losses() != rounds {
		t.Errorf("%d went, %d counted", n, tab.evictions())
	}
}

func TestIdleEntriesGoBeforeAllAndLoseNothing(t *testing.T) {
	tab := newTable(bucket(t, 1, time.Second, 100), 1000)
	for n := range uint64(1000) {
		tab.take(number(nil, n), noon, 1+int64(n%2)*50)
	}
	later := int64(noon + 2*time.Second) // half of them are idle by now
	for n := range uint64(20) {
		tab.take(number(nil, 1000+n), later, 60)
	}
	// That at least 8 of 1000 are all in use has a chance of 0.4 %.
	if tab.evictions() != 20 || tab.losses() > 4 {
		t.Errorf("%d evictions, %d of entries in use", tab.evictions(), tab.losses())
	}
}

func TestATinyTableWorks(t *testing.T) {
	tab := newTable(bucket(t, 10, time.Hour, 10), 1)
	for n := range uint64(1000) {
		if v, e := tab.take(number(nil, n), noon, 3); !v.OK || v.Remaining != 7 || tab.find(number(nil, n)) != e || tab.len() != 1 {
			t.Fatalf("%+v, %d keys", v, tab.len())
		}
	}
}

func TestWhatHangsAtAnEntryIsAskedFirst(t *testing.T) {
	tab := newTable(bucket(t, 1, time.Second, 100), 20)
	held := map[string]int64{}
	var forced []string
	tab.weight = func(e *entry, _ int64) int64 { return held[e.key] }
	tab.retire = func(e *entry, _ int64, force bool) bool {
		if force {
			forced = append(forced, e.key)
		}
		return held[e.key] == 0
	}
	for n := range uint64(20) {
		key := number(nil, n)
		held[string(key)] = 1000 + int64(n)
		tab.entry(key, noon)
	}
	if n := tab.sweep(noon, 1000); n != 0 || tab.len() != 20 {
		t.Errorf("%d entries went that hold something", n)
	}
	held[string(number(nil, 3))] = 0
	tab.entry(number(nil, 0), noon)
	if n := tab.sweep(noon, 1000); n != 1 || tab.find(number(nil, 3)) != nil {
		t.Errorf("%d entries went", n)
	}
	tab.entry([]byte("one"), noon)
	tab.entry([]byte("more"), noon) // now somebody has to go, though everybody holds something
	if len(forced) != 1 || tab.len() != 20 || tab.evictions() != 1 {
		t.Errorf("%v went, %d keys", forced, tab.len())
	}
}

func TestLookingUpAllocNothing(t *testing.T) {
	tab := newTable(bucket(t, 1000, time.Second, 1000), 100_000)
	for n := range uint64(10_000) {
		tab.entry(number(nil, n), noon)
	}
	key, absent := number(nil, 77), []byte("absent")
	now := int64(noon)
	if n := testing.AllocsPerRun(1000, func() {
		now += 1000
		tab.take(key, now, 1)
		if tab.find(key) == nil || tab.find(absent) != nil {
			t.Error("not found")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { tab.sweep(noon, 2000) }); n > 0 {
		t.Errorf("a sweep makes %v allocations", n)
	}
}

// heap is the bytes that are live.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMemoryOfAMillionClients(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes memory mean nothing")
	}
	const budget = 150 // bytes a key
	for name, form := range map[string]string{
		"declared": "c:/client-%07d", "by address": "a:10.%07d", "by /64": "a:2001:db8:%07d::/64", "with a route": "c:keys/client-%07d:r:public/get-user",
	} {
		t.Run(name, func(t *testing.T) {
			tab := newTable(bucket(t, 100, time.Second, 200), 1_000_000)
			key := make([]byte, 0, 64)
			before := heap()
			for n := range 1_000_000 {
				key = fmt.Appendf(key[:0], form, n)
				tab.take(key, noon, 1)
			}
			each := float64(heap()-before) / float64(tab.len())
			t.Logf("keys of %d bytes: %.1f bytes each", len(key), each)
			if each > budget || tab.len() != 1_000_000 {
				t.Errorf("%.1f bytes for each of %d keys, %d are the budget", each, tab.len(), budget)
			}
			if len(key) == len("c:/client-0000000") {
				tab.check(t)
			}
			runtime.KeepAlive(tab)
		})
	}
	before := heap()
	idle := make([]*table, 1000)
	for i := range idle {
		idle[i] = newTable(bucket(t, 1, time.Second, 1), 1000)
	}
	if each := (heap() - before) / 1000; each > 512 {
		t.Errorf("an unused table takes %d bytes", each)
	}
	runtime.KeepAlive(idle)
}

func TestKeysThatAreLongUnderTheirLimitAreNotMadeAgainAndAgain(t *testing.T) {
	tab := newTable(bucket(t, 1_000_000, time.Second, 0), 10_000)
	began := time.Unix(1_800_000_000, 0)
	key := func(i int) []byte { return fmt.Appendf(nil, "c:/%d", i) }
	made := map[int]*entry{}
	fresh := 0
	for at := time.Duration(0); at < 60*time.Second; at += sweepEvery {
		now := began.Add(at)
		for i := range 1000 {
			if _, e := tab.take(key(i), now.UnixNano(), 1); made[i] != e {
				made[i] = e
				fresh++
			}
		}
		tab.tidy(now.Add(sweepEvery/2), now.Add(sweepEvery/2).UnixNano())
	}
	if fresh > 7*1000 {
		t.Errorf("%d entries were made for 1,000 keys in a minute, 600,000 requests", fresh)
	}
	later := began.Add(2 * time.Minute)
	for range 20 {
		tab.tidy(later, later.UnixNano())
		later = later.Add(sweepRest)
	}
	if n := tab.len(); n != 0 {
		t.Errorf("%d idle keys are left", n)
	}
}

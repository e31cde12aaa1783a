package limit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// noon is when the tests of this package play.
const noon = 1_764_072_000_000_000_000 // 2025-11-25T12:00:00Z

// number returns a key of some 20 bytes, as the client part is, in dst.
func number(dst []byte, n uint64) []byte {
	dst = append(dst[:0], "c:keys/client-"...)
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[n>>shift&15])
	}
	return dst
}

// add counts one request, as whoever counts does.
func (s *sketch) add(shard uint32, key []byte, now int64) {
	if n := s.pick(shard, now); n > 0 {
		s.put(shard, key, n, now)
	}
}

// striped is a sketch with so many stripes.
func striped(n int) *sketch {
	s := newSketch()
	s.stripes, s.mask = make([]hotStripe, n), uint32(n-1)
	return s
}

func TestEveryHeavyKeyOfAZipfStreamIsShown(t *testing.T) {
	for _, c := range []struct {
		stripes int
		skew    float64
	}{{1, 1.01}, {1, 1.1}, {1, 1.5}, {4, 1.01}, {4, 1.1}, {4, 2}} {
		t.Run(fmt.Sprint(c.stripes, " stripes, skew ", c.skew), func(t *testing.T) {
			stream := int64(1_000_000)
			if raceEnabled {
				stream /= 20
			}
			s := striped(c.stripes)
			r := rand.New(rand.NewPCG(1, 2))
			zipf := rand.NewZipf(r, c.skew, 1, 10_000_000)
			counts := map[uint64]int64{}
			var key []byte
			for range stream {
				n := zipf.Uint64()
				counts[n]++
				key = number(key, n)
				s.put(r.Uint32(), key, 1, noon)
			}
			shown := map[string]hotKey{}
			for _, h := range s.top(math.MaxInt, noon) {
				shown[h.Key] = h
			}
			for n, want := range counts {
				h, ok := shown[string(number(key, n))]
				if !ok {
					if want > stream/hotCounters {
						t.Errorf("key %d came %d times and is missing", n, want)
					}
					continue
				}
				if h.Count < want || h.Count-h.Error > want || h.Error > stream/hotCounters+1 {
					t.Errorf("key %d came %d times, shown as %+v", n, want, h)
				}
			}
		})
	}
}

func TestTopComesInOrderAndNoLongerThanAsked(t *testing.T) {
	s := striped(2)
	for n := range uint64(20) {
		for i := range 2 * n {
			s.put(uint32(i), number(nil, n), 1, noon)
		}
	}
	top := s.top(3, noon)
	if len(top) != 3 {
		t.Fatalf("%d keys", len(top))
	}
	for i, h := range top {
		if want := (hotKey{string(number(nil, uint64(19-i))), int64(38 - 2*i), 0}); h != want {
			t.Errorf("place %d: %+v, want %+v", i, h, want)
		}
	}
	if n := len(s.top(100, noon)); n != 19 { // key 0 never came
		t.Errorf("%d keys in all", n)
	}
	if s.top(0, noon) == nil || len(s.top(-1, noon)) != 0 {
		t.Error("none was asked for")
	}
}

func TestHotMeansNow(t *testing.T) {
	s := striped(1)
	for range 1000 {
		s.put(0, []byte("before"), 1, noon)
	}
	for _, after := range []float64{1, 10, 20, 50} {
		now := noon + int64(after*1e9)
		want := int64(math.Round(1000 * math.Exp2(-after/10)))
		if top := s.top(1, now); len(top) != 1 || top[0].Count != want {
			t.Errorf("%v s later: %v, want %d", after, top, want)
		}
	}
	later := int64(noon + 40*time.Second)
	for range 100 {
		s.put(0, []byte("now"), 1, later)
	}
	if top := s.top(2, later); top[0].Key != "now" || top[0].Count != 100 || top[1].Count != 63 {
		t.Errorf("%v", top)
	}
	// A steady key shows 14.4 requests for each a second, over the shrinking of
	// counts and at any hour; an hour's pause is no trouble.
	const rate = 50
	for _, begin := range []int64{later, later + int64(time.Hour)} {
		for i := range int64(rate * 1000) {
			s.put(0, []byte("steady"), 1, begin+i*int64(time.Second)/rate)
		}
		top := s.top(1, begin+int64(1000*time.Second))
		if want := rate * 10 / math.Ln2; top[0].Key != "steady" || math.Abs(float64(top[0].Count)-want) > 0.01*want {
			t.Errorf("%v, want about %v", top, want)
		}
	}
	if top := s.top(10, later+int64(24*time.Hour)); len(top) != 0 {
		t.Errorf("a day later: %v", top)
	}
}

// A stripe whose requests come faster than it is worth to count takes samples, and
// what it shows stays right on average.
func TestBusyStripesTakeSamples(t *testing.T) {
	s := striped(1)
	p := &s.stripes[0]
	now := int64(noon)
	run := func(requests int, seconds float64) {
		for i := range requests {
			key := []byte("rare")
			if i%4 != 0 {
				key = []byte("usual")
			}
			s.add(0, key, now+int64(float64(i)*seconds*1e9/float64(requests)))
		}
		now += int64(seconds * 1e9)
	}
	run(5_000, 1)
	if p.sampled.Load() {
		t.Error("5,000 a second are sampled")
	}
	run(200_000, 1)
	if !p.sampled.Load() {
		t.Error("200,000 a second are not sampled")
	}
	run(2_000_000, 10)
	top := s.top(2, now)
	want := 200_000 * 10 / math.Ln2 * (1 - math.Exp2(-1.1)) // of 11 s at that rate
	for i, share := range []float64{0.75, 0.25} {
		if got := float64(top[i].Count); math.Abs(got/(want*share)-1) > 0.05 {
			t.Errorf("%+v, want %.0f", top[i], want*share)
		}
	}
	run(1_000, 1)
	if p.sampled.Load() {
		t.Error("1,000 a second are sampled")
	}
}

func TestMemoryOfASketchIsConstant(t *testing.T) {
	if size := unsafe.Sizeof(hotStripe{}); size > 44<<10 || size%64 != 0 {
		t.Errorf("a stripe has %d bytes", size)
	}
	if at := unsafe.Offsetof(hotStripe{}.mu); at != 64 {
		t.Errorf("the lock is at %d", at)
	}
	s := newSketch()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	keys := uint64(10_000_000)
	if raceEnabled || testing.Short() {
		keys = 300_000
	}
	key := make([]byte, 0, 64)
	for n := range keys {
		key = number(key, n)
		s.put(uint32(n), key, 1, noon)
	}
	if grown := heap() - before; grown > 16<<10 && !raceEnabled {
		t.Errorf("%d keys took %d bytes", keys, grown)
	}
	for _, h := range s.top(10, noon) {
		if limit := int64(keys)/hotCounters + 1; h.Count > limit || h.Count-h.Error > 1 {
			t.Errorf("a key that came once is shown as %+v", h)
		}
	}
	runtime.KeepAlive(s)
}

func TestLongKeysAreShownInPartAndToldApart(t *testing.T) {
	s := striped(1)
	long := bytes.Repeat([]byte("k"), 300)
	s.put(0, long, 1, noon)
	long[299] = 'x'
	s.put(0, long, 1, noon)
	top := s.top(5, noon)
	if len(top) != 2 || top[0].Key != strings.Repeat("k", hotKeyLen) || top[0].Count != 1 {
		t.Errorf("%v", top)
	}
}

func TestCountingInASketchAllocNothing(t *testing.T) {
	s := newSketch()
	var n uint64
	key := make([]byte, 0, 64)
	if a := testing.AllocsPerRun(10_000, func() {
		n++
		key = number(key, n)
		s.add(uint32(n), key, noon+int64(n)*1e6)
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

func TestSketchesCountFromEverywhere(t *testing.T) {
	s := striped(2)
	var counted atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			var key []byte
			for i := range uint64(20_000) {
				key = number(key, i%700)
				s.add(uint32(g), key, noon+int64(i)*1e5)
				counted.Add(1)
				if i%1000 == 0 {
					s.top(10, noon)
				}
			}
		})
	}
	wg.Wait()
	for i := range s.stripes {
		s.stripes[i].check(t)
	}
	if top := s.top(1, noon); len(top) != 1 || top[0].Count < 1 {
		t.Errorf("%v", top)
	}
}

// check holds a stripe to its invariants: the heap is one, and the index finds
// every counter and nothing else.
func (p *hotStripe) check(t *testing.T) {
	t.Helper()
	for at := range p.used {
		i := p.heap[at]
		if int(p.counters[i].at) != at {
			t.Errorf("counter %d says %d, is at %d", i, p.counters[i].at, at)
		}
		if up := p.heap[max(at-1, 0)/4]; p.counters[up].count > p.counters[i].count {
			t.Errorf("heap place %d is smaller than the one above", at)
		}
		slot := p.counters[i].hash % hotIndex
		for p.index[slot] != i+1 {
			if p.index[slot] == 0 {
				t.Fatalf("counter %d is not in the index", i)
			}
			slot = (slot + 1) % hotIndex
		}
	}
	taken := 0
	for _, i := range p.index {
		if i != 0 {
			taken++
		}
	}
	if taken != p.used {
		t.Errorf("%d counters, %d in the index", p.used, taken)
	}
}

func TestAStripeKeepsItsInvariants(t *testing.T) {
	p := new(hotStripe)
	r := rand.New(rand.NewPCG(3, 4))
	var key [8]byte
	for i := range 50_000 {
		n := uint64(r.ExpFloat64() * 200)
		binary.LittleEndian.PutUint64(key[:], n)
		// Hashes that are equal in their lower bits run into each other in the index.
		p.add(n*hotIndex/3+n%7, key[:], 1+float64(i)/1000)
		if i%500 == 0 {
			p.check(t)
		}
	}
}

// BenchmarkSketch is what counting costs on the request path, averaged over the
// samples. The budget is 20 ns.
func BenchmarkSketch(b *testing.B) {
	for name, keys := range map[string]uint64{"one": 1, "zipf": 0, "new": math.MaxUint64} {
		b.Run(name, func(b *testing.B) {
			s := newSketch()
			var shards atomic.Uint32
			ring := make([][]byte, 1<<12) // small, as a key that was just made is in the core's cache
			zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, 1_000_000)
			for i := range ring {
				n := uint64(i) % max(keys, 1)
				if keys == 0 {
					n = zipf.Uint64()
				}
				ring[i] = number(nil, n)
			}
			begin := newClock().wall
			for i := range 4000 * len(s.stripes) { // until it takes samples
				s.add(uint32(i), ring[i%(1<<12)], begin)
				begin += int64(50*time.Microsecond) / int64(len(s.stripes))
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				shard := shards.Add(1)
				now := begin
				for i := 0; pb.Next(); i++ {
					now += 23 // about what a turn takes: asking the clock would be most of it
					s.add(shard, ring[i%(1<<12)], now)
				}
			})
		})
	}
}

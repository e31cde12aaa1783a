//go:build !race

package memory

import (
	"container/heap"
	"container/list"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

const million = 1_000_000

// zipf draws ranks with probability proportional to 1/(rank+1): s = 1.0, which
// rand.Zipf does not do.
type zipf struct {
	sums []float64
	die  *rand.Rand
}

func newZipf(n int, seed uint64) *zipf {
	z := &zipf{sums: make([]float64, n), die: rand.New(rand.NewPCG(seed, 1))}
	sum := 0.0
	for i := range z.sums {
		sum += 1 / float64(i+1)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) next() int {
	return sort.SearchFloat64s(z.sums, z.die.Float64()*z.sums[len(z.sums)-1])
}

// policy is a simulated cache of equal objects.
type policy interface{ ask(n int) (hit bool) }

type lru struct {
	size  int
	at    map[int]*list.Element
	order list.List // latest first
}

func newLRU(size int) *lru { return &lru{size: size, at: map[int]*list.Element{}} }

func (l *lru) ask(n int) bool {
	if e, ok := l.at[n]; ok {
		l.order.MoveToFront(e)
		return true
	}
	if l.order.Len() == l.size {
		l.drop()
	}
	l.add(n)
	return false
}

func (l *lru) add(n int) { l.at[n] = l.order.PushFront(n) }

func (l *lru) has(n int) bool { return l.at[n] != nil }

func (l *lru) remove(n int) {
	l.order.Remove(l.at[n])
	delete(l.at, n)
}

func (l *lru) drop() int {
	n := l.order.Back().Value.(int)
	l.remove(n)
	return n
}

// lfu counts every use that it has seen, of what it holds no more too.
type lfu struct {
	size  int
	count map[int]int
	place map[int]int // in held
	held  []int       // a heap: least counted first
}

func newLFU(size int) *lfu { return &lfu{size: size, count: map[int]int{}, place: map[int]int{}} }

func (l *lfu) Len() int           { return len(l.held) }
func (l *lfu) Less(i, j int) bool { return l.count[l.held[i]] < l.count[l.held[j]] }
func (l *lfu) Push(n any)         { l.place[n.(int)] = len(l.held); l.held = append(l.held, n.(int)) }

func (l *lfu) Swap(i, j int) {
	l.held[i], l.held[j] = l.held[j], l.held[i]
	l.place[l.held[i]], l.place[l.held[j]] = i, j
}

func (l *lfu) Pop() any {
	n := l.held[len(l.held)-1]
	l.held = l.held[:len(l.held)-1]
	delete(l.place, n)
	return n
}

func (l *lfu) ask(n int) bool {
	l.count[n]++
	if at, ok := l.place[n]; ok {
		heap.Fix(l, at)
		return true
	}
	if len(l.held) < l.size {
		heap.Push(l, n)
	} else if l.count[n] >= l.count[l.held[0]] {
		heap.Pop(l)
		heap.Push(l, n)
	}
	return false
}

// arc is the adaptive replacement cache (Megiddo and Modha, FAST 2003, fig. 4).
type arc struct {
	size, p        int
	t1, t2, b1, b2 *lru
}

func newARC(size int) *arc {
	return &arc{size: size, t1: newLRU(size), t2: newLRU(size), b1: newLRU(size), b2: newLRU(2 * size)}
}

func (a *arc) replace(in2 bool) {
	if n := a.t1.order.Len(); n > 0 && (n > a.p || in2 && n == a.p) {
		a.b1.add(a.t1.drop())
	} else {
		a.b2.add(a.t2.drop())
	}
}

func (a *arc) ask(n int) bool {
	b1, b2 := a.b1.order.Len(), a.b2.order.Len()
	switch {
	case a.t1.has(n):
		a.t1.remove(n)
		a.t2.add(n)
		return true
	case a.t2.ask2(n):
		return true
	case a.b1.has(n):
		a.p = min(a.size, a.p+max(b2/b1, 1))
		a.replace(false)
		a.b1.remove(n)
		a.t2.add(n)
		return false
	case a.b2.has(n):
		a.p = max(0, a.p-max(b1/b2, 1))
		a.replace(true)
		a.b2.remove(n)
		a.t2.add(n)
		return false
	}
	t1, all := a.t1.order.Len(), a.t1.order.Len()+a.t2.order.Len()+b1+b2
	switch {
	case t1+b1 == a.size && t1 < a.size:
		a.b1.drop()
		a.replace(false)
	case t1+b1 == a.size:
		a.t1.drop()
	case all >= a.size:
		if all == 2*a.size {
			a.b2.drop()
		}
		a.replace(false)
	}
	a.t1.add(n)
	return false
}

func (l *lru) ask2(n int) bool {
	e, ok := l.at[n]
	if ok {
		l.order.MoveToFront(e)
	}
	return ok
}

// equal is a cache for so many of the rig's objects.
func equal(objects int) *asker {
	one := New(1 << 30)
	(&asker{c: one}).ask(million)
	return &asker{c: New(one.Weight() * uint64(objects))}
}

// ratio is the share of hits in a trace, after a first part that warms up.
func ratio(p policy, trace []int32, warm int) float64 {
	hits := 0
	for i, n := range trace {
		if p.ask(int(n)) && i >= warm {
			hits++
		}
	}
	return float64(hits) / float64(len(trace)-warm)
}

func TestMemoryHitRatioOfZipf(t *testing.T) {
	const size, warm = million / 20, 400_000
	z, trace := newZipf(million, 7), make([]int32, 1_400_000)
	for i := range trace {
		trace[i] = int32(z.next())
	}
	shuffled := rand.New(rand.NewPCG(3, 4)).Perm(million)
	for i := range trace {
		trace[i] = int32(shuffled[trace[i]]) // a rank says nothing of the key
	}
	rivals := []float64{ratio(newLRU(size), trace, warm), ratio(newLFU(size), trace, warm), ratio(newARC(size), trace, warm)}
	ours := equal(size)
	got := ratio(ours, trace, warm)
	t.Logf("ours %.2f %%, LRU %.2f %%, LFU %.2f %%, ARC %.2f %%; %d entries", 100*got, 100*rivals[0], 100*rivals[1], 100*rivals[2], ours.c.Len())
	if best := slices.Max(rivals); got < best-0.02 {
		t.Errorf("%.2f %% hits, the best of the others has %.2f %%", 100*got, 100*best)
	}
	if n := ours.c.Len(); n > size || math.Abs(float64(n)/size-1) > 0.02 {
		t.Errorf("%d objects are held, %d have room", n, size)
	}
}

func TestMemoryHotSetOutlivesAFlood(t *testing.T) {
	// Ten new keys for each request of the hot set, thirty times what has room
	// in all: between two requests of one hot object more keys are new than
	// have room.
	const size, hot, rounds = 20_000, 2_000, 60_000
	die := rand.New(rand.NewPCG(5, 6))
	flood := func(p policy) (share float64) {
		hits, unique := 0, million
		for range 20 * hot { // a cache that is full, half of the requests being for the hot set
			unique++
			p.ask(unique)
			p.ask(die.IntN(hot))
		}
		for range rounds {
			for range 10 {
				unique++
				p.ask(unique)
			}
			if p.ask(die.IntN(hot)) {
				hits++
			}
		}
		return float64(hits) / rounds
	}
	a := equal(size)
	got, simple := flood(a), flood(newLRU(size))
	t.Logf("%.1f %% of the requests of the hot set are hits; %.1f %% with LRU", 100*got, 100*simple)
	if got < 0.99 {
		t.Errorf("only %.1f %% of the requests of the hot set are hits", 100*got)
	}
	left := 0
	for n := range hot {
		if a.ask(n) {
			left++
		}
	}
	if left < hot*99/100 {
		t.Errorf("%d of %d hot objects are left", left, hot)
	}
}

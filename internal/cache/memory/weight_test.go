//go:build !race

package memory

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// live is the heap that is reachable.
func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func within(t *testing.T, what string, got, want int64, share float64) {
	t.Helper()
	if math.Abs(float64(got)/float64(want)-1) > share {
		t.Errorf("%s: %d bytes, %d is right", what, got, want)
	}
}

func TestMemoryOfObjectsIsTheirWeight(t *testing.T) {
	for _, n := range []struct{ objects, body int }{{30_000, 0}, {50_000, 100}, {40_000, 1000}, {10_000, 5000}, {500, 200_000}} {
		before := live()
		c := New(1 << 30)
		for i := range n.objects {
			c.Put(full(c, fmt.Sprint("/articles/", i), n.body))
		}
		held := live() - before
		t.Logf("body of %d: %d bytes each, %d by weight", n.body, held/int64(n.objects), c.Weight()/uint64(n.objects))
		within(t, fmt.Sprint("bodies of ", n.body), int64(c.Weight()), held, 0.1)
		runtime.KeepAlive(c)
	}
}

// A response of 1 KiB, its header of four fields included. Beside what the
// allocator takes for it (its values 80, its body 1,024) these are the object
// (288), its fields (56 each), the key (64), the entry (48), otter's node, place
// and counters (about 110), the mark (about 56).
func TestMemoryOfASmallObject(t *testing.T) {
	const objects, budget = 100_000, 1920
	before := live()
	c := New(1 << 30)
	for i := range objects {
		c.Put(full(c, fmt.Sprint("/articles/", i), 1024-len("Date: Thu, 26 Nov 2026 12:00:00 GMT||Content-Type: application/json||Cache-Control: max-age=60||ETag: \"5f3c-18b2a\"||||")))
	}
	each := (live() - before) / objects
	t.Logf("%d bytes for a response of 1 KiB", each)
	if each > budget {
		t.Errorf("%d bytes, the budget is %d", each, budget)
	}
	runtime.KeepAlive(c)
}

func TestMemoryStaysWithinItsLimit(t *testing.T) {
	for _, n := range []struct {
		limit            uint64
		smallest, range_ float64
		rounds           int
	}{{64 << 20, 100, 1 << 20 / 100, 12_000}, {16 << 20, 100, 100, 60_000}, {16 << 20, 100, 1 << 20 / 100, 4_000}} {
		before := live()
		c := New(n.limit)
		var most atomic.Uint64
		var group sync.WaitGroup
		var putters [4]uint64
		for g := range putters {
			die := rand.New(rand.NewPCG(uint64(g), 9))
			group.Go(func() {
				for range n.rounds / len(putters) {
					path := fmt.Sprint("/", die.IntN(n.rounds))
					o := full(c, path, int(n.smallest*math.Pow(n.range_, die.Float64())))
					if c.Get([]byte(o.Key)) == nil || die.IntN(4) == 0 {
						c.Put(o)
					}
					if w := c.Weight(); w > most.Load() {
						most.Store(w)
					}
					if die.IntN(200) == 0 {
						c.PurgeURI(o.URI)
						c.Pass(fmt.Sprint("pass ", path), noon)
					}
				}
			})
		}
		group.Wait()
		held := live() - before
		t.Logf("limit %d: weight %.3f, most %.3f, heap %.3f of it, %d entries", n.limit,
			float64(c.Weight())/float64(n.limit), float64(most.Load())/float64(n.limit), float64(held)/float64(n.limit), c.Len())
		within(t, "weight at the end", int64(c.Weight()), int64(n.limit), 0.1)
		within(t, "highest weight", int64(most.Load()), int64(n.limit), 0.1)
		within(t, "heap", held, int64(n.limit), 0.1)
		runtime.KeepAlive(c)
	}
}

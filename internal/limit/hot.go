package limit

import (
	"cmp"
	"hash/maphash"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sketch tells the heaviest keys of now in constant memory, whatever the number of
// keys. It is Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of
// Frequent and Top-k Elements in Data Streams, ICDT 2005): there are m counters;
// a key without one takes over the smallest, count and all, and remembers that
// count as the error it may have. So
//
//   - a counter says too much by at most its error, and never too little;
//   - errors are at most W/m, where W is the weight of all that was counted;
//   - every key heavier than W/m has a counter.
//
// # Now
//
// Counts fade with a half-life of 10 s: a request weighs 1 now, ½ in ten seconds.
// A key with a steady r requests a second shows r × 10/ln 2 = 14.4 r. Instead of
// shrinking the counts, what is added grows (forward decay: Cormode, Shkapenyuk,
// Srivastava, Xu: Forward Decay, ICDE 2009), by steps of 100 ms, which counts a
// request by at most 0.7 % too little.
//
// # Stripes
//
// Every core has a sketch of its own. A request only tries the stripe's lock and
// is not counted when somebody holds it: another request of the same stripe, or
// top, for some microseconds. top adds the stripes up as Agarwal, Cormode, Huang,
// Phillips, Wei and Yi do (Mergeable Summaries, PODS 2012): where a stripe has no
// counter of a key, its smallest one bounds what it may have missed. All three
// promises hold for the sum.
//
// # Samples
//
// A stripe that counts more than 10,000 requests a second takes one of 16, which then weighs 16. A count of c that came about so has a standard
// deviation of √(15c): 4 % when it is 10,000.
//
// # Memory
//
// A stripe has 256 counters and takes 43 KiB; there are as many as cores, rounded
// up to a power of two, at most 32 (1.4 MiB).
type sketch struct {
	seed    maphash.Seed
	mask    uint32 // stripes-1
	stripes []hotStripe
}

const (
	hotCounters   = 256
	hotKeyLen     = 128 // bytes of a key that are kept, to show it; the rest still tells keys apart
	hotIndex      = 4 * hotCounters
	hotStripes    = 32
	hotHalfLife   = 10 * time.Second
	hotStep       = 100 * time.Millisecond
	hotBusy       = 1000 // requests in one step from which on they are sampled
	hotSample     = 16   // one of so many then; a power of two
	hotMaxHalving = 64   // half-lives behind which the counts are shrunk after all
)

type hotStripe struct {
	sampled atomic.Bool
	_       [60]byte // read by every request, the rest written by some

	mu     sync.Mutex
	base   int64   // when a request weighed 1, Unix ns
	due    int64   // when weight is computed afresh
	weight float64 // of a request now
	seen   int     // counted since the last step
	used   int     // counters in use

	heap  [hotCounters]uint16 // counters; each is at most as large as its four children
	index [hotIndex]uint16    // counter + 1 by hash, linear probing; 0: free
	hotBoard
	_ [12]byte
}

// hotBoard is the counters and their keys.
type hotBoard struct {
	counters [hotCounters]hotCounter
	lengths  [hotCounters]uint8
	keys     [hotCounters][hotKeyLen]byte
}

type hotCounter struct {
	hash       uint64 // of the whole key; what a key is told by
	count, err float64
	at         uint16 // where it is in the heap
}

// hotKey is one of the heaviest keys: at most Count, at least Count - Error.
type hotKey struct {
	Key          string
	Count, Error int64
}

func newSketch() *sketch {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < hotStripes {
		n *= 2
	}
	return &sketch{seed: maphash.MakeSeed(), mask: uint32(n - 1), stripes: make([]hotStripe, n)}
}

// pick says how many requests one of the time now, Unix ns, counts for: 0 when it
// is not counted and needs no key. It never waits.
func (s *sketch) pick(shard uint32, now int64) int {
	if !s.stripes[shard&s.mask].sampled.Load() {
		return 1
	}
	// The nanosecond at which a request comes is as good a die as any, and costs 1 ns
	// instead of 9. It is mixed (as in MurmurHash3) so that no rhythm of requests can
	// keep step with it.
	die := uint64(now) ^ uint64(shard)<<40
	die = (die ^ die>>33) * 0xff51afd7ed558ccd
	die = (die ^ die>>33) * 0xc4ceb9fe1a85ec53
	if die>>32%hotSample == 0 {
		return hotSample
	}
	return 0
}

// put counts n requests of a key, where n is from pick. It never waits and does not
// keep key.
func (s *sketch) put(shard uint32, key []byte, n int, now int64) {
	p := &s.stripes[shard&s.mask]
	if !p.mu.TryLock() {
		return
	}
	if now >= p.due {
		p.step(now)
	}
	p.seen += n
	p.add(maphash.Bytes(s.seed, key), key, p.weight*float64(n))
	p.mu.Unlock()
}

// step brings the weight of a request up to date, and sees whether the stripe is
// busy enough for samples.
func (p *hotStripe) step(now int64) {
	if p.base == 0 {
		p.base = now
	}
	halvings := float64(now-p.base) / float64(hotHalfLife)
	if halvings > hotMaxHalving {
		shrink := math.Exp2(-halvings)
		for i := range p.counters[:p.used] {
			p.counters[i].count *= shrink
			p.counters[i].err *= shrink
		}
		p.base, halvings = now, 0
	}
	p.weight = math.Exp2(halvings)
	// Half of what begins the sampling ends it, so that it does not flap. Behind a
	// pause seen is not that of one step.
	paused := now-p.due >= int64(hotStep)
	p.sampled.Store(!paused && (p.seen >= hotBusy || p.seen >= hotBusy/2 && p.sampled.Load()))
	p.seen, p.due = 0, now+int64(hotStep)
}

func (p *hotStripe) add(hash uint64, key []byte, weight float64) {
	slot := hash % hotIndex
	for p.index[slot] != 0 {
		if c := &p.counters[p.index[slot]-1]; c.hash == hash {
			c.count += weight
			p.down(int(c.at))
			return
		}
		slot = (slot + 1) % hotIndex
	}
	i := p.used
	if i < hotCounters {
		p.used++
		p.counters[i].at = uint16(i)
		p.heap[i] = uint16(i)
	} else {
		i = int(p.heap[0])
		p.forget(p.counters[i].hash)
		slot = hash % hotIndex // the gap may have come nearer
		for p.index[slot] != 0 {
			slot = (slot + 1) % hotIndex
		}
	}
	c := &p.counters[i]
	c.hash, c.err = hash, c.count
	c.count += weight
	p.index[slot] = uint16(i + 1)
	p.lengths[i] = uint8(copy(p.keys[i][:], key))
	p.up(int(c.at))
	p.down(int(c.at))
}

// forget takes a hash out of the index and closes the gap.
func (p *hotStripe) forget(hash uint64) {
	gap := hash % hotIndex
	for p.counters[p.index[gap]-1].hash != hash {
		gap = (gap + 1) % hotIndex
	}
	for i := (gap + 1) % hotIndex; p.index[i] != 0; i = (i + 1) % hotIndex {
		home := p.counters[p.index[i]-1].hash % hotIndex
		if (i-home)%hotIndex >= (i-gap)%hotIndex { // its home is not behind the gap
			p.index[gap] = p.index[i]
			gap = i
		}
	}
	p.index[gap] = 0
}

// down restores the heap below a counter that grew.
func (p *hotStripe) down(at int) {
	i := p.heap[at]
	count := p.counters[i].count
	for {
		least, small := -1, count
		for child := 4*at + 1; child <= 4*at+4 && child < p.used; child++ {
			if n := p.counters[p.heap[child]].count; n < small {
				least, small = child, n
			}
		}
		if least < 0 {
			break
		}
		p.heap[at] = p.heap[least]
		p.counters[p.heap[at]].at = uint16(at)
		at = least
	}
	p.heap[at] = i
	p.counters[i].at = uint16(at)
}

// up restores the heap above a new counter.
func (p *hotStripe) up(at int) {
	i := p.heap[at]
	for at > 0 {
		parent := (at - 1) / 4
		if p.counters[p.heap[parent]].count <= p.counters[i].count {
			break
		}
		p.heap[at] = p.heap[parent]
		p.counters[p.heap[at]].at = uint16(at)
		at = parent
	}
	p.heap[at] = i
	p.counters[i].at = uint16(at)
}

// top returns the n heaviest keys at the time now, Unix ns, the heaviest first;
// fewer when fewer count at least half a request.
func (s *sketch) top(n int, now int64) []hotKey {
	type sum struct {
		key        string
		count, err float64
	}
	sums := map[uint64]*sum{}
	floor := 0.0
	board := new(hotBoard)
	for i := range s.stripes {
		used, scale := s.stripes[i].read(board, now)
		least := 0.0 // what a key may weigh that has no counter here
		if used == hotCounters {
			least = math.Inf(1)
			for j := range board.counters {
				least = min(least, board.counters[j].count*scale)
			}
		}
		floor += least
		for j, c := range board.counters[:used] {
			m := sums[c.hash]
			if m == nil {
				m = &sum{key: string(board.keys[j][:board.lengths[j]])}
				sums[c.hash] = m
			}
			m.count += c.count*scale - least
			m.err += c.err*scale - least
		}
	}
	all := make([]hotKey, 0, len(sums))
	for _, m := range sums {
		if count := m.count + floor; count >= 0.5 {
			all = append(all, hotKey{m.key, int64(math.Round(count)), int64(math.Ceil(m.err + floor))})
		}
	}
	slices.SortFunc(all, func(a, b hotKey) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key))
	})
	return all[:min(max(n, 0), len(all))]
}

// read copies the board, and says how many counters it has and what their counts
// are to be multiplied with at the time now.
func (p *hotStripe) read(b *hotBoard, now int64) (used int, scale float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*b = p.hotBoard
	return p.used, math.Exp2(-float64(max(now-p.base, 0)) / float64(hotHalfLife))
}

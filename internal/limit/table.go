package limit

import (
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// table holds the entries of one limit's keys. Looking a key up takes no lock and
// allocates nothing; adding and dropping keys takes the lock of one shard.
//
// # Shape
//
// A key is hashed with a seed of the table's own, so that nobody outside can aim
// at a place. The hash's upper bits choose a shard through the directory, its
// lower bits a slot of that shard, which is a chain of entries:
//
//	directory   shard            entries
//	00 ──────▶  0  (1 bit)       slot 17 ─▶ e ─▶ e
//	01 ──────▶  0                slot 18
//	10 ──────▶  10 (2 bits)      slot 19 ─▶ e
//	11 ──────▶  11 (2 bits)      …
//
// This is extendible hashing (Fagin, Nievergelt, Pippenger, Strong: Extendible
// Hashing, ACM TODS 4, 1979). A shard that is full splits in two; the directory
// doubles when the shard was the only one of its prefix. So growth is many small
// steps: 256 entries are relinked, some 20 µs, and never the whole table. An empty
// table has no shards at all; one key costs 2.3 KiB.
//
// # Readers and a split
//
// A split changes next pointers under readers' feet: one that stands at an entry
// which moves goes on in the other half's chain. It can miss what it looks for,
// never find something wrong, and never walk in circles, because an entry points
// only at entries behind it, or at those that moved before it. Therefore "absent"
// is believed only when the shard's count of moves was even and is unchanged, and
// the directory still names the shard: a split makes the count odd, moves, changes
// the directory, and makes it even. Who is in doubt looks again under the lock.
//
// # Ends of entries
//
// A cell is retired and its entry unlinked under one hold of the shard's lock. A
// caller that still has the entry is told by Take that nothing was charged, and
// comes back (renew), which waits for that lock. So while an entry is in the table
// all that was charged to its key is in its cell, and no key has two live cells.
//
// # Full
//
// At most max keys are kept, and those that callers are just adding. Beyond it
// the least used of at least 8 sampled entries goes, never the new one: a flood of
// keys that were seen once evicts keys that were seen once. A table with a share q
// of entries that are used at least as much as a certain one loses that one to a
// new key with a chance of about 12/max × q^7.
type table struct {
	limit *meter.Limit
	seed  maphash.Seed
	max   int64
	dir   atomic.Pointer[directory] // nil until the first key

	// weight says how much hangs at an entry beside its cell, in units ≥ 0: what a
	// lease holds, say. It is added to the cell's use when the least used is looked
	// for. Nil: nothing. Both functions are set before the table is used.
	weight func(e *entry, now int64) int64
	// retire is asked before an entry goes, with its shard locked: it must not call
	// the table. It gives up what hangs at the entry and returns true, or returns
	// false and the entry stays. An entry that is charged at that very moment may
	// stay even so. When force is set it goes anyway: the table is full. Nil: always
	// true.
	retire func(e *entry, now int64, force bool) bool

	_ [64]byte // what is above is only read, what is below is written

	count     atomic.Int64
	evicted   atomic.Uint64
	forgotten atomic.Uint64
	grow      sync.Mutex // guards the directory's content; taken behind a shard's lock
	sweeping  sync.Mutex // guards what follows; taken before a shard's lock
	cursor    uint64     // the hash at which the next sweep begins
	rested    time.Time  // when tidy may begin the next pass
}

const (
	// slots is how many chains a shard has, and full the entries at which it
	// splits. Directly behind a split every second slot is used, so a chain has
	// little more than one entry and most look-ups touch one.
	slots = 256
	full  = 256
	// samples is how many entries an eviction chooses from, at least.
	samples = 8
	// maxBits bounds the directory: 2^28 pointers, far beyond any max.
	maxBits = 28
)

// directory finds the shard of a hash. It is replaced when it doubles; within one,
// only a split changes pointers, under table.grow.
type directory struct {
	shift  uint8 // a hash shifted right by this is its index; 64: there is one shard
	shards []atomic.Pointer[shard]
}

func (d *directory) shard(hash uint64) *shard { return d.shards[hash>>d.shift].Load() }

// shard holds the entries whose hashes begin with the same bits.
type shard struct {
	mu      sync.Mutex
	moves   atomic.Uint32 // splits begun and ended: odd while entries move
	bits    uint8         // how many bits its hashes have in common, under mu
	entries int           // under mu
	_       [40]byte      // the slots begin on a line of their own

	slots [slots]atomic.Pointer[entry]
}

// walk looks for a key without a lock.
func (s *shard) walk(hash uint64, key []byte) *entry {
	e := s.slots[hash%slots].Load()
	for e != nil && (e.hash != hash || e.key != string(key)) {
		e = e.next.Load()
	}
	return e
}

// newTable returns an empty table of at most max keys, max ≥ 1.
func newTable(l *meter.Limit, max int) *table {
	return &table{limit: l, seed: maphash.MakeSeed(), max: int64(max)}
}

// hash is what the table finds a key by.
func (t *table) hash(key []byte) uint64 { return maphash.Bytes(t.seed, key) }

// len is the number of keys.
func (t *table) len() int { return int(t.count.Load()) }

// evictions is how many entries went because the table was full.
func (t *table) evictions() uint64 { return t.evicted.Load() }

// losses is how many of the evictions were of entries in use, whose clients start
// afresh; an entry with no use left loses nothing by it.
func (t *table) losses() uint64 { return t.forgotten.Load() }

// find returns the entry of a key, nil when there is none. It takes no lock (but
// while the shard splits) and allocates nothing; key is not kept.
func (t *table) find(key []byte) *entry {
	return t.look(t.hash(key), key)
}

// entry returns the entry of a key and makes one when there is none. key is
// copied. now, in Unix ns, is for choosing whom to evict.
func (t *table) entry(key []byte, now int64) *entry {
	hash := t.hash(key)
	if e := t.look(hash, key); e != nil {
		return e
	}
	return t.insert(hash, key, now)
}

// renew is entry for a caller whose entry was retired: it looks under the lock, so
// that it does not get the same one again.
func (t *table) renew(key []byte, now int64) *entry {
	return t.insert(t.hash(key), key, now)
}

// take charges cost to a key, and returns the entry that was asked.
func (t *table) take(key []byte, now, cost int64) (meter.Verdict, *entry) {
	e := t.entry(key, now)
	for {
		if v, live := t.limit.Take(&e.cell, now, cost); live {
			return v, e
		}
		e = t.renew(key, now)
	}
}

func (t *table) look(hash uint64, key []byte) *entry {
	d := t.dir.Load()
	if d == nil {
		return nil
	}
	s := d.shard(hash)
	moves := s.moves.Load()
	if e := s.walk(hash, key); e != nil {
		return e
	}
	if moves%2 == 0 && s.moves.Load() == moves && t.dir.Load().shard(hash) == s {
		return nil
	}
	s = t.lock(hash)
	defer s.mu.Unlock()
	return s.walk(hash, key)
}

// lock returns the shard of a hash, locked.
func (t *table) lock(hash uint64) *shard {
	for {
		d := t.dir.Load()
		if d == nil {
			t.begin()
			continue
		}
		s := d.shard(hash)
		s.mu.Lock()
		// It may have split while we waited. From here on it cannot.
		if t.dir.Load().shard(hash) == s {
			return s
		}
		s.mu.Unlock()
	}
}

// begin makes the first shard.
func (t *table) begin() {
	t.grow.Lock()
	defer t.grow.Unlock()
	if t.dir.Load() == nil {
		d := &directory{shift: 64, shards: make([]atomic.Pointer[shard], 1)}
		d.shards[0].Store(new(shard))
		t.dir.Store(d)
	}
}

func (t *table) insert(hash uint64, key []byte, now int64) *entry {
	fresh := &entry{hash: hash, key: string(key)} // before the lock: making it may help the collector along
	s := t.lock(hash)
	if e := s.walk(hash, key); e != nil {
		s.mu.Unlock()
		return e
	}
	slot := &s.slots[hash%slots]
	fresh.next.Store(slot.Load())
	slot.Store(fresh)
	s.entries++
	if s.entries >= full && s.bits < maxBits {
		t.split(s, hash)
	}
	n := t.count.Add(1)
	s.mu.Unlock()
	if n > t.max {
		t.evict(now, fresh)
	}
	return fresh
}

// split moves the upper half of a locked shard's hashes to a new one. hash is any
// of the shard's.
func (t *table) split(s *shard, hash uint64) {
	upper := &shard{bits: s.bits + 1}
	bit := uint64(1) << (63 - s.bits)
	s.moves.Add(1)
	for i := range s.slots {
		link := &s.slots[i]
		for e := link.Load(); e != nil; {
			next := e.next.Load()
			if e.hash&bit == 0 {
				link = &e.next
			} else {
				link.Store(next)
				e.next.Store(upper.slots[i].Load())
				upper.slots[i].Store(e)
				upper.entries++
				s.entries--
			}
			e = next
		}
	}
	s.bits++
	t.place(upper, hash|bit)
	s.moves.Add(1)
}

// place enters a new shard, that has hash, into the directory.
func (t *table) place(s *shard, hash uint64) {
	t.grow.Lock()
	defer t.grow.Unlock()
	d := t.dir.Load()
	if 64-d.shift < s.bits {
		twice := &directory{shift: d.shift - 1, shards: make([]atomic.Pointer[shard], 2*len(d.shards))}
		for i := range twice.shards {
			twice.shards[i].Store(d.shards[i/2].Load())
		}
		d = twice
	}
	spread := 64 - d.shift - s.bits // the directory's bits that the shard does not look at
	first := hash >> (64 - s.bits) << spread
	for i := range uint64(1) << spread {
		d.shards[first+i].Store(s)
	}
	t.dir.Store(d)
}

// unlink takes an entry out of its locked shard, false when it is not there.
func (t *table) unlink(s *shard, e *entry) bool {
	link := &s.slots[e.hash%slots]
	for at := link.Load(); at != nil; at = link.Load() {
		if at == e {
			link.Store(e.next.Load()) // e.next stays: a reader may stand at e
			s.entries--
			t.count.Add(-1)
			return true
		}
		link = &at.next
	}
	return false
}

// retired ends an entry of a locked shard, which must be unlinked at once then.
func (t *table) retired(e *entry, now int64, force bool) bool {
	if !force && t.limit.Used(&e.cell, now) != 0 {
		return false
	}
	if t.retire != nil && !t.retire(e, now, force) && !force {
		return false
	}
	return t.limit.Retire(&e.cell, now, force) || force
}

// used is how much an entry counts when the least used is looked for, in units.
func (t *table) used(e *entry, now int64) int64 {
	n := t.limit.Used(&e.cell, now)
	if t.weight != nil {
		n += t.weight(e, now)
	}
	return n
}

// evict drops entries, never spare, until the table is not over its maximum. When
// others drop what it has chosen it gives up after a few tries, and the next
// insert goes on.
func (t *table) evict(now int64, spare *entry) {
	for try := 0; try < 4 && t.count.Load() > t.max; try++ {
		e, used := t.sample(now, spare)
		if e == nil {
			continue
		}
		s := t.lock(e.hash)
		if t.unlink(s, e) {
			t.retired(e, now, true)
			t.evicted.Add(1)
			if used > 0 {
				t.forgotten.Add(1)
			}
		}
		s.mu.Unlock()
	}
}

// sample returns the least used of some random entries, and its use; of several,
// any. It takes no lock. It looks at all entries of four groups of slots, and at
// more groups until it has seen eight entries. Every slot is as likely as any
// other, so that crowded places lose more than thin ones and stay level. (Walking
// on from one random slot until eight are found is not the same: all places lose
// alike then, some run empty by chance until only heavy clients are left there,
// and those go.)
func (t *table) sample(now int64, spare *entry) (least *entry, used int64) {
	const groups, group = 4, 4
	die := rand.Uint64()
	seen, ties := 0, uint64(1)
	look := func(slots []atomic.Pointer[entry]) {
		for i := range slots {
			for e := slots[i].Load(); e != nil; e = e.next.Load() {
				if e == spare {
					continue
				}
				seen++
				switch n := t.used(e, now); {
				case least == nil || n < used:
					least, used, ties = e, n, 1
				case n == used:
					ties++
					if die = die*6364136223846793005 + 1; die>>32%ties == 0 {
						least = e
					}
				}
			}
		}
	}
	d := t.dir.Load()
	for tries, looked := 0, 0; tries < 64 && (looked < groups || seen < samples); tries++ {
		at := rand.Uint64()
		i := at >> d.shift
		s := d.shards[i].Load()
		if i > 0 && d.shards[i-1].Load() == s {
			continue // a shard counts once, however often it is in the directory
		}
		at = at % slots &^ (group - 1)
		look(s.slots[at : at+group])
		looked++
	}
	// A table for a few keys has hardly any in 256 slots.
	for i := 0; i < len(d.shards) && i < groups && least == nil; i++ {
		look(d.shards[i].Load().slots[:])
	}
	return least, used
}

// sweep looks at entries, where the last sweep ended, and drops those that nothing
// is counted for any more. It stops at the end of the shard in which it has looked
// at budget entries, or behind the table's last one, and returns how many it
// dropped. A shard, of at most some 256 entries, is locked for about 20 µs.
func (t *table) sweep(now int64, budget int) int {
	t.sweeping.Lock()
	defer t.sweeping.Unlock()
	if t.dir.Load() == nil {
		return 0
	}
	dropped := 0
	for budget > 0 {
		looked, gone := t.sweepShard(now)
		budget -= looked + slots/8 // the slots themselves are 8 to a line
		dropped += gone
		if t.cursor == 0 {
			break
		}
	}
	return dropped
}

// tidy is called every sweepEvery. It sweeps a part of the table, so that a pass over
// the whole of a large one takes a while, and begins a pass only sweepRest after
// the last: most clients stay far under their limits and are at no use whenever one
// looks, and dropping them would be making them again at their next request.
func (t *table) tidy(at time.Time, now int64) {
	t.sweeping.Lock()
	resting := t.cursor == 0 && at.Before(t.rested)
	t.sweeping.Unlock()
	if resting {
		return
	}
	t.sweep(now, sweepKeys)
	t.sweeping.Lock()
	if t.cursor == 0 {
		t.rested = at.Add(sweepRest)
	}
	t.sweeping.Unlock()
}

func (t *table) sweepShard(now int64) (looked, gone int) {
	s := t.lock(t.cursor)
	defer s.mu.Unlock()
	looked = s.entries
	for i := range s.slots {
		link := &s.slots[i]
		for e := link.Load(); e != nil; e = link.Load() {
			if !t.retired(e, now, false) {
				link = &e.next
				continue
			}
			link.Store(e.next.Load())
			gone++
		}
	}
	s.entries -= gone
	t.count.Add(-int64(gone))
	t.cursor += 1 << (64 - s.bits) // 0 behind the last shard
	return looked, gone
}

// all yields every entry that is there all the while, and maybe others, until
// yield returns false. No lock is held while it yields.
func (t *table) all(yield func(*entry) bool) {
	if t.dir.Load() == nil {
		return
	}
	batch := make([]*entry, 0, full)
	for at := uint64(0); ; {
		batch = batch[:0]
		s := t.lock(at)
		for i := range s.slots {
			for e := s.slots[i].Load(); e != nil; e = e.next.Load() {
				batch = append(batch, e)
			}
		}
		at += 1 << (64 - s.bits)
		s.mu.Unlock()
		for _, e := range batch {
			if !yield(e) {
				return
			}
		}
		if at == 0 {
			return
		}
	}
}

// Package verdict keeps what was found out about credentials, so that the same bytes
// need not be verified again.
//
// A Cache is a table of sets of four slots. A key's hash, with a seed of the process,
// chooses the set; the whole key is compared, so that a collision costs a place and
// never a wrong verdict. Readers take no lock: an entry is not changed once it is in
// its slot. Writers take turns. What was not asked for since it last was passed over
// makes room first.
package verdict

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
)

// ways is how many slots a set has: one cache line of pointers holds two sets, and
// four keys that fall together still fit.
const ways = 4

// Cache keeps values under whole credentials. It is safe for use by many goroutines.
type Cache[V any] struct {
	seed   maphash.Seed
	mask   uint64
	maxKey int
	sets   [][ways]atomic.Pointer[entry[V]]

	mu   sync.Mutex // of writers
	next uint32     // where the search for room begins
}

type entry[V any] struct {
	hash  uint64
	until int64
	key   []byte
	value V
	asked atomic.Bool // since it was last passed over
}

// New makes a cache of at least entries values, rounded up to a power of two; keys
// longer than maxKey bytes are never kept.
func New[V any](entries, maxKey int) *Cache[V] {
	sets := 1
	if entries > ways {
		sets = 1 << bits.Len(uint((entries-1)/ways))
	}
	return &Cache[V]{seed: maphash.MakeSeed(), mask: uint64(sets - 1), maxKey: maxKey, sets: make([][ways]atomic.Pointer[entry[V]], sets)}
}

// Get returns what is kept under the very bytes of key, when it holds at now (Unix
// ns). It allocates nothing and takes no lock.
func (c *Cache[V]) Get(key []byte, now int64) (v V, ok bool) {
	if len(key) > c.maxKey {
		return v, false
	}
	hash := maphash.Bytes(c.seed, key)
	set := &c.sets[hash&c.mask]
	for i := range set {
		e := set[i].Load()
		if e == nil || e.hash != hash || !bytes.Equal(e.key, key) {
			continue
		}
		if now >= e.until {
			return v, false
		}
		if !e.asked.Load() {
			e.asked.Store(true)
		}
		return e.value, true
	}
	return v, false
}

// Put keeps v until `until` (Unix ns), in the place of what was kept under the same
// key. The key is copied.
func (c *Cache[V]) Put(key []byte, v V, until int64) {
	if len(key) > c.maxKey {
		return
	}
	hash := maphash.Bytes(c.seed, key)
	e := &entry[V]{hash: hash, until: until, key: bytes.Clone(key), value: v}
	c.mu.Lock()
	defer c.mu.Unlock()
	set := &c.sets[hash&c.mask]
	set[c.room(set, hash, key)].Store(e)
}

// room returns the slot for a key: its own, a free one, or that of an entry that was
// not asked for.
func (c *Cache[V]) room(set *[ways]atomic.Pointer[entry[V]], hash uint64, key []byte) int {
	free := -1
	for i := range set {
		switch e := set[i].Load(); {
		case e == nil:
			free = i
		case e.hash == hash && bytes.Equal(e.key, key):
			return i
		}
	}
	if free >= 0 {
		return free
	}
	c.next++
	for i := range uint32(ways) {
		at := int((c.next + i) % ways)
		if !set[at].Load().asked.Swap(false) {
			return at
		}
	}
	return int(c.next % ways)
}

// Clear forgets everything.
func (c *Cache[V]) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.sets {
		for j := range c.sets[i] {
			c.sets[i][j].Store(nil)
		}
	}
}

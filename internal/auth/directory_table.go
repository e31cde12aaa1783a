package auth

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"maps"
	"math/bits"
	"slices"
	"sync/atomic"
)

// shards is how many parts a table has. A change copies one part: with 100,000 keys
// that is 100 of them, while all others are read on, without a lock.
const shards = 1024

// keyTable finds keys by the digest of what was sent. Reading takes no lock and
// does not allocate; who writes must be alone.
//
// Finding takes the same work whatever is sent: the bucket that the digest chooses is
// read whole, and each of its digests is compared whole, without a branch. So neither
// the time nor what the processor keeps at hand tells how near a guess was; that a key
// was accepted, the response tells anyway.
type keyTable struct {
	shards [shards]atomic.Pointer[keyShard]
}

// keyShard is one part of a keyTable. It does not change.
type keyShard struct {
	mask    uint64
	buckets []keyBucket // a power of two
}

// bucketSize is how many keys a bucket has. It is five lines of a cache.
const bucketSize = 8

type keyBucket struct {
	digests [bucketSize][4]uint64 // zero: the place is free
	keys    [bucketSize]*credential
}

func newKeyTable() *keyTable {
	t := new(keyTable)
	t.replace(nil)
	return t
}

var noKeys = &keyShard{buckets: make([]keyBucket, 1)}

// words is a digest to compare. No key has that of zeros: SHA-256 sees to it, and that
// no nine keys are in one bucket of as many as there can be.
func words(digest *[sha256.Size]byte) (w [4]uint64) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(digest[8*i:])
	}
	return w
}

// find returns the key with a digest, and 1; or some other or nil, and 0.
func (t *keyTable) find(digest *[sha256.Size]byte) (c *credential, found int) {
	w := words(digest)
	s := t.shards[w[0]%shards].Load()
	b := &s.buckets[w[0]/shards&s.mask]
	hits := uint64(0)
	for i := range b.digests {
		d := &b.digests[i]
		hits |= isZero(d[0]^w[0]|d[1]^w[1]|d[2]^w[2]|d[3]^w[3]) << i
	}
	return b.keys[bits.TrailingZeros64(hits)%bucketSize], int(isZero(hits) ^ 1)
}

// isZero is 1 when x is 0, and 0 otherwise, without a branch.
func isZero(x uint64) uint64 { return ((x - 1) &^ x) >> 63 }

// put adds keys, in place of those of the same digest.
func (t *keyTable) put(c *credential) {
	t.change(c, func(all []*credential) []*credential { return append(all, c) })
}

// remove takes a key away, when it is there.
func (t *keyTable) remove(c *credential) {
	t.change(c, func(all []*credential) []*credential { return all })
}

// change replaces the part of c's digest, by what f makes of its other keys.
func (t *keyTable) change(c *credential, f func(others []*credential) []*credential) {
	shard := words(&c.digest)[0] % shards
	var others []*credential
	for k := range t.shards[shard].Load().all {
		if k.digest != c.digest {
			others = append(others, k)
		}
	}
	t.shards[shard].Store(pack(f(others)))
}

// replace makes the table hold these keys and no others.
func (t *keyTable) replace(all []*credential) {
	var parts [shards][]*credential
	for _, c := range all {
		shard := words(&c.digest)[0] % shards
		parts[shard] = append(parts[shard], c)
	}
	for i := range parts {
		t.shards[i].Store(pack(parts[i]))
	}
}

// pack makes a part of keys. Buckets are three eighths full at first;
// there are more of them until each key has room.
func pack(all []*credential) *keyShard {
	if len(all) == 0 {
		return noKeys
	}
	n := 1
	for n*3 < len(all) {
		n *= 2
	}
again:
	s := &keyShard{mask: uint64(n - 1), buckets: make([]keyBucket, n)}
	for _, c := range all {
		w := words(&c.digest)
		b := &s.buckets[w[0]/shards&s.mask]
		i := slices.Index(b.keys[:], nil)
		if i < 0 {
			n *= 2
			goto again
		}
		b.digests[i], b.keys[i] = w, c
	}
	return s
}

// all yields every key of a part.
func (s *keyShard) all(yield func(*credential) bool) {
	for i := range s.buckets {
		for _, c := range s.buckets[i].keys {
			if c != nil && !yield(c) {
				return
			}
		}
	}
}

// nameTable finds things by name. Reading takes no lock; who writes must be alone.
type nameTable[V any] struct {
	seed   maphash.Seed
	shards [shards]atomic.Pointer[map[string]V]
}

func newNameTable[V any]() *nameTable[V] { return &nameTable[V]{seed: maphash.MakeSeed()} }

func (t *nameTable[V]) shard(name string) *atomic.Pointer[map[string]V] {
	return &t.shards[maphash.String(t.seed, name)%shards]
}

func (t *nameTable[V]) get(name string) (v V, ok bool) {
	if m := t.shard(name).Load(); m != nil {
		v, ok = (*m)[name]
	}
	return v, ok
}

func (t *nameTable[V]) put(name string, v V) {
	s := t.shard(name)
	m := map[string]V{}
	if was := s.Load(); was != nil {
		m = maps.Clone(*was)
	}
	m[name] = v
	s.Store(&m)
}

func (t *nameTable[V]) remove(name string) {
	s := t.shard(name)
	if was := s.Load(); was != nil {
		m := maps.Clone(*was)
		delete(m, name)
		s.Store(&m)
	}
}

// replace makes the table hold what all has and nothing else.
func (t *nameTable[V]) replace(all map[string]V) {
	var parts [shards]map[string]V
	for name, v := range all {
		i := maphash.String(t.seed, name) % shards
		if parts[i] == nil {
			parts[i] = map[string]V{}
		}
		parts[i][name] = v
	}
	for i, m := range parts {
		if m == nil {
			t.shards[i].Store(nil)
		} else {
			t.shards[i].Store(&m)
		}
	}
}

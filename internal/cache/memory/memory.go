// Package memory is level 1 of the cache: objects by weight in bytes, what is
// known of the Vary of a resource, marks that say whom to ask at once, and the
// purges of all this.
//
// otter keeps the table (W-TinyLFU: a new object stays only when it is asked
// for more often than what it would push out). A look-up takes no lock and
// allocates nothing; it notes the use in a buffer of 16, and whoever fills one
// does otter's maintenance, unless somebody else is at it. The room has no
// goroutine of its own.
package memory

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"github.com/sluice-gateway/sluice/internal/cache/object"
)

// Entry is what stands under a key. Exactly one of its fields is set, and none
// changes.
type Entry struct {
	Object *object.Object
	Specs  []string // of the variants, latest first: the objects stand under keys made with them
	Pass   int64    // Unix ns: until then answers are not stored, and nobody waits for one
}

// Use is an object that is asked for often.
type Use struct {
	Key, URI string
	Weight   uint64 // bytes
	Hits     uint64 // answers that it gave, about
}

// Cache is level 1. The zero value is not usable.
type Cache struct {
	marks
	entries *otter.Cache[string, *Entry]
	limit   atomic.Uint64
	weight  atomic.Int64
}

const (
	// maxSpecs is how many different Vary a resource is remembered with.
	maxSpecs = 4
	// share: an object may weigh that part of the limit.
	share = 8
	// slack: that part of the limit may be taken over it before a Put helps to
	// clean up.
	slack = 64
	// nodeSize is what otter's node, its place in the table and in the sketch
	// take, at the mean load of a table that doubles (measured).
	nodeSize = 112
	// markSize is a mark and its place in a shard's map.
	markSize = 56
)

// New makes a cache of at most limit bytes.
func New(limit uint64) *Cache {
	c := &Cache{}
	c.init()
	c.entries = otter.Must(&otter.Options[string, *Entry]{
		MaximumWeight:    max(limit, 1),
		Weigher:          weigh,
		OnAtomicDeletion: c.left,
		Executor:         func(f func()) { f() },
	})
	c.SetLimit(limit)
	return c
}

// SetLimit changes the limit. What is over it leaves before SetLimit returns.
func (c *Cache) SetLimit(limit uint64) {
	c.limit.Store(limit)
	c.keep(min(max(limit/1024, minRecent), maxRecent)) // one takes about 64 bytes: a sixteenth of the limit at most
	c.entries.SetMaximum(max(limit, 1))
}

// weigh runs under a lock of otter's and calls nothing of it.
func weigh(key string, e *Entry) uint32 {
	n := uint64(nodeSize + object.Rounded(int(unsafe.Sizeof(*e))))
	switch {
	case e.Object != nil: // key is its Key
		n += e.Object.Weight() + markSize
		if tags := len(e.Object.Tags); tags > 0 {
			n += uint64(32 + 8*tags) // the marks of tags are shared by many
		}
	default:
		n += uint64(object.Rounded(len(key)))
		for _, s := range e.Specs {
			n += uint64(object.Rounded(len(s))) + uint64(unsafe.Sizeof(s))
		}
	}
	return uint32(min(n, math.MaxUint32))
}

// left runs under a lock of otter's for every entry that leaves the table and
// calls nothing of it.
func (c *Cache) left(e otter.DeletionEvent[string, *Entry]) {
	c.weight.Add(-int64(weigh(e.Key, e.Value)))
	if o := e.Value.Object; o != nil {
		c.give(o)
	}
}

// Get returns what stands under a key, nil when nothing does, and counts as a
// use of it. It takes no lock and allocates nothing. Purges are not looked at:
// Valid says whether an object may be used.
func (c *Cache) Get(key []byte) *Entry {
	e, _ := c.entries.GetIfPresent(unsafe.String(unsafe.SliceData(key), len(key))) // otter keeps no key that it only looks up
	return e
}

// Put stores o under its key, and its Spec under its primary key. It is false
// when a purge has overtaken o, and when o is larger than an eighth of the
// limit. A newer object that is fresh and valid stays in place of o (then it is
// true). An object is put once, a second time is false; others may read it
// already.
func (c *Cache) Put(o *object.Object) bool {
	if o.Mark.Load() != nil {
		return false
	}
	e := &Entry{Object: o}
	if uint64(weigh(o.Key, e)) > c.limit.Load()/share || !c.take(o) {
		return false
	}
	if !c.write(o.Key, e, func(old *Entry) bool { return old.Object == nil || !c.outlives(old.Object, o) }) {
		c.give(o)
	} else if o.Spec != "" && o.Primary != o.Key {
		c.vary(o)
	}
	c.trim()
	return true
}

// outlives reports whether old is a better answer than o, which was stored
// now: newer, and to be used without asking.
func (c *Cache) outlives(old, o *object.Object) bool {
	return old.Newer(o) && !old.NoCache && o.Stored < old.Expires() && c.Valid(old)
}

// vary notes under o's primary key that the response to it has o's Vary.
func (c *Cache) vary(o *object.Object) {
	key := strings.Clone(o.Primary)
	if e, ok := c.entries.GetEntryQuietly(key); ok && len(e.Value.Specs) > 0 && e.Value.Specs[0] == o.Spec {
		return
	}
	e := &Entry{Specs: make([]string, 1, maxSpecs)}
	e.Specs[0] = strings.Clone(o.Spec)
	c.write(key, e, func(old *Entry) bool {
		for _, s := range old.Specs {
			if s != o.Spec && len(e.Specs) < maxSpecs {
				e.Specs = append(e.Specs, s)
			}
		}
		e.Specs = slices.Clip(e.Specs)
		return len(old.Specs) == 0 || old.Specs[0] != o.Spec
	})
}

// write puts e under key unless replace, called under a lock of otter's with
// what stands there, is against it.
func (c *Cache) write(key string, e *Entry, replace func(old *Entry) bool) (written bool) {
	c.entries.Compute(key, func(old *Entry, found bool) (*Entry, otter.ComputeOp) {
		if found && !replace(old) {
			return nil, otter.CancelOp
		}
		written = true
		c.weight.Add(int64(weigh(key, e)))
		return e, otter.WriteOp
	})
	return written
}

// Pass notes that answers for key are not stored, until a time in Unix ns. A
// valid object that stays fresh for longer keeps its place.
func (c *Cache) Pass(key string, until int64) {
	c.write(key, &Entry{Pass: until}, func(old *Entry) bool {
		return old.Object == nil || old.Object.Expires() <= until || !c.Valid(old.Object)
	})
	c.trim()
}

// Drop removes what stands under key.
func (c *Cache) Drop(key string) { c.entries.Invalidate(key) }

// trim cleans up when writers are ahead of otter's maintenance, which they are
// when they find its lock taken.
func (c *Cache) trim() {
	if limit := c.limit.Load(); c.Weight() > limit+limit/slack {
		c.entries.CleanUp()
	}
}

// Weight is the memory that the entries take, in bytes.
func (c *Cache) Weight() uint64 { return uint64(max(c.weight.Load(), 0)) }

// Len is the number of entries, objects and others.
func (c *Cache) Len() int { return c.entries.EstimatedSize() }

// Hottest lists up to n objects of those that would leave last, the most used first. It
// holds up writers while it looks.
func (c *Cache) Hottest(n int) []Use {
	var uses []Use
	seen := 0
	for e := range c.entries.Hottest() {
		if seen++; seen > 1000+16*n {
			break
		}
		if o := e.Value.Object; o != nil && c.Valid(o) {
			uses = append(uses, Use{Key: o.Key, URI: o.URI, Weight: uint64(e.Weight), Hits: uint64(o.Hits.Load()) * object.HitSample})
		}
	}
	slices.SortStableFunc(uses, func(a, b Use) int { return cmp.Compare(b.Hits, a.Hits) })
	return uses[:min(n, len(uses))]
}

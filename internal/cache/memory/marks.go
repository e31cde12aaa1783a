package memory

import (
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/cache/object"
)

// Purges are numbered from 1; count is the last one that is applied. A fill
// reads count before it asks anybody, and its object carries that number as
// its stamp. An object is valid when no purge that names it has a higher
// number. So a purge is not undone by a slow fill that began before it, nothing
// is looked for when it is applied, and one that came before costs nothing.
//
// A URI or tag has a mark, found by a seeded hash of its name and held by the
// objects in memory that have it; a purge writes its number there. (Two names
// with one hash share a mark: a purge of one then takes the other along. It is
// never the other way round.) Purges of prefixes and of all stand in one short
// list; an object remembers up to where it was compared.
//
// A purge also concerns objects that are still under way. Its mark therefore
// stays without an object that holds it for as many purges as recent has
// places. What is forgotten raises floor, and an object with a stamp below
// floor is not stored. The invariants:
//
//   - a mark in a shard has a holder, or its Purged is above floor and the
//     place in recent of that number points to it;
//   - a mark outside the shards has forgotten as its Purged: whoever still
//     reads it has to look the name up;
//   - floor is raised before the marks that it stands for are forgotten, and
//     read after marks were taken.
//
// Locks: purging, then one shard's; otter's, then one shard's.
type marks struct {
	count  atomic.Uint64
	floor  atomic.Uint64
	last   atomic.Uint64 // number of the last purge in wide
	wide   atomic.Pointer[wide]
	seed   maphash.Seed
	shards [shards]shard

	purging sync.Mutex
	places  uint64         // of recent
	most    int            // prefixes in wide
	recent  []*object.Mark // of purge n, at n % places; nil for a wide one
}

const (
	shards      = 64 // few writers meet in one; a power of two
	minRecent   = 1 << 10
	maxRecent   = 1 << 16
	maxPrefixes = 1024
	forgotten   = math.MaxUint64
)

type shard struct {
	sync.Mutex
	marks map[uint64]*object.Mark
	_     [48]byte // a cache line each: neighbours are locked by others
}

// wide is the purges of prefixes, oldest first, and the last one of all. It
// does not change.
type wide struct {
	all      uint64
	prefixes []prefix
}

type prefix struct {
	name   string
	number uint64
}

func (m *marks) init() {
	m.places = maxRecent
	m.most = maxPrefixes
	m.seed = maphash.MakeSeed()
	m.wide.Store(&wide{})
	for i := range m.shards {
		m.shards[i].marks = map[uint64]*object.Mark{}
	}
}

func (m *marks) shard(hash uint64) *shard { return &m.shards[hash%shards] }

// take makes o hold its marks if it is valid, and reports whether it is.
// Others may already read o; they see its marks only when they are its own to
// the end: what o was compared with while it held none may be forgotten.
func (m *marks) take(o *object.Object) bool {
	mark, tagged := m.hold(o.URI), make([]*object.Mark, len(o.Tags))
	valid := mark.Purged.Load() <= o.Stamp
	for i, t := range o.Tags {
		tagged[i] = m.hold(t)
		valid = valid && tagged[i].Purged.Load() <= o.Stamp
	}
	if !valid || m.floor.Load() > o.Stamp || !m.compare(o) {
		m.release(mark)
		for _, mark := range tagged {
			m.release(mark)
		}
		return false
	}
	if len(tagged) > 0 {
		o.Tagged.Store(&tagged)
	}
	o.Mark.Store(mark) // the last: with it, the tags are looked for
	return true
}

func (m *marks) hold(name string) *object.Mark {
	hash := maphash.String(m.seed, name)
	s := m.shard(hash)
	s.Lock()
	defer s.Unlock()
	mark := s.mark(hash)
	mark.Holds++
	return mark
}

func (s *shard) mark(hash uint64) *object.Mark {
	mark := s.marks[hash]
	if mark == nil {
		mark = &object.Mark{Hash: hash}
		s.marks[hash] = mark
	}
	return mark
}

// give is the end of take. o keeps its pointers: others may still read them.
func (m *marks) give(o *object.Object) {
	m.release(o.Mark.Load())
	if tagged := o.Tagged.Load(); tagged != nil {
		for _, mark := range *tagged {
			m.release(mark)
		}
	}
}

func (m *marks) release(mark *object.Mark) {
	s := m.shard(mark.Hash)
	s.Lock()
	defer s.Unlock()
	mark.Holds--
	if mark.Holds == 0 && mark.Purged.Load() <= m.floor.Load() {
		s.forget(mark)
	}
}

func (s *shard) forget(mark *object.Mark) {
	delete(s.marks, mark.Hash)
	mark.Purged.Store(forgotten)
}

// Valid reports whether no purge concerns o: none of its URI, its tags, a
// prefix of its URI or all has been applied since its stamp. It takes no lock
// and allocates nothing while o is in memory.
func (m *marks) Valid(o *object.Object) bool {
	if !m.compare(o) {
		return false
	}
	mark := o.Mark.Load()
	if mark == nil {
		return m.find(o)
	}
	if purged := mark.Purged.Load(); purged > o.Stamp {
		return purged == forgotten && m.find(o)
	}
	if len(o.Tags) > 0 {
		for _, mark := range *o.Tagged.Load() {
			if purged := mark.Purged.Load(); purged > o.Stamp {
				return purged == forgotten && m.find(o)
			}
		}
	}
	return true
}

// compare is the part of Valid that is about prefixes and all.
func (m *marks) compare(o *object.Object) bool {
	if o.Checked.Load() >= m.last.Load() {
		return true
	}
	last, w := m.last.Load(), m.wide.Load() // in this order: w holds last at least
	seen := max(o.Stamp, o.Checked.Load())
	if w.all > seen {
		return false
	}
	for i := len(w.prefixes) - 1; i >= 0 && w.prefixes[i].number > seen; i-- {
		if strings.HasPrefix(o.URI, w.prefixes[i].name) {
			return false
		}
	}
	o.Checked.Store(last)
	return true
}

// find is Valid of URI and tags for an object that is not in memory.
func (m *marks) find(o *object.Object) bool {
	if m.purged(o.URI) > o.Stamp {
		return false
	}
	for _, t := range o.Tags {
		if m.purged(t) > o.Stamp {
			return false
		}
	}
	return m.floor.Load() <= o.Stamp
}

func (m *marks) purged(name string) uint64 {
	hash := maphash.String(m.seed, name)
	s := m.shard(hash)
	s.Lock()
	defer s.Unlock()
	if mark := s.marks[hash]; mark != nil {
		return mark.Purged.Load()
	}
	return 0
}

// Stamp is the number of purges applied: what a fill that begins now carries.
func (m *marks) Stamp() uint64 { return m.count.Load() }

// PurgeURI makes the objects of a URI invalid, and those of it that are under
// way. It holds when PurgeURI returns; so do the others below.
func (m *marks) PurgeURI(uri string) { m.purge(uri) }

// PurgeTag is PurgeURI for the objects that have a tag.
func (m *marks) PurgeTag(tag string) { m.purge(tag) }

func (m *marks) purge(name string) {
	m.purging.Lock()
	defer m.purging.Unlock()
	n := m.count.Load() + 1
	hash := maphash.String(m.seed, name)
	s := m.shard(hash)
	s.Lock()
	mark := s.mark(hash)
	mark.Purged.Store(n)
	s.Unlock()
	m.note(n, mark)
}

// PurgePrefix is PurgeURI for all URIs that begin so.
func (m *marks) PurgePrefix(name string) {
	m.purging.Lock()
	defer m.purging.Unlock()
	n := m.count.Load() + 1
	old := m.wide.Load()
	w := &wide{all: old.all, prefixes: make([]prefix, 0, min(len(old.prefixes)+1, m.most))}
	rest := old.prefixes
	if len(rest) == m.most {
		// What is forgotten counts for all: only objects that have not been
		// asked for during a thousand purges are lost.
		w.all, rest = rest[0].number, rest[1:]
	}
	for _, p := range rest {
		if p.name != name {
			w.prefixes = append(w.prefixes, p)
		}
	}
	w.prefixes = append(w.prefixes, prefix{name: strings.Clone(name), number: n})
	m.wide.Store(w)
	m.last.Store(n)
	m.note(n, nil)
}

// PurgeAll is PurgeURI for every URI.
func (m *marks) PurgeAll() {
	m.purging.Lock()
	defer m.purging.Unlock()
	n := m.count.Load() + 1
	m.wide.Store(&wide{all: n})
	m.last.Store(n)
	m.note(n, nil)
}

// note ends purge n: it takes the place of the one that many places before it,
// which is forgotten, and becomes what fills see.
func (m *marks) note(n uint64, mark *object.Mark) {
	if m.recent == nil {
		m.recent = make([]*object.Mark, m.places)
	}
	place := &m.recent[n%m.places]
	if n > m.places {
		m.outdate(n-m.places, *place)
	}
	*place = mark
	m.count.Store(n)
}

// outdate forgets purge n, which was of mark (nil: a wide one).
func (m *marks) outdate(n uint64, mark *object.Mark) {
	if n <= m.floor.Load() {
		return // after keep has made room
	}
	m.floor.Store(n)
	if mark == nil {
		return
	}
	s := m.shard(mark.Hash)
	s.Lock()
	defer s.Unlock()
	if mark.Holds == 0 && mark.Purged.Load() == n {
		s.forget(mark)
	}
}

// keep changes how many purges are remembered that nothing in memory has.
func (m *marks) keep(places uint64) {
	m.purging.Lock()
	defer m.purging.Unlock()
	old, n := m.recent, m.count.Load()
	was := m.places
	if m.places = places; places == was || old == nil {
		return
	}
	m.recent = make([]*object.Mark, places)
	for k := m.floor.Load() + 1; k <= n; k++ {
		if k+places <= n {
			m.outdate(k, old[k%was])
		} else {
			m.recent[k%places] = old[k%was]
		}
	}
}

package memory

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/cache/object"
)

// told is a purge as the model remembers it.
type told struct{ uri, tag, prefix, all string }

func (p *told) names(o *object.Object) bool {
	return p.all != "" || p.uri == o.URI && p.uri != "" || p.tag != "" && slices.Contains(o.Tags, p.tag) ||
		p.prefix != "" && strings.HasPrefix(o.URI, p.prefix)
}

// model is every purge there was, and the objects that may be in memory.
type model struct {
	t       *rapid.T
	c       *Cache
	purges  []told
	objects []*object.Object
}

// right is the answer to Valid by comparing with all purges.
func (m *model) right(o *object.Object) bool {
	for i := int(o.Stamp); i < len(m.purges); i++ {
		if m.purges[i].names(o) {
			return false
		}
	}
	return true
}

// exact reports whether nothing that concerns a stamp was forgotten, so that
// no valid object may be refused.
func (m *model) exact(stamp uint64) bool {
	prefixes := 0 // each counts, though one that is told again is kept once
	for _, p := range m.purges {
		if p.prefix != "" {
			prefixes++
		}
	}
	return prefixes <= m.c.most && stamp >= m.c.floor.Load()
}

func (m *model) put(stamp uint64) {
	n := rapid.IntRange(0, 9).Draw(m.t, "path")
	o := stored(m.c, fmt.Sprintf("/%d/%d", n%3, n), 10)
	o.Stamp = stamp
	for i := range 3 {
		if rapid.Bool().Draw(m.t, "tag") {
			o.Tags = append(o.Tags, fmt.Sprint("t:", i))
		}
	}
	right := m.right(o)
	if got := m.c.Put(o); got && !right {
		m.t.Fatalf("an object of %s with stamp %d was stored after %+v", o.URI, stamp, m.purges[stamp:])
	} else if !got && right && m.exact(stamp) {
		m.t.Fatalf("a valid object of %s with stamp %d was not stored", o.URI, stamp)
	}
	m.objects = append(m.objects, o)
}

// check compares all objects and looks at the invariants of marks.
func (m *model) check() {
	for _, o := range m.objects {
		right := m.right(o)
		if got := m.c.Valid(o); got && !right || !got && right && m.exact(o.Stamp) {
			m.t.Fatalf("object of %s %v with stamp %d: valid %v, after %+v", o.URI, o.Tags, o.Stamp, got, m.purges[o.Stamp:])
		}
	}
	if got := m.c.Stamp(); got != uint64(len(m.purges)) {
		m.t.Fatalf("stamp %d after %d purges", got, len(m.purges))
	}
	holds := map[*object.Mark]int32{}
	for _, e := range m.c.entries.All() {
		if o := e.Object; o != nil {
			holds[o.Mark.Load()]++
			if tagged := o.Tagged.Load(); tagged != nil {
				for _, mark := range *tagged {
					holds[mark]++
				}
			}
		}
	}
	idle := 0
	for i := range m.c.shards {
		for _, mark := range m.c.shards[i].marks {
			if mark.Holds != holds[mark] {
				m.t.Fatalf("a mark has %d holders, there are %d", mark.Holds, holds[mark])
			}
			delete(holds, mark)
			if mark.Holds > 0 {
				continue
			}
			idle++
			if n := mark.Purged.Load(); n <= m.c.floor.Load() || m.c.recent[n%m.c.places] != mark {
				m.t.Fatalf("a mark of purge %d will not be forgotten", n)
			}
		}
	}
	if len(holds) > 0 || idle > int(m.c.places) {
		m.t.Fatalf("%d marks of objects are not in their shards, %d have no object", len(holds), idle)
	}
}

func TestPurgesAreThoseOfTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, c: New(64 << 10)}
		m.c.places = uint64(rapid.IntRange(1, 12).Draw(t, "places"))
		m.c.most = rapid.IntRange(1, 4).Draw(t, "prefixes")
		path := func() string {
			n := rapid.IntRange(0, 9).Draw(t, "path")
			return fmt.Sprintf("https://example.org/%d/%d", n%3, n)
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { m.check() },
			"put": func(*rapid.T) {
				stamp := m.c.Stamp()
				m.put(stamp - min(stamp, uint64(rapid.IntRange(0, 20).Draw(t, "ago"))))
			},
			"drop": func(*rapid.T) {
				if len(m.objects) > 0 {
					m.c.Drop(rapid.SampledFrom(m.objects).Draw(t, "object").Key)
				}
			},
			"keep":   func(*rapid.T) { m.c.keep(uint64(rapid.IntRange(1, 12).Draw(t, "places"))) },
			"forget": func(*rapid.T) { m.objects = nil },
			"purge uri": func(*rapid.T) {
				uri := path()
				m.c.PurgeURI(uri)
				m.purges = append(m.purges, told{uri: uri})
			},
			"purge tag": func(*rapid.T) {
				tag := fmt.Sprint("t:", rapid.IntRange(0, 3).Draw(t, "tag"))
				m.c.PurgeTag(tag)
				m.purges = append(m.purges, told{tag: tag})
			},
			"purge prefix": func(*rapid.T) {
				prefix := fmt.Sprintf("https://example.org/%d", rapid.IntRange(0, 5).Draw(t, "prefix"))
				m.c.PurgePrefix(prefix)
				m.purges = append(m.purges, told{prefix: prefix})
			},
			"purge all": func(*rapid.T) {
				m.c.PurgeAll()
				m.purges = append(m.purges, told{all: "*"})
			},
		})
	})
}

// Purges of what is not in memory do not grow it.
func TestMarksAreBounded(t *testing.T) {
	c := New(1 << 20)
	for i := range 10 * int(c.places) {
		c.PurgeURI(fmt.Sprint("https://example.org/", i))
	}
	n := 0
	for i := range c.shards {
		n += len(c.shards[i].marks)
	}
	if n != int(c.places) || len(c.recent) != n {
		t.Errorf("%d marks are kept, %d are the bound", n, c.places)
	}
	o := stored(c, "/other", 10)
	o.Stamp = 3
	if c.Put(o) || c.Valid(o) {
		t.Error("an object was stored that purges may concern which are forgotten")
	}
}

// An object that is asked for lives on when prefixes are forgotten; one that
// is older than what was forgotten does not.
func TestPrefixesThatAreForgottenCountForAll(t *testing.T) {
	c := New(1 << 20)
	asked, left := stored(c, "/asked", 10), stored(c, "/left", 10)
	c.Put(asked)
	c.Put(left)
	for i := range 2 * maxPrefixes {
		c.PurgePrefix(fmt.Sprint("https://example.org/none/", i))
		if !c.Valid(asked) {
			t.Fatal("a purge of another prefix took it along")
		}
	}
	if c.Valid(left) || len(c.wide.Load().prefixes) != maxPrefixes {
		t.Errorf("valid %v, %d prefixes", c.Valid(left), len(c.wide.Load().prefixes))
	}
	c.PurgePrefix("https://example.org/as")
	if c.Valid(asked) {
		t.Error("its own prefix was purged")
	}
}

// What a purge was acknowledged for is never seen again: not through fills that
// began before it, not through evictions between.
func TestPurgeIsNotUndone(t *testing.T) {
	const uris, rounds = 16, 3000
	type resource struct{ origin, acknowledged atomic.Int64 }
	c := New(24 << 10) // room for about a third
	c.places, c.most = 64, 8
	var all [uris]resource
	var old, hits atomic.Int64
	purge := func(n, how int) {
		version := all[n].origin.Add(1)
		switch how % 8 {
		case 0:
			c.PurgeTag(fmt.Sprint("t:", n))
		case 1:
			c.PurgePrefix(fmt.Sprintf("https://example.org/%d-", n))
		case 2:
			c.PurgeAll()
		default:
			c.PurgeURI(fmt.Sprintf("https://example.org/%d-", n))
		}
		for {
			have := all[n].acknowledged.Load()
			if have >= version || all[n].acknowledged.CompareAndSwap(have, version) {
				return
			}
		}
	}
	read := func(n int, key []byte) {
		least := all[n].acknowledged.Load()
		e := c.Get(key)
		if e == nil || e.Object == nil || !c.Valid(e.Object) {
			return
		}
		hits.Add(1)
		if e.Object.LastModified < least {
			old.Add(1)
		}
	}
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range rounds {
				n := (i*7 + g*5) % uris
				o := stored(c, fmt.Sprintf("/%d-", n), 600) // takes the stamp
				o.Tags = []string{fmt.Sprint("t:", n), "t:every"}
				o.LastModified = all[n].origin.Load() // the fill asks the origin
				o.Born += int64(i)
				read(n, []byte(o.Key))
				if i%5 == 0 {
					purge(n, i/5+g)
				}
				c.Put(o)
				read(n, []byte(o.Key))
				if i%11 == 0 {
					c.Drop(o.Key)
				}
			}
		})
	}
	group.Wait()
	if old.Load() > 0 || hits.Load() == 0 {
		t.Errorf("%d of %d hits were purged before", old.Load(), hits.Load())
	}
}

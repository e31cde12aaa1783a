package memory

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
)

func get(c *Cache, key string) Entry {
	if e := c.Get([]byte(key)); e != nil {
		return *e
	}
	return Entry{}
}

func TestPutAndGet(t *testing.T) {
	c := New(1 << 20)
	if c.Get(nil) != nil || c.Get([]byte("none")) != nil || c.Len() != 0 || c.Weight() != 0 {
		t.Error("it is not empty")
	}
	o := stored(c, "/", 10)
	if !c.Put(o) || get(c, o.Key).Object != o || c.Len() != 1 {
		t.Errorf("%+v", get(c, o.Key))
	}
	if c.Put(o) {
		t.Error("an object was put twice")
	}
	c.Drop(o.Key)
	if c.Get([]byte(o.Key)) != nil || c.Len() != 0 || c.Weight() != 0 {
		t.Errorf("%d bytes are left", c.Weight())
	}
}

func TestNewerObjectsStay(t *testing.T) {
	for name, test := range map[string]struct {
		change func(old, o *object.Object)
		stays  bool
	}{
		"same age":               {func(_, _ *object.Object) {}, false},
		"newer":                  {func(_, o *object.Object) { o.Date++ }, false},
		"older":                  {func(_, o *object.Object) { o.Date-- }, true},
		"older, stored later":    {func(_, o *object.Object) { o.Date--; o.Stored++ }, true},
		"stored earlier":         {func(_, o *object.Object) { o.Stored-- }, true},
		"by now older":           {func(_, o *object.Object) { o.Born -= 1e12 }, false},
		"older, other stale":     {func(old, o *object.Object) { o.Date--; old.Lifetime = 0 }, false},
		"older, other validated": {func(old, o *object.Object) { o.Date--; old.NoCache = true }, false},
	} {
		c := New(1 << 20)
		old, o := stored(c, "/", 10), stored(c, "/", 20)
		test.change(old, o)
		want := o
		if test.stays {
			want = old
		}
		if !c.Put(old) || !c.Put(o) || get(c, o.Key).Object != want {
			t.Errorf("%s: the wrong one is there", name)
		}
	}
	c := New(1 << 20)
	old, o := stored(c, "/", 10), stored(c, "/", 20)
	o.Date--
	c.Put(old)
	c.PurgeURI(old.URI)
	o.Stamp = c.Stamp()
	if !c.Put(o) || get(c, o.Key).Object != o {
		t.Error("a purged object stayed")
	}
}

func variant(c *Cache, spec, value string) *object.Object {
	o := stored(c, "/", 10)
	o.Spec = spec
	o.Key += "\x00" + spec + "\x00" + value
	return o
}

func TestVariantsAreFoundBySpec(t *testing.T) {
	c := New(1 << 20)
	primary := stored(c, "/", 0).Primary
	for i, spec := range []string{"a", "b", "a", "c", "d", "e", "a"} {
		c.Put(variant(c, spec, fmt.Sprint(i)))
	}
	want := Entry{Specs: []string{"a", "e", "d", "c"}}
	if got := get(c, primary); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	before := c.Get([]byte(primary))
	c.Put(variant(c, "a", "other"))
	if c.Get([]byte(primary)) != before {
		t.Error("what has not changed was written")
	}
	if get(c, variant(c, "b", "1").Key).Object == nil {
		t.Error("a variant is not there")
	}
	o := stored(c, "/", 10)
	c.Put(o)
	if got := get(c, primary); got.Object != o || got.Specs != nil {
		t.Errorf("%+v", got)
	}
}

func TestPass(t *testing.T) {
	c := New(1 << 20)
	c.Pass("k", noon)
	if got := get(c, "k"); !reflect.DeepEqual(got, Entry{Pass: noon}) {
		t.Errorf("%+v", got)
	}
	c.Pass("k", noon+1)
	if got := get(c, "k").Pass; got != noon+1 {
		t.Errorf("%d", got)
	}
	o := stored(c, "/", 10)
	c.Pass(o.Key, noon)
	c.Put(o)
	if get(c, o.Key).Object != o {
		t.Error("an object does not take the place of a pass mark")
	}
	c.Pass(o.Key, o.Expires()-1)
	if get(c, o.Key).Object != o {
		t.Error("a fresh object went for a pass mark")
	}
	c.Pass(o.Key, o.Expires())
	if get(c, o.Key).Pass == 0 {
		t.Error("a stale object stayed")
	}
	o = stored(c, "/", 10)
	c.Put(o)
	c.PurgeAll()
	c.Pass(o.Key, noon)
	if get(c, o.Key).Pass == 0 {
		t.Error("a purged object stayed")
	}
}

func TestPurges(t *testing.T) {
	for name, purge := range map[string]func(c *Cache){
		"uri":    func(c *Cache) { c.PurgeURI("https://example.org/a/b?c") },
		"tag":    func(c *Cache) { c.PurgeTag("t:x") },
		"prefix": func(c *Cache) { c.PurgePrefix("https://example.org/a/") },
		"all":    (*Cache).PurgeAll,
	} {
		c := New(1 << 20)
		make := func() *object.Object {
			o := stored(c, "/a/b?c", 10)
			o.Tags = []string{"t:w", "t:x"}
			return o
		}
		there, slow, other := make(), make(), stored(c, "/other", 10)
		if !c.Put(there) || !c.Put(other) || !c.Valid(there) || !c.Valid(slow) {
			t.Errorf("%s: not stored", name)
		}
		purge(c)
		if c.Valid(there) || c.Valid(slow) || c.Put(slow) {
			t.Errorf("%s: still valid", name)
		}
		if c.Valid(other) == (name == "all") {
			t.Errorf("%s: the other one is valid: %v", name, c.Valid(other))
		}
		after := make()
		if !c.Put(after) || !c.Valid(after) || get(c, after.Key).Object != after {
			t.Errorf("%s: what came after is not valid", name)
		}
	}
}

func TestLargeObjectsAreNotStored(t *testing.T) {
	c := New(1 << 20)
	if c.Put(stored(c, "/large", 1<<20/share)) || c.Len() != 0 || c.Weight() != 0 {
		t.Error("it was stored")
	}
	if !c.Put(stored(c, "/", 1<<20/share-10_000)) {
		t.Error("one that just fits was not stored")
	}
}

func TestSetLimit(t *testing.T) {
	c := New(4 << 20)
	for i := range 2000 {
		c.Put(stored(c, fmt.Sprint("/", i), 1000))
	}
	all := c.Weight()
	c.SetLimit(1 << 20)
	if w := c.Weight(); w > 1<<20 || w < 1<<20-4000 || all < 2_000_000 {
		t.Errorf("%d, then %d bytes", all, w)
	}
	c.SetLimit(0)
	if c.Weight() != 0 || c.Put(stored(c, "/", 1)) || New(0).Put(stored(c, "/", 1)) {
		t.Error("nothing has room")
	}
}

func TestHottest(t *testing.T) {
	c := New(256 << 10)
	for i := range 100 {
		c.Put(stored(c, fmt.Sprint("/", i), 1000))
	}
	c.Pass("pass", noon)
	hot, purged := stored(c, "/7", 0), stored(c, "/8", 0)
	for range 1000 {
		c.Get([]byte(hot.Key))
		c.Get([]byte(purged.Key))
	}
	c.PurgeURI(purged.URI)
	get(c, hot.Key).Object.Hits.Add(10)
	got := c.Hottest(3)
	if len(got) != 3 || got[0].Key != hot.Key || got[0].Hits != 10*object.HitSample || got[0].URI != hot.URI || got[0].Weight < 1000 {
		t.Errorf("%+v", got)
	}
	if n := len(c.Hottest(1000)); n != 99 {
		t.Errorf("%d objects", n)
	}
	if len(c.Hottest(0)) != 0 {
		t.Error("none was asked for")
	}
}

// All together, for the race detector; the weight adds up in the end.
func TestEverythingAtOnce(t *testing.T) {
	c := New(256 << 10)
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 2000 {
				n := (i*13 + g) % 300
				o := stored(c, fmt.Sprint("/", n), n*10)
				o.Born += int64(i)
				switch n % 7 {
				case 0:
					o.Spec, o.Key = "accept", o.Key+"\x00accept\x00"+fmt.Sprint(i%3)
				case 1:
					o.Tags = []string{"t:a", "t:b"}
				case 2:
					c.Pass(o.Key, noon)
				case 3:
					c.Drop(o.Key)
				}
				if e := c.Get([]byte(o.Key)); e == nil || e.Object == nil || !c.Valid(e.Object) {
					c.Put(o)
				}
				switch i % 100 {
				case 0:
					c.PurgeTag("t:a")
				case 20:
					c.PurgeURI(o.URI)
				case 40:
					c.PurgePrefix("https://example.org/2")
				case 60:
					c.Hottest(10)
				case 80:
					c.SetLimit(uint64(128+i%256) << 10)
				}
			}
		})
	}
	group.Wait()
	var sum uint64
	for key, e := range c.entries.All() {
		sum += uint64(weigh(key, e))
	}
	if w := c.Weight(); w != sum || w == 0 {
		t.Errorf("%d bytes by count, %d by sum", w, sum)
	}
	for key := range c.entries.Keys() {
		c.Drop(key)
	}
	if c.Weight() != 0 || c.Len() != 0 {
		t.Errorf("%d bytes in %d entries are left", c.Weight(), c.Len())
	}
	for i := range c.shards {
		for _, mark := range c.shards[i].marks {
			if mark.Holds != 0 {
				t.Errorf("a mark has %d holders", mark.Holds)
			}
		}
	}
}

func TestTimesAreNotOverrun(t *testing.T) {
	o := &object.Object{Born: noon, Lifetime: 1 << 62}
	if o.Expires() < noon+int64(time.Hour) {
		t.Errorf("%d", o.Expires())
	}
}

package verdict

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestACacheKeepsWhatItIsGiven(t *testing.T) {
	for _, c := range []struct {
		name       string
		key, other string
		until, now int64
		want       bool
	}{
		{"the same key", "token", "token", 10, 9, true},
		{"at its end", "token", "token", 10, 10, false},
		{"behind its end", "token", "token", 10, 11, false},
		{"another key", "token", "tokem", 10, 9, false},
		{"a longer key", "token", "token.", 10, 9, false},
		{"an empty key", "", "", 10, 9, true},
		{"as long as may be", "12345678", "12345678", 10, 9, true},
		{"longer", "123456789", "123456789", 10, 9, false},
	} {
		cache := New[string](16, 8)
		cache.Put([]byte(c.key), "v", c.until)
		v, ok := cache.Get([]byte(c.other), c.now)
		if ok != c.want || ok != (v == "v") {
			t.Errorf("%s: got %q, %v", c.name, v, ok)
		}
		cache.Clear()
		if _, ok := cache.Get([]byte(c.other), c.now); ok {
			t.Errorf("%s: it is there after Clear", c.name)
		}
	}
}

func TestAKeyIsCopied(t *testing.T) {
	cache := New[int](16, 8)
	key := []byte("abc")
	cache.Put(key, 1, 10)
	key[0] = 'x'
	if _, ok := cache.Get([]byte("abc"), 0); !ok {
		t.Error("the key that was put is gone")
	}
	if _, ok := cache.Get(key, 0); ok {
		t.Error("the cache has a key that nobody put")
	}
}

// A cache never says more than a map that forgets nothing.
func TestACacheHasNoVerdictOfItsOwn(t *testing.T) {
	type kept struct {
		v     int
		until int64
	}
	rapid.Check(t, func(t *rapid.T) {
		cache, model := New[int](rapid.IntRange(0, 40).Draw(t, "entries"), 4), map[string]kept{}
		for i := range rapid.IntRange(1, 200).Draw(t, "steps") {
			key := rapid.StringMatching(`[ab]{0,5}`).Draw(t, "key")
			now := rapid.Int64Range(0, 20).Draw(t, "time")
			if rapid.Bool().Draw(t, "put") {
				cache.Put([]byte(key), i, now)
				model[key] = kept{i, now}
				continue
			}
			v, ok := cache.Get([]byte(key), now)
			if want, known := model[key]; ok && (!known || v != want.v || now >= want.until) {
				t.Fatalf("Get(%q, %d) is %d, the model has %v", key, now, v, want)
			}
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	cache := New[int](100, 16)
	for i := range 100_000 {
		cache.Put(fmt.Appendf(nil, "%d", i), i, 1)
	}
	n := 0
	for i := range cache.sets {
		for j := range cache.sets[i] {
			if cache.sets[i][j].Load() != nil {
				n++
			}
		}
	}
	if n > 128 {
		t.Errorf("%d entries are kept, 128 are room for 100", n)
	}
}

// What is asked for all the time stays, however many others come.
func TestWhatIsAskedForStays(t *testing.T) {
	cache := New[int](4096, 16)
	misses := 0
	for i := range 200_000 {
		hot := fmt.Appendf(nil, "hot %d", i%100)
		if _, ok := cache.Get(hot, 0); !ok {
			misses++
			cache.Put(hot, i, 1)
		}
		if i%4 == 0 {
			cache.Put(fmt.Appendf(nil, "cold %d", i), i, 1)
		}
	}
	if misses > 2000 {
		t.Errorf("%d of 200,000 look-ups of what is always asked for missed", misses)
	}
}

func TestGoroutinesShareACache(t *testing.T) {
	cache := New[string](64, 16)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				key := fmt.Sprint(rand.N(200))
				if v, ok := cache.Get([]byte(key), 0); ok && v != key {
					t.Errorf("under %s there is %s", key, v)
				}
				cache.Put([]byte(key), key, 1)
				if rand.N(1000) == 0 {
					cache.Clear()
				}
			}
		})
	}
	wg.Wait()
}

func TestALookUpAllocatesNothing(t *testing.T) {
	cache := New[*int](64, 1024)
	key := make([]byte, 700)
	cache.Put(key, new(int), 1)
	if n := testing.AllocsPerRun(100, func() { cache.Get(key, 0) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func BenchmarkGet(b *testing.B) {
	cache := New[*int](16<<10, 4096)
	keys := make([][]byte, 1024)
	for i := range keys {
		keys[i] = fmt.Appendf(make([]byte, 700), "%d", i)
		cache.Put(keys[i], new(int), 1)
	}
	i := 0
	for b.Loop() {
		cache.Get(keys[i&1023], 0)
		i++
	}
}

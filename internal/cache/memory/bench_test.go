package memory

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkGetHit: a look-up of one of 10,000 keys, with and without the
// question whether purges concern the object.
func BenchmarkGetHit(b *testing.B) {
	c := New(64 << 20)
	keys := make([][]byte, 10_000)
	for i := range keys {
		o := full(c, fmt.Sprint("/", i), 1000)
		keys[i] = []byte(o.Key)
		c.Put(o)
	}
	for range 100 {
		c.PurgePrefix("https://example.org/none")
		c.PurgeURI("https://example.org/none")
	}
	for name, valid := range map[string]bool{"get": false, "get and valid": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for i := rand.IntN(len(keys)); p.Next(); i++ {
					e := c.Get(keys[i%len(keys)])
					if e == nil || valid && !c.Valid(e.Object) {
						b.Error("not there")
						return
					}
				}
			})
		})
	}
}

func BenchmarkGetMiss(b *testing.B) {
	c := New(64 << 20)
	c.Put(stored(c, "/", 10))
	b.ReportAllocs()
	key := []byte("G\x00https\x00example.org\x00https://example.org/none")
	for b.Loop() {
		c.Get(key)
	}
}

// BenchmarkPut: new keys in a cache that is full.
func BenchmarkPut(b *testing.B) {
	c := New(16 << 20)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Put(full(c, fmt.Sprint("/", i), 1000))
	}
}

func BenchmarkPurgeURI(b *testing.B) {
	c := New(64 << 20)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.PurgeURI(fmt.Sprint("https://example.org/", i))
	}
}

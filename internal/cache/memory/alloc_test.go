//go:build !race

package memory

import (
	"fmt"
	"testing"
)

func TestAllocNothingOnAHit(t *testing.T) {
	c := New(4 << 20)
	keys := make([][]byte, 2000)
	for i := range keys {
		o := full(c, fmt.Sprint("/", i), 1000)
		o.Tags = []string{"t:a", "t:b"}
		c.Put(o)
		keys[i] = []byte(o.Key)
	}
	c.PurgePrefix("https://example.org/none")
	i, hits := 0, 0
	n := testing.AllocsPerRun(100_000, func() {
		i++
		if e := c.Get(keys[i%len(keys)]); e != nil && e.Object != nil && c.Valid(e.Object) {
			hits++
		}
	})
	if n != 0 || hits < 90_000 {
		t.Errorf("%v allocations for each of %d hits", n, hits)
	}
}

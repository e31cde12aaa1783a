//go:build !race

package object

import (
	"math"
	"runtime"
	"testing"
)

func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMemoryOfAnObjectIsItsWeight(t *testing.T) {
	for name, test := range map[string]struct {
		body    int
		decoded bool
	}{
		"small": {0, false}, "1 KiB": {1 << 10, false}, "5,000": {5000, false}, "1 MiB": {1 << 20, false},
		"small, decoded": {0, true}, "1 KiB, decoded": {1 << 10, true}, "5,000, decoded": {5000, true},
	} {
		n := min(20_000, 256<<20/(test.body+1000))
		all := make([]*Object, n)
		var weight uint64
		before := live()
		for i := range all {
			o := sample()
			o.Key = string([]byte(o.Key))
			o.Primary, o.URI = o.Key[:len(o.Primary)], o.Key[1:1+len(o.URI)]
			o.Body = make([]byte, test.body)
			for i := range o.Tags {
				o.Tags[i] = string([]byte(o.Tags[i]))
			}
			if test.decoded {
				o, _ = Decode(o.Append(make([]byte, 0, test.body+400)))
			}
			all[i] = o
			weight += o.Weight()
		}
		held := live() - before
		t.Logf("%s: %d bytes, %d by weight", name, held/int64(n), weight/uint64(n))
		if math.Abs(float64(weight)/float64(held)-1) > 0.1 {
			t.Errorf("%s: %d bytes by weight, they take %d", name, weight, held)
		}
		runtime.KeepAlive(all)
	}
}

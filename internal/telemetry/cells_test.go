package telemetry

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func TestCounterLosesNothingUnderConcurrentAdds(t *testing.T) {
	c := NewCounter()
	const workers, each = 16, 2000
	var all sync.WaitGroup
	for w := range uint32(workers) {
		all.Go(func() {
			for range each {
				c.Add(w*0x9e3779b1, 3)
			}
		})
	}
	all.Wait()
	if got, want := c.Load(), uint64(workers*each*3); got != want {
		t.Errorf("counted %d, want %d", got, want)
	}
}

func TestCounterGoesDownByTwosComplement(t *testing.T) {
	c := NewCounter()
	c.Add(1, 5)
	c.Add(1, ^uint64(1)) // -2
	if got := c.Load(); got != 3 {
		t.Errorf("5-2 is %d", got)
	}
}

func TestStripesDoNotShareCacheLines(t *testing.T) {
	for _, procs := range []int{1, 2, 3, 8, 64} {
		before := runtime.GOMAXPROCS(procs)
		for _, n := range []int{1, 16, 17, 30, histogramCells, parts * histogramCells} {
			c := newCells(n)
			if at := uintptr(unsafe.Pointer(&c.v[0])); at%128 != 0 {
				t.Errorf("%d procs, %d cells: block begins at %d mod 128", procs, n, at%128)
			}
			if c.width*8%128 != 0 || int(c.width) < n {
				t.Errorf("%d procs, %d cells: a stripe is %d bytes", procs, n, c.width*8)
			}
			if stripes := len(c.v) / int(c.width); stripes < min(procs, maxStripes) || stripes > 2*procs || stripes > maxStripes {
				t.Errorf("%d procs: %d stripes", procs, stripes)
			}
		}
		runtime.GOMAXPROCS(before)
	}
	if size := unsafe.Sizeof(stripe{}); size != 128 {
		t.Errorf("a stripe of the access log is %d bytes", size)
	}
}

func TestBucketIsTheFirstThatIsNotBelow(t *testing.T) {
	linear := func(d time.Duration) int {
		for i, b := range bounds {
			if d <= b {
				return i
			}
		}
		return len(bounds)
	}
	ds := []time.Duration{0, 1, 1<<63 - 1}
	for _, b := range bounds {
		ds = append(ds, b-1, b, b+1)
	}
	for i := range 63 {
		ds = append(ds, 1<<i, 1<<i+1, 1<<i-1)
	}
	for range 10000 {
		ds = append(ds, time.Duration(rand.Int64N(1<<rand.IntN(63))))
	}
	for _, d := range ds {
		if d < 0 {
			continue
		}
		if got, want := bucket(d), linear(d); got != want {
			t.Fatalf("bucket(%v) = %d, want %d", d, got, want)
		}
	}
}

func TestHistogramIsCumulative(t *testing.T) {
	h := NewHistogram()
	for i, d := range []time.Duration{-time.Second, 10 * time.Microsecond, 11 * time.Microsecond, time.Second, time.Hour} {
		h.Observe(uint32(i), d)
	}
	got := h.Load()
	if got.Count != 5 || got.Sum != time.Hour+time.Second+21*time.Microsecond {
		t.Errorf("count %d, sum %v", got.Count, got.Sum)
	}
	for le, want := range map[float64]uint64{0.00001: 2, 0.000025: 3, 0.5: 3, 1: 4, 60: 4} {
		if got.Buckets[le] != want {
			t.Errorf("up to %v s: %d, want %d", le, got.Buckets[le], want)
		}
	}
	if len(got.Buckets) != len(bounds) {
		t.Errorf("%d buckets", len(got.Buckets))
	}
}

func TestLabelsComeFromTheTables(t *testing.T) {
	for code, want := range map[int]string{
		0: "0", -1: "0", 99: "0", 600: "0", 70000: "0",
		101: "101", 199: "1xx", 200: "200", 299: "2xx", 301: "301", 306: "3xx", 404: "404", 418: "418", 430: "4xx",
		499: "499", 500: "500", 511: "511", 599: "5xx",
	} {
		if got := statuses[statusIndex(code)]; got != want {
			t.Errorf("status %d is counted as %q, want %q", code, got, want)
		}
	}
	for i, m := range methods[:len(methods)-1] {
		if methodIndex(m) != i {
			t.Errorf("method %s has index %d, want %d", m, methodIndex(m), i)
		}
	}
	for _, m := range []string{"", "get", "PROPFIND", "other", "GETX"} {
		if got := methods[methodIndex(m)]; got != "other" {
			t.Errorf("method %q is counted as %q", m, got)
		}
	}
}

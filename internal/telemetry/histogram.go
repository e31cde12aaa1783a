package telemetry

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// bounds are the upper ends of the buckets of every histogram, inclusive, in
// steps of about 2.5. They reach from the gateway's own work on a cache hit
// (tens of microseconds) to the longest request timeouts in use.
var bounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, 60 * time.Second,
}

// histogramCells is one cell a bucket, one for what is above the last bound, and
// one for the sum in nanoseconds.
const histogramCells = len(bounds) + 2

// firstBucket[n] is the bucket of the smallest duration whose nanoseconds have
// n binary digits; no number of digits spans more than two buckets.
var firstBucket = func() (first [65]uint8) {
	for n := 1; n < len(first); n++ {
		low := uint64(1) << (n - 1)
		b := 0
		for b < len(bounds) && uint64(bounds[b]) < low {
			b++
		}
		first[n] = uint8(b)
	}
	return first
}()

// bucket is the index of the bucket for d, len(bounds) above the last.
func bucket(d time.Duration) int {
	b := int(firstBucket[bits.Len64(uint64(d))])
	for b < len(bounds) && d > bounds[b] {
		b++
	}
	return b
}

// observe adds d to a histogram whose cells begin at row[0].
func observe(row []uint64, d time.Duration) {
	d = max(d, 0)
	atomic.AddUint64(&row[bucket(d)], 1)
	atomic.AddUint64(&row[len(bounds)+1], uint64(d))
}

// Histogram counts durations in fixed buckets from 10 µs to 60 s, without a
// lock. It is never copied.
type Histogram struct {
	c  *cells
	at int // its first cell
}

// NewHistogram returns an empty histogram.
func NewHistogram() *Histogram { return &Histogram{c: newCells(histogramCells)} }

// Observe counts d; a negative d counts as 0.
func (h *Histogram) Observe(shard uint32, d time.Duration) { observe(h.c.row(shard)[h.at:], d) }

// Distribution is what a histogram has counted.
type Distribution struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[float64]uint64 // upper end in seconds: observations up to it
}

// Load returns what was counted so far. Observations made meanwhile are in it or
// not; Count always is the number in all buckets.
func (h *Histogram) Load() Distribution {
	d := Distribution{Buckets: make(map[float64]uint64, len(bounds))}
	for i, b := range bounds {
		d.Count += h.c.sum(h.at + i)
		d.Buckets[b.Seconds()] = d.Count
	}
	d.Count += h.c.sum(h.at + len(bounds))
	d.Sum = time.Duration(h.c.sum(h.at + len(bounds) + 1))
	return d
}

package telemetry

import (
	"runtime"
	"sync/atomic"
)

// maxStripes bounds the memory of a counter: 32 stripes of 128 bytes are 4 KiB.
// On a machine with more cores a stripe is shared by a few of them, which costs
// nanoseconds, not correctness.
const maxStripes = 32

// lineCells is the cells in 128 bytes. A cache line is 64 bytes, but x86 and
// some ARM cores fetch lines in pairs, so two counters in one pair still slow
// each other down.
const lineCells = 16

// cells is a row of counters that many cores add to at once. The row exists
// once per stripe; adding takes the stripe of the caller's shard, reading sums
// all stripes. There are as many stripes as cores (a power of two, at most
// maxStripes), so connections spread over shards mostly write lines that no
// other core holds. Go's size classes keep a block whose size is a multiple of
// 128 bytes aligned to 128, so a stripe's lines are its own.
type cells struct {
	v     []uint64
	width uint32 // cells from one stripe to the next, padding included
	mask  uint32 // stripes-1
}

func newCells(n int) *cells {
	width := (n + lineCells - 1) / lineCells * lineCells
	stripes := 1
	for stripes < runtime.GOMAXPROCS(0) && stripes < maxStripes {
		stripes *= 2
	}
	return &cells{v: make([]uint64, width*stripes), width: uint32(width), mask: uint32(stripes - 1)}
}

// row is the stripe of a shard, for adding to several cells of it.
func (c *cells) row(shard uint32) []uint64 {
	at := (shard & c.mask) * c.width
	return c.v[at : at+c.width]
}

func (c *cells) add(shard uint32, cell int, n uint64) {
	atomic.AddUint64(&c.row(shard)[cell], n)
}

// sum is the cell's total over all stripes. Additions made meanwhile may be
// missing from it.
func (c *cells) sum(cell int) uint64 {
	var total uint64
	for at := cell; at < len(c.v); at += int(c.width) {
		total += atomic.LoadUint64(&c.v[at])
	}
	return total
}

// Counter is a number that grows, added to by many cores without a lock. It is
// never copied.
type Counter struct{ c *cells }

// NewCounter returns a counter at 0.
func NewCounter() *Counter { return &Counter{newCells(1)} }

// Add adds n. shard spreads callers over cores: exchanges of one connection use
// that connection's. A negative change is the two's complement of its amount.
func (c *Counter) Add(shard uint32, n uint64) { c.c.add(shard, 0, n) }

// Load returns the total.
func (c *Counter) Load() uint64 { return c.c.sum(0) }

package limit

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// entry is what a table knows of one key. It fills one cache line of 64 bytes,
// which no other key shares: a hot client costs nobody else. The allocator's class
// of 64 bytes starts its objects at multiples of 64; a test holds it to that.
//
// next, under the lock of its shard, is the only field that the table changes
// behind the entry's publication. An entry stays usable as long as somebody holds
// it, also when the table has dropped it: its cell is retired by then, so that
// Take says so and the key is looked up again.
type entry struct {
	next atomic.Pointer[entry] // of the same slot
	hash uint64
	key  string
	cell meter.Cell
	// extra is what only some keys need; nil until somebody sets it.
	extra atomic.Pointer[extra]
}

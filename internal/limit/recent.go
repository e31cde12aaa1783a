package limit

import (
	"sync/atomic"
	"time"
)

// recent knows, in constant memory, whether a key was asked for a moment ago. A key
// of a leased limit that was not is decided by the store and leaves nothing behind
// here, so that a million clients who come once cost a million calls but no memory;
// only what comes again gets an entry and a lease.
//
// It is a table of one slot for each hash: a tag of 16 bits and the time of the last
// request. Another key in the slot makes the first look new, and one call more; a key
// whose tag is equal, one in 65,536, makes a new one look known.
type recent struct{ slots [recentSlots]atomic.Uint32 }

const (
	recentSlots = 1 << 14 // 64 KiB a limit
	recentTick  = 250 * time.Millisecond
	recentTicks = 4 // how many ticks ago still counts: about a second
)

// again notes a key, by its hash, and reports whether it was noted a moment ago. now
// is in Unix ns.
func (r *recent) again(hash uint64, now int64) bool {
	slot := &r.slots[hash%recentSlots]
	tick := uint16(now / int64(recentTick))
	tag := uint32(hash>>48) << 16
	was := slot.Load()
	slot.Store(tag | uint32(tick))
	return was != 0 && was&^0xffff == tag && tick-uint16(was) <= recentTicks
}

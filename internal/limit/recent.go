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
// It is a table of sets of four slots: a tag of 16 bits and the time of the last
// request. A key has one set, by its hash, and takes the slot in it that was used
// longest ago. Five keys of one set that come in turn stay new, and cost a call
// each time; a key whose tag is equal, one in 16,384, makes a new one look known.
type recent struct {
	sets [recentSets][recentWays]atomic.Uint32
}

const (
	recentSets  = 1 << 12 // 64 KiB a limit
	recentWays  = 4
	recentTick  = 250 * time.Millisecond
	recentTicks = 4 // how many ticks ago still counts: about a second
)

// again notes a key, by its hash, and reports whether it was noted a moment ago. now
// is in Unix ns.
func (r *recent) again(hash uint64, now int64) bool {
	set := &r.sets[hash%recentSets]
	tick := uint16(now / int64(recentTick))
	tag := uint32(hash>>48) << 16
	oldest, age := 0, -1
	for i := range set {
		was := set[i].Load()
		if was != 0 && was&^0xffff == tag {
			set[i].Store(tag | uint32(tick))
			return tick-uint16(was) <= recentTicks
		}
		a := int(tick - uint16(was))
		if was == 0 {
			a = 1 << 16
		}
		if a > age {
			oldest, age = i, a
		}
	}
	set[oldest].Store(tag | uint32(tick))
	return false
}

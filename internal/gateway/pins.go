package gateway

import "sync/atomic"

// A snapshot may retire when no exchange uses it any more. One counter for all
// would be a cache line that every core writes twice a request, so the count is
// split into stripes, picked by the connection. An exchange leaves by the stripe
// it came by.
//
// Once the snapshot is no longer current, entering fails (see Gateway.pin), so a
// stripe that was seen at zero stays without users, and all stripes seen at zero,
// one after another, mean that nobody is left.

// pinStripes is a power of two above the cores that will serve one gateway;
// more costs memory per snapshot (64 bytes each) and a longer look at retirement.
const pinStripes = 64

type pins [pinStripes]struct {
	n atomic.Int64
	_ [56]byte // one stripe, one cache line
}

func (p *pins) enter(shard uint32) { p[shard%pinStripes].n.Add(1) }

func (p *pins) leave(shard uint32) { p[shard%pinStripes].n.Add(-1) }

// idle reports whether every stripe was seen without users.
func (p *pins) idle() bool {
	for i := range p {
		if p[i].n.Load() != 0 {
			return false
		}
	}
	return true
}

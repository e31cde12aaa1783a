package limit

import (
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// While the store is away, on_fault decides: everybody (open), nobody (closed), or
// a spare table of this process with this gateway's share of the limit (local).
// When the store is back, what counts in the spare tables is posted to it, so that
// the limit is right again, and the tables go.

// spare is a counter's table while the store is away.
type spare struct {
	limit meter.Limit // this gateway's share
	table *table
	used  atomic.Int64 // limiter time of the last decision
}

const (
	// spareKeys is how many keys a spare table remembers.
	spareKeys = 1 << 18
	// spareRest is how long a spare table is out of use before it is brought to the
	// store: single calls that fail while the others succeed must not empty it.
	spareRest = 500 * time.Millisecond
	// postBatch is how many charges go in one call.
	postBatch = 256
)

// fault decides a rule without the store.
func (d *decision) fault(g *ruling) {
	c := g.r.c
	c.series.fault(d.x.Conn.Shard)
	switch g.r.fault {
	case faultOpen:
		g.known, g.charged = false, false
	case faultClosed:
		g.refuses, g.closed = true, true
		d.refused++
	default:
		d.local(g)
	}
}

func (d *decision) local(g *ruling) {
	c := g.r.c
	g.at = d.now
	if c.quota() {
		g.at = d.x.Start.UnixNano()
	}
	if e := c.table.find(g.key); e != nil {
		if x := e.extra.Load(); x != nil {
			if v, ok := x.dry.Load().verdict(d.now, g.cost); ok {
				d.says(g, v)
				return
			}
		}
	}
	s := c.stand(d.e.peers())
	if s.used.Load() < d.now-int64(spareRest)/8 {
		s.used.Store(d.now)
	}
	g.extra = nil
	d.count(g, s.table)
}

// stand returns the counter's spare table.
func (c *counter) stand(peers int) *spare {
	for {
		if s := c.spare.Load(); s != nil {
			return s
		}
		s := &spare{limit: c.limit.Share(peers)}
		s.table = newTable(&s.limit, spareKeys)
		if c.spare.CompareAndSwap(nil, s) {
			return s
		}
	}
}

// reconcile brings the spare tables that are out of use to the store, when it can
// be asked.
func (e *Engine) reconcile(now int64) {
	if e.health != nil && !e.health.Up() {
		return
	}
	for _, c := range e.registry.all() {
		s := c.spare.Load()
		if s == nil || now < s.used.Load()+int64(spareRest) {
			continue
		}
		if c.spare.CompareAndSwap(s, nil) {
			e.poster.bring(c, s)
		}
	}
}

// bring posts what still counts in a spare table. For slots nothing is posted:
// those taken here are given back here.
func (p *poster) bring(c *counter, s *spare) {
	if c.limit.Algorithm == meter.Concurrency {
		return
	}
	wall := time.Now()
	now := p.e.timeOf(c, wall)
	n := 0
	s.table.all(func(en *entry) bool {
		if used := s.limit.Used(&en.cell, now); used > 0 {
			p.add(c.sharedKey([]byte(en.key), wall.UnixNano()), &c.limit, used)
			n++
		}
		return true
	})
	p.e.stats.posted.Add(uint64(n))
}

// changed is told by the store whether it can be asked.
func (e *Engine) changed(up bool) {
	if up {
		e.poster.doubtAll() // a server that has begun anew knows nothing of what is at work
		e.log.Info("the shared state of limits can be reached again, what was counted here meanwhile is posted")
	} else {
		e.log.Warn("the shared state of limits cannot be reached, on_fault decides until it can")
	}
	e.poster.rouse()
}

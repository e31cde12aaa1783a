package limit

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// slot is what an exchange holds of a concurrency limit until it ends.
type slot struct {
	e     *Engine
	limit *meter.Limit
	entry *entry // nil: of the store
	key   string // in the store
	cost  int64
	at    int64
}

var _ exchange.Releaser = (*slot)(nil)

// slot makes the slot of a ruling that was charged. It lasts until its Release.
func (e *Engine) slot(g *ruling) *slot {
	s := e.slots.Get().(*slot)
	s.limit, s.entry, s.cost, s.at = g.limit, g.entry, g.cost, g.at
	if g.from == fromStore {
		s.entry = nil
		s.limit, s.key = &g.r.c.limit, g.r.c.sharedKey(g.key, 0)
	}
	return s
}

// Release gives the slot back. It is called once.
func (s *slot) Release() {
	e := s.e
	if s.entry != nil {
		s.limit.Refund(&s.entry.cell, s.at, s.cost)
	} else {
		e.poster.giveBack(s.key, s.limit, s.cost)
		e.poster.rouse()
	}
	*s = slot{e: e}
	e.slots.Put(s)
}

// gone is told when a client goes away while its request waits.
type gone struct{ ch chan struct{} }

// Cancel ends the wait.
func (g *gone) Cancel() {
	select {
	case g.ch <- struct{}{}:
	default:
	}
}

// wait has the request wait for its turn. The error says that its client went away.
func (d *decision) wait(turn time.Duration) error {
	t := time.NewTimer(turn)
	defer t.Stop()
	g := &gone{ch: make(chan struct{}, 1)}
	here := d.x.OnCancel(g)
	if here {
		select {
		case <-t.C:
		case <-g.ch:
			here = false
		}
	}
	d.x.OnCancel(nil)
	if !here {
		return &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client, Close: true}
	}
	return nil
}

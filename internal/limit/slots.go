package limit

import (
	"errors"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// held is what this gateway has of one key's slots, in units. It outlives the requests
// while the store's count of them is in doubt.
//
// A take or a give-back of which nobody knows whether it was done, or will be done
// late, is not repeated: that could count it twice. It puts the key in doubt instead,
// and a doubtful key is repaired: the store is told how many units this gateway has, not
// by how many they changed. Takes under way count as held, so a repair errs to the strict
// side, and is repeated until none was under way. As a call that was given up may be
// executed behind the repair, too, it takes several, with each renewal, until the key is
// trusted again.
type held struct {
	limit *meter.Limit
	n     int64  // that requests hold
	asked int64  // of takes under way
	begun uint64 // takes since this was made
	doubt int    // repairs that have to succeed until the store's count is trusted
}

// doubts is what a held begins to be in doubt with: the first repair comes at once, the
// last one two renewals later.
const doubts = 3

// own returns what is held of a key, made when nothing is. The lock is held.
func (p *poster) own(key string, l *meter.Limit) *held {
	h := p.slots[key]
	if h == nil {
		h = &held{limit: l}
		p.slots[key] = h
	}
	return h
}

// rest forgets a key when there is nothing to know of it. The lock is held.
func (p *poster) rest(key string, h *held) {
	if h.n <= 0 && h.asked <= 0 && (h.doubt == 0 || len(p.slots) > postMost) {
		delete(p.slots, key)
		delete(p.repairs, key)
	}
}

// repair has a key repaired with the next flush. The lock is held.
func (p *poster) repair(key string) {
	if h := p.slots[key]; h != nil {
		p.repairs[key] = h
	}
}

func takesSlots(c *store.Charge) bool { return c.Limit.Algorithm == meter.Concurrency && c.Cost > 0 }

// begin is told that a take is about to be sent. Its end follows.
func (p *poster) begin(charges []store.Charge) {
	for i := range charges {
		if c := &charges[i]; takesSlots(c) {
			p.mu.Lock()
			h := p.own(c.Key, c.Limit)
			h.asked += c.Cost
			h.begun++
			p.mu.Unlock()
		}
	}
}

// end is told how a take has ended: with an error, or else whether it charged.
func (p *poster) end(charges []store.Charge, err error, charged bool) {
	for i := range charges {
		if c := &charges[i]; takesSlots(c) {
			p.mu.Lock()
			h := p.own(c.Key, c.Limit)
			h.asked -= c.Cost
			switch {
			case err == nil && charged:
				h.n += c.Cost
			case err != nil && !errors.Is(err, store.ErrNotDone):
				h.doubt = doubts
				p.repair(c.Key)
			}
			p.rest(c.Key, h)
			p.mu.Unlock()
		}
	}
}

// giveBack gives units back to the store.
func (p *poster) giveBack(key string, l *meter.Limit, units int64) {
	now := p.e.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.owe(key, owed{limit: l, cost: -units, at: now}, now)
	if l.Algorithm != meter.Concurrency {
		return
	}
	h := p.own(key, l)
	h.n = max(h.n-units, 0)
	if !kept {
		h.doubt = doubts
		p.repair(key)
	}
	p.rest(key, h)
}

// renew keeps the slots alive that requests hold, and repairs those in doubt.
func (p *poster) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, h := range p.slots {
		if h.doubt > 0 {
			p.repairs[key] = h
		} else if _, ok := p.pending[key]; !ok && h.n > 0 {
			p.pending[key] = owed{limit: h.limit}
		}
	}
}

// doubtAll has all keys repaired: the store may have forgotten them.
func (p *poster) doubtAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, h := range p.slots {
		h.doubt = doubts
		p.repairs[key] = h
	}
}

// snapshot makes w say what is held now. What is still to be given back is in it. The
// lock is held.
func (p *poster) snapshot(w *posting) {
	delete(p.pending, w.key)
	if h := p.slots[w.key]; h != nil {
		w.cost, w.asked, w.begun = h.n+h.asked, h.asked, h.begun
	}
}

// counted is told how the posting of a key's slots has ended. It reports whether they are
// to be posted once more at once. The lock is held.
func (p *poster) counted(w *posting, err error) (again bool) {
	h := p.slots[w.key]
	switch {
	case err == nil && (!w.whole || h == nil):
	case err == nil && w.asked == 0 && w.begun == h.begun:
		h.doubt = max(h.doubt-1, 0)
		p.rest(w.key, h)
	case err == nil:
		p.repair(w.key)
		return true
	case errors.Is(err, store.ErrKey) && (h == nil || h.n+h.asked <= 0):
		// What holds something else holds nothing of ours.
		if h != nil {
			h.doubt = 0
			p.rest(w.key, h)
		}
	default:
		h = p.own(w.key, w.limit)
		h.doubt = doubts
		if w.cost != 0 && !w.whole {
			p.repair(w.key)
		}
		p.rest(w.key, h)
	}
	return false
}

package limit

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// poster brings the store what was decided elsewhere: what spare tables counted,
// costs to give back, and slots that were given back or are still held.
//
// What has surely not been done is tried again, a bounded number of times. What nobody
// knows of is not: counted twice it would be worse than not at all, most of all where
// something is given back. For slots there is a better way, see held.
type poster struct {
	e    *Engine
	wake chan struct{}

	// Requests touch this, but only those that made a call of their own.
	mu      sync.Mutex
	pending map[string]owed
	slots   map[string]*held
	repairs map[string]*held // of slots: those to be repaired with the next flush

	// These belong to run, and behind its end to drain.
	work    []posting
	charges []store.Charge
	out     []error
	told    int64 // limiter time of the last line in the log about a key; 0: none yet
	closing bool  // what waits for a later attempt is tried now
	dropped int   // keys that were given up, or of which nobody knows
}

// owed is what a key is still to be charged, as of a limiter time.
type owed struct {
	limit *meter.Limit
	cost  int64
	at    int64
	tries int   // that were refused
	after int64 // limiter time of the next one
}

// aged is what is left of it at now: what was counted leaks while it waits, as it
// would have in the store, and is nothing any more in another window. So does what is
// to be given back: what has leaked already is not given back besides.
func (o owed) aged(now int64) int64 {
	l := o.limit
	switch {
	case l.Algorithm == meter.Concurrency:
		return o.cost
	case l.Num > 0:
		leaked := (max(now-o.at, 0) / int64(l.Tick)) * l.Num / l.Den
		if o.cost < 0 {
			return min(o.cost+leaked, 0)
		}
		return max(o.cost-leaked, 0)
	case l.Index(o.at) != l.Index(now):
		return 0
	}
	return o.cost
}

// posting is one charge of a flush.
type posting struct {
	key string
	owed
	// A repair: cost is all that is held. asked and begun are those of held when it was
	// sent.
	whole bool
	asked int64
	begun uint64
}

const (
	postEvery  = 250 * time.Millisecond
	renewEvery = time.Second
	// postMost bounds what waits for the store, in keys. Beyond it new ones are
	// dropped: a cost that is not posted admits at most itself again.
	postMost = 1 << 18
	// postTries is how often a charge is tried that the store refuses. While the store
	// is away nothing is tried.
	postTries = 20
	// repairRounds is how often a repair is repeated at once when requests have come
	// between; behind that it waits for the next renewal.
	repairRounds = 3
	// tellEvery is how often the log says that a key cannot be posted to.
	tellEvery = time.Minute
)

func newPoster(e *Engine) *poster {
	return &poster{
		e: e, wake: make(chan struct{}, 1),
		pending: map[string]owed{}, slots: map[string]*held{}, repairs: map[string]*held{},
	}
}

func (p *poster) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// add has units charged to a key, or given back when they are negative.
func (p *poster) add(key string, l *meter.Limit, units int64) {
	now := p.e.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owe(key, owed{limit: l, cost: units, at: now}, now)
}

// owe adds to what is pending, and reports whether there was room. The lock is held.
func (p *poster) owe(key string, o owed, now int64) bool {
	old, ok := p.pending[key]
	switch {
	case ok:
		o.cost, o.at = o.aged(now)+old.aged(now), now
		o.tries, o.after = max(o.tries, old.tries), max(o.after, old.after)
	case len(p.pending) >= postMost:
		return false
	}
	p.pending[key] = o
	return true
}

func (p *poster) run() {
	t := time.NewTicker(postEvery)
	defer t.Stop()
	renewed := p.e.now()
	for {
		select {
		case <-p.e.stop:
			return
		case <-p.wake:
		case <-t.C:
			now := p.e.now()
			p.e.reconcile(now)
			if now >= renewed+int64(renewEvery) {
				renewed = now
				p.renew()
			}
		}
		_ = p.flush(background) // the store's change was logged
	}
}

// flush posts what is pending and due. An error ends it: the rest stays pending.
func (p *poster) flush(ctx context.Context) error {
	if p.e.health != nil && !p.e.health.Up() {
		return nil
	}
	for range repairRounds {
		p.collect()
		again := false
		for at := 0; at < len(p.work); at += postBatch {
			batch := p.work[at:min(at+postBatch, len(p.work))]
			more, err := p.post(ctx, batch)
			if again = again || more; err != nil {
				p.back(p.work[at+len(batch):])
				return err
			}
		}
		if !again {
			return nil
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.work { // those in doubt have their turn with the next renewal
		if w := &p.work[i]; w.whole {
			delete(p.repairs, w.key)
		}
	}
	return nil
}

// collect makes the work of what is pending and due.
func (p *poster) collect() {
	clear(p.work)
	p.work = p.work[:0]
	now := p.e.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, o := range p.pending {
		if _, ok := p.repairs[key]; !ok && (o.after <= now || p.closing) {
			p.work = append(p.work, posting{key: key, owed: o})
			delete(p.pending, key)
		}
	}
	for key, h := range p.repairs {
		p.work = append(p.work, posting{key: key, owed: owed{limit: h.limit}, whole: true})
	}
	clear(p.repairs)
}

// back makes pending what was not tried.
func (p *poster) back(rest []posting) {
	now := p.e.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range rest {
		if w := &rest[i]; w.whole {
			p.repair(w.key)
		} else {
			p.owe(w.key, w.owed, now)
		}
	}
}

// post makes one call. The error says that the store cannot be asked; again, that
// something is to be posted once more at once.
func (p *poster) post(ctx context.Context, batch []posting) (again bool, err error) {
	now := p.e.now()
	p.charges, p.out = p.charges[:0], p.out[:0]
	p.mu.Lock()
	for i := range batch {
		w := &batch[i]
		if w.whole {
			p.snapshot(w)
		} else {
			w.cost, w.at = w.aged(now), now
		}
		p.charges = append(p.charges, store.Charge{Key: w.key, Limit: w.limit, Cost: w.cost, Whole: w.whole})
		p.out = append(p.out, nil)
	}
	p.mu.Unlock()
	err = p.e.shared.Post(ctx, p.charges, p.out)
	p.e.stats.call(opPost, err)
	now = p.e.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range batch {
		w, e := &batch[i], p.out[i]
		if e != nil && errors.Is(e, store.ErrKey) {
			p.tell(w.key, e, now)
		}
		switch {
		case w.limit.Algorithm == meter.Concurrency:
			again = p.counted(w, e) || again
		case e == nil:
		case errors.Is(e, store.ErrNotDone) && !errors.Is(e, store.ErrKey) && w.tries+1 < postTries:
			w.tries, w.after = w.tries+1, now+int64(postEvery)
			p.owe(w.key, w.owed, now)
		default:
			p.dropped++
		}
	}
	clear(p.charges)
	if errors.Is(err, store.ErrKey) {
		return again, nil
	}
	return again, err
}

// tell says in the log that a key cannot be posted to. Whose key it is stays out of
// it: it may hold what a client sent.
func (p *poster) tell(key string, err error, now int64) {
	if p.told != 0 && now < p.told+int64(tellEvery) {
		return
	}
	p.told = now
	if i, j := strings.IndexByte(key, '{'), strings.IndexByte(key, '}'); i >= 0 && i < j {
		key = key[:i+1] + "…" + key[j:]
	}
	p.e.log.Warn("a key in the store is not a limit's: what was counted here is not posted to it", "key", key, "cause", err)
}

// drain posts all that is left, when run has ended.
func (p *poster) drain(ctx context.Context) {
	for _, c := range p.e.registry.all() {
		if s := c.spare.Swap(nil); s != nil {
			p.bring(c, s)
		}
	}
	p.mu.Lock()
	for key, h := range p.slots {
		if h.doubt > 0 {
			p.repair(key)
		}
	}
	p.mu.Unlock()
	p.closing, p.dropped = true, 0
	err := p.flush(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.pending) + len(p.repairs) + p.dropped; n > 0 {
		p.e.log.Warn("what was counted here while the store was away could not be posted", "keys", n, "cause", err)
	}
}

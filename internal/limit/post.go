package limit

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// poster brings the store what was decided elsewhere: what spare tables counted,
// costs to give back, and slots that were given back or are still held.
type poster struct {
	e    *Engine
	wake chan struct{}

	// Requests touch this, but only those that made a call of their own.
	mu      sync.Mutex
	pending map[string]owed
	slots   map[string]held
}

// owed is what a key is still to be charged, as of a limiter time.
type owed struct {
	limit *meter.Limit
	cost  int64
	at    int64
}

// aged is what is left of it at now: what was counted leaks while it waits, as it
// would have in the store, and is nothing any more in another window. What is to be
// given back stays: the store takes no more than is counted.
func (o owed) aged(now int64) int64 {
	l := o.limit
	switch {
	case o.cost <= 0:
		return o.cost
	case l.Num > 0:
		return max(o.cost-(max(now-o.at, 0)/int64(l.Tick))*l.Num/l.Den, 0)
	case l.Index(o.at) != l.Index(now):
		return 0
	}
	return o.cost
}

// held is how many of the slots of one key this gateway's requests hold.
type held struct {
	limit *meter.Limit
	n     int64
}

const (
	postEvery  = 250 * time.Millisecond
	renewEvery = time.Second
	// postMost bounds what waits for the store, in keys. Beyond it new ones are
	// dropped: a cost that is not posted admits at most itself again.
	postMost = 1 << 18
)

func newPoster(e *Engine) *poster {
	return &poster{e: e, wake: make(chan struct{}, 1), pending: map[string]owed{}, slots: map[string]held{}}
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
	p.owe(key, owed{l, units, now}, now)
}

// owe adds to what is pending. The lock is held.
func (p *poster) owe(key string, o owed, now int64) {
	old, ok := p.pending[key]
	switch {
	case ok:
		o.cost = o.aged(now) + old.aged(now)
		o.at = now
	case len(p.pending) >= postMost:
		return
	}
	p.pending[key] = o
}

// hold counts a slot of a key as held, n = 1, or as given back, n = -1.
func (p *poster) hold(key string, l *meter.Limit, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.slots[key]
	h.limit, h.n = l, h.n+n
	if h.n <= 0 {
		delete(p.slots, key)
		return
	}
	p.slots[key] = h
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
		_ = p.flush(background) // what failed stays pending, and the store's change was logged
	}
}

// renew keeps the slots alive that requests hold.
func (p *poster) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, h := range p.slots {
		if _, ok := p.pending[key]; !ok {
			p.pending[key] = owed{limit: h.limit}
		}
	}
}

// flush posts what is pending, a batch a call. After a failure the rest stays
// pending.
func (p *poster) flush(ctx context.Context) error {
	if p.e.health != nil && !p.e.health.Up() {
		return nil
	}
	p.mu.Lock()
	all := p.pending
	if len(all) == 0 {
		p.mu.Unlock()
		return nil
	}
	p.pending = map[string]owed{}
	p.mu.Unlock()
	batch := make([]store.Charge, 0, min(len(all), postBatch))
	for len(all) > 0 {
		now := p.e.now()
		batch = batch[:0]
		for key, o := range all {
			batch = append(batch, store.Charge{Key: key, Limit: o.limit, Cost: o.aged(now)})
			if len(batch) == postBatch {
				break
			}
		}
		err := p.e.shared.Post(ctx, batch)
		p.e.stats.call(opPost, err)
		if err != nil {
			p.back(all, now)
			return err
		}
		for i := range batch {
			delete(all, batch[i].Key)
		}
	}
	return nil
}

// back makes pending what could not be posted.
func (p *poster) back(all map[string]owed, now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, o := range all {
		p.owe(key, o, now)
	}
}

// drain posts all that is left, when run has ended.
func (p *poster) drain(ctx context.Context) {
	for _, c := range p.e.registry.all() {
		if s := c.spare.Swap(nil); s != nil {
			p.bring(c, s)
		}
	}
	err := p.flush(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.pending); n > 0 {
		p.e.log.Warn("what was counted here while the store was away could not be posted", "keys", n, "cause", err)
	}
}

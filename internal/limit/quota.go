package limit

import (
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// Quotas that are counted here are kept in the embedded file. A client's count is
// read when the client is first seen, and saved within a second of its change, all
// clients' in one transaction; a crash loses at most what was counted since. The
// count is saved with the number of its calendar period, so that a restart in
// another period begins at 0.

// flushEvery is how often changed counts are saved.
const flushEvery = time.Second

// flusher saves the counts of quotas.
type flusher struct {
	e     *Engine
	stack *stack

	mu      sync.Mutex    // one flush at a time
	unsaved []store.Quota // of the last flush, when it failed
	failing bool

	lost   sync.Mutex
	orphan []store.Quota // of entries that a full table dropped before they were saved
}

func newFlusher(e *Engine) *flusher { return &flusher{e: e, stack: newStack()} }

// quota charges a quota that is counted here.
func (d *decision) quota(g *ruling) {
	c := g.r.c
	g.from = fromTable
	if c.newest.Load() != g.limit {
		c.newest.Store(g.limit)
	}
	for e := c.table.entry(g.key, g.at); ; e = c.table.renew(g.key, g.at) {
		x := e.extra.Load()
		if x == nil || !x.loaded.Load() {
			var err error
			if x, err = d.e.flusher.load(c, e); err != nil {
				d.unread(g, err)
				return
			}
		}
		g.entry = e
		if d.refused > 0 {
			d.look(g, c.table)
			return
		}
		v, live := g.limit.Take(&e.cell, g.at, g.cost)
		if !live {
			continue
		}
		g.extra = x
		d.says(g, v)
		if v.OK {
			d.e.flusher.dirty(x)
		}
		return
	}
}

// unread decides a quota whose count the file does not tell: on_fault of the plan.
// What is counted then is not saved.
func (d *decision) unread(g *ruling, err error) {
	d.e.warn("the count of a quota cannot be read", "quota", g.r.name, "cause", err)
	g.r.c.series.fault(d.x.Conn.Shard)
	switch g.r.fault {
	case faultOpen:
	case faultClosed:
		g.refuses, g.closed = true, true
		d.refused++
	default:
		v, e := g.r.c.table.take(g.key, g.at, g.cost)
		g.entry = e
		d.says(g, v)
	}
}

// load reads the count of a key that was not seen since the start.
func (f *flusher) load(c *counter, e *entry) (*extra, error) {
	x := e.extra.Load()
	if x == nil {
		fresh := &extra{c: c, key: quotaKey(e.key, c.name), entry: e}
		if e.extra.CompareAndSwap(nil, fresh) {
			x = fresh
		} else {
			x = e.extra.Load()
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.loaded.Load() {
		return x, nil
	}
	if file := f.e.file.Load(); file != nil {
		q, ok, err := file.Quota(x.key)
		if err != nil {
			return nil, err
		}
		if ok {
			c.limit.Load(&e.cell, q.Index, q.Count)
		}
	}
	x.loaded.Store(true)
	return x, nil
}

// quotaKey is the name of a client's quota in the file.
func quotaKey(client, name string) string {
	b := append(make([]byte, 0, len(client)+len(name)+8), client...)
	return string(appendEscaped(append(b, ':'), name))
}

// dirty has a count saved with the next flush.
func (f *flusher) dirty(x *extra) {
	if !x.queued.Load() && f.e.file.Load() != nil {
		f.stack.push(x)
	}
}

func (f *flusher) run() {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-f.e.stop:
			return
		case <-t.C:
			_ = f.flush() // logged there, and tried again
		}
	}
}

// flush saves all counts that changed. What cannot be saved is kept for the next
// time, with a line in the log when it begins.
func (f *flusher) flush() error {
	file := f.e.file.Load()
	if file == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost.Lock()
	all := append(f.unsaved, f.orphan...)
	f.unsaved, f.orphan = nil, nil
	f.lost.Unlock()
	f.stack.take(func(x *extra) {
		index, count := x.c.limit.Save(&x.entry.cell)
		all = append(all, store.Quota{Key: x.key, Index: index, Count: count})
	})
	if len(all) == 0 {
		return nil
	}
	err := file.SaveQuotas(all)
	f.e.stats.saved(len(all), err)
	if err != nil {
		f.unsaved = latest(all)
		if !f.failing {
			f.e.log.Error("quotas cannot be saved", "cause", err)
		}
	}
	f.failing = err != nil
	return err
}

// latest keeps the last count of each key.
func latest(all []store.Quota) []store.Quota {
	at := make(map[string]int, len(all))
	kept := all[:0]
	for _, q := range all {
		if i, ok := at[q.Key]; ok {
			kept[i] = q
			continue
		}
		at[q.Key] = len(kept)
		kept = append(kept, q)
	}
	return kept
}

// retire says whether a quota's key may go from its table, see table.retire.
func (f *flusher) retire(e *entry, now int64, force bool) bool {
	x := e.extra.Load()
	if x == nil || !x.queued.Load() {
		return true
	}
	if !force {
		return false
	}
	index, count := x.c.limit.Save(&e.cell)
	f.lost.Lock()
	defer f.lost.Unlock()
	f.orphan = append(f.orphan, store.Quota{Key: x.key, Index: index, Count: count})
	return true
}

// weightOfQuota keeps clients with unsaved counts longer in a full table.
func weightOfQuota(e *entry, _ int64) int64 {
	if x := e.extra.Load(); x != nil && x.queued.Load() {
		return 1
	}
	return 0
}

// warn logs at most one line a second of what requests run into.
func (e *Engine) warn(message string, args ...any) {
	now := e.now()
	last := e.warned.Load()
	if now >= last+int64(time.Second) && e.warned.CompareAndSwap(last, now) {
		e.log.Warn(message, args...)
	}
}

package limit

import (
	"context"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// decision is the rules of one request and what each of them says. It is used
// again and again, so that an admitted request allocates nothing.
type decision struct {
	e       *Engine
	x       *exchange.Exchange
	now     int64  // limiter time of the request
	client  []byte // the key of [client], nil until a rule needs it
	rulings []ruling
	refused int  // how many of the rulings refuse
	remote  int  // how many are not counted here
	fresh   bool // a lease refuses that was not known to be dry

	// What goes to the store. Kept here because an interface's arguments escape.
	charges []store.Charge
	out     []meter.Verdict
	asked   []*ruling
	in      []store.Settlement
	grants  []store.Grant
}

// ruling is what one rule says of the request.
type ruling struct {
	r    *rule
	key  []byte
	cost int64
	at   int64 // the time that it was counted at
	v    meter.Verdict

	known    bool // v says something
	charged  bool // something was taken, by what follows
	refuses  bool
	restored bool // v is without the charge that is given back
	late     bool // refuses because its turn would come too late: it was charged
	closed   bool // refuses because the store is away
	from     source

	entry *entry
	extra *extra
	limit *meter.Limit
}

// source is what was charged.
type source uint8

const (
	fromTable source = iota
	fromLease
	fromStore
)

// decide asks all rules. It returns nil, with everything charged, or the refusal,
// with nothing charged.
func (e *Engine) decide(x *exchange.Exchange, plan, own []*rule) error {
	if len(plan) == 0 && len(own) == 1 && own[0].plain {
		if err, ok := e.single(x, own[0]); ok {
			return err
		}
	}
	d := e.decisions.Get().(*decision)
	d.x, d.now = x, e.clock.now(x.Start)
	d.gather(plan)
	d.gather(own)
	err := d.run()
	d.end()
	return err
}

// clientOf is appendClient, faster for callers whose names need no escapes.
func clientOf(dst []byte, x *exchange.Exchange) []byte {
	c := x.Caller
	if c == nil || len(c.Authenticator)+len(c.ID) > maxKey-len("c:/") {
		return appendClient(dst, x)
	}
	for i := range len(c.Authenticator) {
		if !bare[c.Authenticator[i]] {
			return appendClient(dst, x)
		}
	}
	for i := range len(c.ID) {
		if !bare[c.ID[i]] {
			return appendClient(dst, x)
		}
	}
	dst = append(append(dst, "c:"...), c.Authenticator...)
	return append(append(dst, '/'), c.ID...)
}

// single is decide for one plain rule, counted here or leased: most routes have no
// more. It is not ok when the store has to be asked.
func (e *Engine) single(x *exchange.Exchange, r *rule) (refusal error, ok bool) {
	key := x.Scratch(keyRoom)[:0]
	if r.client {
		key = clientOf(key, x)
	} else {
		key = r.maker.append(key, x)
	}
	cost := r.cost
	if r.varies {
		cost = r.costOf(x)
	}
	now := e.clock.now(x.Start)
	var v meter.Verdict
	if r.place == here {
		v, _ = r.c.table.take(key, now, cost)
	} else {
		var next meter.Next
		if r.c.terms.Load() == nil {
			return nil, false
		}
		held := r.c.known(key, x.Start)
		if held == nil {
			return nil, false
		}
		if v, next = held.lease.Take(now, cost); next == meter.Ask {
			return nil, false
		}
		v = r.c.truth(v, x.Start)
		e.follow(held, next)
	}
	if !r.shadow {
		x.Limits = append(x.Limits, r.state(&r.limit, &v))
	}
	if v.OK {
		r.c.series.allowed(x.Conn.Shard)
		return nil, true
	}
	r.c.series.refused(x.Conn.Shard, r.shadow)
	return refuse(r, v.Retry), true
}

func (d *decision) gather(rules []*rule) {
	for _, r := range rules {
		n := len(d.rulings)
		if n == cap(d.rulings) {
			d.rulings = append(d.rulings, ruling{})
		}
		d.rulings = d.rulings[:n+1]
		g := &d.rulings[n] // zero: see end
		g.r, g.at, g.limit = r, d.now, &r.limit
		if r.client {
			if d.client == nil {
				d.client = clientOf(d.x.Scratch(keyRoom)[:0], d.x)
			}
			g.key = d.client
		} else {
			g.key = r.maker.append(d.x.Scratch(keyRoom)[:0], d.x)
		}
		g.cost = r.cost
		if r.varies {
			g.cost = r.costOf(d.x)
		}
		if r.place != here {
			d.remote++
		}
	}
}

// end makes d ready for the next request.
func (d *decision) end() {
	clear(d.rulings)
	d.rulings = d.rulings[:0]
	if d.remote > 0 {
		clear(d.charges)
		clear(d.asked)
		clear(d.in)
		d.charges, d.asked, d.in = d.charges[:0], d.asked[:0], d.in[:0]
	}
	d.x, d.client = nil, nil
	d.refused, d.remote, d.fresh = 0, 0, false
	d.e.decisions.Put(d)
}

func (d *decision) run() error {
	for i := range d.rulings {
		if g := &d.rulings[i]; g.r.place == here {
			d.here(g)
		}
	}
	if d.remote > 0 {
		d.away()
	}
	if d.refused > 0 {
		return d.refuse()
	}
	return d.admit()
}

// here decides by the table of this process.
func (d *decision) here(g *ruling) {
	c := g.r.c
	if !c.quota() {
		d.count(g, c.table)
		return
	}
	g.at = d.x.Start.UnixNano()
	d.quota(g)
}

// count decides by a table. When another rule has refused already it only looks.
func (d *decision) count(g *ruling, t *table) {
	g.limit, g.from = t.limit, fromTable
	if d.refused > 0 {
		d.look(g, t)
		return
	}
	v, e := t.take(g.key, g.at, g.cost)
	g.entry = e
	d.says(g, v)
}

// look is what a rule would say, without being charged.
func (d *decision) look(g *ruling, t *table) {
	e := t.find(g.key)
	g.v, g.known = peek(g.limit, e, g.at, g.cost), true
	if !g.v.OK {
		g.refuses = true
		d.refused++
		return
	}
	g.v = peek(g.limit, e, g.at, 0)
}

// peek is the verdict about a key that may not be there.
func peek(l *meter.Limit, e *entry, at, cost int64) meter.Verdict {
	if e == nil {
		return l.Peek(new(meter.Cell), at, cost)
	}
	return l.Peek(&e.cell, at, cost)
}

// says takes a verdict that charged when it is OK. One that would have to wait
// longer for its turn than it may is a refusal too.
func (d *decision) says(g *ruling, v meter.Verdict) {
	g.v, g.known, g.charged, g.refuses = v, true, v.OK, !v.OK
	if v.OK && v.Delay > 0 {
		if most := d.patience(g.r); v.Delay > most {
			g.v.OK, g.refuses, g.late = false, true, true
			g.v.Retry = v.Delay - most
		}
	}
	if g.refuses {
		d.refused++
	}
}

// patience is how long the request may wait for its turn.
func (d *decision) patience(r *rule) time.Duration {
	if d.x.Deadline.IsZero() {
		return r.maxWait
	}
	return min(r.maxWait, max(d.x.Deadline.Sub(d.x.Start), 0))
}

// refund gives back what the request was charged.
func (d *decision) refund() {
	for i := range d.rulings {
		if g := &d.rulings[i]; g.charged {
			g.charged = false
			d.e.refund(g)
		}
	}
}

func (e *Engine) refund(g *ruling) {
	switch g.from {
	case fromTable:
		g.limit.Refund(&g.entry.cell, g.at, g.cost)
		if g.extra != nil {
			e.flusher.dirty(g.extra)
		}
	case fromLease:
		g.extra.lease.Refund(g.at, g.cost)
		// What is not needed again goes back before it runs out.
		g.extra.wants.Store(true)
		e.settler.push(g.extra)
	case fromStore:
		e.poster.giveBack(g.r.c.sharedKey(g.key, time.Now().UnixNano()), &g.r.c.limit, g.cost)
	}
}

// refuse ends a request that some rule refuses: nothing stays charged.
func (d *decision) refuse() error {
	d.refund()
	shard := d.x.Conn.Shard
	for i := range d.rulings {
		g := &d.rulings[i]
		if g.refuses {
			g.r.c.series.refused(shard, g.r.shadow)
		}
		if g.r.shadow {
			continue
		}
		if !g.known && g.r.place != here && g.r.fault != faultOpen {
			d.recollect(g)
		}
		if (!g.refuses || g.late) && !g.restored {
			g.restore()
		}
		d.tell(g)
	}
	return d.refusal()
}

// restore makes what a ruling says of a request that is refused what it was before
// the charge that is given back.
func (g *ruling) restore() {
	l := g.limit
	switch {
	case !g.known:
	case g.from == fromTable && g.entry != nil:
		now := l.Peek(&g.entry.cell, g.at, 0)
		g.v.Remaining, g.v.Reset = now.Remaining, now.Reset
	case g.from == fromTable:
	case g.late:
		g.v.Reset = max(g.v.Reset-time.Duration(g.cost*l.Den/l.Num)*l.Tick, 0)
	default:
		g.v.Remaining = min(g.v.Remaining+g.cost, l.Capacity)
		if g.from == fromStore && l.Num > 0 {
			g.v.Reset = max(g.v.Reset-time.Duration(g.cost*l.Den/l.Num)*l.Tick, 0)
		}
	}
}

// admit ends a request that all rules admit: it waits for its turn, and holds its
// slots until the exchange ends.
func (d *decision) admit() error {
	var turn time.Duration
	for i := range d.rulings {
		if g := &d.rulings[i]; !g.r.shadow {
			turn = max(turn, g.v.Delay)
		}
	}
	if turn > 0 {
		if err := d.wait(turn); err != nil {
			d.refund()
			return err
		}
	}
	shard := d.x.Conn.Shard
	for i := range d.rulings {
		g := &d.rulings[i]
		g.r.c.series.allowed(shard)
		if g.r.alone && g.charged {
			d.x.Held = append(d.x.Held, d.e.slot(g))
		}
		if !g.r.shadow {
			d.tell(g)
		}
	}
	return nil
}

// tell notes what a rule says for the RateLimit fields of the response.
func (d *decision) tell(g *ruling) {
	if !g.known {
		d.x.Limits = append(d.x.Limits, exchange.LimitState{Policy: g.r.item, Name: g.r.quoted, Remaining: notKnown})
		return
	}
	d.x.Limits = append(d.x.Limits, g.r.state(g.limit, &g.v))
}

// state is what the RateLimit fields say of a verdict. limit is the rule's own, or
// what stands in for it.
func (r *rule) state(limit *meter.Limit, v *meter.Verdict) exchange.LimitState {
	s := exchange.LimitState{Policy: r.item, Name: r.quoted, Remaining: v.Remaining, Reset: noReset}
	if limit.Scale > 1 {
		s.Remaining /= limit.Scale
	}
	if limit.Algorithm != meter.Concurrency {
		s.Reset = seconds(v.Reset)
	}
	return s
}

// background is the context of calls on the request path: the store has a budget
// of its own.
var background = context.Background()

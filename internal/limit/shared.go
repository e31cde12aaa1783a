package limit

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// What several gateways share is decided in two ways.
//
// Leased: this gateway holds units that the store granted it, and admits with them
// without a call. When they run low the settler fetches more beside the requests. A
// key for which nothing is held makes one call on the request path; other requests of
// the key wait for the same call rather than making theirs.
//
// Exact: all such limits of a request are asked in one call. So are leased limits
// that are too small for leases (meter.LeaseParams.Worth), and cold keys, which did
// not come a moment ago: nothing is kept of them (see recent).
//
// A refusal is remembered until the moment it names, so that a flood of refused
// requests makes no calls. Logs and slots are not: others may give back any time.

// away decides the rules that are not counted here: first by what is remembered and
// held, then by the store, and with on_fault when the store does not answer. Once
// something refuses the store is not asked any more.
func (d *decision) away() {
	for i := range d.rulings {
		if g := &d.rulings[i]; g.r.place != here {
			if g.r.place == leased && g.r.c.terms.Load() != nil {
				g.from = fromLease
			} else {
				g.from = fromStore
			}
			// A lease that is alone knows best itself.
			if d.remote > 1 || g.from == fromStore || d.refused > 0 {
				d.recall(g)
			}
		}
	}
	for i := range d.rulings {
		g := &d.rulings[i]
		switch {
		case g.r.place == here || g.known:
		case g.from == fromLease && g.r.c.warm(g.key, d.now, d.x.Start):
			d.lease(g)
		default:
			c := g.r.c
			g.from = fromStore
			d.charges = append(d.charges, store.Charge{Key: c.sharedKey(g.key, d.x.Start.UnixNano()), Limit: &c.limit, Cost: g.cost})
		}
	}
	if d.refused > 0 && !d.fresh || len(d.asked)+len(d.charges) == 0 {
		return
	}
	if d.e.health != nil && !d.e.health.Up() {
		d.alone()
		return
	}
	if len(d.asked) > 0 && d.refused == 0 {
		d.settle()
	}
	if len(d.charges) > 0 {
		d.take()
	}
}

// alone has on_fault decide all that the store would have to, without trying it.
func (d *decision) alone() {
	for i := range d.rulings {
		if g := &d.rulings[i]; g.r.place != here && !g.known {
			d.fault(g)
		}
	}
}

// lease decides with what is held, or leaves the rule for settle. When another rule
// has refused already it only looks.
func (d *decision) lease(g *ruling) {
	x := g.r.c.shared(g.key, d.now, d.x.Start)
	g.extra = x
	if d.refused > 0 {
		v, _ := x.lease.Take(d.now, 0)
		if v.Remaining > 0 { // else nothing is known of it
			g.v, g.known, g.restored = v, true, true
		}
		return
	}
	v, next := x.lease.Take(d.now, g.cost)
	if next == meter.Ask {
		d.asked = append(d.asked, g)
		return
	}
	d.e.follow(x, next)
	d.says(g, g.r.c.truth(v, d.x.Start))
	if g.refuses && d.remote > 1 {
		x.remember(d.now, g.cost, g.v)
		d.fresh = true
	}
}

// truth makes the Retry of a fixed window's lease the end of the window: other
// gateways may give something back before, but nothing promises it.
func (c *counter) truth(v meter.Verdict, start time.Time) meter.Verdict {
	if !v.OK && v.Retry != meter.Never && c.limit.Algorithm == meter.FixedWindow {
		v.Retry = max(v.Retry, c.limit.Ends(start.UnixNano()))
	}
	return v
}

// follow does what a Take of a lease asks for besides its verdict.
func (e *Engine) follow(x *extra, next meter.Next) {
	if next == meter.Refill && !x.wants.Load() {
		x.wants.Store(true)
		e.settler.push(x)
	}
}

// warm reports whether a key of a leased limit is worth a lease: something is known
// of it, or it came a moment ago.
func (c *counter) warm(key []byte, now int64, start time.Time) bool {
	return c.known(key, start) != nil || c.recent.again(c.table.hash(key), now)
}

// known returns what is known of a key of a shared limit, nil when nothing is.
func (c *counter) known(key []byte, start time.Time) *extra {
	e := c.table.find(key)
	if e == nil {
		return nil
	}
	x := e.extra.Load()
	if x == nil || c.quota() && x.period != c.limit.Index(start.UnixNano()) {
		return nil
	}
	return x
}

// shared returns what is known of a key of a shared limit, made when nothing is.
func (c *counter) shared(key []byte, now int64, start time.Time) *extra {
	wall, period := int64(0), int64(0)
	if c.quota() {
		wall = start.UnixNano()
		period = c.limit.Index(wall)
	}
	e := c.table.entry(key, now)
	x := e.extra.Load()
	if x != nil && x.period == period {
		return x
	}
	// A quota's new period is another key of the store, with leases of its own.
	fresh := &extra{c: c, key: c.sharedKey(key, wall), period: period, entry: e}
	fresh.touched.Store(now)
	if e.extra.CompareAndSwap(x, fresh) {
		return fresh
	}
	return e.extra.Load()
}

// recall refuses what the store refused a moment ago.
func (d *decision) recall(g *ruling) {
	if e := g.r.c.table.find(g.key); e != nil {
		if x := e.extra.Load(); x != nil {
			if v, ok := x.dry.Load().verdict(d.now, g.cost); ok {
				d.says(g, v)
			}
		}
	}
}

// take has the store decide all that it must, in one call. When a lease has just
// refused the request, the call only asks how things stand, once for each drought.
func (d *decision) take() {
	look := d.refused > 0
	if n := len(d.charges); cap(d.out) < n {
		d.out = make([]meter.Verdict, n)
	}
	d.out = d.out[:len(d.charges)]
	clear(d.out)
	if look {
		for i := range d.charges {
			d.charges[i].Cost = 0
		}
	}
	d.e.poster.begin(d.charges)
	sent := d.e.now()
	err := d.e.shared.Take(background, d.charges, d.out)
	d.e.stats.call(opTake, err)
	all := !look
	for i := range d.out {
		all = all && d.out[i].OK
	}
	d.e.poster.end(d.charges, err, all)
	at := 0
	for i := range d.rulings {
		g := &d.rulings[i]
		if g.r.place == here || g.from != fromStore || g.known {
			continue
		}
		v := d.out[at]
		at++
		switch {
		case err == nil:
			d.told(g, v, look, all, sent)
		case !look:
			d.fault(g)
		}
	}
}

// told takes the store's verdict about one rule; all says that every rule admits.
func (d *decision) told(g *ruling, v meter.Verdict, look, all bool, sent int64) {
	if look {
		g.v, g.known = v, true
	} else {
		d.says(g, v)
	}
	switch {
	case g.refuses && !v.OK:
		d.remember(g, sent, g.cost)
	case !all && !g.refuses:
		if g.charged = false; !look {
			g.restore()
		}
		g.restored = true
		d.remember(g, sent, mildest)
	case !all:
		g.charged = false
	default:
		if e := g.r.c.table.find(g.key); e != nil {
			if x := e.extra.Load(); x != nil && x.dry.Load() != nil {
				x.remember(sent, mildest, v)
			}
		}
	}
}

// remember keeps what the store said, when only time can change it.
func (d *decision) remember(g *ruling, sent, cost int64) {
	c := g.r.c
	if a := c.limit.Algorithm; a == meter.SlidingLog || a == meter.Concurrency {
		return
	}
	x := c.shared(g.key, sent, d.x.Start)
	x.touched.Store(sent)
	x.remember(sent, cost, g.v)
}

// recollect is what is known of a shared limit that was not asked about a request
// that is refused.
func (d *decision) recollect(g *ruling) {
	if e := g.r.c.table.find(g.key); e != nil {
		if x := e.extra.Load(); x != nil {
			g.v, g.known = x.dry.Load().state(d.now, g.limit)
			g.restored = true
		}
	}
}

// settle asks for the leases of the rules that nothing is held for. Those whose
// settlement is nobody's yet go in one call; then it waits for those of others.
func (d *decision) settle() {
	mine := d.claim()
	if mine > 0 {
		if cap(d.grants) < mine {
			d.grants = make([]store.Grant, mine)
		}
		d.grants = d.grants[:mine]
		clear(d.grants)
		err := d.e.shared.Settle(background, d.in, d.grants)
		d.e.stats.call(opSettle, err)
		for i := range mine {
			d.granted(d.asked[i], &d.in[i], &d.grants[i])
		}
	}
	for _, g := range d.asked[mine:] {
		if d.refused == 0 {
			d.await(g)
		}
	}
}

// claim begins the settlements that can be, and puts their rulings first.
func (d *decision) claim() int {
	mine := 0
	for i, g := range d.asked {
		if s, ok := d.begin(g); ok {
			d.in = append(d.in, s)
			d.asked[i], d.asked[mine] = d.asked[mine], g
			mine++
		}
	}
	return mine
}

// begin claims the settlement of a ruling's lease. What others wait for is asked
// too, so that one call serves all.
func (d *decision) begin(g *ruling) (store.Settlement, bool) {
	x, terms := g.extra, g.r.c.terms.Load()
	if terms == nil {
		// It has just become too small for leases: need and nothing more.
		terms = &meter.LeaseParams{Limit: &g.r.c.limit, Peers: d.e.peers()}
	}
	g.at = d.e.now()
	s, ok := x.lease.Begin(g.at, g.cost, terms)
	if !ok {
		return store.Settlement{}, false
	}
	return settlement(x, s, max(x.waiting.Load(), 0)), true
}

func settlement(x *extra, s meter.Settle, more int64) store.Settlement {
	return store.Settlement{
		Key: x.key, Limit: &x.c.limit,
		Hold: s.Hold, Give: s.Give, Need: s.Need, Ask: s.Ask + more, Slack: s.Slack, Sent: s.Sent,
	}
}

// granted ends a settlement that a request began.
func (d *decision) granted(g *ruling, s *store.Settlement, grant *store.Grant) {
	x := g.extra
	failed := grant.Err != nil
	now := d.e.now()
	g.at = now
	v := x.lease.End(now, grantOf(grant), failed)
	d.e.stats.settled(g.r.c, s, grant, failed)
	x.touched.Store(now)
	x.settled.tell()
	if x.lease.Held() > 0 {
		d.e.settler.push(x) // to look after what is held
	}
	if failed {
		d.fault(g)
		return
	}
	v = g.r.c.truth(v, d.x.Start)
	d.says(g, v)
	if !v.OK {
		x.remember(now, g.cost, v)
		d.fresh = true
	}
}

func grantOf(g *store.Grant) meter.Granted {
	return meter.Granted{Granted: g.Granted, Level: g.Level, Reset: g.Reset, Valid: g.Valid, Retry: g.Retry}
}

// await waits for the settlement that another request of the key began, and asks
// itself when that brought too little. The rule's budget bounds it.
func (d *decision) await(g *ruling) {
	x := g.extra
	timer := time.NewTimer(g.r.budget)
	defer timer.Stop()
	for {
		done := x.settled.wait()
		if s, ok := d.begin(g); ok {
			d.in = append(d.in[:0], s)
			d.grants = append(d.grants[:0], store.Grant{})
			err := d.e.shared.Settle(background, d.in, d.grants)
			d.e.stats.call(opSettle, err)
			d.granted(g, &d.in[0], &d.grants[0])
			return
		}
		x.waiting.Add(g.cost)
		late := false
		select {
		case <-done:
		case <-timer.C:
			late = true
		}
		x.waiting.Add(-g.cost)
		g.at = d.e.now()
		if v, next := x.lease.Take(g.at, g.cost); next != meter.Ask {
			d.says(g, g.r.c.truth(v, d.x.Start))
			return
		}
		if late {
			d.fault(g)
			return
		}
	}
}

// keep is how long a key of a shared limit is remembered behind its last
// settlement or refusal: its rate is known from it.
const keep = 5 * time.Second

// retireShared says whether a key of a shared limit may go from its table, see
// table.retire. What is held of it goes back to the store.
func (e *Engine) retireShared(en *entry, now int64, force bool) bool {
	x := en.extra.Load()
	if x == nil {
		return true
	}
	if !force {
		if x.queued.Load() || x.lease.Held() > 0 || e.now() < x.touched.Load()+int64(keep) {
			return false
		}
		if dry := x.dry.Load(); dry != nil && e.now() < dry.until {
			return false
		}
		return true
	}
	x.lease.Drain()
	if x.lease.Held() > 0 {
		e.settler.push(x)
	}
	return true
}

// weightOfLease counts what is held when a full table looks for who is least used.
func weightOfLease(en *entry, _ int64) int64 {
	if x := en.extra.Load(); x != nil {
		return x.lease.Held()
	}
	return 0
}

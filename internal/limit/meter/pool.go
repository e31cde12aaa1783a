package meter

import "time"

// A Pool is one limit in the middle, shared by gateways that draw leases from it
// or have single requests decided by it. It is the reference of the Redis script:
// the same fields, the same steps, the same numbers. The zero Pool is a key never
// seen. One goroutine at a time.
//
// For times that never step back and while no lease is out, Take is Limit.Take.
//
// # State
//
//	buckets   debt   parts that are used: capacity·Den − debt is free; ≥ 0
//	          tick   of the last change, ticks since Epoch
//	          held   units in all leases, the sum of the records below
//	          first  no lease expires before it, µs since Epoch; so that records are read rarely
//	windows   index, cur, prev   units, granted = used (prev: SlidingWindow only)
//	leases    gateway → units > 0; expiry in µs since Epoch, windows: the index they
//	          were granted in; sent of the settlement that wrote it
//
// # Steps, in whole numbers
//
// Every value stays within 2^53: a product (t−tick)·Num is only formed when
// t−tick < ⌈debt/Num⌉ (else the leak is the whole debt), and one (tick−t)·Num when
// tick−t < ⌈top·Den/Num⌉. now is in µs since Epoch, at least 0; a tick's number is
// ⌊now/Tick⌋. top is capacity + queue.
//
//	R0  windows: i = index of now. i = index+1: prev = cur, cur = 0; i > index+1:
//	    both 0; i < index (the clock stepped back): both kept. i ≠ index: all leases
//	    are dropped, but for a SlidingWindow those of index i−1. index = i.
//	    R1 to R3 are for buckets.
//	R1  t = tick of now. If t < tick (the clock stepped back): debt = max(debt,
//	    min(top·Den, debt + (tick−t)·Num)); tick = t; and if held > 0, every expiry
//	    later than now + Lifetime becomes that, and so does first.
//	R2  If held > 0 and now ≥ first: m = the latest expiry that is ≤ now. If there
//	    is one, R3 up to the tick of m with held as it is, then drop the leases
//	    whose expiry is ≤ now, held −= theirs. first = the earliest expiry left, or 0.
//	    What was dropped is lost: debt keeps it.
//	R3  Up to a tick t > tick: leak = (t−tick)·Num; stop = min(debt, min(max(0,
//	    held − slack), 2·capacity)·Den); debt = max(stop, debt − leak); tick = t.
//	    slack is that of the Settle; 0 for Take and Post.
//
// Settle (no queue here: top = capacity):
//
//	S1  R0 … R3 up to now. Hold, Give, Need, Ask are cut to 0 … 2·capacity, Ask to ≥ Need.
//	    If Sent > 0 and the gateway's record has sent ≥ Sent, the settlement comes
//	    late (it was given up and a newer one overtook it) or twice: S2 and S4 are
//	    skipped, and g = 0.
//	S2  h = the units of the gateway's record, 0 if none.
//	    Buckets: over = max(0, Hold + Give − h), what the gateway has and the pool had
//	    given up; charge over − Give (which may be negative); held += Hold − h.
//	    Windows: if the record is not of index: prev = max(0, prev − min(Give, h)),
//	    then h = 0. If h = 0: Hold = 0. Charge −min(Give, max(0, h − Hold)). (Hold may
//	    be more than h, by refunds.)
//	    To charge u: debt = max(0, min(debt + u·Den, max(debt, 2·capacity·Den))), or
//	    cur = max(0, min(cur + u, max(cur, 2·capacity))).
//	S3  v = free units: buckets capacity − ⌈debt/Den⌉; FixedWindow capacity − cur;
//	    SlidingWindow ⌊(capacity·W − cur·W − prev·(W−e)) / W⌋, e = ticks into the
//	    window; at least 0.
//	    want = min(Ask, max(Need, ⌊v/2⌋, v − ⌊capacity/400⌋, 1)); g = min(want, v);
//	    if g < Need: g = 0.
//	S4  Charge g. The record is Hold + g and Sent (0 units: none), windows: of index. Buckets: held += g,
//	    expiry = now + Lifetime, and first = expiry if first was 0 or later. (Without a
//	    record first stays, but if held = 0 then first = 0.)
//	S5  Granted = g; Level = v − g; Reset = ⌈debt/Num⌉ ticks, windows: to the end;
//	    Valid = Usable, windows: at most to the end; Retry = if g = 0 and Ask > 0: what
//	    Take says in Retry for the cost max(Need, 1), else 0.
//
// Take: a cost of 0 is admitted and changes nothing. R0 … R3; then buckets:
// debt + cost·Den ≤ top·Den, windows: cost ≤ free, are charged; the verdict is that
// of Limit.Take.
//
// Post: R0 … R3; charge cost, cut to ±(2·capacity + queue).
type Pool struct {
	debt, tick       int64
	held, first      int64
	index, cur, prev int64
	leases           map[string]lent
}

// lent is one gateway's lease as the pool knows it; expiry is the index for windows.
type lent struct{ units, expiry, sent int64 }

// The life of a lease. The pool forgets it after Lifetime; the gateway uses it for
// Usable only, counted from before it asked, so that it is the first to stop.
const (
	Lifetime = 2 * time.Second
	Usable   = 1500 * time.Millisecond
)

// Settle is one side of a lease, see store.Settlement. Units.
type Settle struct {
	Hold  int64 // unused units that are kept
	Give  int64 // units given back
	Need  int64 // without these nothing is granted; 0: anything helps
	Ask   int64 // units wanted, ≥ Need
	Slack int64 // by how much pool and leases together may exceed the capacity
	// Sent tells the settlements of one gateway and key apart: a later one has more.
	// Unix µs of the gateway's clock; 0: they cannot overtake each other.
	Sent int64
}

// Granted is the answer to a Settle, see store.Grant.
type Granted struct {
	Granted int64 // units, 0 or between Need and Ask
	Level   int64 // units left in the pool
	Reset   time.Duration
	Valid   time.Duration // how long all units held are good, from the moment of asking
	// Retry is, when nothing was granted, the time until Need units (at least one)
	// are there if nobody else asks; Never when Need is above the capacity; else 0.
	Retry time.Duration
}

// Settle takes back and grants. The limit is a bucket without Queue, a FixedWindow
// or a SlidingWindow.
func (p *Pool) Settle(l *Limit, now int64, gateway string, s Settle) Granted {
	p.roll(l, now, max(s.Slack, 0))
	most := 2 * l.Capacity
	hold, give := within(s.Hold, most), within(s.Give, most)
	need := within(s.Need, most)
	ask := max(within(s.Ask, most), need)

	had := p.leases[gateway]
	late := s.Sent > 0 && had.sent >= s.Sent
	if !late {
		hold = p.back(l, &had, hold, give)
	}
	v := p.free(l, now)
	g := min(ask, max(need, v/2, v-l.Capacity/400, 1), v)
	if g < need || late {
		g = 0
	}
	out := Granted{Granted: g, Level: v - g, Valid: Usable}
	if g == 0 && ask > 0 {
		out.Retry = p.wait(l, now, max(need, 1))
	}
	if !late {
		p.charge(l, g, most)
		p.record(l, now, gateway, had.units, lent{units: hold + g, sent: s.Sent})
	}
	out.Reset = p.reset(l, now)
	if l.Den == 0 {
		out.Valid = min(Usable, out.Reset)
	}
	return out
}

// back is S2: what is kept, and had less what the pool has no record of.
func (p *Pool) back(l *Limit, had *lent, hold, give int64) int64 {
	most := 2 * l.Capacity
	if l.Den > 0 {
		p.charge(l, max(hold+give-had.units, 0)-give, most)
		return hold
	}
	if had.expiry != p.index {
		p.prev = max(p.prev-min(give, had.units), 0)
		had.units = 0
	}
	if had.units == 0 {
		hold = 0
	}
	p.charge(l, -min(give, max(had.units-hold, 0)), most)
	return hold
}

// Take decides one request.
func (p *Pool) Take(l *Limit, now, cost int64) Verdict {
	cost = max(cost, 0)
	p.roll(l, now, 0)
	v := p.verdict(l, now, cost)
	if v.OK {
		p.charge(l, cost, l.Capacity+l.Queue)
	}
	return v
}

// Peek is what Take would say; it charges nothing.
func (p *Pool) Peek(l *Limit, now, cost int64) Verdict {
	p.roll(l, now, 0)
	return p.verdict(l, now, max(cost, 0))
}

// Post charges without asking, up to twice the capacity; a negative cost gives back.
func (p *Pool) Post(l *Limit, now, cost int64) {
	p.roll(l, now, 0)
	most := 2*l.Capacity + l.Queue
	p.charge(l, min(max(cost, -most), most), 2*l.Capacity)
}

// within cuts a number of units to 0 … most.
func within(units, most int64) int64 { return min(max(units, 0), most) }

// roll brings the state to now: R0 to R3.
func (p *Pool) roll(l *Limit, now, slack int64) {
	if l.Den == 0 {
		i := l.Index(now)
		if i > p.index {
			if p.prev = 0; i == p.index+1 {
				p.prev = p.cur
			}
			p.cur = 0
		}
		if i != p.index {
			for g, r := range p.leases {
				if l.Algorithm == FixedWindow || r.expiry != i-1 {
					delete(p.leases, g)
				}
			}
		}
		p.index = i
		return
	}
	us := micros(now)
	t := us / l.micros()
	if t < p.tick {
		p.stepBack(l, us, t)
	}
	if p.held > 0 && us >= p.first {
		latest, expired := int64(-1), int64(0)
		for _, r := range p.leases {
			if r.expiry <= us {
				latest, expired = max(latest, r.expiry), expired+r.units
			}
		}
		if latest >= 0 {
			p.refill(l, latest/l.micros(), slack)
		}
		p.held -= expired
		p.first = 0
		for g, r := range p.leases {
			if r.expiry <= us {
				delete(p.leases, g)
			} else if p.first == 0 || r.expiry < p.first {
				p.first = r.expiry
			}
		}
	}
	p.refill(l, t, slack)
}

// stepBack is a step back of the clock, to t: R1.
func (p *Pool) stepBack(l *Limit, us, t int64) {
	full := (l.Capacity + l.Queue) * l.Den
	late := full
	if p.tick-t < ceil(full, l.Num) {
		late = (p.tick - t) * l.Num
	}
	p.debt = max(p.debt, min(full, p.debt+late))
	p.tick = t
	latest := us + Lifetime.Microseconds()
	for g, r := range p.leases {
		if r.expiry > latest {
			r.expiry = latest
			p.leases[g] = r
		}
	}
	p.first = min(p.first, latest)
}

// refill is R3.
func (p *Pool) refill(l *Limit, t, slack int64) {
	if t <= p.tick {
		return
	}
	leak := p.debt
	if t-p.tick < ceil(p.debt, l.Num) {
		leak = (t - p.tick) * l.Num
	}
	stop := within(p.held-slack, 2*l.Capacity) * l.Den
	p.debt = max(min(p.debt, stop), p.debt-leak)
	p.tick = t
}

// charge adds units, which may be negative; what is added goes no further than most.
func (p *Pool) charge(l *Limit, units, most int64) {
	if l.Den == 0 {
		p.cur = max(min(p.cur+units, max(p.cur, most)), 0)
		return
	}
	p.debt = max(min(p.debt+units*l.Den, max(p.debt, most*l.Den)), 0)
}

// record writes the gateway's lease, which had units.
func (p *Pool) record(l *Limit, now int64, gateway string, had int64, r lent) {
	if p.leases == nil {
		p.leases = map[string]lent{}
	}
	if r.expiry = p.index; l.Den > 0 {
		p.held += r.units - had
		r.expiry = micros(now) + Lifetime.Microseconds()
	}
	if r.units == 0 {
		delete(p.leases, gateway)
		if p.held == 0 {
			p.first = 0
		}
		return
	}
	p.leases[gateway] = r
	if l.Den > 0 && (p.first == 0 || r.expiry < p.first) {
		p.first = r.expiry
	}
}

// free is how many units can be had now.
func (p *Pool) free(l *Limit, now int64) int64 {
	switch {
	case l.Den > 0:
		return max(l.Capacity-ceil(p.debt, l.Den), 0)
	case l.Algorithm == SlidingWindow:
		s := p.slide(l, now)
		return max(l.Capacity*l.Window-s.used, 0) / l.Window
	default:
		return max(l.Capacity-p.cur, 0)
	}
}

func (p *Pool) slide(l *Limit, now int64) slide {
	s := slide{index: p.index, pos: l.tick(now) - p.index*l.Window, cur: p.cur, prev: p.prev}
	s.used = s.cur*l.Window + s.prev*(l.Window-s.pos)
	return s
}

// reset is until the bucket is full, or to the window's end.
func (p *Pool) reset(l *Limit, now int64) time.Duration {
	if l.Den > 0 {
		return l.leak(p.debt)
	}
	return l.until(now, p.index)
}

// wait is how long until cost units are free if nobody else asks, 0 if they are.
func (p *Pool) wait(l *Limit, now, cost int64) time.Duration {
	switch {
	case cost > l.Capacity+l.Queue:
		return Never
	case l.Den > 0:
		return l.leak(max(p.debt+cost*l.Den-l.top(), 0))
	case cost <= p.free(l, now):
		return 0
	case l.Algorithm == SlidingWindow:
		return time.Duration(l.slid(p.slide(l, now), cost)) * l.Tick
	default:
		return l.until(now, p.index)
	}
}

// verdict is that of Limit.Take.
func (p *Pool) verdict(l *Limit, now, cost int64) Verdict {
	v := Verdict{Retry: p.wait(l, now, cost), Remaining: p.free(l, now), Reset: p.reset(l, now)}
	if v.OK = cost == 0 || v.Retry == 0; !v.OK {
		return v
	}
	v.Retry = 0
	v.Remaining = max(v.Remaining-cost, 0)
	if l.Den > 0 && cost > 0 {
		debt := p.debt + cost*l.Den
		v.Reset = l.leak(debt)
		if l.Queue > 0 {
			v.Delay = l.leak(max(debt-l.Capacity*l.Den, 0))
		}
	}
	return v
}

// micros is now in µs since Epoch, at least 0.
func micros(now int64) int64 { return max(clamp(now)-Epoch, 0) / 1000 }

// micros is the length of a tick in µs.
func (l *Limit) micros() int64 { return l.Tick.Microseconds() }

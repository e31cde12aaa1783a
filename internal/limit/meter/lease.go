package meter

import (
	"sync/atomic"
	"time"
)

// A lease is a part of a shared limit that one gateway may use by itself. Its hot
// path is one compare-and-swap; everything else happens in settlements, one at a
// time, between Begin and End.
//
// # What must hold
//
// The pool's record of a gateway is never less than what the gateway really has
// (left, back and reserved). So:
//
//   - Hold is a snapshot, and while the settlement is in flight takes only lower
//     what it counted. What is refunded waits in back until the next Begin, which
//     for buckets lets in no more than the pool's record (known). Windows count
//     what was granted, refunded or not, so there all comes back.
//   - What is given leaves left before the message is made.
//   - A grant counts when its answer comes. A lost answer leaves the pool with a
//     record that is too large; the next Hold corrects it. A message that is
//     executed after it was given up is told by Sent.
//   - until is counted from before the message was sent, and is shorter than the
//     pool's expiry. Behind it nothing is taken, whatever happened to this process.
//   - What was left when until passed is void for good: Begin offers it back (the
//     pool takes only what its record still has), End throws it away. So nothing
//     that was granted in one window is used in the next.
//
// # How much
//
// rate is the demand (used, missed, waited for) of the last settlements: it rises
// within a few milliseconds and falls within half a second. A lease is filled up
// to what the demand takes in the horizon, 100 ms, or a tenth of the time in which
// the whole capacity comes back where that is shorter, and at most 1/32 of the
// capacity; a share of Slack may be held for up to a second. At 30 % of that, or
// as early as the round trip asks for, a settlement starts in the background.
//
// When the pool grants less than was asked and has little left, the limit is near
// its end: what cannot be served is refused without asking (dry) until the pool
// has had time to fill, 15 ms or longer, so that all gateways together ask at most
// 2 % of the rate.

// The constants of leases; docs/limits.md says why.
const (
	horizon    = 100 * time.Millisecond // of demand in a lease …
	fillShare  = 32                     // … but at most this part of the capacity,
	fillLeast  = 100                    // or so many requests,
	tripFill   = 4                      // or so many round trips of demand
	maxTrip    = 25 * time.Millisecond  // what counts of a round trip
	lowWater   = 0.3                    // of the fill, where a settlement starts …
	tripMark   = 1.5                    // … or so many round trips of demand …
	highWater  = 0.7                    // … but not above
	slackTime  = time.Second            // of demand, that a share of Slack may cover
	shortPace  = 15 * time.Millisecond  // between settlements of a dry lease …
	longPace   = time.Second            // … at most
	paceShare  = 0.02                   // of the rate, which dry gateways together may ask
	failPace   = 100 * time.Millisecond // behind a settlement without an answer
	shortFill  = 1.0                    // of that pace, what a dry lease is filled for
	shortGrant = 64                     // requests, for which a dry lease asks again at once
	turnTime   = 20 * time.Millisecond  // at least so much is held for at a window's end
	renewal    = 500 * time.Millisecond // before until, where a settlement starts
	idleTime   = time.Second            // without use, behind which all is given back
	rise       = 25 * time.Millisecond  // time constants of the rate
	fall       = 500 * time.Millisecond
)

// Next is what the caller of Lease.Take has to do.
type Next uint8

// What follows a Take.
const (
	Done   Next = iota // decided
	Refill             // admitted; settle in the background: Begin(now, 0, …)
	Ask                // not decided: Begin(now, cost, …) and wait for it
)

// LeaseParams are what a Lease is to know of its limit at a settlement.
type LeaseParams struct {
	Limit *Limit
	Slack int64 // units: capacity × max_overshoot
	Peers int   // gateways alive, ≥ 1
}

// Worth reports whether the limit is large enough for leases; when not, every
// request is decided by the store's Take.
func (p *LeaseParams) Worth() bool {
	return p.Slack >= 10*p.Limit.Scale*int64(max(p.Peers, 1))
}

// Lease is what one gateway holds of one shared limit. The zero Lease holds
// nothing. All methods may be called from any goroutine.
//
// A request:
//
//	v, next := l.Take(now, cost)
//	Done:   v decides.
//	Refill: v admits; if s, ok := l.Begin(now, 0, p); ok { in the background: settle s, then l.End }
//	Ask:    if s, ok := l.Begin(now, cost, p); ok { settle s now; v = l.End(now again, granted, failed)
//	        decides, unless it failed: on_fault }
//	        else another request is settling: wait until its End, then Take again.
type Lease struct {
	left   atomic.Int64 // units to take
	until  atomic.Int64 // when left is void, Unix ns
	renew  atomic.Int64 // when a settlement starts so that until moves on
	dry    atomic.Int64 // before it, what does not fit is refused …
	bar    atomic.Int64 // … if it costs at least this
	again  atomic.Int64 // before it, no settlement in the background
	mark   atomic.Int64 // low water
	level  atomic.Int64 // units in the pool, as of the last answer
	missed atomic.Int64 // units refused since the last Begin

	busy  atomic.Bool  // a settlement is in flight; what follows the atomics is its own
	drain atomic.Bool  // nothing more is held
	idle  atomic.Bool  // the next Begin gives all back
	reset atomic.Int64 // when the whole limit is full or the window ends, as of the last answer
	freed atomic.Int64 // when the pool may serve what it last refused
	asof  atomic.Int64 // when level was true
	fresh atomic.Int64 // refunds of what was taken before it are void
	// demand is rate for others to read, units/s.
	demand atomic.Int64
	back   atomic.Int64 // refunds: a generation of 16 bits, units of 48
	limit  atomic.Pointer[Limit]

	flight flight
	last   int64   // Sent of the last settlement
	known  int64   // units that the pool has for this gateway, at least
	base   int64   // left behind the last settlement
	at     int64   // when rate was measured
	rate   float64 // units/s of demand
	trip   float64 // seconds of a round trip
	short  bool    // the last grant was less than asked

	seen, seenAt int64 // Idle's
}

// flight is the settlement under way.
type flight struct {
	sent     int64
	need     int64 // of the request that waits …
	reserved int64 // … of which this was left here
	ask      int64
	mark     int64
	pace     time.Duration
}

// Take decides one request of cost units at now (Unix ns, read just before), if
// it can.
func (l *Lease) Take(now, cost int64) (Verdict, Next) {
	cost = max(cost, 0)
	for {
		until := l.until.Load()
		left := l.left.Load()
		if now >= until || left < cost {
			break
		}
		if !l.left.CompareAndSwap(left, left-cost) {
			continue
		}
		left -= cost
		v := l.verdict(now, left)
		if (left < l.mark.Load() || now >= l.renew.Load()) && now >= l.again.Load() && !l.busy.Load() {
			return v, Refill
		}
		return v, Done
	}
	if cost == 0 {
		return l.verdict(now, 0), Done
	}
	if now >= l.dry.Load() || cost < l.bar.Load() {
		if limit := l.limit.Load(); limit != nil && cost > limit.Capacity {
			return l.refuse(now, cost), Done
		}
		return Verdict{}, Ask
	}
	l.missed.Add(cost)
	return l.refuse(now, cost), Done
}

// verdict is that of an admitted request. What is held here counts as used in the
// pool and leaks there, so together they may exceed the capacity; what remains does
// not. A bucket is full when what is missing of it has leaked.
func (l *Lease) verdict(now, left int64) Verdict {
	v := Verdict{OK: true, Remaining: left + l.level.Load()}
	limit := l.limit.Load()
	switch {
	case limit == nil:
	case limit.Den > 0:
		v.Remaining = min(v.Remaining, limit.Capacity)
		v.Reset = limit.leak((limit.Capacity - v.Remaining) * limit.Den)
		return v
	default:
		v.Remaining = min(v.Remaining, limit.Capacity)
	}
	v.Reset = time.Duration(max(l.reset.Load()-now, 0))
	return v
}

// refuse is the verdict of a cost that neither the lease nor the pool can serve.
func (l *Lease) refuse(now, cost int64) Verdict {
	v := l.verdict(now, l.left.Load())
	v.OK = false
	limit := l.limit.Load()
	if limit == nil {
		v.Retry = shortPace
		return v
	}
	if cost > limit.Capacity {
		v.Retry = Never
		return v
	}
	freed := l.freed.Load()
	when := max(l.dry.Load(), freed)
	if short := cost - v.Remaining; short > 0 {
		switch {
		case limit.Den > 0:
			when = max(when, l.asof.Load()+int64(limit.leak(short*limit.Den)))
		case limit.Algorithm == FixedWindow:
			when = max(when, l.reset.Load())
		case freed < now:
			// Nobody asked the pool for it. By then it is there, perhaps earlier: in the
			// next window this one's count, at most the capacity, wanes evenly.
			when = max(when, l.reset.Load()+int64(limit.Tick)*ceil(cost*limit.Window, limit.Capacity))
		}
	}
	v.Retry = time.Duration(max(when-now, int64(time.Millisecond)))
	return v
}

// Refund gives back what a Take (or a Begin with need) took; taken is the time
// that Take (or End) was given.
func (l *Lease) Refund(taken, cost int64) {
	if cost <= 0 {
		return
	}
	for {
		w := l.back.Load()
		if taken < l.fresh.Load() {
			return
		}
		if l.back.CompareAndSwap(w, w+min(cost, unitMask-w&unitMask)) {
			return
		}
	}
}

const (
	unitBits = 48
	unitMask = 1<<unitBits - 1
)

// refunded takes out what was refunded.
func (l *Lease) refunded() int64 {
	for {
		w := l.back.Load()
		if w&unitMask == 0 || l.back.CompareAndSwap(w, w&^unitMask) {
			return w & unitMask
		}
	}
}

// void throws away what is left when until has passed: refunds of it too, those
// still to come as well. It returns what there was.
func (l *Lease) void() int64 {
	l.fresh.Store(l.until.Load())
	units := l.left.Swap(0)
	for {
		w := l.back.Load()
		if l.back.CompareAndSwap(w, (w>>unitBits+1)<<unitBits) {
			return units + w&unitMask
		}
	}
}

// Lasts is for how long what is held will do at the demand of late, and not beyond
// its end. It is 0 when refunds wait: somebody may need them.
func (l *Lease) Lasts(now int64) time.Duration {
	if l.back.Load()&unitMask != 0 {
		return 0
	}
	end := time.Duration(max(l.until.Load()-now, 0))
	demand := l.demand.Load()
	if left := l.left.Load(); demand > 0 && left < demand*int64(end/time.Second+1) {
		end = min(end, time.Duration(left)*time.Second/time.Duration(demand))
	}
	return end
}

// Idle reports whether units are held that nobody has used for a second, or that
// Drain wants back: settle then, Begin(now, 0, p) gives them back. To be asked
// every 250 ms or so, by one goroutine.
func (l *Lease) Idle(now int64) bool {
	left := l.Held()
	switch {
	case left == 0:
		l.seen, l.seenAt = 0, now
		return false
	case l.drain.Load():
		return true
	case left != l.seen:
		l.seen, l.seenAt = left, now
		return false
	}
	idle := now-l.seenAt >= int64(idleTime)
	if idle {
		l.idle.Store(true)
	}
	return idle
}

// Drain makes the next Begin give all back, and every later one ask for nothing
// but need. A settlement in flight may still bring something: go on until Idle
// says false.
func (l *Lease) Drain() { l.drain.Store(true) }

// Held is how many units are held, about, those refunded included.
func (l *Lease) Held() int64 { return l.left.Load() + l.back.Load()&unitMask }

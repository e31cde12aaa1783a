package meter

import (
	"math"
	"time"
)

// Begin claims the right to settle and says what to send. False: somebody else is
// at it, or (need 0) there is nothing to say. Every Begin that says true must be
// followed by one End. now (Unix ns) must have been read before; need is the cost
// of the request that waits, or 0.
func (l *Lease) Begin(now, need int64, p *LeaseParams) (Settle, bool) {
	if !l.busy.CompareAndSwap(false, true) {
		return Settle{}, false
	}
	if l.limit.Load() != p.Limit {
		l.limit.Store(p.Limit)
	}
	need = max(need, 0)
	idle := l.idle.Swap(false)
	until := l.until.Load()
	left := l.left.Load()
	l.measure(now, max(l.base-left, 0)+l.missed.Swap(0)+need)
	fill := l.fill(now, p)
	if l.drain.Load() || idle && need == 0 {
		fill = 0
	}
	l.last = max(l.last+1, now/1000)
	s := Settle{Slack: p.Slack, Sent: l.last}
	l.flight = flight{sent: now, need: need, pace: pace(p), mark: l.lowWater(fill)}
	if now >= until {
		s.Give = l.void()
		left = 0
	} else {
		left, s.Give = l.trim(fill, need, p.Limit)
		l.flight.reserved = l.reserve(need)
		left -= l.flight.reserved
		s.Hold = left + l.flight.reserved
	}
	s.Need = need - l.flight.reserved
	s.Ask = s.Need + max(fill-left, 0)
	l.flight.ask = s.Ask
	l.base = left
	if need == 0 && s.Give == 0 && (s.Hold == 0 && s.Ask == 0 || s.Ask <= fill/2 && now < l.renew.Load()) {
		l.mark.Store(min(l.flight.mark, left))
		l.busy.Store(false)
		return Settle{}, false
	}
	l.known = s.Hold
	return s, true
}

// trim lets refunds in and takes out what is far above fill and need. Of a bucket's, only
// as much as the pool has on record: what it took for used has leaked since.
func (l *Lease) trim(fill, need int64, limit *Limit) (left, give int64) {
	back := l.refunded()
	for {
		was := l.left.Load()
		left = was + back
		if limit.Den > 0 {
			left = min(left, max(l.known, was))
		}
		give = 0
		if left > 2*fill+need {
			give = left - fill - need
			left = fill + need
		}
		if l.left.CompareAndSwap(was, left) {
			return left, give
		}
	}
}

// reserve takes up to need out of left for the request that waits.
func (l *Lease) reserve(need int64) int64 {
	for {
		left := l.left.Load()
		r := min(left, need)
		if r == 0 || l.left.CompareAndSwap(left, left-r) {
			return r
		}
	}
}

// measure updates the rate with the demand since it was last measured.
func (l *Lease) measure(now, demand int64) {
	if l.at == 0 || now <= l.at {
		l.at = max(l.at, now)
		l.missed.Add(demand) // for the next time
		return
	}
	dt := float64(now - l.at)
	r := float64(demand) / dt * float64(time.Second)
	tau := float64(fall)
	if r > l.rate {
		tau = float64(rise)
	}
	l.rate += (r - l.rate) * (1 - math.Exp(-dt/tau))
	l.demand.Store(int64(l.rate))
	l.at = now
}

// fill is up to how many units the lease is to be filled.
func (l *Lease) fill(now int64, p *LeaseParams) int64 {
	limit := p.Limit
	share := min(float64(p.Slack/int64(max(p.Peers, 1))), float64(fillLeast*limit.Scale))
	most := max(float64(limit.Capacity)/fillShare, float64(fillLeast*limit.Scale), l.rate*tripFill*l.trip)
	ahead, long := horizon.Seconds(), slackTime.Seconds()
	if l.short {
		ahead = min(ahead, shortFill*l.flight.pace.Seconds())
		long = ahead
	}
	if limit.Den == 0 {
		// What is held at the window's end is void.
		rest := max(limit.Ends(now), turnTime).Seconds()
		ahead, long = min(ahead, rest), min(long, rest)
	}
	units := max(min(l.rate*ahead, most), min(l.rate*long, share))
	if units < float64(limit.Scale) {
		return 0
	}
	return int64(min(units, float64(limit.Capacity)))
}

// lowWater is where the next settlement starts: early enough for the demand
// during its round trip.
func (l *Lease) lowWater(fill int64) int64 {
	f := float64(fill)
	return int64(min(max(lowWater*f, tripMark*l.trip*l.rate), highWater*f))
}

// full is the time in ns in which the whole capacity comes back.
func full(l *Limit) float64 {
	if l.Den > 0 {
		return float64(l.Capacity) * float64(l.Den) / float64(l.Num) * float64(l.Tick)
	}
	return float64(l.Spread())
}

// pace is the time between settlements of a dry lease.
func pace(p *LeaseParams) time.Duration {
	requests := float64(p.Limit.Capacity) / float64(p.Limit.Scale) / full(p.Limit) // a ns
	d := float64(max(p.Peers, 1)) / (paceShare * requests)
	return time.Duration(min(max(d, float64(shortPace)), float64(longPace)))
}

// End brings the answer; failed: there was none (g is ignored). now must be read
// after the answer came. The verdict is for the request whose need was passed to
// Begin: OK when its units were granted, and are taken. With need 0, or failed, it
// means nothing.
func (l *Lease) End(now int64, g Granted, failed bool) Verdict {
	f := l.flight
	defer l.busy.Store(false)
	if now >= l.until.Load() {
		l.void()
		l.base = 0
		// Nor may what was reserved be used; the pool's record covers it.
		f.reserved = 0
	}
	if failed {
		l.left.Add(f.reserved)
		l.base += f.reserved
		l.again.Store(now + int64(failPace))
		return Verdict{}
	}
	return l.apply(now, f, g)
}

// apply is End with an answer.
func (l *Lease) apply(now int64, f flight, g Granted) Verdict {
	trip := min(float64(now-f.sent), float64(maxTrip)) / float64(time.Second)
	l.trip += (trip - l.trip) / 4
	served := g.Granted >= f.need-f.reserved && f.need > 0
	add := g.Granted
	if served {
		add -= f.need - f.reserved
	} else {
		add += f.reserved
	}
	l.known += g.Granted
	l.base += add
	left := l.left.Add(add)
	until := f.sent + int64(g.Valid)
	l.until.Store(until)
	if g.Valid < Usable {
		until = math.MaxInt64 // a window ends: asking earlier does not help
	}
	l.renew.Store(until - int64(renewal))
	l.level.Store(g.Level)
	l.asof.Store(now)
	l.reset.Store(now + int64(g.Reset))
	l.mark.Store(f.mark)
	l.answer(now, f, g)

	v := l.verdict(now, left)
	if f.need == 0 || served {
		return v
	}
	return l.refuse(now, f.need)
}

// answer sets the pace from what was granted of what was asked.
func (l *Lease) answer(now int64, f flight, g Granted) {
	l.short = g.Granted < f.ask
	if !l.short || worthwhile(l.limit.Load(), g.Level) {
		l.dry.Store(0)
		l.again.Store(0)
		l.freed.Store(0)
		return
	}
	wait := max(f.pace*time.Duration(600+scatter(f.sent)/2)/1024, shortPace)
	bar, freed := int64(0), int64(0)
	if g.Granted == 0 {
		if g.Retry > 0 {
			freed = now + int64(g.Retry)
			wait = min(max(wait, g.Retry), longPace)
		}
		if g.Level > 0 {
			bar = g.Level + 1
		}
	}
	l.freed.Store(freed)
	l.bar.Store(bar)
	l.again.Store(now + int64(wait))
	l.dry.Store(now + int64(wait))
}

// scatter is a number below 1024 that differs from one time to the next: gateways
// that ran dry at one moment are not to come back at one moment.
func scatter(now int64) uint64 { return uint64(now) * 0x9e3779b97f4a7c15 >> 54 }

// worthwhile reports whether the pool would grant so much of its level at once
// that asking again soon is cheap.
func worthwhile(l *Limit, level int64) bool {
	return max(level/2, level-l.Capacity/400) >= shortGrant*l.Scale
}

package auth

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// guard is what stands against guessing and against using things twice. It outlives
// configurations. The zero value has seen nothing.
//
// Failed attempts are a token bucket for each key of `limits.auth_failures.per`,
// kept as the moment at which it will be full again (GCRA): a failure moves that
// moment by one interval of the rate, and who is more than burst-1 intervals ahead of
// the clock is refused before any credential is looked at. A refusal moves nothing,
// so waiting as long as Retry-After says is enough.
//
// The table has 65,536 slots of 16 bytes in sets of four, whatever happens. A key
// that finds its set full takes the place of the one that failed least. Nobody can
// aim at a set, because keys are hashed under a seed that only this process knows;
// that is also why 64 bits of a hash may stand for a key. There is no lock: two
// first failures of one key at the same moment may be counted as one, and requests
// that are being checked when the burst runs out go on, so what is admitted is the
// burst and what the rate gives, plus what was at work at once.
type guard struct {
	failures atomic.Pointer[failures] // nil: nothing has failed yet
	rule     atomic.Pointer[guardRule]
	used     usedOnce // signatures
}

const (
	guardSets = 1 << 14
	guardWays = 4
)

// failures is the table. Times are ns since start, by the monotonic clock.
type failures struct {
	seed  maphash.Seed
	start time.Time
	last  atomic.Int64 // when the fullest bucket of all is empty of failures again
	sets  [guardSets]failureSet
}

// failureSet is one cache line.
type failureSet struct {
	key  [guardWays]atomic.Uint64 // hash of the key; noKey or takenKey
	free [guardWays]atomic.Int64  // when nothing of its failures is left
}

// Keys that no hash is.
const (
	noKey    = 0
	takenKey = 1 // somebody is writing the slot
)

// guardRule is an AuthFailures, compiled. It does not change.
type guardRule struct {
	of        *config.AuthFailures
	interval  int64 // ns that one failure costs; 0: nothing is limited
	tolerance int64 // ns that one may be ahead and still try: burst-1 intervals
	per       []guardPart
	policy    []byte // the item of RateLimit-Policy
}

// guardPart is one word of `per`: an address, or a header when it has a name.
type guardPart struct {
	name []byte
	id   exchange.HeaderID
}

// admit refuses who has failed too often, before any credential of x is looked at.
// While nobody is to be refused it costs two loads. The error is a 429 with
// Retry-After.
func (g *guard) admit(c *config.AuthFailures, x *exchange.Exchange) error {
	t := g.failures.Load()
	if t == nil {
		return nil
	}
	now := int64(x.Start.Sub(t.start))
	if now >= t.last.Load() {
		return nil
	}
	r := g.compiled(c)
	if full := t.free(r.key(t.seed, x)) - now; full > r.tolerance && r.interval > 0 {
		return tooMany(r, full)
	}
	return nil
}

// failed counts a failed attempt of x.
func (g *guard) failed(c *config.AuthFailures, x *exchange.Exchange) {
	r := g.compiled(c)
	if r.interval == 0 {
		return
	}
	t := g.failures.Load()
	if t == nil {
		t = &failures{seed: maphash.MakeSeed(), start: x.Start}
		if !g.failures.CompareAndSwap(nil, t) {
			t = g.failures.Load()
		}
	}
	free := t.charge(r.key(t.seed, x), int64(x.Start.Sub(t.start)), r.interval)
	for last := t.last.Load(); free > last && !t.last.CompareAndSwap(last, free); {
		last = t.last.Load()
	}
}

// compiled returns the rule of c. There is one configuration at a time, or two for a
// moment, so the last one is all that is kept.
func (g *guard) compiled(c *config.AuthFailures) *guardRule {
	if r := g.rule.Load(); r != nil && r.of == c {
		return r
	}
	r := newGuardRule(c)
	g.rule.Store(r)
	return r
}

func newGuardRule(c *config.AuthFailures) *guardRule {
	r := &guardRule{of: c}
	if c.Rate.N > 0 && c.Rate.Per > 0 {
		r.interval = max(int64(c.Rate.Per)/c.Rate.N, 1)
		// A quarter of what fits, so that no sum of a few such times overflows.
		r.tolerance = min(max(c.Burst-1, 0), math.MaxInt64/4/r.interval) * r.interval
		r.policy = strconv.AppendInt([]byte(`"auth_failures";q=`), max(c.Burst, 1), 10)
		r.policy = strconv.AppendInt(append(r.policy, ";w="...), seconds(r.tolerance+r.interval), 10)
	}
	per := c.Per
	if len(per) == 0 {
		per = []string{"ip"}
	}
	for _, word := range per {
		if name, ok := strings.CutPrefix(word, "header:"); ok {
			r.per = append(r.per, guardPart{name: []byte(name), id: exchange.Lookup([]byte(name))})
		} else if word != "global" {
			r.per = append(r.per, guardPart{})
		}
	}
	return r
}

// key is the hash of what x is counted by. Each part is hashed together with the
// hash of those before it.
func (r *guardRule) key(seed maphash.Seed, x *exchange.Exchange) uint64 {
	h := uint64(len(r.per))
	for i := range r.per {
		if p := &r.per[i]; p.name == nil {
			h = hashAddress(seed, h, x)
		} else {
			h = hashHeader(seed, h, p, &x.Request.Header)
		}
	}
	if h <= takenKey {
		h += takenKey + 1
	}
	return h
}

// hashAddress counts IPv6 addresses by their /64, the least that one customer gets,
// and an IPv4 address written as IPv6 as IPv4.
func hashAddress(seed maphash.Seed, h uint64, x *exchange.Exchange) uint64 {
	var b [8 + 1 + 8]byte
	binary.LittleEndian.PutUint64(b[:], h)
	switch a := x.Client.Unmap(); {
	case a.Is4():
		four := a.As4()
		b[8] = 4
		copy(b[9:], four[:])
	case a.Is6():
		sixteen := a.As16()
		b[8] = 6
		copy(b[9:], sixteen[:8])
	}
	return maphash.Bytes(seed, b[:])
}

// hashHeader counts by all fields of the name; no such field is a key of its own.
func hashHeader(seed maphash.Seed, h uint64, p *guardPart, fields *exchange.Header) uint64 {
	var b [16]byte
	for i := range fields.Len() {
		f := fields.At(i)
		if f.ID != p.id || p.id == exchange.Other && !exchange.EqualFold(f.Name, p.name) {
			continue
		}
		binary.LittleEndian.PutUint64(b[:], h)
		binary.LittleEndian.PutUint64(b[8:], maphash.Bytes(seed, f.Value))
		h = maphash.Bytes(seed, b[:])
	}
	binary.LittleEndian.PutUint64(b[:], h)
	return maphash.Bytes(seed, b[:8])
}

// free is when nothing is left of the failures of a key, long ago when there are none.
func (t *failures) free(key uint64) int64 {
	set := &t.sets[key%guardSets]
	for i := range set.key {
		if set.key[i].Load() == key {
			return set.free[i].Load()
		}
	}
	return math.MinInt64 / 2
}

// charge counts a failure of a key and returns when it is forgotten.
func (t *failures) charge(key uint64, now, interval int64) int64 {
	set := &t.sets[key%guardSets]
	for range 2 * guardWays {
		least := -1
		for i := range set.key {
			switch k := set.key[i].Load(); {
			case k == key:
				return postpone(&set.free[i], now, interval)
			case k == takenKey: // another key's, being written
			case k == noKey:
				if least < 0 || set.key[least].Load() != noKey {
					least = i
				}
			case least < 0 || set.key[least].Load() != noKey && set.free[i].Load() < set.free[least].Load():
				least = i
			}
		}
		if least < 0 {
			continue
		}
		if old := set.key[least].Load(); old != takenKey && set.key[least].CompareAndSwap(old, takenKey) {
			set.free[least].Store(now + interval)
			set.key[least].Store(key)
			return now + interval
		}
	}
	return now // eight others wrote this very set: one failure is not counted
}

// postpone moves a bucket by one interval.
func postpone(free *atomic.Int64, now, interval int64) int64 {
	for {
		old := free.Load()
		next := max(old, now)
		if next < math.MaxInt64/2 {
			next += interval
		}
		if free.CompareAndSwap(old, next) {
			return next
		}
	}
}

// manyFailures is the refusal with its parts, so that it is few allocations: a flood
// of them must be cheap.
type manyFailures struct {
	exchange.Error
	field  [3]exchange.Field
	digits [20]byte
	state  [64]byte
}

var rateLimitPolicy, rateLimit = []byte("RateLimit-Policy"), []byte("RateLimit")

// seconds is how many begin in ns.
func seconds(ns int64) int64 { return (ns-1)/int64(time.Second) + 1 }

// tooMany refuses who has all failures forgiven in full ns.
func tooMany(r *guardRule, full int64) *exchange.Error {
	e := &manyFailures{Error: exchange.Error{Code: exchange.RateLimited, Side: exchange.Client, Cause: exchange.ErrGuessing}}
	digits := strconv.AppendInt(e.digits[:0], seconds(full-r.tolerance), 10)
	state := strconv.AppendInt(append(e.state[:0], `"auth_failures";r=0;t=`...), seconds(full), 10)
	e.field = [3]exchange.Field{
		{Name: exchange.RetryAfter.Name(), Value: digits, ID: exchange.RetryAfter},
		{Name: rateLimitPolicy, Value: r.policy},
		{Name: rateLimit, Value: state},
	}
	e.Header = e.field[:]
	var room [96]byte
	b := append(append(room[:0], "There were too many failed attempts. Try again in "...), digits...)
	e.Detail = string(append(b, " s."...))
	return &e.Error
}

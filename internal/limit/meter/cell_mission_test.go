package meter

import (
	"math/rand/v2"
	"testing"
	"time"
)

// oracle is a limit of 100 a second written down the plainest way, for one client
// and whole requests. It returns whether the request is admitted.
type oracle interface{ take(now int64) bool }

type (
	// credit is a token bucket that holds time: a token is 10 ms.
	credit struct{ left, last int64 }
	// perSecond counts in whole seconds.
	perSecond struct{ second, n int64 }
	// twoSeconds weighs the last second's count by what is left of it, in µs.
	twoSeconds struct{ second, n, before int64 }
	// lastSecond keeps all times, in µs.
	lastSecond struct{ times []int64 }
)

func (o *credit) take(now int64) bool {
	now -= now % int64(time.Microsecond)
	if o.last == 0 {
		o.left = second
	} else {
		o.left = min(o.left+now-o.last, second)
	}
	o.last = now
	if o.left < 10*ms {
		return false
	}
	o.left -= 10 * ms
	return true
}

func (o *perSecond) take(now int64) bool {
	if now/second != o.second {
		*o = perSecond{second: now / second}
	}
	if o.n >= 100 {
		return false
	}
	o.n++
	return true
}

func (o *twoSeconds) take(now int64) bool {
	switch now / second {
	case o.second:
	case o.second + 1:
		*o = twoSeconds{second: now / second, before: o.n}
	default:
		*o = twoSeconds{second: now / second}
	}
	if (o.n+1)*1e6+o.before*(1e6-now%second/1000) > 100*1e6 {
		return false
	}
	o.n++
	return true
}

func (o *lastSecond) take(now int64) bool {
	now /= 1000
	for len(o.times) > 0 && o.times[0] <= now-1e6 {
		o.times = o.times[1:]
	}
	if len(o.times) >= 100 {
		return false
	}
	o.times = append(o.times, now)
	return true
}

// TestMission is the product's promise in fake time: 100,000 requests a second by
// 1,000 clients, unevenly, each limited to 100 a second; every single decision is
// the oracle's.
func TestMission(t *testing.T) {
	const clients, perSec, seconds = 1000, 100_000, 5
	for _, tc := range []struct {
		a      Algorithm
		oracle func() oracle
	}{
		{TokenBucket, func() oracle { return new(credit) }},
		{LeakyBucket, func() oracle { return new(credit) }},
		{FixedWindow, func() oracle { return new(perSecond) }},
		{SlidingWindow, func() oracle { return new(twoSeconds) }},
		{SlidingLog, func() oracle { return new(lastSecond) }},
	} {
		t.Run(names[tc.a], func(t *testing.T) {
			l := must(t, tc.a, 100, time.Second, Options{})
			cells := make([]Cell, clients)
			oracles := make([]oracle, clients)
			for i := range oracles {
				oracles[i] = tc.oracle()
			}
			r := rand.New(rand.NewPCG(3, uint64(tc.a)))
			var admitted, want [clients]int
			now := at
			for range perSec * seconds {
				now += r.Int64N(2 * second / perSec)
				// Client i asks about 2·i/1000 of the even share, 0 to 200 a second.
				i := max(r.IntN(clients), r.IntN(clients))
				v, _ := l.Take(&cells[i], now, 1)
				ok := oracles[i].take(now)
				if v.OK != ok {
					t.Fatalf("client %d at %d: %+v, the oracle says %v", i, now, v, ok)
				}
				if ok {
					want[i]++
				}
				if v.OK {
					admitted[i]++
				}
			}
			var sum int
			for i := range admitted {
				if admitted[i] != want[i] {
					t.Errorf("client %d: %d admitted, the oracle %d", i, admitted[i], want[i])
				}
				sum += admitted[i]
			}
			t.Logf("%d of %d admitted, as the oracle does", sum, perSec*seconds)
		})
	}
}

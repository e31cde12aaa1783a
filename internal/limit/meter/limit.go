package meter

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// This file compiles limits: it chooses the tick and the fraction in which the
// arithmetic of bucket.go, window.go and log.go is exact and cannot overflow.
//
// A bucket's rate is the fraction Num/Den units a tick, without a common factor:
// 300/90s is 10/3 a second, 999983/d is 999983/86400 a second. One unit has Den
// parts, one tick leaks Num of them; so every level is a whole number of parts
// and nothing is ever rounded. The finest tick is taken whose numbers stay below
//
//	(Capacity+Queue)·Den ≤ 2^52   what one bucket holds, so that doubles hold it
//	Num·ticks(35 years)  ≤ 2^62   the time, counted in parts since Epoch
//
// A coarser tick makes both smaller or leaves them. Windows need
// 2·Capacity·Window ≤ 2^52, the largest product of the sliding window.

// Epoch is where the time of buckets begins, Unix ns: 2025-01-01T00:00:00Z.
const Epoch int64 = 1735689600 * second

const (
	second   = int64(time.Second)
	year     = 8766 * int64(time.Hour) // of 365.25 days
	lifetime = 35 * year               // for which bucket arithmetic is promised, from Epoch
	latest   = Epoch + 55*year         // later times count as this one, as earlier ones than 1970 as that

	maxParts = 1 << 52 // (Capacity+Queue)·Den, and 2·Capacity·Window
	maxTime  = 1 << 62 // Num · ticks of a lifetime
	maxShare = 1 << 59 // (Capacity+Queue)·Den of a Share, which only this process computes with
	maxCount = 1 << 38 // Capacity of a FixedWindow or SlidingWindow, so that twice as much fits its word
	maxLog   = 10_000  // requests that a SlidingLog remembers
)

// ticks are the resolutions, finest first. Each divides a second, and each the
// next one.
var ticks = [...]time.Duration{
	time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond,
	time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second,
}

// Options refine a Limit. The zero Options are one unit a request, no queue, and
// the default burst.
type Options struct {
	Burst  int64  // requests, buckets only; 0 = max(1, the rate over one second, rounded up)
	Queue  int64  // requests that may wait, LeakyBucket only
	Scale  int64  // units of one request, 0 = 1
	Period Period // FixedWindow only: n requests a calendar period, per is ignored
}

// New compiles the limit of n requests per per. For Concurrency n is how many may
// be at work at once, and per is ignored. The error says what does not fit, without
// the package's name in front.
func New(a Algorithm, n int64, per time.Duration, o Options) (Limit, error) {
	if o.Scale == 0 {
		o.Scale = 1
	}
	l := Limit{Algorithm: a, Scale: o.Scale, Period: o.Period}
	switch {
	case a > Concurrency:
		return Limit{}, fmt.Errorf("there is no algorithm %d", a)
	case n < 1:
		return Limit{}, fmt.Errorf("the limit is %d, it must be at least 1", n)
	case o.Scale < 1 || o.Burst < 0 || o.Queue < 0:
		return Limit{}, errors.New("scale, burst and queue cannot be negative")
	case o.Queue > 0 && a != LeakyBucket:
		return Limit{}, errors.New("only a leaky bucket has a queue")
	case o.Burst > 0 && a > LeakyBucket:
		return Limit{}, errors.New("only buckets have a burst")
	case o.Period > Month || o.Period != None && a != FixedWindow:
		return Limit{}, errors.New("only a fixed window follows the calendar, by day, week or month")
	case per <= 0 && o.Period == None && a != Concurrency:
		return Limit{}, fmt.Errorf("the time is %v, it must be positive", per)
	}
	units, ok := multiply(n, o.Scale)
	if !ok || units > maxParts {
		return Limit{}, fmt.Errorf("%d requests are too many to count in units of 1/%d", n, o.Scale)
	}
	l.Capacity = units
	switch a {
	case TokenBucket, LeakyBucket:
		return l.bucket(units, per, o)
	case Concurrency:
		l.Tick = time.Second
		return l, nil
	default:
		return l.windowed(n, per)
	}
}

// bucket finishes a bucket that leaks units per per.
func (l Limit) bucket(units int64, per time.Duration, o Options) (Limit, error) {
	burst := o.Burst
	if burst == 0 {
		// units·second/per, rounded up to whole requests; 128 bits wide in between.
		hi, lo := bits.Mul64(uint64(units/l.Scale), uint64(second))
		if hi >= uint64(per) {
			return Limit{}, fmt.Errorf("%d per %v is too fast", units/l.Scale, per)
		}
		q, r := bits.Div64(hi, lo, uint64(per))
		if r > 0 {
			q++
		}
		burst = int64(min(q, maxParts+1))
	}
	var ok bool
	if l.Capacity, ok = multiply(burst, l.Scale); !ok || l.Capacity > maxParts {
		return Limit{}, fmt.Errorf("a burst of %d requests is too large", burst)
	}
	if l.Queue, ok = multiply(o.Queue, l.Scale); !ok || l.Queue > maxParts {
		return Limit{}, fmt.Errorf("a queue of %d requests is too large", o.Queue)
	}
	g := gcd(units, int64(per))
	num, den := units/g, int64(per)/g // units a nanosecond
	var fits, slow bool
	for _, l.Tick = range ticks {
		g := gcd(int64(l.Tick), den)
		l.Den = den / g
		slow = l.Capacity+l.Queue > maxParts/l.Den
		l.Num, fits = multiply(num, int64(l.Tick)/g)
		fits = fits && l.Num <= maxTime/(lifetime/int64(l.Tick))
		if fits && !slow {
			break
		}
	}
	switch {
	case slow:
		return Limit{}, fmt.Errorf("a burst and queue of %d requests is too large for %d per %v: make it smaller, or the rate rounder",
			(l.Capacity+l.Queue)/l.Scale, units/l.Scale, per)
	case !fits:
		return Limit{}, fmt.Errorf("%d per %v is too fast to count in units of 1/%d: make the rate lower", units/l.Scale, per, l.Scale)
	case (l.Capacity+l.Queue)*l.Den/l.Num > lifetime/int64(l.Tick):
		return Limit{}, fmt.Errorf("a burst and queue of %d requests takes more than 35 years to come back at %d per %v",
			(l.Capacity+l.Queue)/l.Scale, units/l.Scale, per)
	}
	return l, nil
}

// windowed finishes a window of n requests.
func (l Limit) windowed(n int64, per time.Duration) (Limit, error) {
	switch {
	case l.Algorithm == SlidingLog && n > maxLog:
		return Limit{}, fmt.Errorf("a sliding log remembers every request, %d are too many: at most %d, or take a sliding window", n, maxLog)
	case l.Algorithm != SlidingLog && l.Capacity > maxCount:
		return Limit{}, fmt.Errorf("%d requests are too many to count in one window in units of 1/%d", n, l.Scale)
	case l.Period != None:
		l.Tick = ticks[0]
		return l, nil
	case per%ticks[0] != 0:
		return Limit{}, fmt.Errorf("a window of %v is not a whole number of microseconds", per)
	}
	fits := false
	for _, tick := range ticks {
		if per%tick != 0 {
			break
		}
		l.Tick, l.Window = tick, int64(per/tick)
		if fits = l.Capacity <= maxParts/2/l.Window; fits {
			break
		}
	}
	if !fits && l.Algorithm != FixedWindow { // which multiplies nothing
		return Limit{}, fmt.Errorf("%d requests in %v are too many to count in units of 1/%d: take a shorter or rounder window, or another algorithm", n, per, l.Scale)
	}
	return l, nil
}

// Share is the part of l that one of several gateways may use by itself: one
// gateways-th of the rate, the capacity and the queue, rounded down, but a
// capacity of at least one request. Windows and Concurrency share the capacity
// only. Less than two gateways share nothing.
//
// A bucket's share keeps Tick and Num and only makes Den larger (which may then
// have a factor in common with Num), so its cells mean the same time as those of
// l: one Cell may be used with any Share of one Limit, changing over its life.
// The debt then keeps the time it takes to leak, not its units. Beyond 100
// gateways the shares of very slow limits with a very large burst stop shrinking,
// where the arithmetic ends.
func (l *Limit) Share(gateways int) Limit {
	s := *l
	for g := int64(gateways); g > 1; g /= 2 {
		s.Capacity = max(l.Capacity/g, l.Scale)
		s.Queue = l.Queue / g
		if l.Den == 0 {
			return s
		}
		var ok bool
		if s.Den, ok = multiply(l.Den, g); ok {
			if top, ok := multiply(s.Capacity+s.Queue, s.Den); ok && top <= maxShare && top/s.Num <= (1<<61)/int64(s.Tick) {
				return s
			}
		}
	}
	return *l
}

// Spread is the time in which the whole capacity comes back, the w of
// RateLimit-Policy: for buckets the time to fill, for windows their length (a
// month has 31 days), for Concurrency 0.
func (l *Limit) Spread() time.Duration {
	switch {
	case l.Algorithm == Concurrency:
		return 0
	case l.Den > 0:
		return time.Duration(ceil(l.Capacity*l.Den, l.Num)) * l.Tick
	case l.Period == Day:
		return 24 * time.Hour
	case l.Period == Week:
		return 7 * 24 * time.Hour
	case l.Period == Month:
		return 31 * 24 * time.Hour
	default:
		return time.Duration(l.Window) * l.Tick
	}
}

// clamp keeps times within what the arithmetic is made for, 1970 to 2079; outside
// of it time stands still.
func clamp(now int64) int64 { return min(max(now, 0), latest) }

// tick is the number of now's tick since the Unix epoch.
func (l *Limit) tick(now int64) int64 { return clamp(now) / int64(l.Tick) }

// second is how many ticks a second has.
func (l *Limit) second() int64 { return second / int64(l.Tick) }

// multiply is a·b of two numbers that are not negative, and whether it fits.
func multiply(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo < 1<<63
}

// ceil is a/b rounded up, a ≥ 0, b > 0.
func ceil(a, b int64) int64 { return (a + b - 1) / b }

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

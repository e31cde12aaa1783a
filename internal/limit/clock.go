package limit

import "time"

// clock is the limiter's time: the wall clock when it was made, and from then on
// the monotonic clock. A step of the wall clock does not reach it, so no client
// gains or loses by one; calendar quotas alone ask the wall clock. Behind a
// suspended machine it is late by the time asleep, which refills nothing.
type clock struct {
	start time.Time
	wall  int64 // of start, Unix ns
}

// newClock returns a clock that is right now.
func newClock() clock {
	t := time.Now()
	return clock{start: t, wall: t.UnixNano()}
}

// now is the limiter's time at t, in Unix ns. t is a moment that time.Now told,
// as Exchange.Start is; one without a monotonic reading counts by its wall clock.
func (c *clock) now(t time.Time) int64 { return c.wall + int64(t.Sub(c.start)) }

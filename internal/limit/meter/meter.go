// Package meter is the arithmetic of rate limits: six algorithms over a few
// words of state, the lease that a gateway holds of a shared limit, and the pool
// that leases are drawn from. It is pure: the time is an argument, nothing waits,
// and it knows neither requests nor stores. The Redis scripts compute the same,
// step for step, and are tested against it.
//
// # Units
//
// One request counts Scale units: 1, or 1000 where a cost may be a fraction.
// Everything here is in units; only what people read is in requests.
//
// # Time
//
// Times are Unix nanoseconds. Each Limit works in ticks of 1 µs to 1 s, the
// finest whose arithmetic stays below 2^52, so that Lua's numbers (doubles) are
// exact too, and below 2^62 for 35 years.
//
// # State
//
// A Cell is lock-free: every change is one compare-and-swap of one word. The zero
// Cell is a key that was never seen.
package meter

import "time"

// Algorithm is how requests are counted.
type Algorithm uint8

// The algorithms.
const (
	// TokenBucket admits while tokens are left; they come back at the rate, up to
	// the capacity (the burst).
	TokenBucket Algorithm = iota
	// LeakyBucket is the same as a meter; with Queue, requests above the capacity
	// wait for their turn instead of being refused.
	LeakyBucket
	// FixedWindow counts within windows aligned to the Unix epoch, or to the
	// calendar (Period).
	FixedWindow
	// SlidingWindow estimates the last window's use from two counters.
	SlidingWindow
	// SlidingLog remembers every request of the last window.
	SlidingLog
	// Concurrency counts what is at work; nothing leaves by itself.
	Concurrency
)

// Period is a calendar period, UTC.
type Period uint8

// The periods. Weeks begin on Monday (ISO 8601).
const (
	None Period = iota
	Day
	Week
	Month
)

// Limit is one limit, compiled. It does not change and may be copied.
type Limit struct {
	Algorithm Algorithm
	Scale     int64 // units of one request
	Capacity  int64 // units: the burst of buckets, the window's or concurrency's limit
	Queue     int64 // units that may wait, LeakyBucket only

	Tick   time.Duration // the resolution of what follows
	Num    int64         // buckets: parts that leak in one tick …
	Den    int64         // … and the parts of one unit; without a common factor
	Window int64         // windows: length in ticks
	Period Period        // FixedWindow: the calendar instead of Window
}

// Never is the Retry of a cost that the capacity can never hold.
const Never time.Duration = -1

// Verdict is the answer to one request.
type Verdict struct {
	OK        bool
	Remaining int64         // units left behind it (when refused: units left now), ≥ 0
	Reset     time.Duration // until the bucket is full again, or the window's end; Concurrency: 0
	// Retry is how long until the same cost would be admitted if nobody else asked:
	// 0 when it was, Never when it cannot be. For Concurrency nobody knows: one second.
	Retry time.Duration
	Delay time.Duration // LeakyBucket with Queue: how long an admitted request has to wait
}

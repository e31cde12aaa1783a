// Package store is what policies remember beyond one process: the few operations
// on shared state that they need (Shared, made by store/redis), and the embedded
// file for what must survive a restart where there is no Redis (File).
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// ErrUnavailable says that the shared state cannot be asked now: the breaker is
// open, the budget of time is used up, or the server answered with an error that
// no caller can mend. The caller's on_fault decides. Test with errors.Is.
var ErrUnavailable = errors.New("store: unavailable")

// ErrNotDone is an ErrUnavailable of which it is sure that nothing was done: what was
// asked was not sent, or refused before anything of it was executed. It may be tried
// again. After any other error nobody knows, and it may even be done later.
var ErrNotDone = fmt.Errorf("%w, nothing was done", ErrUnavailable)

// ErrKey is an ErrNotDone that is the key's own trouble: it holds something else than a
// counter. Trying again does not help, and other keys are not affected.
var ErrKey = fmt.Errorf("%w, the key holds something else", ErrNotDone)

// Charge is a cost to one counter.
type Charge struct {
	// Key names the counter, without the deployment's prefix; what stands in {…}
	// chooses the slot of a cluster. It names the parameters of the limit too, so
	// that one key is always counted by one rule.
	Key   string
	Limit *meter.Limit
	Cost  int64 // units
	// Whole, for Post of a Concurrency limit, says that Cost is not added: it is all that
	// this gateway has at work. Posted twice, it counts once.
	Whole bool
}

// Settlement is one side of a lease: what the gateway still holds, what it gives
// back, and what it asks for.
type Settlement struct {
	Key   string
	Limit *meter.Limit // TokenBucket, LeakyBucket without Queue, FixedWindow or SlidingWindow
	Hold  int64        // units of earlier grants that are still unused, and kept
	Give  int64        // units given back
	Need  int64        // units without which nothing is granted (the cost of who waits); 0: anything helps
	Ask   int64        // units wanted, ≥ Need
	// Slack is by how much what the pool and all leases hold together may exceed the
	// capacity, units: capacity × max_overshoot.
	Slack int64
	// Sent tells one gateway's settlements of a key apart: a later one has more (Unix
	// µs of its clock). One that is executed behind a later one, because it was given
	// up and stayed in a buffer, changes nothing. 0: not told apart.
	Sent int64
}

// Grant is the answer to a Settlement.
type Grant struct {
	Err     error // nil, or why this one settlement failed
	Granted int64 // units, 0 or between Need and Ask
	Level   int64 // units left in the pool behind it
	Reset   time.Duration
	// Valid is how long the grant and what is held may be used, from the moment the
	// settlement was sent. Behind it they are void.
	Valid time.Duration
	// Retry is how soon asking again can help when less was granted than asked;
	// Never when Need is above the capacity.
	Retry time.Duration
}

// Shared is state that several gateways share. All methods may be called from any
// goroutine; they wait at most as long as the store's own budget and the context
// allow, and return an error that wraps ErrUnavailable otherwise.
type Shared interface {
	// Take charges all or, when one of them refuses, none. Verdicts go to out, which
	// has the length of charges; when refused, each holds what that limit alone says.
	// After an error that is no ErrNotDone, any of them may be charged, now or later.
	Take(ctx context.Context, charges []Charge, out []meter.Verdict) error
	// Post adds costs without asking, above the limit if need be: what was decided
	// elsewhere. A negative cost gives back. For Concurrency it is also what keeps
	// this gateway's slots alive: a cost of 0 renews them. Each charge is done by itself
	// and its outcome goes to out, which has the length of charges: nil when it was done,
	// ErrNotDone or ErrKey when it was not, anything else when nobody knows. The error is
	// one of these, an ErrKey only if there is no other.
	Post(ctx context.Context, charges []Charge, out []error) error
	// Settle settles leases, each by itself, in one round trip. Whether one has failed
	// says its Grant; the error is one of theirs, an ErrKey only if there is no other.
	Settle(ctx context.Context, in []Settlement, out []Grant) error
	// Peers is how many gateways are alive, this one included; ≥ 1. It never waits.
	Peers() int
}

// Health is a Shared that tells when it can be asked.
type Health interface {
	// Up reports whether calls are made at all: the breaker is closed.
	Up() bool
	// OnChange has f called with every change of Up, in a goroutine of the store's.
	// It is called before the store is used.
	OnChange(f func(up bool))
}

// Quota is the use of one calendar quota, as it is kept over restarts.
type Quota struct {
	Key   string // client, plan and period
	Index int64  // of the period, see meter.Limit.Index
	Count int64  // units
}

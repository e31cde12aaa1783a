package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// A failed try is made again when all of these hold:
//
//   - the config says so, for this kind of failure, and tries are left;
//   - it can do no harm: nothing was sent, or the method is idempotent (RFC 9110
//     §9.2.2), or the client vouches for it with an Idempotency-Key; and what was
//     taken of the body is still in hand;
//   - the budget has a retry left, so that retries do not multiply an overload;
//   - the client still waits and its deadline is not over.
//
// The next try goes to another endpoint if there is one.
type retry struct {
	attempts int // after the first
	connect  bool
	reset    bool
	statuses map[int]bool
	budget   budget
}

// newRetry reads the retry block; nil when there is none.
func newRetry(c *config.Retry, now time.Time) (*retry, error) {
	if c == nil || c.Attempts <= 0 {
		return nil, nil
	}
	r := &retry{attempts: c.Attempts, statuses: map[int]bool{}, budget: budget{share: c.Budget.Of, at: now, floor: floorMost}}
	for _, on := range c.On {
		switch on {
		case "connect":
			r.connect = true
		case "reset":
			r.reset = true
		default:
			status, err := strconv.Atoi(on)
			if err != nil || status < 300 || status > 599 {
				return nil, fmt.Errorf("retry.on: %q is not connect, reset or a status from 300 to 599", on)
			}
			r.statuses[status] = true
		}
	}
	return r, nil
}

// on reports whether a kind of failure is retried.
func (r *retry) on(k kind) bool {
	switch k {
	case connect:
		return r.connect
	case reset:
		return r.reset
	case timeout:
		return r.statuses[504] // what the client would get
	}
	return false
}

// unwelcome reports whether the response's status is one that is retried.
func (k *call) unwelcome() bool {
	return k.u.retry != nil && k.u.retry.statuses[k.x.Response.Status]
}

// mayRepeat decides about another try after a fault, or after an unwelcome status
// when f is nil. It takes the retry from the budget.
func (k *call) mayRepeat(f *fault) bool {
	r := k.u.retry
	switch {
	case r == nil || k.tries >= r.attempts || k.x.Canceled():
		return false
	case f != nil && !r.on(f.kind):
		return false
	case f != nil && f.unsent():
		if !k.inHand() {
			return false
		}
	case !k.repeatable():
		return false
	}
	now := time.Now()
	if by := k.x.Deadline; !by.IsZero() && !now.Before(by) {
		return false
	}
	if !r.budget.take(now, k.u.requests()) {
		return false
	}
	k.tries++
	return true
}

// repeatable reports whether sending the request a second time does no harm, and is
// possible.
func (k *call) repeatable() bool { return k.inHand() && idempotent(&k.x.Request) }

// inHand reports whether everything that was taken from the body is still there. A
// pump that read on has let it go.
func (k *call) inHand() bool { return k.whole || !k.pumped }

func idempotent(q *exchange.Request) bool {
	switch q.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY":
		return true
	}
	return q.Header.Get(idempotencyKey) != nil
}

var idempotencyKey = []byte("Idempotency-Key")

// samePause bounds the pause before the same endpoint is asked again.
const samePause = 25 * time.Millisecond

// pause waits a little when the next try can only go where the last one failed.
func (k *call) pause() *fault {
	for _, e := range k.u.set.Load().endpoints {
		w := wish{level: untried, tried: k.wish.tried}
		if w.admits(e) {
			return nil
		}
	}
	ctx, stop := k.x.Context()
	defer stop()
	t := time.NewTimer(samePause/5 + rand.N(samePause*4/5))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
	}
	if k.x.Canceled() {
		return clientGone(context.Canceled)
	}
	return timedOut(ctx.Err())
}

// budget bounds retries to a share of all requests. It is a bucket of retries:
// every request puts its share in, every retry takes one out, and what was put in
// leaks out over spendWithin, so that a quiet day pays for no storm. A few a second
// are always there, for upstreams with little traffic.
//
// Requests are not counted here, but by the endpoints; a retry, which is rare, looks
// how many there have been since the last.
type budget struct {
	share float64

	mu       sync.Mutex
	at       time.Time
	requests uint64  // without retries, up to then
	taken    uint64  // retries, ever
	saved    float64 // from requests
	floor    float64 // from time
}

const (
	spendWithin = 10 * time.Second
	floorMost   = 5.0 // retries that are there at once, whatever the traffic
	floorRate   = 1.0 // and how many more every second
)

// take takes one retry, if there is one. requests is how many there have been ever,
// retries too.
func (b *budget) take(now time.Time, requests uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	passed := max(now.Sub(b.at), 0)
	requests -= min(requests, b.taken)
	fresh := float64(requests - min(requests, b.requests))
	if passed > spendWithin {
		fresh *= spendWithin.Seconds() / passed.Seconds()
	}
	b.saved = b.saved*max(0, 1-passed.Seconds()/spendWithin.Seconds()) + fresh*b.share
	b.floor = min(floorMost, b.floor+passed.Seconds()*floorRate)
	b.at, b.requests = now, requests
	switch {
	case b.saved >= 1:
		b.saved--
	case b.floor >= 1:
		b.floor--
	default:
		return false
	}
	b.taken++
	return true
}

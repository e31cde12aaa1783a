package upstream

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// An endpoint counts and keeps its connections. Of those that are open, idle ones
// stand in a stack; busy ones belong to their calls. Whoever wants one takes the top
// of the stack, or reserves the right to open another, or, at the limit, waits in a
// queue for the next that is given back or closed: open never exceeds limit, and
// somebody waits only while nothing is idle.
//
// A connection that the other side has closed is found in one of three ways: by the
// keeper, who looks at those that have been idle for a while; when it is taken, if it
// has been idle for long or the request could not be repeated; or by the request that
// fails over it and is sent again (see call.ask).
//
// An endpoint that could not be connected to is set aside: balancers pass it over as
// long as there are others, and the keeper tries to connect now and then, so that no
// request has to find out whether it has come back.

const (
	// maxIdle bounds the idle connections of one endpoint.
	maxIdle = 1024
	// maxWaiting bounds the exchanges that wait for a connection to one endpoint.
	maxWaiting = 1024
	// cold is how long a connection may have been idle and still be used for a
	// request that can be repeated without a look at it. The look is a system call.
	cold = 20 * time.Millisecond
	// firstPause and longestPause bound how long a target is set aside that could
	// not be connected to. The pause doubles with every failure in a row.
	firstPause   = 50 * time.Millisecond
	longestPause = 900 * time.Millisecond
)

// endpoint is one address of a target, with its connections. Its lock is held for
// a few instructions, twice an exchange; what balancers read is atomic.
type endpoint struct {
	target *target
	addr   netip.AddrPort
	name   string        // addr as text, for records
	share  atomic.Uint64 // the bits of weight, which changes when a name gets more addresses
	limit  int           // connections open at one time; 0: no limit

	_        [64]byte     // what every exchange writes stands on lines of its own
	inFlight atomic.Int64 // exchanges
	out      atomic.Bool  // set aside

	mu       sync.Mutex
	idle     []*conn // by the time of last use, the latest last
	waiting  []*waiter
	open     int // connections, idle and busy and being made
	requests uint64
	failures uint64
	retired  bool // gone from the set, or the upstream closed: nothing is kept
	pause    time.Duration
	retryAt  time.Time // of one that is out: when to look again
	probing  bool
	_        [64]byte
}

// waiter is an exchange that waits for a connection.
type waiter struct{ got chan grant }

// grant is what a waiter gets: a connection, or the right to make one (c is nil),
// or neither, when the endpoint has retired.
type grant struct {
	c       *conn
	retired bool
}

// enter counts an exchange that will use e.
func (e *endpoint) enter() { e.inFlight.Add(1) }

// leave is the end of enter.
func (e *endpoint) leave() { e.inFlight.Add(-1) }

// weight is the share among the endpoints of the set, above 0.
func (e *endpoint) weight() float64 { return math.Float64frombits(e.share.Load()) }

func (e *endpoint) setWeight(w float64) { e.share.Store(math.Float64bits(w)) }

// load is what balancers compare: exchanges for each unit of weight.
func (e *endpoint) load() float64 { return float64(e.inFlight.Load()) / e.weight() }

// full reports whether one more exchange would have to wait for a connection.
func (e *endpoint) full() bool { return e.limit > 0 && e.inFlight.Load() >= int64(e.limit) }

// take counts a try and returns an idle connection, the one used last, nil when
// there is none. sure is for requests that must not meet a connection which the
// other side has closed already; a cold connection is looked at in any case.
func (e *endpoint) take(now time.Time, sure bool) *conn {
	e.mu.Lock()
	e.requests++
	for len(e.idle) > 0 {
		last := len(e.idle) - 1
		c := e.idle[last]
		e.idle[last] = nil
		e.idle = e.idle[:last]
		e.mu.Unlock()
		idle := now.Sub(c.idleSince)
		if idle < c.idleFor && (!sure && idle < cold || c.sock.Quiet()) {
			return c
		}
		c.close()
		e.mu.Lock()
		e.closed()
	}
	e.mu.Unlock()
	return nil
}

// reserve counts a connection that is about to be made, if one may be.
func (e *endpoint) reserve() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reserveLocked()
}

func (e *endpoint) reserveLocked() bool {
	if e.limit > 0 && e.open >= e.limit {
		return false
	}
	e.open++
	return true
}

// reserveOrWait is reserve that gives a place in the queue instead; w is nil too
// when the queue is full.
func (e *endpoint) reserveOrWait() (ok bool, w *waiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reserveLocked() {
		return true, nil
	}
	if len(e.waiting) >= maxWaiting {
		return false, nil
	}
	w = &waiter{make(chan grant, 1)}
	e.waiting = append(e.waiting, w)
	return false, w
}

// forget ends a wait. What had been granted in the meantime is returned, and is
// the caller's.
func (e *endpoint) forget(w *waiter) (grant, bool) {
	e.mu.Lock()
	for i := range e.waiting {
		if e.waiting[i] == w {
			e.waiting = append(e.waiting[:i], e.waiting[i+1:]...)
			e.mu.Unlock()
			return grant{}, false
		}
	}
	e.mu.Unlock()
	return <-w.got, true
}

// giveBack returns a grant that nobody needs.
func (e *endpoint) giveBack(g grant) {
	switch {
	case g.c != nil:
		e.put(g.c)
	case !g.retired:
		e.drop()
	}
}

// put takes back a connection that can carry another exchange.
func (e *endpoint) put(c *conn) {
	e.mu.Lock()
	switch {
	case e.retired || len(e.idle) >= maxIdle:
		e.closed()
		e.mu.Unlock()
		c.close()
		return
	case len(e.waiting) > 0:
		e.next().got <- grant{c: c}
	default:
		e.idle = append(e.idle, c)
	}
	e.mu.Unlock()
}

// drop is told of a connection that is closed, or was not made.
func (e *endpoint) drop() {
	e.mu.Lock()
	e.closed()
	e.mu.Unlock()
}

// closed counts one connection less and lets the first waiter make another. The
// caller holds the lock.
func (e *endpoint) closed() {
	e.open--
	if len(e.waiting) > 0 && e.open < e.limit {
		e.open++
		e.next().got <- grant{}
	}
}

func (e *endpoint) next() *waiter {
	w := e.waiting[0]
	e.waiting[0] = nil
	e.waiting = e.waiting[1:]
	return w
}

// fail counts a failed try.
func (e *endpoint) fail() {
	e.mu.Lock()
	e.failures++
	e.mu.Unlock()
}

// setAside is told of a failure to connect. It reports whether that is news. While
// e is out only the keeper's own looks, probe, make the pause longer: the requests
// that come all the same must not put them off.
func (e *endpoint) setAside(now time.Time, probe bool) bool {
	if !probe && e.out.Load() {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pause = min(max(2*e.pause, firstPause), longestPause)
	e.retryAt = now.Add(e.pause/2 + rand.N(e.pause/2))
	return !e.out.Swap(true)
}

// restore is told of a connection that was made. It reports whether that is news.
func (e *endpoint) restore() bool {
	if !e.out.Load() {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pause = 0
	return e.out.Swap(false)
}

// due reports whether it is time to see if an endpoint that is out has come back,
// and when to ask again. Whoever gets true looks, and then calls probed.
func (e *endpoint) due(now time.Time) (look bool, again time.Time) {
	if !e.out.Load() {
		return false, time.Time{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.probing || e.retired:
		return false, time.Time{}
	case now.Before(e.retryAt):
		return false, e.retryAt
	}
	e.probing = true
	return true, time.Time{}
}

func (e *endpoint) probed() {
	e.mu.Lock()
	e.probing = false
	e.mu.Unlock()
}

// sweepStep is how many idle connections are looked at under one hold of the lock:
// a few microseconds.
const sweepStep = 8

// sweep closes idle connections that are too old, or that the other side has
// closed. It leaves those that were in use less than young ago: they stand at the
// end, and take looks after them.
func (e *endpoint) sweep(now time.Time, young time.Duration) {
	for at, more := 0, true; more; {
		var dead [sweepStep]*conn
		at, more = e.sweepSome(now, young, at, dead[:0])
	}
}

func (e *endpoint) sweepSome(now time.Time, young time.Duration, at int, dead []*conn) (next int, more bool) {
	e.mu.Lock()
	kept, i := at, at
	for ; i < len(e.idle) && i < at+sweepStep; i++ {
		c := e.idle[i]
		idle := now.Sub(c.idleSince)
		if idle < young {
			break
		}
		if idle < c.idleFor && c.sock.Quiet() {
			e.idle[kept] = c
			kept++
			continue
		}
		dead = append(dead, c)
	}
	more = i == at+sweepStep && i < len(e.idle)
	if kept < i {
		n := copy(e.idle[kept:], e.idle[i:])
		clear(e.idle[kept+n:])
		e.idle = e.idle[:kept+n]
	}
	for range dead {
		e.closed()
	}
	e.mu.Unlock()
	for _, c := range dead {
		c.close()
	}
	return kept, more
}

// retire ends the keeping of connections: idle ones close now, busy ones when
// their exchange ends. It returns how many exchanges there have been.
func (e *endpoint) retire() (requests uint64) {
	e.mu.Lock()
	e.retired = true
	requests = e.requests
	idle, waiting := e.idle, e.waiting
	e.idle, e.waiting = nil, nil
	e.open -= len(idle)
	e.mu.Unlock()
	for _, w := range waiting {
		w.got <- grant{retired: true}
	}
	for _, c := range idle {
		c.close()
	}
	return requests
}

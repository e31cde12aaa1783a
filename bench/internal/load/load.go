//go:build linux

// Package load is an HTTP load generator that costs a small part of what it
// measures. A worker is one thread with its own epoll set, preformatted requests
// and connections that nobody else touches; per request it makes one write, one
// read and a share of a wait, and allocates nothing on plain HTTP/1.1.
//
// # Two loops
//
// Closed (Plan.Rate is 0): every connection sends its next request when the
// answer to the last has come. It finds the saturation.
//
// Open (Plan.Rate > 0): request i is due at start + i/rate, whether or not the
// server keeps up. A request that finds every connection busy waits for one, and
// its latency counts from when it was due, so a stall is charged to all the
// requests that it held up (coordinated omission).
//
// # What is recorded
//
// Requests due within the window that follows the warm-up. Those of them that
// are still under way when the run stops are waited for, up to Plan.Timeout, and
// counted as errors after that. An answer with another status or body length than
// expected is an error, never a sample.
package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Target is a server and what to ask of it.
type Target struct {
	Addr     netip.AddrPort
	TLS      *tls.Config // nil: plain
	Streams  int         // 0: HTTP/1.1; else HTTP/2 with so many streams on each connection
	Requests []*Request  // asked in turn; not empty

	// What a right answer has.
	Status int
	Length int64 // of the body, bytes; negative: any
}

// Plan is how to ask.
type Plan struct {
	Conns   int           // connections, shared out among the threads
	Threads int           // 0: one
	Rate    float64       // requests per second; 0: closed loop
	Warm    time.Duration // left out at the start
	Window  time.Duration // recorded
	Timeout time.Duration // for one request; 0: 5 s
	CPUs    []int         // the cores to stay on; empty: all
}

// Counters are totals since the start of a run.
type Counters struct {
	OK     uint64 // right answers
	Errors Errors
	Bytes  uint64 // of right answers' bodies
}

// Errors counts failed requests by what was wrong.
type Errors struct {
	Status  uint64 // another status than expected
	Length  uint64 // another body length
	Framing uint64 // an answer that could not be read
	Closed  uint64 // the connection ended before the answer did
	Timeout uint64
	Connect uint64 // a lost connection could not be opened again
}

// Total is the number of failed requests.
func (e Errors) Total() uint64 {
	return e.Status + e.Length + e.Framing + e.Closed + e.Timeout + e.Connect
}

// String names what went wrong, or says "none".
func (e Errors) String() string {
	out := ""
	for _, kind := range []struct {
		name string
		n    uint64
	}{
		{"wrong status", e.Status},
		{"wrong length", e.Length},
		{"bad framing", e.Framing},
		{"closed", e.Closed},
		{"timed out", e.Timeout},
		{"no connection", e.Connect},
	} {
		if kind.n == 0 {
			continue
		}
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf("%d %s", kind.n, kind.name)
	}
	if out == "" {
		return "none"
	}
	return out
}

// Result is what a run recorded.
type Result struct {
	Counters
	Recorded int64                   // samples in Latency
	Latency  *hdrhistogram.Histogram // nanoseconds, of right answers due in the window
	// Lag is, in the open loop, how long after it was due a request was sent
	// although a connection was free: the generator's own unpunctuality.
	Lag        *hdrhistogram.Histogram
	Reconnects uint64 // connections that the server closed between requests
}

// Run is a load under way.
type Run struct {
	target Target
	plan   Plan
	began  time.Time
	from   int64 // ns after began: start of the window
	to     int64 // its end

	workers  []*worker
	done     sync.WaitGroup
	stopping atomic.Bool
}

// Highest latency that is told apart from longer ones.
const maxLatency = int64(time.Minute)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency, 3) }

// Start opens all connections and then begins to ask. The caller ends the run
// with Stop, after the window.
func Start(target Target, plan Plan) (*Run, error) {
	if len(target.Requests) == 0 {
		return nil, errors.New("load: no request to send")
	}
	for _, q := range target.Requests {
		if target.Streams > 0 && len(q.body) > 0 {
			return nil, errors.New("load: HTTP/2 requests with a body are not supported")
		}
	}
	if plan.Conns < 1 {
		return nil, errors.New("load: no connections")
	}
	if plan.Timeout == 0 {
		plan.Timeout = 5 * time.Second
	}
	plan.Threads = max(1, min(plan.Threads, plan.Conns))
	r := &Run{target: target, plan: plan, from: int64(plan.Warm), to: int64(plan.Warm + plan.Window)}
	for i := range plan.Threads {
		w, err := newWorker(r, i)
		if err != nil {
			r.close()
			return nil, err
		}
		r.workers = append(r.workers, w)
	}
	for i := range plan.Conns {
		if err := r.workers[i%plan.Threads].open(); err != nil {
			r.close()
			return nil, fmt.Errorf("load: connection %d to %s: %w", i+1, target.Addr, err)
		}
	}
	r.began = time.Now()
	for _, w := range r.workers {
		r.done.Go(w.loop)
	}
	return r, nil
}

// WindowBegins and WindowEnds are when the recorded part of the run is.
func (r *Run) WindowBegins() time.Time { return r.began.Add(time.Duration(r.from)) }

// WindowEnds is when requests due are recorded no more.
func (r *Run) WindowEnds() time.Time { return r.began.Add(time.Duration(r.to)) }

// Count is the totals up to now.
func (r *Run) Count() Counters {
	var sum Counters
	for _, w := range r.workers {
		w.tally.addTo(&sum)
	}
	return sum
}

// Stop ends the run, waits for what is recorded and still under way, closes the
// connections and gives the outcome. It may be called once.
func (r *Run) Stop() Result {
	r.stopping.Store(true)
	r.done.Wait()
	res := Result{Counters: r.Count(), Latency: newHistogram(), Lag: newHistogram()}
	for _, w := range r.workers {
		res.Latency.Merge(w.latency)
		res.Lag.Merge(w.lag)
		res.Reconnects += w.reconnects
	}
	res.Recorded = res.Latency.TotalCount()
	r.close()
	return res
}

// Do runs a plan from its warm-up to the end of its window.
func Do(target Target, plan Plan, interrupt <-chan struct{}) (Result, error) {
	r, err := Start(target, plan)
	if err != nil {
		return Result{}, err
	}
	end := time.NewTimer(time.Until(r.WindowEnds()))
	defer end.Stop()
	select {
	case <-end.C:
	case <-interrupt:
	}
	return r.Stop(), nil
}

func (r *Run) close() {
	for _, w := range r.workers {
		w.close()
	}
}

// tally is written by one worker and read by anybody.
type tally struct {
	ok, bytes                                         atomic.Uint64
	status, length, framing, closed, timeout, connect atomic.Uint64
}

func (t *tally) addTo(c *Counters) {
	c.OK += t.ok.Load()
	c.Bytes += t.bytes.Load()
	c.Errors.Status += t.status.Load()
	c.Errors.Length += t.length.Load()
	c.Errors.Framing += t.framing.Load()
	c.Errors.Closed += t.closed.Load()
	c.Errors.Timeout += t.timeout.Load()
	c.Errors.Connect += t.connect.Load()
}

package redis

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Op is a kind of call.
type Op uint8

// The kinds.
const (
	OpTake Op = iota
	OpPost
	OpSettle
	OpMembers // heartbeats and probes
	OpRecords
	OpGet  // of an object
	OpLead // and Release
	OpPut  // of an object
	OpPurges
	ops
)

var opNames = [ops]string{"take", "post", "settle", "members", "records", "object_get", "object_lead", "object_put", "purges"}

// String is the op's name as metrics have it.
func (o Op) String() string { return opNames[o] }

// Result is how a call ended.
type Result uint8

// The results.
const (
	Answered Result = iota
	Failed          // an error of the server or the connection
	Late            // no answer within the budget
	NotMade         // the breaker is open, or too many calls wait
	results
)

var resultNames = [results]string{"answered", "failed", "late", "not_made"}

// String is the result's name as metrics have it.
func (r Result) String() string { return resultNames[r] }

// Buckets is how many buckets the histogram of round trips has: the i-th counts
// those of less than 2^i × 32 µs, the last one all longer ones.
const Buckets = 12

// Bound is the upper bound of the i-th bucket; the last one has none.
func Bound(i int) time.Duration { return 32 * time.Microsecond << i }

// Stats is what the client has done since it was made.
type Stats struct {
	Calls    [ops][results]uint64 // by Op and Result
	Trips    [Buckets]uint64      // answered calls, by round trip
	TripTime time.Duration        // the sum of these round trips
	Up       bool
	Opened   uint64 // how often the breaker opened
	InFlight int    // calls without an answer, those given up included
	Peers    int
}

type counters struct {
	calls [ops][results]atomic.Uint64
	trips [Buckets]atomic.Uint64
	time  atomic.Int64
}

func (c *counters) add(op Op, r Result) { c.calls[op][r].Add(1) }

func (c *counters) trip(d time.Duration) {
	i := bits.Len64(uint64(max(d, 0)) / uint64(Bound(0)))
	c.trips[min(i, Buckets-1)].Add(1)
	c.time.Add(int64(d))
}

// Stats is a snapshot for metrics.
func (c *Client) Stats() Stats {
	s := Stats{
		Up: c.Up(), Opened: c.breaker.opened.Load(), InFlight: int(c.calls.n.Load()), Peers: c.Peers(),
		TripTime: time.Duration(c.stats.time.Load()),
	}
	for op := range s.Calls {
		for r := range s.Calls[op] {
			s.Calls[op][r] = c.stats.calls[op][r].Load()
		}
	}
	for i := range s.Trips {
		s.Trips[i] = c.stats.trips[i].Load()
	}
	return s
}

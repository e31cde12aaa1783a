package meter

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// A deterministic simulation of gateways that share one limit: one trace of
// arrivals, decided once by the exact algorithm and once through leases with
// settlements that take a round trip. Time is fake, nothing runs at once.

const simStart = Epoch + 400*24*int64(time.Hour)

type simEvent struct {
	at  int64
	seq int
	run func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

type arrival struct {
	at      int64
	gateway int
}

// sim is one limit, its pool and its gateways.
type sim struct {
	limit    Limit
	params   LeaseParams
	pool     Pool
	gateways []simGateway
	rtt      func() time.Duration
	now      int64
	queue    simQueue
	seq      int

	asked, admitted, settled int
	over                     overshoot
}

type simGateway struct {
	lease    Lease
	inFlight bool
	waiting  int
}

func newSim(l Limit, slack float64, gateways int, rtt func() time.Duration) *sim {
	s := &sim{limit: l, gateways: make([]simGateway, gateways), rtt: rtt, over: overshoot{limit: l}}
	s.params = LeaseParams{Limit: &s.limit, Slack: int64(slack * float64(l.Capacity)), Peers: gateways}
	return s
}

func (s *sim) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{at: s.now + int64(d), seq: s.seq, run: f})
}

// run plays the trace, sweeping for idle leases every 250 ms.
func (s *sim) run(trace []arrival, end int64) {
	s.now = simStart
	var sweep func()
	sweep = func() {
		for i := range s.gateways {
			if s.gateways[i].lease.Idle(s.now) {
				s.settle(i, 0)
			}
		}
		s.after(250*time.Millisecond, sweep)
	}
	s.after(250*time.Millisecond, sweep)
	for _, a := range trace {
		s.until(a.at)
		s.now = a.at
		s.asked++
		s.decide(a.gateway)
	}
	s.until(end)
}

func (s *sim) until(at int64) {
	for len(s.queue) > 0 && s.queue[0].at <= at {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.run()
	}
}

func (s *sim) decide(gateway int) {
	g := &s.gateways[gateway]
	v, next := g.lease.Take(s.now, 1)
	switch next {
	case Done, Refill:
		s.count(v.OK)
		if next == Refill {
			s.settle(gateway, 0)
		}
	case Ask:
		if g.inFlight {
			g.waiting++
			return
		}
		if !s.settle(gateway, 1) {
			panic("a needed settlement was not begun")
		}
	}
}

func (s *sim) count(ok bool) {
	if ok {
		s.admitted++
		s.over.add(s.now)
	}
}

func (s *sim) settle(gateway int, need int64) bool {
	g := &s.gateways[gateway]
	m, ok := g.lease.Begin(s.now, need, &s.params)
	if !ok {
		return false
	}
	g.inFlight = true
	s.settled++
	half := s.rtt() / 2
	s.after(half, func() {
		granted := s.pool.Settle(&s.limit, s.now, fmt.Sprint(gateway), m)
		s.after(half, func() {
			v := g.lease.End(s.now, granted, false)
			g.inFlight = false
			if need > 0 {
				s.count(v.OK)
			}
			for n := g.waiting; n > 0; n-- {
				g.waiting--
				s.decide(gateway)
			}
		})
	})
	return true
}

// overshoot finds by how much the admissions exceed the limit in the worst
// interval: for buckets the largest debt, for windows the largest count.
type overshoot struct {
	limit     Limit
	debt, top float64
	last      int64
	index     int64
}

func (o *overshoot) add(now int64) {
	l := &o.limit
	if l.Den > 0 {
		o.debt = max(o.debt-float64(now-o.last)/float64(l.Tick)*float64(l.Num)/float64(l.Den), 0)
	} else if i := l.Index(now); i != o.index {
		o.index, o.debt = i, 0
	}
	o.last = now
	o.debt++
	o.top = max(o.top, o.debt)
}

func (o *overshoot) share() float64 { return o.top/float64(o.limit.Capacity) - 1 }

// poisson is a trace: every gateway its share of rate·load(t), t from the start.
func poisson(r *rand.Rand, rate float64, shares []float64, length time.Duration, load func(time.Duration) float64) []arrival {
	var out []arrival
	most := 0.0
	for t := time.Duration(0); t < length; t += time.Millisecond {
		most = max(most, load(t))
	}
	for t := 0.0; ; {
		t += -math.Log(1-r.Float64()) / (rate * most)
		at := time.Duration(t * float64(time.Second))
		if at >= length {
			return out
		}
		if r.Float64()*most > load(at) {
			continue
		}
		x, g := r.Float64(), 0
		for g < len(shares)-1 && x >= shares[g] {
			x -= shares[g]
			g++
		}
		out = append(out, arrival{simStart + int64(at), g})
	}
}

func exactly(l Limit, trace []arrival) (admitted int) {
	var c Cell
	for _, a := range trace {
		if v, _ := l.Take(&c, a.at, 1); v.OK {
			admitted++
		}
	}
	return admitted
}

var loads = []struct {
	name string
	load func(time.Duration) float64
}{
	{"steady 0.9", func(time.Duration) float64 { return 0.9 }},
	{"steady 1.5", func(time.Duration) float64 { return 1.5 }},
	{"on-off 0.7s 2x", onOff(700*time.Millisecond, 700*time.Millisecond, 2)},
	{"steady 1.0", func(time.Duration) float64 { return 1 }},
	{"steady 0.5", func(time.Duration) float64 { return 0.5 }},
	{"steady 5", func(time.Duration) float64 { return 5 }},
	{"on-off 0.2s 1.8x", onOff(200*time.Millisecond, 200*time.Millisecond, 1.8)},
	{"on-off 1s/3s 3.5x", onOff(time.Second, 3*time.Second, 3.5)},
	{"on-off 2s/2s 1.9x", onOff(2*time.Second, 2*time.Second, 1.9)},
	{"on-off 0.1s/0.9s 9x", onOff(100*time.Millisecond, 900*time.Millisecond, 9)},
	{"on-off 50ms/450ms 12x", onOff(50*time.Millisecond, 450*time.Millisecond, 12)},
}

func onOff(on, off time.Duration, load float64) func(time.Duration) float64 {
	return func(t time.Duration) float64 {
		if t%(on+off) < on {
			return load
		}
		return 0
	}
}

// Four gateways, one with 70 % of the traffic, round trips of 0.5 to 2 ms: leases
// never exceed their bound, refuse little that the exact limit admits, and seldom
// ask. docs/limits.md quotes what this prints with -v.
func TestLeasesAreAccurateAndCheap(t *testing.T) {
	cases := []struct {
		a       Algorithm
		n       int64
		per     time.Duration
		slack   float64
		loads   int     // of loads, the first
		refused float64 // at most, of what the exact limit admits
	}{
		{TokenBucket, 10_000, time.Second, 0.01, len(loads), 0.01},
		{TokenBucket, 10_000, time.Second, 0.05, len(loads), 0.01},
		{TokenBucket, 20_000, time.Second, 0.01, 7, 0.01},
		{TokenBucket, 100_000, time.Second, 0.01, 3, 0.01},
		{FixedWindow, 10_000, time.Second, 0.01, len(loads), 0.01},
		{SlidingWindow, 100_000, 10 * time.Second, 0.01, 4, 0.01},
		// In a sliding window of one second what is held at its end is never made up for.
		{SlidingWindow, 10_000, time.Second, 0.01, 4, 0.03},
	}
	for _, c := range cases {
		for _, load := range loads[:c.loads] {
			name := fmt.Sprintf("%d of %d per %v, %v%%, %s", c.a, c.n, c.per, c.slack*100, load.name)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l, err := New(c.a, c.n, c.per, Options{})
				if err != nil {
					t.Fatal(err)
				}
				r := rand.New(rand.NewPCG(1, 2))
				shares := []float64{0.7, 0.1, 0.1, 0.1}
				length := max(time.Duration(400_000/c.n)*c.per/5, 2*c.per, 2*time.Second)
				trace := poisson(r, float64(c.n)/c.per.Seconds(), shares, length, load.load)
				s := newSim(l, c.slack, len(shares), func() time.Duration {
					return 500*time.Microsecond + time.Duration(r.Int64N(int64(1500*time.Microsecond)))
				})
				s.run(trace, simStart+int64(length)+int64(time.Second))
				exact := exactly(l, trace)
				refused := float64(exact-s.admitted) / float64(exact)
				asked := float64(s.settled) / float64(s.asked)
				t.Logf("over %+.3f%%, falsely refused %+.3f%%, settlements %.3f%%", s.over.share()*100, refused*100, asked*100)
				if s.over.share() > c.slack {
					t.Errorf("%.2f%% above the limit", s.over.share()*100)
				}
				if refused > c.refused {
					t.Errorf("%.2f%% falsely refused", refused*100)
				}
				if asked > 0.02 {
					t.Errorf("%.2f%% settlements", asked*100)
				}
			})
		}
	}
}

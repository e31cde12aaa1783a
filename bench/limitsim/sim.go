package main

import (
	"container/heap"
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// The model: gateways with real meter.Leases, one real meter.Pool and one real
// meter.Cell (the exact limit on the same trace) for each client, a store that is
// a round trip away and may be gone, and nothing else. Time is fake and events are
// played in order, so a run is the same every time.

// start is where the model's time begins, Unix ns.
const start = meter.Epoch + int64(365*24*time.Hour)

// scenario is one run.
type scenario struct {
	name     string
	gateways int
	limit    int64   // of each client, requests/s; the burst is one second's
	slack    float64 // max_overshoot
	trip     time.Duration
	length   time.Duration
	clients  uint64
	rate     float64 // requests/s of all clients
	seed     uint64

	away, back time.Duration // the store is gone in between; 0 = never
	crash      time.Duration // one gateway in ten is killed then; 0 = never

	exact  bool      // the scope: every request is decided by the store
	shares []float64 // of all traffic, that each gateway gets, at even distances; nil: Poisson arrivals, see skew
}

// What a gateway does when the store does not answer.
const (
	budget  = 10 * time.Millisecond  // it waits so long for an answer
	breaker = 250 * time.Millisecond // and asks nothing for so long behind it
	skew    = 0.2                    // of all traffic goes to the first gateway
)

type event struct {
	at  int64
	seq uint64
	run func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	last := (*q)[len(*q)-1]
	(*q)[len(*q)-1] = event{}
	*q = (*q)[:len(*q)-1]
	return last
}

// client is one client's limit, wherever it is kept, and what became of its requests.
type client struct {
	pool  meter.Pool
	cell  meter.Cell // exact, on the same trace
	level worst

	asked, exact, leased int64
	calls                int64
}

// worst is the largest debt of the admissions: by how much they exceed the limit
// in the worst of all intervals.
type worst struct {
	debt, top float64
	last      int64
}

func (w *worst) add(now int64, rate float64) {
	w.debt = max(w.debt-float64(now-w.last)*rate/float64(time.Second), 0) + 1
	w.last = now
	w.top = max(w.top, w.debt)
}

// gateway is one gateway's life.
type gateway struct {
	name    string
	dead    bool
	retry   int64 // the breaker is open until then
	holding map[uint64]*hold

	asked, admitted int64
}

// hold is what a gateway keeps of one client.
type hold struct {
	client   *client
	gateway  *gateway
	lease    meter.Lease
	inFlight bool
	waiting  int
	share    meter.Cell // while the store is away
	post     int64      // what was admitted by it
	listed   bool
}

type model struct {
	scenario
	meter    meter.Limit
	share    meter.Limit
	terms    meter.LeaseParams
	leases   bool
	rand     *rand.Rand
	zipf     *rand.Zipf
	now      int64
	queue    events
	seq      uint64
	gateways []*gateway
	lives    int
	clients  []*client
	active   []*hold // those that may hold something

	settled, taken, posted int64
	series                 []sample // of the busiest client, each 100 ms
}

// sample is what was admitted in a tenth of a second.
type sample struct{ Offered, Exact, Leased int64 }

func newModel(s scenario) (*model, error) {
	l, err := meter.New(meter.TokenBucket, s.limit, time.Second, meter.Options{})
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(s.seed, 7))
	m := &model{
		scenario: s, meter: l, share: l.Share(s.gateways), rand: r,
		zipf: rand.NewZipf(r, 1.1, 1, s.clients-1), now: start,
		clients: make([]*client, s.clients), gateways: make([]*gateway, s.gateways),
	}
	m.terms = meter.LeaseParams{Limit: &m.meter, Slack: int64(s.slack * float64(l.Capacity)), Peers: s.gateways}
	m.leases = m.terms.Worth() && !s.exact
	for i := range m.gateways {
		m.born(i)
	}
	return m, nil
}

func (m *model) born(i int) {
	m.lives++
	m.gateways[i] = &gateway{name: strconv.Itoa(m.lives), holding: map[uint64]*hold{}}
}

func (m *model) after(d time.Duration, f func()) {
	m.seq++
	heap.Push(&m.queue, event{m.now + int64(d), m.seq, f})
}

// run plays the whole trace.
func (m *model) run() {
	m.after(250*time.Millisecond, m.sweep)
	if m.crash > 0 {
		m.after(m.crash, m.kill)
	}
	end := start + int64(m.length)
	if m.shares != nil {
		for at, i := range evenly(rates(m.rate, m.shares)) {
			if at >= int64(m.length) {
				break
			}
			m.until(start + at)
			m.now = start + at
			m.arrive(m.zipf.Uint64(), i)
		}
		m.until(end + int64(time.Second))
		return
	}
	at := start
	for {
		at += int64(-math.Log(1-m.rand.Float64()) / m.rate * float64(time.Second))
		if at >= end {
			break
		}
		m.until(at)
		m.now = at
		m.arrive(m.anybody())
	}
	m.until(end + int64(time.Second))
}

// anybody is the client and the gateway of a request.
func (m *model) anybody() (id uint64, gateway int) {
	id = m.zipf.Uint64()
	if m.rand.Float64() >= skew {
		gateway = 1 + m.rand.IntN(m.scenario.gateways-1)
	}
	return id, gateway
}

func rates(all float64, shares []float64) []float64 {
	var each []float64
	for _, s := range shares {
		each = append(each, all*s)
	}
	return each
}

// evenly is the arrivals at several gateways, each at its own rate (requests/s) at
// even distances from 0 on: the time, ns, and the gateway. It does not end.
func evenly(rates []float64) iter.Seq2[int64, int] {
	return func(yield func(int64, int) bool) {
		sent := make([]float64, len(rates))
		for {
			first, at := 0, math.Inf(1)
			for i, r := range rates {
				if due := sent[i] / r; due < at {
					first, at = i, due
				}
			}
			sent[first]++
			if !yield(int64(at*float64(time.Second)), first) {
				return
			}
		}
	}
}

func (m *model) until(at int64) {
	for len(m.queue) > 0 && m.queue[0].at <= at {
		e := heap.Pop(&m.queue).(event)
		m.now = e.at
		e.run()
	}
}

// arrive is one request of a client at a gateway.
func (m *model) arrive(id uint64, i int) {
	c := m.clients[id]
	if c == nil {
		c = &client{}
		m.clients[id] = c
	}
	c.asked++
	v, _ := m.meter.Take(&c.cell, m.now, 1)
	if v.OK {
		c.exact++
	}
	if id == 0 {
		s := m.sample()
		s.Offered++
		if v.OK {
			s.Exact++
		}
	}
	g := m.gateways[i]
	h := g.holding[id]
	if h == nil {
		h = &hold{client: c, gateway: g}
		g.holding[id] = h
	}
	g.asked++
	m.decide(g, h)
}

func (m *model) sample() *sample {
	n := int((m.now - start) / int64(100*time.Millisecond))
	for len(m.series) <= n {
		m.series = append(m.series, sample{})
	}
	return &m.series[n]
}

func (m *model) admit(h *hold) {
	h.client.leased++
	h.gateway.admitted++
	h.client.level.add(m.now, float64(m.limit))
	if h.client == m.clients[0] {
		m.sample().Leased++
	}
}

func (m *model) gone(at int64) bool {
	return m.back > 0 && at >= start+int64(m.away) && at < start+int64(m.back)
}

func (m *model) decide(g *gateway, h *hold) {
	if g.dead {
		return // its connections were cut; nobody waits for an answer
	}
	if !m.leases {
		m.exactly(g, h)
		return
	}
	v, next := h.lease.Take(m.now, 1)
	switch {
	case next != meter.Ask:
		if v.OK {
			m.admit(h)
		}
		if next == meter.Refill && m.now >= g.retry {
			m.settle(g, h, 0)
		}
	case m.now < g.retry:
		m.fallback(h)
	case h.inFlight:
		h.waiting++
	default:
		m.settle(g, h, 1)
	}
}

// exactly is one decision by the store.
func (m *model) exactly(g *gateway, h *hold) {
	if m.now < g.retry {
		m.fallback(h)
		return
	}
	m.taken++
	h.client.calls++
	half := m.half()
	m.after(half, func() {
		if m.gone(m.now) {
			m.after(budget-half, func() {
				m.broken(g)
				m.fallback(h)
			})
			return
		}
		v := h.client.pool.Take(&m.meter, m.now, 1)
		m.after(half, func() {
			m.recovered(g)
			if v.OK && !g.dead {
				m.admit(h)
			}
		})
	})
}

// half of a round trip: lognormal.
func (m *model) half() time.Duration {
	return time.Duration(float64(m.trip) * math.Exp(0.4*m.rand.NormFloat64()) / 2)
}

// fallback decides by the gateway's share of the limit, as on_fault: local does.
func (m *model) fallback(h *hold) {
	if v, _ := m.share.Take(&h.share, m.now, 1); v.OK {
		m.admit(h)
		h.post++
	}
}

func (m *model) broken(g *gateway) { g.retry = m.now + int64(breaker) }

// recovered posts what was decided without the store.
func (m *model) recovered(g *gateway) {
	if g.retry == 0 {
		return
	}
	g.retry = 0
	for _, h := range g.holding {
		if h.post > 0 {
			m.posted++
			h.client.calls++
			h.client.pool.Post(&m.meter, m.now, h.post)
			h.post = 0
		}
	}
}

func (m *model) settle(g *gateway, h *hold, need int64) {
	s, ok := h.lease.Begin(m.now, need, &m.terms)
	if !ok {
		return
	}
	h.inFlight = true
	m.settled++
	h.client.calls++
	if !h.listed {
		h.listed = true
		m.active = append(m.active, h)
	}
	half := m.half()
	m.after(half, func() {
		if m.gone(m.now) {
			m.after(max(budget-half, 0), func() {
				m.broken(g)
				m.end(g, h, need, meter.Granted{}, true)
			})
			return
		}
		granted := h.client.pool.Settle(&m.meter, m.now, g.name, s)
		m.after(half, func() {
			m.recovered(g)
			m.end(g, h, need, granted, false)
		})
	})
}

func (m *model) end(g *gateway, h *hold, need int64, granted meter.Granted, failed bool) {
	if g.dead {
		return
	}
	v := h.lease.End(m.now, granted, failed)
	h.inFlight = false
	switch {
	case need > 0 && failed:
		m.fallback(h)
	case need > 0 && v.OK:
		m.admit(h)
	}
	waiting := h.waiting
	h.waiting = 0
	for range waiting {
		m.decide(g, h)
	}
}

// sweep gives back what nobody uses.
func (m *model) sweep() {
	keep := m.active[:0]
	for _, h := range m.active {
		g := h.gateway
		if g.dead || h.lease.Held() == 0 && !h.inFlight {
			h.listed = false
			continue
		}
		keep = append(keep, h)
		if h.lease.Idle(m.now) && m.now >= g.retry {
			m.settle(g, h, 0)
		}
	}
	m.active = keep
	m.after(250*time.Millisecond, m.sweep)
}

// kill ends one gateway in ten at once; others with empty hands take their place.
func (m *model) kill() {
	for i := 0; i < len(m.gateways); i += 10 {
		m.gateways[i].dead = true
		m.born(i)
	}
}

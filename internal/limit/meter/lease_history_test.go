package meter

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Random histories of gateways that share one Pool: messages and answers are lost
// or late, gateways crash, stop and come back, costs are refunded. Whatever
// happens, the admissions keep within the bound.

type message struct {
	gateway  *actor
	settle   Settle
	need     int64
	begun    int64
	executed bool
	answer   Granted
}

// actor is one life of a gateway.
type actor struct {
	name   string
	lease  Lease
	flight *message
}

type admission struct {
	at, cost, refunded int64 // refunded: when, 0 = never
	gateway            *actor
}

type history struct {
	limit    Limit
	slack    int64
	pool     Pool
	now      int64
	jump     int64 // of the pool's clock against the gateways'
	actors   []*actor
	lives    int
	messages []*message
	admitted []*admission
	faults   bool
}

func (h *history) born(i int) {
	h.lives++
	h.actors[i] = &actor{name: fmt.Sprint(h.lives)}
}

func (h *history) params(t *rapid.T) *LeaseParams {
	return &LeaseParams{Limit: &h.limit, Slack: h.slack, Peers: rapid.IntRange(1, 5).Draw(t, "peers")}
}

func (h *history) admit(a *actor, cost int64) {
	h.admitted = append(h.admitted, &admission{at: h.now, cost: cost, gateway: a})
}

func (h *history) begin(t *rapid.T, a *actor, need int64) {
	s, ok := a.lease.Begin(h.now, need, h.params(t))
	if !ok {
		return
	}
	if s.Hold < 0 || s.Give < 0 || s.Need < 0 || s.Ask < s.Need {
		t.Fatalf("%+v is not a settlement", s)
	}
	m := &message{gateway: a, settle: s, need: need, begun: h.now}
	a.flight = m
	h.messages = append(h.messages, m)
}

// execute is the pool's part; a message may be executed after its sender gave up,
// but only once.
func (h *history) execute(t *rapid.T, m *message) {
	if m.executed {
		return
	}
	m.executed = true
	m.answer = h.pool.Settle(&h.limit, h.now+h.jump, m.gateway.name, m.settle)
	if g := m.answer; g.Granted != 0 && (g.Granted < m.settle.Need || g.Granted > m.settle.Ask) {
		t.Fatalf("granted %d of %+v", g.Granted, m.settle)
	}
	if h.limit.Den > 0 {
		if v := h.pool.free(&h.limit, h.now+h.jump); v+h.pool.held > h.limit.Capacity+h.slack && v > 0 && h.jump == 0 {
			t.Fatalf("free %d and held %d are more than %d + %d", v, h.pool.held, h.limit.Capacity, h.slack)
		}
	}
	sum := int64(0)
	for _, r := range h.pool.leases {
		if r.units <= 0 {
			t.Fatal("an empty record")
		}
		sum += r.units
	}
	if h.limit.Den > 0 && sum != h.pool.held {
		t.Fatalf("held %d, the records have %d", h.pool.held, sum)
	}
}

func (h *history) end(m *message, failed bool) {
	a := m.gateway
	if a.flight != m {
		return
	}
	a.flight = nil
	if v := a.lease.End(h.now, m.answer, failed); v.OK && m.need > 0 {
		h.admit(a, m.need)
	}
}

func (h *history) actions() map[string]func(*rapid.T) {
	actor := func(t *rapid.T) *actor { return h.actors[rapid.IntRange(0, len(h.actors)-1).Draw(t, "gateway")] }
	pick := func(t *rapid.T) *message {
		if len(h.messages) == 0 {
			t.Skip("no message")
		}
		return h.messages[rapid.IntRange(0, len(h.messages)-1).Draw(t, "message")]
	}
	take := func(t *rapid.T) {
		a := actor(t)
		if m := a.flight; m != nil && !h.faults && h.now-m.begun > int64(100*time.Millisecond) {
			h.execute(t, m)
			h.end(m, false)
		}
		for n := rapid.IntRange(1, 40).Draw(t, "requests"); n > 0; n-- {
			cost := int64(rapid.SampledFrom([]int{0, 1, 1, 1, 1, 2, 7}).Draw(t, "cost"))
			v, next := a.lease.Take(h.now, cost)
			switch {
			case next == Ask:
				h.begin(t, a, cost)
			case v.OK:
				h.admit(a, cost)
				if next == Refill {
					h.begin(t, a, 0)
				}
			}
			h.now += int64(rapid.IntRange(0, 2000).Draw(t, "µs")) * 1000
		}
	}
	turn := func(t *rapid.T) { // a settlement that goes well
		m := pick(t)
		h.execute(t, m)
		h.now += int64(rapid.IntRange(0, 3).Draw(t, "ms")) * int64(time.Millisecond)
		h.end(m, false)
	}
	prompt := func(t *rapid.T) { // an answer that is too late is a fault
		for _, a := range h.actors {
			if m := a.flight; m != nil && !h.faults {
				h.execute(t, m)
				h.end(m, false)
			}
		}
	}
	out := map[string]func(*rapid.T){
		"take":  take,
		"take2": take,
		"turn":  turn,
		"turn2": turn,
		"wait": func(t *rapid.T) {
			prompt(t)
			h.now += int64(rapid.IntRange(1, 400).Draw(t, "ms")) * int64(time.Millisecond)
		},
		"answer": prompt,
		"idle": func(t *rapid.T) {
			if a := actor(t); a.lease.Idle(h.now) {
				h.begin(t, a, 0)
			}
		},
		"refund": func(t *rapid.T) {
			if len(h.admitted) == 0 {
				return
			}
			m := h.admitted[max(0, len(h.admitted)-1-rapid.IntRange(0, 20).Draw(t, "back"))]
			if m.refunded == 0 {
				m.refunded = h.now
				m.gateway.lease.Refund(m.at, m.cost)
			}
		},
		"": func(t *rapid.T) { h.check(t) },
	}
	if h.faults {
		out["execute"] = func(t *rapid.T) { h.execute(t, pick(t)) }
		out["lost"] = func(t *rapid.T) { h.end(pick(t), true) } // may still be executed
		out["pause"] = func(t *rapid.T) {
			h.now += int64(rapid.IntRange(1, 5000).Draw(t, "ms")) * int64(time.Millisecond)
		}
		out["crash"] = func(t *rapid.T) { h.born(rapid.IntRange(0, len(h.actors)-1).Draw(t, "gateway")) }
		out["drain"] = func(t *rapid.T) { actor(t).lease.Drain() }
	}
	return out
}

// check compares what gateways have with what the pool knows of them.
func (h *history) check(t *rapid.T) {
	if h.jump != 0 {
		return
	}
	for _, a := range h.actors {
		l := &a.lease
		if l.left.Load() < 0 || l.back.Load() < 0 {
			t.Fatalf("%s has %d and %d", a.name, l.left.Load(), l.back.Load())
		}
		if h.now >= l.until.Load() {
			continue
		}
		has := l.left.Load()
		if a.flight != nil {
			has += l.flight.reserved
		}
		if r := h.pool.leases[a.name]; h.limit.Den > 0 && has > r.units {
			t.Fatalf("%s has %d, the pool knows of %d", a.name, has, r.units)
		}
	}
}

// bound checks all admissions at the end. What is refunded later counts until
// then, so the bound grows by the most that was refunded and undecided at once.
func (h *history) bound(t *rapid.T) {
	l := &h.limit
	undecided, most := int64(0), int64(0)
	var open []*admission
	for _, m := range h.admitted {
		keep := open[:0]
		for _, o := range open {
			if o.refunded > m.at {
				keep = append(keep, o)
			} else {
				undecided -= o.cost
			}
		}
		if open = keep; m.refunded > 0 {
			open = append(open, m)
			undecided += m.cost
			most = max(most, undecided)
		}
	}
	debt, last := 0.0, int64(0)
	counts := map[int64]int64{}
	for _, m := range h.admitted {
		if m.refunded > 0 {
			continue
		}
		if l.Den > 0 {
			debt = max(debt-float64(m.at-last)/float64(l.Tick)*float64(l.Num)/float64(l.Den), 0) + float64(m.cost)
			last = m.at
			if top := float64(l.Capacity + h.slack + most); debt > top+float64(l.Num)/float64(l.Den)+1e-6 {
				t.Fatalf("%.3f units were admitted at once, %.0f are the bound", debt, top)
			}
			continue
		}
		i := l.Index(m.at)
		counts[i] += m.cost
		used := counts[i] * l.Window
		if l.Algorithm == SlidingWindow {
			used += counts[i-1] * (l.Window - (l.tick(m.at) - i*l.Window))
		}
		if used > l.Capacity*l.Window {
			t.Fatalf("%d units of window %d, used %d of %d", counts[i], i, used, l.Capacity*l.Window)
		}
	}
}

func newHistory(t *rapid.T) *history {
	a := rapid.SampledFrom([]Algorithm{TokenBucket, TokenBucket, FixedWindow, SlidingWindow}).Draw(t, "algorithm")
	n := rapid.Int64Range(20, 3000).Draw(t, "rate")
	per := rapid.SampledFrom([]time.Duration{time.Second, 300 * time.Millisecond, 7 * time.Second}).Draw(t, "per")
	o := Options{}
	if a == TokenBucket {
		o.Burst = rapid.Int64Range(5, 2*n).Draw(t, "burst")
	}
	l, err := New(a, n, per, o)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{limit: l, now: Epoch + int64(400*24*time.Hour)}
	h.slack = rapid.Int64Range(0, l.Capacity/10).Draw(t, "slack")
	h.actors = make([]*actor, rapid.IntRange(1, 4).Draw(t, "gateways"))
	for i := range h.actors {
		h.born(i)
	}
	return h
}

func TestBoundHoldsWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.faults = true
		t.Repeat(h.actions())
		h.bound(t)
	})
}

// Without faults nothing is lost: when all is given back, the window has counted
// what was admitted. What is refunded behind the settlement that reported it as
// used may stay counted if it was the lease's last.
func TestUnitsAreConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		l, err := New(FixedWindow, h.limit.Capacity, time.Hour, Options{})
		if err != nil {
			t.Fatal(err)
		}
		h.limit = l
		actions := h.actions()
		if rapid.Bool().Draw(t, "without refunds") {
			delete(actions, "refund")
		}
		t.Repeat(actions)
		for range 3 { // what is in flight, refunds, the rest
			for _, a := range h.actors {
				a.lease.Drain()
				h.begin(t, a, 0)
				if m := a.flight; m != nil {
					h.execute(t, m)
					h.end(m, false)
				}
			}
		}
		admitted, refunded := int64(0), int64(0)
		for _, m := range h.admitted {
			if m.refunded == 0 {
				admitted += m.cost
			} else {
				refunded += m.cost
			}
		}
		if h.pool.cur < admitted || h.pool.cur > admitted+refunded {
			t.Fatalf("the window counted %d, admitted were %d, refunded %d", h.pool.cur, admitted, refunded)
		}
	})
}

// The pool's clock may step: its own sum still holds, and each step admits at most
// one capacity and what was held then.
func TestClockStepsCostOneCapacityAndWhatIsHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.faults = true
		actions := h.actions()
		extra := int64(0)
		actions["step"] = func(t *rapid.T) {
			extra += h.limit.Capacity + h.slack + h.pool.held
			h.jump += int64(rapid.IntRange(-5000, 5000).Draw(t, "ms")) * int64(time.Millisecond)
		}
		t.Repeat(actions)
		if h.limit.Den > 0 {
			h.slack += extra
			h.bound(t)
		}
	})
}

package server

import (
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// gate admits connections: so many in all, so many from one address. It counts
// the address of the socket and nothing that a client says. Peers that are
// trusted proxies bring many clients each and are not counted by address.
type gate struct {
	mu      sync.Mutex
	most    int // 0: no limit
	mostOne int
	trusted []netip.Prefix
	open    int
	by      map[netip.Addr]int // no address without a connection: bounded by open
}

// set changes the limits, for connections to come.
func (g *gate) set(most, mostOne int, trusted []netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.most, g.mostOne, g.trusted = most, mostOne, trusted
}

// enter counts a connection from a peer. When it is one too many it reports
// false and counts nothing. key is what leave takes.
func (g *gate) enter(peer netip.Addr) (key netip.Addr, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.most > 0 && g.open >= g.most {
		return key, false
	}
	if g.mostOne > 0 && !g.exempt(peer) {
		key = network(peer)
		if g.by[key] >= g.mostOne {
			return key, false
		}
		if g.by == nil {
			g.by = map[netip.Addr]int{}
		}
		g.by[key]++
	}
	g.open++
	return key, true
}

// leave ends a connection that was admitted with key.
func (g *gate) leave(key netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if !key.IsValid() {
		return
	}
	if g.by[key] > 1 {
		g.by[key]--
	} else {
		delete(g.by, key)
	}
}

func (g *gate) exempt(peer netip.Addr) bool {
	peer = peer.Unmap()
	for _, p := range g.trusted {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// network is what counts as one address: an IPv4 address, or an IPv6 /64, which
// is what one subscriber has.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// admission bounds the exchanges at work. Those beyond wait in a queue, in
// order, for a limited time.
type admission struct {
	most    int64
	queue   int
	patient time.Duration // 0: for ever
	retry   []byte        // Retry-After of a refusal, in seconds
	working atomic.Int64

	mu      sync.Mutex
	waiting []chan struct{}
}

// newAdmission returns nil for no limit.
func newAdmission(l *config.Limits) *admission {
	a := &l.Admission
	if a.MaxInFlight <= 0 {
		return nil
	}
	patient := a.QueueTimeout.Duration
	if patient == 0 {
		patient = l.RequestTimeout.Duration
	}
	return &admission{
		most: int64(a.MaxInFlight), queue: a.Queue, patient: patient,
		retry: strconv.AppendInt(nil, max(1, int64((patient+time.Second-1)/time.Second)), 10),
	}
}

// same reports whether b is the same limit.
func (a *admission) same(b *admission) bool {
	return a != nil && b != nil && a.most == b.most && a.queue == b.queue && a.patient == b.patient
}

// enter takes a place, or waits for one, and reports whether there is one.
func (a *admission) enter() bool {
	if a.take() {
		return true
	}
	a.mu.Lock()
	if a.take() { // one left since, and found nobody waiting
		a.mu.Unlock()
		return true
	}
	if len(a.waiting) >= a.queue {
		a.mu.Unlock()
		return false
	}
	turn := make(chan struct{}, 1)
	a.waiting = append(a.waiting, turn)
	a.mu.Unlock()
	return a.wait(turn)
}

func (a *admission) take() bool {
	for n := a.working.Load(); n < a.most; n = a.working.Load() {
		if a.working.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (a *admission) wait(turn chan struct{}) bool {
	var end <-chan time.Time
	if a.patient > 0 {
		t := time.NewTimer(a.patient)
		defer t.Stop()
		end = t.C
	}
	select {
	case <-turn:
		return true
	case <-end:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, w := range a.waiting {
		if w == turn {
			a.waiting = append(a.waiting[:i], a.waiting[i+1:]...)
			return false
		}
	}
	return true // the turn came together with the end
}

// leave gives the place to the first who waits.
func (a *admission) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		a.working.Add(-1)
		return
	}
	first := a.waiting[0]
	a.waiting[0] = nil
	a.waiting = a.waiting[1:]
	first <- struct{}{}
}

// overloaded is the refusal of an exchange that found no place.
func (a *admission) overloaded() *exchange.Error {
	return &exchange.Error{
		Code: exchange.Overloaded, Side: exchange.Gateway,
		Detail: "The gateway is at work on as many requests as it takes. Try again later.",
		Header: []exchange.Field{{Name: exchange.RetryAfter.Name(), Value: a.retry, ID: exchange.RetryAfter}},
	}
}

// place is an exchange's place in an admission, if it has one.
type place struct{ in *admission }

// enter takes a place for x. It returns the refusal when there is none.
func (p *place) enter(a *admission) *exchange.Error {
	if a == nil {
		return nil
	}
	if !a.enter() {
		return a.overloaded()
	}
	p.in = a
	return nil
}

// leave gives the place back. Further calls do nothing.
func (p *place) leave() {
	if p.in != nil {
		p.in.leave()
		p.in = nil
	}
}

package upstream

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// A set is the endpoints of an upstream at one time, and how one of them is
// chosen. It does not change: another set of addresses is another set. Choosing
// takes no lock.
//
// Whom a balancer may choose is asked of a wish, which grows more modest until
// somebody fits: first an endpoint that is well, has a connection to spare and was
// not tried for this request; then a busy one; then one that is set aside; then one
// that was tried; then any. So an upstream whose targets are all set aside is still
// asked.
type set struct {
	endpoints []*endpoint
	picker
}

// picker chooses among the endpoints of its set. It returns nil when w admits none.
type picker interface{ pick(w *wish) *endpoint }

// level is how modest a wish is.
type level uint8

const (
	idleAndWell level = iota
	well
	untried
	triedButWell
	anyone
	levels
)

// wish is what a call wants of an endpoint.
type wish struct {
	level level
	tried []*endpoint
	key   uint64 // of balance: hash
}

func (w *wish) admits(e *endpoint) bool {
	switch w.level {
	case idleAndWell:
		return !e.out.Load() && !e.full() && !slices.Contains(w.tried, e)
	case well:
		return !e.out.Load() && !slices.Contains(w.tried, e)
	case untried:
		return !slices.Contains(w.tried, e)
	case triedButWell:
		return !e.out.Load()
	}
	return true
}

// choose returns an endpoint, nil only of an empty set.
func (s *set) choose(w *wish) *endpoint {
	if len(s.endpoints) == 0 {
		return nil
	}
	for w.level = 0; w.level < levels; w.level++ {
		if e := s.pick(w); e != nil {
			return e
		}
	}
	return nil
}

// newSet makes a set; every endpoint has a weight above 0.
func newSet(balance string, endpoints []*endpoint) *set {
	s := &set{endpoints: endpoints}
	switch {
	case len(endpoints) == 1:
		s.picker = single{endpoints[0]}
	case balance == "round_robin":
		s.picker = newTurns(endpoints)
	case balance == "least_requests":
		s.picker = &least{newSampler(endpoints)}
	case balance == "hash":
		s.picker = newRing(endpoints)
	default:
		s.picker = &p2c{newSampler(endpoints)}
	}
	return s
}

type single struct{ e *endpoint }

func (s single) pick(w *wish) *endpoint {
	if w.admits(s.e) {
		return s.e
	}
	return nil
}

// sampler draws endpoints by weight in constant time: Walker's alias method. Every
// column holds an equal share of the whole, filled by at most two endpoints.
type sampler struct {
	endpoints []*endpoint
	cut       []uint32 // of column i: below it stands endpoint i, above it other[i]
	other     []int32
}

func newSampler(endpoints []*endpoint) sampler {
	n := len(endpoints)
	s := sampler{endpoints, make([]uint32, n), make([]int32, n)}
	sum := 0.0
	for _, e := range endpoints {
		sum += e.weight()
	}
	share := make([]float64, n)
	var small, large []int32
	for i, e := range endpoints {
		share[i] = e.weight() * float64(n) / sum
		if share[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
		s.cut[i], s.other[i] = math.MaxUint32, int32(i)
	}
	for len(small) > 0 && len(large) > 0 {
		i, j := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		s.cut[i], s.other[i] = uint32(share[i]*math.MaxUint32), j
		share[j] -= 1 - share[i]
		if share[j] < 1 {
			large = large[:len(large)-1]
			small = append(small, j)
		}
	}
	return s
}

// draw returns an index.
func (s *sampler) draw() int {
	r := rand.Uint64()
	i := int(r >> 32 * uint64(len(s.endpoints)) >> 32)
	if uint32(r) > s.cut[i] {
		return int(s.other[i])
	}
	return i
}

// lightest returns the admitted endpoint with the least load; from is looked at
// first and wins a tie.
func (s *sampler) lightest(w *wish, from int) *endpoint {
	var best *endpoint
	least := math.Inf(1)
	for i := range s.endpoints {
		e := s.endpoints[(from+i)%len(s.endpoints)]
		if load := e.load(); load < least && w.admits(e) {
			best, least = e, load
		}
	}
	return best
}

// p2c is the better of two (Mitzenmacher, "The Power of Two Choices in Randomized
// Load Balancing", 2001). Both are drawn by weight and the first wins a tie, so that
// the weights hold while nothing is loaded too.
type p2c struct{ sampler }

func (p *p2c) pick(w *wish) *endpoint {
	i, j := p.draw(), p.draw()
	if i == j {
		j = (i + 1) % len(p.endpoints)
	}
	a, b := p.endpoints[i], p.endpoints[j]
	switch okA, okB := w.admits(a), w.admits(b); {
	case okA && okB && b.load() < a.load():
		return b
	case okA:
		return a
	case okB:
		return b
	}
	return p.lightest(w, i)
}

// least is the endpoint with the fewest requests for its weight; of several, one
// drawn by weight.
type least struct{ sampler }

func (l *least) pick(w *wish) *endpoint { return l.lightest(w, l.draw()) }

// turns is weighted round robin. The order is worked out beforehand by the smooth
// method (each step everyone earns its weight; the richest is next and pays the
// sum), so a turn is one atomic addition. When one is passed over, its turns go to
// its successors in the order, which the smooth method has mixed.
type turns struct {
	order []*endpoint
	turn  atomic.Uint64
}

// maxTurns bounds the length of the order. Weights that do not fit hold to within
// one turn in so many.
const maxTurns = 4096

func newTurns(endpoints []*endpoint) *turns {
	sum := 0.0
	for _, e := range endpoints {
		sum += e.weight()
	}
	t := &turns{order: make([]*endpoint, cycle(endpoints, sum))}
	purse := make([]float64, len(endpoints))
	for i := range t.order {
		next := 0
		for j, e := range endpoints {
			purse[j] += e.weight()
			if purse[j] > purse[next]+1e-9*sum {
				next = j
			}
		}
		purse[next] -= sum
		t.order[i] = endpoints[next]
	}
	return t
}

// cycle is the shortest order in which everyone has a whole number of turns.
func cycle(endpoints []*endpoint, sum float64) int {
	for n := len(endpoints); n < maxTurns; n++ {
		whole := true
		for _, e := range endpoints {
			turns := e.weight() * float64(n) / sum
			if math.Abs(turns-math.Round(turns)) > 1e-9*float64(n) {
				whole = false
				break
			}
		}
		if whole {
			return n
		}
	}
	return maxTurns
}

func (t *turns) pick(w *wish) *endpoint {
	from := t.turn.Add(1) - 1
	for i := range uint64(len(t.order)) {
		if e := t.order[(from+i)%uint64(len(t.order))]; w.admits(e) {
			return e
		}
	}
	return nil
}

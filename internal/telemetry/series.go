package telemetry

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Series belong to things that a configuration names: routes and their filters.
// A snapshot acquires the handles it needs when it is compiled and releases them
// when it retires. Handles are counted by key, so a route that is in the old and
// in the new configuration keeps its counts over the reload, and one that is
// gone takes its series with it. A handle that was never used holds no counters:
// 10,000 idle routes cost some 150 bytes each.

// Parts of a request's time.
const (
	partTotal    = iota // from the complete request head to the end of the response
	partGateway         // total without the waits for the upstream and for the client
	partUpstream        // waits for the upstream, its response body included
	parts
)

var partNames = [parts]string{"total", "gateway", "upstream"}

// seriesKey names a handle; filter is "" for a route's own.
type seriesKey struct{ api, route, filter string }

// Route counts the exchanges of one route. A nil Route counts nothing.
type Route struct {
	key       seriesKey
	owner     *registry
	durations atomic.Pointer[cells] // parts histograms
	codes     [len(methods)]atomic.Pointer[codeTable]
}

type codeTable [len(statuses)]atomic.Pointer[Counter]

// Release gives the handle back. Every Telemetry.Route has its Release.
func (r *Route) Release() { r.owner.release(r.key) }

// count adds one response.
func (r *Route) count(shard uint32, method string, status int) {
	m := &r.codes[methodIndex(method)]
	t := m.Load()
	if t == nil {
		t = keepFirst(m, new(codeTable))
	}
	s := &t[statusIndex(status)]
	c := s.Load()
	if c == nil {
		c = keepFirst(s, NewCounter())
	}
	c.Add(shard, 1)
}

// time adds what one exchange took; upstream is negative when none was asked.
func (r *Route) time(shard uint32, total, gateway, upstream time.Duration) {
	c := r.durations.Load()
	if c == nil {
		c = keepFirst(&r.durations, newCells(parts*histogramCells))
	}
	row := c.row(shard)
	observe(row[partTotal*histogramCells:], total)
	observe(row[partGateway*histogramCells:], gateway)
	if upstream >= 0 {
		observe(row[partUpstream*histogramCells:], upstream)
	}
}

// Verdict is what a filter decided about one request.
type Verdict uint8

// The verdicts.
const (
	Allowed Verdict = iota
	Refused
	WouldRefuse // refused, but in shadow mode
	Answered    // by the filter itself, such as a cache
	Failed      // an error of the gateway or of something the filter depends on
	verdicts
)

var verdictNames = [verdicts]string{"allow", "refuse", "would_refuse", "answer", "error"}

func (v Verdict) String() string { return verdictNames[v] }

// Filter counts the verdicts and the time of one filter on one route. A nil
// Filter counts nothing.
type Filter struct {
	key   seriesKey
	owner *registry
	c     atomic.Pointer[cells] // a histogram, and behind it one cell a verdict
}

// Release gives the handle back. Every Telemetry.Filter has its Release.
func (f *Filter) Release() { f.owner.release(f.key) }

// Count adds one verdict.
func (f *Filter) Count(shard uint32, v Verdict) {
	if f != nil && v < verdicts {
		f.cells().add(shard, histogramCells+int(v), 1)
	}
}

// Time adds how long the filter took for one request. It need not be called for
// every request (see Exchange.Timed).
func (f *Filter) Time(shard uint32, d time.Duration) {
	if f != nil {
		observe(f.cells().row(shard), d)
	}
}

func (f *Filter) cells() *cells {
	c := f.c.Load()
	if c == nil {
		c = keepFirst(&f.c, newCells(histogramCells+int(verdicts)))
	}
	return c
}

// keepFirst stores v unless somebody was faster, and returns what is stored.
func keepFirst[T any](p *atomic.Pointer[T], v *T) *T {
	if p.CompareAndSwap(nil, v) {
		return v
	}
	return p.Load()
}

// registry holds the handles in use. It is locked at load and by a scrape, never
// on the request path.
type registry struct {
	mu      sync.Mutex
	routes  map[seriesKey]*held[*Route]
	filters map[seriesKey]*held[*Filter]
}

type held[T any] struct {
	handle T
	users  int
}

func newRegistry() *registry {
	return &registry{routes: map[seriesKey]*held[*Route]{}, filters: map[seriesKey]*held[*Filter]{}}
}

func (g *registry) route(key seriesKey) *Route {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.routes[key]
	if h == nil {
		h = &held[*Route]{handle: &Route{key: key, owner: g}}
		g.routes[key] = h
	}
	h.users++
	return h.handle
}

func (g *registry) filter(key seriesKey) *Filter {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.filters[key]
	if h == nil {
		h = &held[*Filter]{handle: &Filter{key: key, owner: g}}
		g.filters[key] = h
	}
	h.users++
	return h.handle
}

func (g *registry) release(key seriesKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if key.filter == "" {
		drop(g.routes, key)
	} else {
		drop(g.filters, key)
	}
}

func drop[T any](m map[seriesKey]*held[T], key seriesKey) {
	h := m[key]
	if h == nil {
		return
	}
	if h.users--; h.users == 0 {
		delete(m, key)
	}
}

// all returns the handles of now, sorted by key.
func (g *registry) all() ([]*Route, []*Filter) {
	g.mu.Lock()
	routes := make([]*Route, 0, len(g.routes))
	for _, h := range g.routes {
		routes = append(routes, h.handle)
	}
	filters := make([]*Filter, 0, len(g.filters))
	for _, h := range g.filters {
		filters = append(filters, h.handle)
	}
	g.mu.Unlock()
	slices.SortFunc(routes, func(a, b *Route) int { return a.key.compare(b.key) })
	slices.SortFunc(filters, func(a, b *Filter) int { return a.key.compare(b.key) })
	return routes, filters
}

func (k seriesKey) compare(o seriesKey) int {
	return cmp.Or(cmp.Compare(k.api, o.api), cmp.Compare(k.route, o.route), cmp.Compare(k.filter, o.filter))
}

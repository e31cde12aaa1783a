package limit

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// A counter is what a limit counts with: the state of all its keys. It outlives
// configurations: the engine's registry gives the same counter to every
// configuration that has a limit of that name with those parameters, so that a
// reload forgets nothing, and drops it with the last of them.

// place is where a counter's decisions are made.
type place uint8

const (
	here   place = iota // in the table of this process
	leased              // with what this gateway was granted by the store
	exact               // by the store, each
)

func (p place) String() string { return [...]string{"local", "leased", "exact"}[p] }

// maxKeys is how many keys one limit remembers at once in this process, some 150
// bytes each. Beyond it the least used of a few goes.
const maxKeys = 1 << 20

// measure is the parameters of a counter. Two limits with equal measures and
// names count together.
type measure struct {
	name  string // as the RateLimit fields and the metrics say it
	owner string // what keeps apart limits that have a name in common: the api of a route's own
	limit meter.Limit
	per   []string
	place place
	share float64 // leased: by how much of the capacity all gateways may exceed it
	mode  string  // shadow limits have counters of their own
	// plan and period are of quotas, else empty. How many requests a quota admits is no
	// part of its measure while it is counted here: a changed quota keeps its use.
	plan, period string
}

// quota reports whether it is a calendar quota.
func (m *measure) quota() bool { return m.period != "" }

// print is a fingerprint of what the counts in the store depend on.
func (m *measure) print() uint32 {
	h := fnv.New64a()
	if m.quota() {
		fmt.Fprintf(h, "%s\x00%d", m.period, m.limit.Scale)
	} else {
		fmt.Fprintf(h, "%s\x00%s\x00%s\x00%+v", m.owner, m.mode, strings.Join(m.per, "\x00"), m.limit)
	}
	sum := h.Sum64()
	return uint32(sum>>32) ^ uint32(sum)
}

// id names the counter in the registry.
func (m *measure) id() string {
	l := m.limit
	if m.quota() && m.place == here {
		l = meter.Limit{}
	}
	return fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%d\x00%g\x00%s\x00%+v", m.name, m.owner, m.mode, strings.Join(m.per, "\x00"), m.place, m.share, m.period, l)
}

type counter struct {
	measure
	key    string // in the registry
	print  uint32 // see measure.print
	table  *table
	series *series
	users  int // under the registry's lock

	// terms are what its leases are taken at, nil while the limit is too small for
	// leases among that many gateways, and each request is decided by the store.
	terms atomic.Pointer[meter.LeaseParams]
	// recent is the keys of a shared limit that came a moment ago.
	recent *recent
	// spare decides while the store is away; nil when it was not needed lately.
	spare atomic.Pointer[spare]
	// newest is the limit of a quota as requests were last held to it; nil: as limit.
	newest atomic.Pointer[meter.Limit]
	// calendar is the running period, of quotas.
	calendar atomic.Pointer[calendar]
}

// calendar is a calendar period, by number and as it is written.
type calendar struct {
	index int64
	text  string
}

// periodAt returns the period at a wall-clock time.
func (c *counter) periodAt(wall int64) *calendar {
	index := c.limit.Index(wall)
	if p := c.calendar.Load(); p != nil && p.index == index {
		return p
	}
	p := &calendar{index: index, text: periodText(c.limit.Period, time.Unix(0, wall))}
	c.calendar.Store(p)
	return p
}

func periodText(p meter.Period, t time.Time) string {
	t = t.UTC()
	switch p {
	case meter.Day:
		return t.Format("2006-01-02")
	case meter.Week:
		year, week := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	}
	return t.Format("2006-01")
}

// sharedKey is the name of one key's state in the store.
func (c *counter) sharedKey(key []byte, wall int64) string {
	var room [256]byte
	if c.quota() {
		return string(appendQuotaKey(room[:0], key, c.name, c.periodAt(wall).text, c.print))
	}
	return string(appendLimitKey(room[:0], key, c.name, c.print))
}

// registry owns the counters. It is locked at load and by the goroutines of the
// engine, never on the request path.
type registry struct {
	mu       sync.Mutex
	counters map[string]*counter
	series   map[string]*series
	list     []*counter // of counters, for who walks them; nil when it is not of now
}

func newRegistry() *registry {
	return &registry{counters: map[string]*counter{}, series: map[string]*series{}}
}

// all returns the counters of now; nobody changes the slice.
func (g *registry) all() []*counter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.list == nil {
		g.list = make([]*counter, 0, len(g.counters))
		for _, c := range g.counters {
			g.list = append(g.list, c)
		}
	}
	return g.list
}

// acquire returns the counter of a measure, made by create when there is none.
// Each acquire has its release.
func (g *registry) acquire(m *measure, create func(*counter)) *counter {
	key := m.id()
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.counters[key]
	if c == nil {
		c = &counter{measure: *m, key: key, print: m.print()}
		c.series = g.series[m.name]
		if c.series == nil {
			c.series = newSeries(m.name)
			g.series[m.name] = c.series
		}
		c.series.users++
		create(c)
		g.counters[key] = c
		g.list = nil
	}
	c.users++
	return c
}

// release gives a counter back and reports whether nobody uses it any more.
func (g *registry) release(c *counter) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.users--; c.users > 0 {
		return false
	}
	delete(g.counters, c.key)
	if c.series.users--; c.series.users == 0 {
		delete(g.series, c.name)
	}
	g.list = nil
	return true
}

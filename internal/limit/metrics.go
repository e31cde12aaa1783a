package limit

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// series counts the decisions of all limits of one name. Names come from the
// configuration.
type series struct {
	name  string
	users int // counters, under the registry's lock
	// One counter a verdict; striped, so that cores do not meet.
	verdicts [verdicts]*telemetry.Counter
	// Units of leases, in requests.
	granted, returned atomic.Int64
}

const (
	allow = iota
	refused
	wouldRefuse
	faulted
	verdicts
)

var verdictNames = [verdicts]string{"allow", "refuse", "would_refuse", "fault"}

func newSeries(name string) *series {
	s := &series{name: name}
	for i := range s.verdicts {
		s.verdicts[i] = telemetry.NewCounter()
	}
	return s
}

func (s *series) allowed(shard uint32) { s.verdicts[allow].Add(shard, 1) }

func (s *series) refused(shard uint32, shadow bool) {
	if shadow {
		s.verdicts[wouldRefuse].Add(shard, 1)
		return
	}
	s.verdicts[refused].Add(shard, 1)
}

func (s *series) fault(shard uint32) { s.verdicts[faulted].Add(shard, 1) }

// stats counts what is not a limit's own.
type stats struct {
	calls      [ops][2]atomic.Uint64 // ok, failed
	grantless  atomic.Uint64
	posted     atomic.Uint64
	quotas     atomic.Uint64
	quotaFails atomic.Uint64
}

const (
	opTake = iota
	opSettle
	opPost
	ops
)

var (
	opNames     = [ops]string{"take", "settle", "post"}
	resultNames = [2]string{"ok", "error"}
)

// call counts a call of the store.
func (s *stats) call(op int, err error) {
	failed := 0
	if err != nil {
		failed = 1
	}
	s.calls[op][failed].Add(1)
}

// settled counts what a settlement moved.
func (s *stats) settled(c *counter, in *store.Settlement, out *store.Grant, failed bool) {
	if failed {
		return
	}
	c.series.granted.Add(out.Granted)
	c.series.returned.Add(in.Give)
	if out.Granted == 0 && in.Ask > 0 {
		s.grantless.Add(1)
	}
}

// saved counts quotas written to the file.
func (s *stats) saved(n int, err error) {
	if err != nil {
		s.quotaFails.Add(1)
		return
	}
	s.quotas.Add(uint64(n))
}

// expose registers the engine's metrics. docs/operations.md lists them.
func (e *Engine) expose(t *telemetry.Telemetry) {
	counters := [...]struct {
		name, help string
		labels     []string
		read       func(telemetry.Emit)
	}{
		{"sluice_limit_decisions_total", "Requests that limits decided about, by the limit's name: allow, refuse, would_refuse (shadow), and fault (on_fault decided).", []string{"limit", "verdict"}, e.emitDecisions},
		{"sluice_limit_evictions_total", "Keys dropped because a limit remembered too many, and of those the ones in use (lost).", []string{"limit", "kind"}, e.emitEvictions},
		{"sluice_limit_lease_units_total", "Units of leases granted by the store and returned to it unused.", []string{"limit", "direction"}, e.emitLeases},
		{"sluice_limit_lease_refusals_total", "Settlements in which the store granted nothing.", nil, func(emit telemetry.Emit) { emit(float64(e.stats.grantless.Load())) }},
		{"sluice_limit_store_calls_total", "Calls of the shared store, by operation and result.", []string{"op", "result"}, e.emitCalls},
		{"sluice_limit_posted_total", "Keys whose use was posted to the store when it was back.", nil, func(emit telemetry.Emit) { emit(float64(e.stats.posted.Load())) }},
		{"sluice_limit_quotas_saved_total", "Counts of quotas written to the state file.", nil, func(emit telemetry.Emit) { emit(float64(e.stats.quotas.Load())) }},
		{"sluice_limit_quota_save_failures_total", "Times that quotas could not be written to the state file.", nil, func(emit telemetry.Emit) { emit(float64(e.stats.quotaFails.Load())) }},
	}
	for _, c := range counters {
		t.RegisterCounter(c.name, c.help, c.labels, c.read)
	}
	gauges := [...]struct {
		name, help string
		labels     []string
		read       func(telemetry.Emit)
	}{
		{"sluice_limit_keys", "Keys that a limit remembers.", []string{"limit"}, e.emitKeys},
		{"sluice_limit_store_up", "1 when the shared store is asked, 0 while on_fault decides. Absent without one.", nil, e.emitUp},
		{"sluice_limit_peers", "Gateways that share the store, this one included. Absent without one.", nil, func(emit telemetry.Emit) {
			if e.shared != nil {
				emit(float64(e.peers()))
			}
		}},
	}
	for _, g := range gauges {
		t.RegisterGauge(g.name, g.help, g.labels, g.read)
	}
}

// names are the series in use, sorted.
func (g *registry) names() []*series {
	g.mu.Lock()
	all := make([]*series, 0, len(g.series))
	for _, s := range g.series {
		all = append(all, s)
	}
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b *series) int { return cmp.Compare(a.name, b.name) })
	return all
}

func (e *Engine) emitDecisions(emit telemetry.Emit) {
	for _, s := range e.registry.names() {
		for i, name := range verdictNames {
			emit(float64(s.verdicts[i].Load()), s.name, name)
		}
	}
}

// byName sums up something of all counters that have a name in common.
func (e *Engine) byName(of func(*counter) float64) map[string]float64 {
	sums := map[string]float64{}
	for _, c := range e.registry.all() {
		sums[c.name] += of(c)
	}
	return sums
}

func (e *Engine) emitKeys(emit telemetry.Emit) {
	for name, n := range e.byName(func(c *counter) float64 { return float64(c.table.len()) }) {
		emit(n, name)
	}
}

func (e *Engine) emitEvictions(emit telemetry.Emit) {
	for name, n := range e.byName(func(c *counter) float64 { return float64(c.table.evictions()) }) {
		emit(n, name, "all")
	}
	for name, n := range e.byName(func(c *counter) float64 { return float64(c.table.losses()) }) {
		emit(n, name, "lost")
	}
}

func (e *Engine) emitLeases(emit telemetry.Emit) {
	for _, s := range e.registry.names() {
		if granted := s.granted.Load(); granted > 0 {
			emit(float64(granted), s.name, "granted")
			emit(float64(s.returned.Load()), s.name, "returned")
		}
	}
}

func (e *Engine) emitCalls(emit telemetry.Emit) {
	if e.shared == nil {
		return
	}
	for op, name := range opNames {
		for i, result := range resultNames {
			emit(float64(e.stats.calls[op][i].Load()), name, result)
		}
	}
}

func (e *Engine) emitUp(emit telemetry.Emit) {
	switch {
	case e.health == nil:
	case e.health.Up():
		emit(1)
	default:
		emit(0)
	}
}

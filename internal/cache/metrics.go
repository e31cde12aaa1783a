package cache

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// stats counts what the cache does.
type stats struct {
	results   [exchange.CacheResults]*telemetry.Counter // striped: hits of all cores are counted here
	refreshes atomic.Uint64
	second    [secondResults]atomic.Uint64
	purges    [purgeKinds]atomic.Uint64
	hookFails atomic.Uint64
}

const (
	secondHit = iota
	secondMiss
	secondError
	secondPut
	secondDropped
	secondResults
)

var secondNames = [secondResults]string{"hit", "miss", "error", "put", "dropped"}

func (s *stats) start() {
	for i := range s.results {
		s.results[i] = telemetry.NewCounter()
	}
}

func (s *stats) count(x *exchange.Exchange, r exchange.CacheResult) {
	s.results[r].Add(x.Conn.Shard, 1)
}

// expose registers the metrics.
func (e *Engine) expose(t *telemetry.Telemetry) {
	t.RegisterCounter("sluice_cache_requests_total", "Requests of routes with a cache, by what became of them there.", []string{"result"}, func(emit telemetry.Emit) {
		for r := exchange.CacheHit; r < exchange.CacheResults; r++ {
			emit(float64(e.stats.results[r].Load()), r.String())
		}
	})
	gauge := func(name, help string, read func() float64) {
		t.RegisterGauge(name, help, nil, func(emit telemetry.Emit) { emit(read()) })
	}
	gauge("sluice_cache_objects", "Objects of the cache in memory, and notes about what is not kept.", func() float64 { return float64(e.memory.Len()) })
	gauge("sluice_cache_bytes", "Memory that they hold.", func() float64 { return float64(e.memory.Weight()) })
	gauge("sluice_cache_limit_bytes", "Memory that they may hold, cache.memory.", func() float64 { return float64(e.limit.Load()) })
	t.RegisterCounter("sluice_cache_shared_total", "What was asked of and given to the cache in Redis, by outcome.", []string{"result"}, func(emit telemetry.Emit) {
		for i := range e.stats.second {
			emit(float64(e.stats.second[i].Load()), secondNames[i])
		}
	})
	t.RegisterCounter("sluice_cache_purges_total", "Purges applied, by kind; those of unsafe requests are of kind uri.", []string{"kind"}, func(emit telemetry.Emit) {
		for i := range e.stats.purges {
			emit(float64(e.stats.purges[i].Load()), store.PurgeKind(i).String())
		}
	})
	count := func(name, help string, n *atomic.Uint64) {
		t.RegisterCounter(name, help, nil, func(emit telemetry.Emit) { emit(float64(n.Load())) })
	}
	count("sluice_cache_refreshes_total", "Fetches in the background, of what was stale or about to be.", &e.stats.refreshes)
	count("sluice_cache_hook_failures_total", "Purge hooks that were given up.", &e.stats.hookFails)
}

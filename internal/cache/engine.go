// Package cache is the response cache: RFC 9111 for a shared cache, in this process
// (level 1) and in Redis (level 2).
//
// # One request
//
// The lookup filter makes the key and looks in level 1. A response that may be used is
// the answer. Otherwise the request leads a fill, or waits for the one that is under
// way; who leads asks level 2, and at last the upstream. The store filter sees what came
// back: it keeps it, renews what was kept, or says that it is not for keeping.
//
// # What is where
//
//   - engine.go: what outlives configurations
//   - rule.go, key.go: what a route's configuration says, and what tells objects apart
//   - lookup.go, want.go, serve.go: the way in, and answers from the cache
//   - fill.go, stream.go: one fetch for all who ask
//   - store.go, renew.go: the way back
//   - shared.go, writer.go: level 2
//   - refresh.go: fetches that nobody waits for
//   - purge.go, groups.go, hooks.go: what is to be forgotten, and who is told
//   - semantics, object, memory: RFC 9111 in pure functions, a stored response, level 1
package cache

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/memory"
	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Options are what an Engine is made with.
type Options struct {
	Log       *slog.Logger         // nil: discarded
	Telemetry *telemetry.Telemetry // nil: no metrics
	// Objects is level 2, and Purges tells it and other gateways what to forget. Nil: this
	// gateway is alone, unless they are attached later. Both or none are given.
	Objects store.Objects
	Purges  store.Purges
}

// Engine owns what the cache keeps, and outlives configurations. Its methods may be
// called from any goroutine.
type Engine struct {
	log     *slog.Logger
	memory  *memory.Cache
	objects store.Objects
	purges  store.Purges
	assured store.Assured // of purges; nil: they are always sure
	flights flights
	writer  *writer
	hooks   *hooks
	groups  *groups
	stats   stats
	limit   atomic.Uint64 // bytes of level 1
	room    room
	tagged  atomic.Uint64 // purges of tags

	settings  atomic.Pointer[settings]
	refreshes chan struct{} // slots
	carriers  sync.Pool     // *exchange.Exchange, of streams

	stop context.CancelFunc
	ctx  context.Context // ends with Close; of background work
	work sync.WaitGroup
}

// settings are what the current configuration says.
type settings struct {
	hooks   []string
	queries [][]string // the distinct key.query of all routes; nil is all parameters
}

const (
	defaultMemory = 256 << 20
	// maxRefreshes bounds the fetches in the background at one time.
	maxRefreshes = 256
)

// New starts an engine. Close ends its goroutines.
func New(o Options) *Engine {
	e := &Engine{
		log: o.Log, memory: memory.New(defaultMemory),
		refreshes: make(chan struct{}, maxRefreshes),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.flights.start()
	e.stats.start()
	e.settings.Store(&settings{})
	e.limit.Store(defaultMemory)
	e.hooks, e.groups = newHooks(e), newGroups(e)
	if o.Objects != nil {
		e.Attach(o.Objects, o.Purges)
	}
	if o.Telemetry != nil {
		e.expose(o.Telemetry)
	}
	return e
}

// Configure takes what a configuration that has become current says of the cache as a
// whole.
func (e *Engine) Configure(f *config.File) {
	s := &settings{}
	for r := range caches(f) {
		s.addQuery(r.Cache.Key.Query)
	}
	if f.Cache.CDN != nil {
		s.hooks = f.Cache.CDN.PurgeHooks
	}
	e.settings.Store(s)
	if n := f.Cache.Memory.Bytes; n > 0 {
		e.limit.Store(uint64(n))
		e.room.limit.Store(n / 4)
		e.memory.SetLimit(uint64(n))
	}
}

// Attach gives an engine that is alone the level that it shares with others. It is called
// at most once, before a configuration with a cache is compiled: gateways without one
// neither ask Redis what was purged nor are waited for.
func (e *Engine) Attach(o store.Objects, p store.Purges) {
	e.objects, e.purges = o, p
	e.assured, _ = p.(store.Assured)
	e.writer = newWriter(e)
	e.groups.start()
	p.Watch(e.forget)
}

// Await waits until level 2 can be used: what was purged is known. It returns when ctx
// ends at the latest.
func (e *Engine) Await(ctx context.Context) {
	if e.purges == nil {
		return
	}
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	for e.purges.Stamp() == 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

const awaitEvery = 2 * time.Millisecond

// Specs are the definitions of the filters.
func (e *Engine) Specs() []policy.Spec {
	return []policy.Spec{
		{Name: "cache", Phase: policy.CacheLookup, Waits: waitLimit, New: func(r *config.Route, env *policy.Env) (policy.Filter, error) {
			if r.Cache == nil {
				return nil, nil
			}
			rule, err := e.rule(r, env)
			if err != nil {
				return nil, err
			}
			return &lookup{rule}, nil
		}},
		{Name: "cache_store", Phase: policy.CacheStore, New: func(r *config.Route, env *policy.Env) (policy.Filter, error) {
			if r.Cache == nil {
				if !bool(policy.Common(env, func() cached { return cached(Configured(env.File)) })) || !mayBeUnsafe(r.Methods) {
					return nil, nil
				}
				return &forgetter{e}, nil
			}
			rule, err := e.rule(r, env)
			if err != nil {
				return nil, err
			}
			return &keeper{rule}, nil
		}},
	}
}

// cached says that a configuration has a route with a cache.
type cached bool

// Configured reports whether a route of a configuration has a cache.
func Configured(f *config.File) bool {
	for range caches(f) {
		return true
	}
	return false
}

// caches yields the routes that have a cache.
func caches(f *config.File) iter.Seq[*config.Route] {
	return func(yield func(*config.Route) bool) {
		for i := range f.APIs {
			if !cachesOf(f.APIs[i].Routes, yield) {
				return
			}
		}
		cachesOf(f.Routes, yield)
	}
}

func cachesOf(routes []config.Route, yield func(*config.Route) bool) bool {
	for i := range routes {
		if routes[i].Cache != nil && !yield(&routes[i]) {
			return false
		}
	}
	return true
}

// Close ends the background work: what is on its way to level 2 is written as long as
// ctx allows. No request may be at work.
func (e *Engine) Close(ctx context.Context) error {
	if e.writer != nil {
		e.writer.drain(ctx)
	}
	e.stop()
	e.work.Wait()
	return nil
}

// Use is an object that is asked for much.
type Use struct {
	URI   string
	Bytes uint64 // of memory
	Hits  uint64 // answers that it gave, about
}

// Hot returns the objects that are asked for most, at most n of them.
func (e *Engine) Hot(n int) []Use {
	hottest := e.memory.Hottest(n)
	all := make([]Use, len(hottest))
	for i, u := range hottest {
		all[i] = Use{URI: u.URI, Bytes: u.Weight, Hits: u.Hits}
	}
	return all
}

// waitLimit is how long a request without a deadline waits for what another one fetches.
const waitLimit = 30 * time.Second

// sure reports whether what was purged is known, so that level 1 may be used.
func (e *Engine) sure(now time.Time) bool { return e.assured == nil || e.assured.Sure(now) }

// overtaken reports whether what was asked for at a stamp has been purged since.
func (e *Engine) overtaken(uri string, stamp uint64) bool {
	return !e.memory.Valid(&object.Object{URI: uri, Stamp: stamp})
}

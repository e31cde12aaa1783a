// Package limit decides how often requests may come: rate limits, the throttles
// and quotas of plans, and what is at work at one time.
//
// # One request
//
// The enforced filter of a route gathers the rules that apply, those of the
// caller's plan and the route's own, makes their keys, and asks in this order
// (see decision): what is counted in this process, what this gateway was granted
// of shared limits (leases), and, in one call, what the store decides by itself.
// The first refusal ends the asking and gives back what was taken.
//
// # What lives how long
//
//	Engine     the process   registry of counters, goroutines, the store, the file
//	counter    configurations that have the same limit   tables of keys, leases
//	document   one configuration   rules of rate_limits and plans
//	filter     one route of one configuration   its own rules
//
// # Goroutines
//
// sweep drops idle keys; settle refills leases and gives them back; post brings
// the store what it does not know yet; flush saves quotas. Close ends them.
package limit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Options are what an Engine is made with.
type Options struct {
	Log       *slog.Logger         // nil: discarded
	Telemetry *telemetry.Telemetry // nil: no metrics
	// Shared is what several gateways share. Nil: every limit is local.
	Shared store.Shared
	// File keeps quotas over restarts. Nil: they are not kept; see Keep.
	File *store.File
}

// Engine owns what limits count with and outlives configurations. Its methods may
// be called from any goroutine.
type Engine struct {
	log      *slog.Logger
	shared   store.Shared
	health   store.Health // of shared; nil: it does not tell
	file     atomic.Pointer[store.File]
	clock    clock
	registry *registry
	settler  *settler
	poster   *poster
	flusher  *flusher
	hot      hot
	stats    stats

	decisions sync.Pool // *decision
	slots     sync.Pool // *slot
	warned    atomic.Int64

	stop   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
	closed error
}

// The paces of the goroutines.
const (
	sweepEvery = 100 * time.Millisecond
	sweepRest  = 10 * time.Second // between two passes over the keys of one counter
	sweepKeys  = 10_000           // of each counter, in one sweep: less than 1 ms, a shard at a time
)

// New starts an engine. Close ends its goroutines.
func New(o Options) *Engine {
	e := &Engine{
		log: o.Log, shared: o.Shared, clock: newClock(), registry: newRegistry(), stop: make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.file.Store(o.File)
	e.decisions.New = func() any { return &decision{e: e} }
	e.slots.New = func() any { return &slot{e: e} }
	e.hot.start()
	e.flusher = newFlusher(e)
	e.run(e.sweep)
	e.run(e.flusher.run)
	if e.shared != nil {
		e.settler, e.poster = newSettler(e), newPoster(e)
		if h, ok := e.shared.(store.Health); ok {
			e.health = h
			h.OnChange(e.changed)
		}
		e.run(e.settler.run)
		e.run(e.poster.run)
	}
	if o.Telemetry != nil {
		e.expose(o.Telemetry)
	}
	return e
}

func (e *Engine) run(f func()) { e.wg.Go(f) }

// Keep has quotas kept in f from now on. It is called at most once, when Options
// had no File and before a configuration with quotas is used.
func (e *Engine) Keep(f *store.File) error {
	if !e.file.CompareAndSwap(nil, f) {
		return errors.New("limit: quotas are kept in a file already")
	}
	return nil
}

// Close gives back all leases and slots, writes all quotas and ends the
// goroutines. It waits for the store as long as ctx allows; what the store does not
// take is logged. The error is the file's. No request may be at work.
func (e *Engine) Close(ctx context.Context) error {
	e.once.Do(func() {
		close(e.stop)
		e.wg.Wait()
		if e.shared != nil {
			e.settler.drain(ctx)
			e.poster.drain(ctx)
		}
		e.closed = e.flusher.flush()
	})
	return e.closed
}

// Specs are the definitions of the filters: the limits that are enforced, plans
// among them, and those in shadow mode. Both are called rate_limit.
func (e *Engine) Specs() []policy.Spec {
	return []policy.Spec{
		{Name: "rate_limit", Phase: policy.Limit, Waits: time.Second, New: func(r *config.Route, env *policy.Env) (policy.Filter, error) {
			f, err := e.filter(r, env, false)
			if f == nil || err != nil {
				return nil, err
			}
			return &enforced{*f}, nil
		}},
		{Name: "rate_limit", Phase: policy.Limit, Waits: 5 * time.Millisecond, New: func(r *config.Route, env *policy.Env) (policy.Filter, error) {
			f, err := e.filter(r, env, true)
			if f == nil || err != nil {
				return nil, err
			}
			return &shadowed{*f}, nil
		}},
	}
}

// filter makes the rules of a route, nil when there are none.
func (e *Engine) filter(r *config.Route, env *policy.Env, shadow bool) (*filter, error) {
	d := policy.Common(env, func() *document { return e.compile(env.File) })
	var failed []error
	if !shadow {
		failed = append(failed, d.failed)
	}
	f := &filter{e: e, d: d, route: env.Route}
	for i, use := range r.RateLimit {
		var rule *rule
		switch {
		case use.Inline == nil:
			rule = d.named[use.Name]
			if rule == nil || rule.shadow != shadow || f.has(rule) {
				continue // unknown ones are the config room's to tell
			}
		case (use.Inline.Mode == "shadow") != shadow:
			continue
		default:
			var err error
			rule, err = e.rule(env.File, use.Inline, fmt.Sprintf("%s.%d", env.Route.Name, i), "route "+env.Route.API, fmt.Sprintf("%s.rate_limit[%d]", env.At, i))
			failed = append(failed, err)
			f.inline = append(f.inline, rule)
		}
		f.own = append(f.own, rule)
	}
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	f.plans = !shadow && len(d.plans)+len(env.File.Authenticators) > 0
	if len(f.own) == 0 && !f.plans {
		return nil, nil
	}
	d.hold()
	for _, rule := range f.inline {
		e.bind(rule)
	}
	return f, nil
}

// bind gives a rule its counter.
func (e *Engine) bind(r *rule) {
	r.c = e.registry.acquire(&r.measure, e.prepare)
}

// prepare makes what a new counter counts with.
func (e *Engine) prepare(c *counter) {
	c.table = newTable(&c.limit, maxKeys)
	switch {
	case c.place != here:
		c.table.weight, c.table.retire = weightOfLease, e.retireShared
		c.recent = new(recent)
		e.terms(c)
	case c.quota():
		_ = e.flusher.flush() // what an earlier counter of it counted is read from the file
		c.table.weight, c.table.retire = weightOfQuota, e.flusher.retire
	}
}

// unbind lets a rule's counter go. What it holds of the store goes back, what is
// unsaved is saved.
func (e *Engine) unbind(r *rule) {
	c := r.c
	r.c = nil
	if !e.registry.release(c) {
		return
	}
	if c.place == leased {
		e.settler.giveUp(c)
	}
	if s := c.spare.Swap(nil); s != nil {
		e.poster.bring(c, s)
	}
}

// terms decides at what terms c takes leases now.
func (e *Engine) terms(c *counter) {
	if c.place != leased {
		return
	}
	p := &meter.LeaseParams{Limit: &c.limit, Slack: int64(float64(c.limit.Capacity) * c.share), Peers: e.peers()}
	if !c.quota() && !p.Worth() {
		p = nil
	}
	if old := c.terms.Load(); old == nil || p == nil || *old != *p {
		c.terms.Store(p)
	}
}

func (e *Engine) peers() int {
	if e.shared == nil {
		return 1
	}
	return max(e.shared.Peers(), 1)
}

// sweep forgets keys for which nothing is counted any more, and follows the number
// of gateways.
func (e *Engine) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-e.stop:
			return
		case at := <-t.C:
			for _, c := range e.registry.all() {
				e.terms(c)
				c.table.tidy(at, e.timeOf(c, at))
				if s := c.spare.Load(); s != nil {
					s.table.tidy(at, e.timeOf(c, at))
				}
			}
		}
	}
}

// timeOf is the time that c counts by: calendar quotas go by the wall clock, all
// else by the limiter's.
func (e *Engine) timeOf(c *counter, t time.Time) int64 {
	if c.quota() {
		return t.UnixNano()
	}
	return e.clock.now(t)
}

func (e *Engine) now() int64 { return e.clock.now(time.Now()) }

// nanoseconds is a time left, never negative.
func nanoseconds(n int64) time.Duration { return time.Duration(max(n, 0)) }

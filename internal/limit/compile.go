package limit

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/expr"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// What the configuration says of limits becomes rules. Those of `rate_limits` and
// of `plans` are compiled once for all routes of a configuration (document), those
// that stand in a route with the route's filter. Errors name their place.

// rule is one limit, as requests are decided by it. It does not change once it is
// bound to its counter.
type rule struct {
	measure
	maker   *keyMaker
	client  bool  // counts by [client], whose key all rules of a request share
	cost    int64 // units of a request, unless it varies
	varies  bool  // by program
	program *expr.Program
	fault   fault
	maxWait time.Duration // how long a request may wait for its turn
	budget  time.Duration // how long it may wait for the store
	shadow  bool
	alone   bool // Concurrency: what was taken is given back when the exchange ends
	plain   bool // decided by one look at what is counted or held here

	item   []byte // its item of RateLimit-Policy
	quoted []byte // its name in RateLimit
	said   string // of a refusal: which limit, and how much it admits

	c *counter
}

// fault is what decides while the store is away.
type fault uint8

const (
	faultLocal fault = iota // a table of this process, with this gateway's share of the limit
	faultOpen
	faultClosed
)

func faultOf(name string) fault {
	switch name {
	case "open":
		return faultOpen
	case "closed":
		return faultClosed
	}
	return faultLocal
}

// fraction is the units of one request where costs may be fractions of one.
const fraction = 1000

// document is the limits of a configuration that all its routes share.
type document struct {
	e      *Engine
	file   *config.File
	named  map[string]*rule
	plans  map[string]*plan
	failed error

	mu    sync.Mutex
	users int     // filters
	bound []*rule // have their counters
}

// plan is the limits of the clients of a plan.
type plan struct {
	rules  []*rule            // on every route that is not in routes
	routes map[string][]*rule // by the route's name
	apis   []string           // nil: all
}

// on returns the rules for a route, and whether the plan has the route at all.
func (p *plan) on(r *exchange.Route) ([]*rule, bool) {
	if p.apis != nil && !slices.Contains(p.apis, r.API) {
		return nil, false
	}
	if p.routes != nil {
		if own, ok := p.routes[r.Name]; ok {
			return own, true
		}
	}
	return p.rules, true
}

// compile makes the rules of all named limits and plans, those that nobody uses
// too: failed has every error.
func (e *Engine) compile(f *config.File) *document {
	d := &document{e: e, file: f, named: map[string]*rule{}, plans: map[string]*plan{}}
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(f.RateLimits)) {
		r, err := e.rule(f, f.RateLimits[name], name, "", below("rate_limits", name))
		failed = append(failed, err)
		d.named[name] = r
	}
	for _, name := range slices.Sorted(maps.Keys(f.Plans)) {
		p, err := e.plan(f, f.Plans[name], name)
		failed = append(failed, err)
		d.plans[name] = p
	}
	d.failed = errors.Join(failed...)
	return d
}

// below is the path of a named thing, as the config room reads it.
func below(at, name string) string {
	if strings.ContainsFunc(name, func(c rune) bool { return !strings.ContainsRune(plainLetters, c) }) {
		return at + "[" + strconv.Quote(name) + "]"
	}
	return at + "." + name
}

const plainLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// hold has all rules of the document bound to their counters until drop.
func (d *document) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users++; d.users > 1 {
		return
	}
	for _, p := range d.plans {
		d.bind(p.rules)
		for _, rules := range p.routes {
			d.bind(rules)
		}
	}
	for _, r := range d.named {
		d.bind([]*rule{r})
	}
}

func (d *document) bind(rules []*rule) {
	for _, r := range rules {
		if r.c == nil {
			d.e.bind(r)
			d.bound = append(d.bound, r)
		}
	}
}

func (d *document) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users > 0 {
		return
	}
	for _, r := range d.bound {
		d.e.unbind(r)
	}
	d.bound = nil
}

// rule compiles a limit. owner is the api when it belongs to a route.
func (e *Engine) rule(f *config.File, c *config.RateLimit, name, owner, at string) (*rule, error) {
	if c == nil {
		return nil, policy.At(at, unread("is empty, add rate: 100/s"))
	}
	r := &rule{
		measure: measure{name: name, owner: owner, per: c.Per, share: c.MaxOvershoot.Of, mode: c.Mode},
		cost:    1, fault: faultOf(c.OnFault), maxWait: c.MaxWait.Duration, budget: budget(f),
		shadow: c.Mode == "shadow", alone: c.Algorithm == "concurrency",
	}
	var failed []error
	scale, err := r.costs(c.Cost.Text)
	if err != nil {
		failed = append(failed, policy.At(at+".cost", err))
	}
	algorithm, ok := algorithms[c.Algorithm]
	if !ok {
		failed = append(failed, policy.At(at+".algorithm", fmt.Errorf("%q is no algorithm, use token_bucket", c.Algorithm)))
	}
	for i, word := range c.Per {
		if _, err := newKeyPart(word); err != nil {
			failed = append(failed, policy.At(fmt.Sprintf("%s.per[%d]", at, i), err))
		}
	}
	o := meter.Options{Scale: scale}
	var n int64
	var per time.Duration
	field := ".rate"
	switch {
	case c.Algorithm == "concurrency" && c.Limit != nil:
		n, field = *c.Limit, ".limit"
		r.said = fmt.Sprintf("%d requests at one time", n)
	case c.Rate != nil && c.Rate.N > 0:
		n, per = c.Rate.N, c.Rate.Per
		r.said = c.Rate.String()
	default:
		return nil, errors.Join(append(failed, policy.At(at, unread("has no rate, add rate: 100/s")))...)
	}
	if c.Burst != nil && (algorithm == meter.TokenBucket || algorithm == meter.LeakyBucket) {
		o.Burst = *c.Burst
	}
	if algorithm == meter.LeakyBucket {
		o.Queue = int64(c.Queue)
	}
	if r.limit, err = meter.New(algorithm, n, per, o); err != nil {
		failed = append(failed, policy.At(at+field, err))
	}
	r.maker, _ = newKeyMaker(c.Per) // its error is one of those of the words
	r.client = len(c.Per) == 0 || len(c.Per) == 1 && c.Per[0] == "client"
	r.place = e.placeOf(c.Scope, &r.limit)
	r.describe("limit")
	return r, errors.Join(failed...)
}

var algorithms = map[string]meter.Algorithm{
	"": meter.TokenBucket, "token_bucket": meter.TokenBucket, "leaky_bucket": meter.LeakyBucket, "fixed_window": meter.FixedWindow,
	"sliding_window": meter.SlidingWindow, "sliding_log": meter.SlidingLog, "concurrency": meter.Concurrency,
}

// placeOf is where a limit is decided. Queues, logs and slots cannot be handed out
// in batches: they are exact. Without a store everything is local.
func (e *Engine) placeOf(scope string, l *meter.Limit) place {
	switch {
	case e.shared == nil || scope == "local":
		return here
	case scope == "exact" || l.Queue > 0 || l.Algorithm == meter.SlidingLog || l.Algorithm == meter.Concurrency:
		return exact
	}
	return leased
}

// costs reads what a request counts and returns the units of one request.
func (r *rule) costs(text string) (scale int64, err error) {
	if text == "" {
		return 1, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case err == nil && (math.IsInf(n, 0) || math.IsNaN(n) || n < 0):
		return 1, fmt.Errorf("%s is no cost, write a number from 0 on", text)
	case err == nil && n == math.Trunc(n) && n < 1<<40:
		r.cost = int64(n)
		return 1, nil
	case err == nil:
		r.cost = units(n, fraction)
		return fraction, nil
	}
	r.program, err = expr.Compile(text, expr.Number)
	return fraction, err
}

// units is a cost in units, rounded up so that nothing above 0 is free, and bounded
// far above every capacity.
func units(cost float64, scale int64) int64 {
	return int64(math.Ceil(min(cost*float64(scale), 1<<52)))
}

// costOf is the units of a request. A cost that is no finite number from 0 on, or
// cannot be computed, is 1 request. What no capacity can hold is just above it.
func (r *rule) costOf(x *exchange.Exchange) int64 {
	n, err := r.program.Number(x)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
		return r.limit.Scale
	}
	return min(units(n, r.limit.Scale), r.most())
}

func (r *rule) most() int64 { return r.limit.Capacity + r.limit.Queue + 1 }

func budget(f *config.File) time.Duration {
	if f.State.Redis != nil && f.State.Redis.Timeout.Duration > 0 {
		return f.State.Redis.Timeout.Duration
	}
	return 5 * time.Millisecond
}

// plan compiles the limits of a plan.
func (e *Engine) plan(f *config.File, c *config.Plan, name string) (*plan, error) {
	p := &plan{}
	if c == nil {
		return p, nil
	}
	at := below("plans", name)
	var failed []error
	if len(c.APIs) > 0 {
		p.apis = c.APIs
	}
	add := func(to []*rule, r *rule, err error) []*rule {
		failed = append(failed, err)
		if r == nil {
			return to
		}
		r.fault, r.budget = faultOf(c.OnFault), budget(f)
		return append(to, r)
	}
	var quota []*rule
	if c.Quota != nil {
		r, err := e.quota(c.Quota, name, at+".quota")
		quota = add(nil, r, err)
	}
	if c.Throttle != nil {
		r, err := e.throttle(c.Throttle, name, at+".throttle")
		p.rules = add(p.rules, r, err)
	}
	p.rules = append(p.rules, quota...)
	for _, route := range slices.Sorted(maps.Keys(c.Routes)) {
		own := c.Routes[route]
		if own == nil || own.Throttle == nil {
			continue
		}
		r, err := e.throttle(own.Throttle, name+"."+route, below(at+".routes", route)+".throttle")
		if p.routes == nil {
			p.routes = map[string][]*rule{}
		}
		p.routes[route] = append(add(nil, r, err), quota...)
	}
	return p, errors.Join(failed...)
}

func (e *Engine) throttle(c *config.Throttle, name, at string) (*rule, error) {
	o := meter.Options{}
	if c.Burst != nil {
		o.Burst = *c.Burst
	}
	if c.Rate.N == 0 {
		return nil, policy.At(at+".rate", unread("is missing, add rate: 100/s"))
	}
	r := &rule{measure: measure{name: name, per: []string{"client"}, share: 0.01, owner: "plan"}, cost: 1, client: true, said: c.Rate.String()}
	var err error
	if r.limit, err = meter.New(meter.TokenBucket, c.Rate.N, c.Rate.Per, o); err != nil {
		return nil, policy.At(at+".rate", err)
	}
	r.place = e.placeOf("leased", &r.limit)
	r.describe("throttle")
	return r, nil
}

var periods = map[string]struct {
	period meter.Period
	length time.Duration // at least; of no meaning to the meter
}{
	"day": {meter.Day, 24 * time.Hour}, "week": {meter.Week, 7 * 24 * time.Hour}, "month": {meter.Month, 28 * 24 * time.Hour},
}

func (e *Engine) quota(c *config.Quota, name, at string) (*rule, error) {
	p, ok := periods[c.Period]
	if !ok {
		return nil, policy.At(at+".period", unread("is missing, add period: month"))
	}
	r := &rule{
		measure: measure{name: name + "." + c.Period, per: []string{"client"}, plan: name, period: c.Period, owner: "plan"},
		cost:    1, client: true, said: fmt.Sprintf("%d requests a %s", c.Limit, c.Period),
	}
	var err error
	if r.limit, err = meter.New(meter.FixedWindow, max(c.Limit, 1), p.length, meter.Options{Period: p.period}); err != nil {
		return nil, policy.At(at+".limit", err)
	}
	r.limit.Capacity = c.Limit * r.limit.Scale // 0 is a plan that admits nothing
	r.place = e.placeOf("leased", &r.limit)
	r.describe("quota")
	return r, nil
}

// describe makes the texts that the rule is told by.
func (r *rule) describe(what string) {
	r.cost = min(r.cost, r.most())
	r.varies = r.program != nil
	r.plain = r.place != exact && !r.quota() && !r.alone && r.limit.Queue == 0
	r.quoted = quote(r.name)
	r.item = appendPolicy(nil, r)
	r.said = fmt.Sprintf("The %s %q of %s", what, r.name, r.said)
}

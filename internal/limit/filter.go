package limit

import (
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// filter is the limits of one route, of one mode.
type filter struct {
	e      *Engine
	d      *document
	route  exchange.Route
	own    []*rule // of the route's rate_limit, in its order
	inline []*rule // those of own that are nobody else's
	plans  bool    // callers' plans apply
}

// enforced is the limits that refuse. shadowed is those in shadow mode: they
// charge counters of their own, and their refusals are only recorded.
type (
	enforced struct{ filter }
	shadowed struct{ filter }
)

var (
	_ policy.Filter    = (*enforced)(nil)
	_ policy.Responder = (*enforced)(nil)
	_ policy.Closer    = (*enforced)(nil)
	_ policy.Filter    = (*shadowed)(nil)
	_ policy.Moded     = (*shadowed)(nil)
	_ policy.Closer    = (*shadowed)(nil)
)

func (f *filter) has(r *rule) bool {
	for _, own := range f.own {
		if own == r {
			return true
		}
	}
	return false
}

// Request charges all limits that apply, or refuses and charges none.
func (f *enforced) Request(x *exchange.Exchange) error {
	var plan []*rule
	if f.plans && x.Caller != nil {
		var err *exchange.Error
		if plan, err = f.planOf(x); err != nil {
			return err
		}
	}
	if len(plan)+len(f.own) == 0 {
		return nil
	}
	return f.e.decide(x, plan, f.own)
}

// planOf returns the limits of the caller's plan on this route.
func (f *filter) planOf(x *exchange.Exchange) ([]*rule, *exchange.Error) {
	name := x.Caller.Plan
	if name == "" {
		if name = f.d.file.DefaultPlan; name == "" {
			return nil, nil
		}
	}
	p := f.d.plans[name]
	if p == nil {
		f.e.warn("a client has a plan that does not exist", "client", x.Caller.ID, "plan", name)
		return nil, noPlan
	}
	rules, ok := p.on(&f.route)
	if !ok {
		return nil, noAPI
	}
	return rules, nil
}

// Response says what is left.
func (f *enforced) Response(x *exchange.Exchange) error {
	fields(x)
	return nil
}

// Shadow is true.
func (f *shadowed) Shadow() bool { return true }

// Request charges the limits, or refuses and charges none.
func (f *shadowed) Request(x *exchange.Exchange) error { return f.e.decide(x, nil, f.own) }

// Close lets the counters go.
func (f *filter) Close() error {
	for _, r := range f.inline {
		f.e.unbind(r)
	}
	f.d.drop()
	return nil
}

// Explain says what Request would decide.
func (f *enforced) Explain(x *exchange.Exchange) policy.Opinion {
	var plan []*rule
	if f.plans && x.Caller != nil {
		var err *exchange.Error
		if plan, err = f.planOf(x); err != nil {
			return policy.Opinion{Verdict: telemetry.Refused, Reason: fmt.Sprintf("the plan of %s: %s", x.Caller.ID, err.Detail), Refusal: err}
		}
	}
	return f.explain(x, plan)
}

// Explain says what Request would decide.
func (f *shadowed) Explain(x *exchange.Exchange) policy.Opinion { return f.explain(x, nil) }

// explain looks at what is known here. It asks no store, so a shared limit that has
// not refused the key lately is taken to admit it.
func (f *filter) explain(x *exchange.Exchange, plan []*rule) policy.Opinion {
	var said []string
	d := &decision{e: f.e, x: x, now: f.e.clock.now(x.Start)}
	d.gather(plan)
	d.gather(f.own)
	for i := range d.rulings {
		g := &d.rulings[i]
		said = append(said, d.explain(g))
	}
	if len(said) == 0 {
		return policy.Opinion{Reason: "no limit applies"}
	}
	o := policy.Opinion{Reason: strings.Join(said, "; ")}
	if d.refused > 0 {
		o.Verdict = telemetry.Refused
		o.Refusal = exchange.AsError(d.refusal())
	}
	return o
}

// explain looks at one rule.
func (d *decision) explain(g *ruling) string {
	r := g.r
	about := fmt.Sprintf("%s counts %s", r.name, g.key)
	if cost := float64(g.cost) / float64(max(r.limit.Scale, 1)); cost != 1 {
		about += fmt.Sprintf(" at a cost of %g", cost)
	}
	if r.place != here {
		if e := r.c.table.find(g.key); e != nil {
			if x := e.extra.Load(); x != nil {
				if v, ok := x.dry.Load().verdict(d.now, g.cost); ok {
					d.says(g, v)
					return about + ": refused by the store until " + v.Retry.String() + " from now"
				}
			}
		}
		return about + " in the store (" + r.place.String() + "), which is not asked here"
	}
	if r.quota() {
		g.at = d.x.Start.UnixNano()
	}
	v := d.known(g)
	d.says(g, v)
	left := fmt.Sprintf(": %d of %d left", v.Remaining/max(r.limit.Scale, 1), r.limit.Capacity/max(r.limit.Scale, 1))
	switch {
	case g.v.OK && v.Delay > 0:
		return about + left + ", it waits its turn for " + v.Delay.String()
	case g.v.OK:
		return about + left + " behind it"
	case v.Retry == meter.Never:
		return about + left + ", the cost never fits"
	}
	return about + left + ", refused for " + g.v.Retry.String()
}

// known is the verdict of a table of this process. The count of a quota that was
// not seen since the start is read.
func (d *decision) known(g *ruling) meter.Verdict {
	c := g.r.c
	e := c.table.find(g.key)
	if c.quota() && (e == nil || e.extra.Load() == nil || !e.extra.Load().loaded.Load()) {
		if file := d.e.file.Load(); file != nil {
			cell := new(meter.Cell)
			if q, ok, err := file.Quota(quotaKey(string(g.key), c.name)); err == nil && ok {
				g.limit.Load(cell, q.Index, q.Count)
			}
			return g.limit.Peek(cell, g.at, g.cost)
		}
	}
	return peek(g.limit, e, g.at, g.cost)
}

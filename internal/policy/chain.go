package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Chain is the filters of one route, in the order they run. It does not change
// and is shared by all requests of the route.
type Chain struct {
	steps   []step
	answers []int // indices of the steps that see the response, in their order
	inner   int   // how many of answers stand behind CacheLookup
	behind  int   // the first step behind CacheLookup
	body    BodyNeed
}

type step struct {
	name   string
	phase  Phase
	filter Filter
	shadow bool
	meter  *telemetry.Filter
	body   BodyNeed
}

// Compile makes the chain of a route from the specs that apply to it. meter is
// asked for the counter of each filter. On an error nothing is left open.
func Compile(specs []Spec, r *config.Route, env *Env, meter func(filter string) *telemetry.Filter) (*Chain, error) {
	c := &Chain{}
	var failed []error
	for i := range specs {
		s := &specs[i]
		made, err := s.New(r, env)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.Name, err))
			continue
		}
		if made == nil {
			continue
		}
		shadow := false
		if m, ok := made.(Moded); ok {
			shadow = m.Shadow()
		}
		c.steps = append(c.steps, step{
			name: s.Name, phase: s.Phase, filter: made, shadow: shadow,
			meter: meter(s.Name), body: s.Body,
		})
		c.body = max(c.body, s.Body)
	}
	if len(failed) > 0 {
		_ = c.Close() // the errors of making are what the caller can mend
		return nil, errors.Join(failed...)
	}
	slices.SortStableFunc(c.steps, func(a, b step) int { return cmp.Compare(a.phase, b.phase) })
	c.behind = slices.IndexFunc(c.steps, func(s step) bool { return s.phase > CacheLookup })
	if c.behind < 0 {
		c.behind = len(c.steps)
	}
	// What stands behind the cache makes the response that may be stored; what stands
	// before it, such as the fields of limits, is added to each response afresh.
	c.responders(c.behind, len(c.steps))
	c.inner = len(c.answers)
	c.responders(0, c.behind)
	return c, nil
}

func (c *Chain) responders(from, to int) {
	for i := from; i < to; i++ {
		if _, ok := c.steps[i].filter.(Responder); ok {
			c.answers = append(c.answers, i)
		}
	}
}

// Body is the greatest need of the chain's filters.
func (c *Chain) Body() BodyNeed { return c.body }

// Len is the number of filters.
func (c *Chain) Len() int { return len(c.steps) }

// Names returns the filters in the order they run.
func (c *Chain) Names() []string {
	names := make([]string, len(c.steps))
	for i := range c.steps {
		names[i] = c.steps[i].name
	}
	return names
}

// Request runs the filters until one refuses or answers. It returns nil,
// exchange.Done or an *exchange.Error.
func (c *Chain) Request(x *exchange.Exchange) error { return c.request(x, 0) }

// RequestBehind is Request for the filters behind CacheLookup only.
func (c *Chain) RequestBehind(x *exchange.Exchange) error { return c.request(x, c.behind) }

func (c *Chain) request(x *exchange.Exchange, from int) error {
	for i := from; i < len(c.steps); i++ {
		s := &c.steps[i]
		x.Reached = i + 1
		var err error
		if x.Timed {
			began := time.Now()
			err = s.filter.Request(x)
			s.meter.Time(x.Conn.Shard, time.Since(began))
		} else {
			err = s.filter.Request(x)
		}
		if err == nil {
			s.meter.Count(x.Conn.Shard, telemetry.Allowed)
			continue
		}
		if err = c.decide(s, x, err); err != nil {
			return err
		}
	}
	return nil
}

// decide counts what is not a plain yes and turns a shadow refusal into a
// record.
func (c *Chain) decide(s *step, x *exchange.Exchange, err error) error {
	if err == exchange.Done {
		s.meter.Count(x.Conn.Shard, telemetry.Answered)
		x.Reply = true
		return err
	}
	refusal := exchange.AsError(err)
	if s.shadow {
		s.meter.Count(x.Conn.Shard, telemetry.WouldRefuse)
		x.Shadows = append(x.Shadows, exchange.Shadow{Filter: s.name, Refusal: refusal})
		return nil
	}
	if refusal.Side == exchange.Gateway {
		s.meter.Count(x.Conn.Shard, telemetry.Failed)
	} else {
		s.meter.Count(x.Conn.Shard, telemetry.Refused)
	}
	return refusal
}

// Response runs the response halves of the filters that saw the request: first of those
// behind CacheLookup, then of those before it. It stops at the first error, which
// replaces the response.
func (c *Chain) Response(x *exchange.Exchange) error { return c.response(x, c.answers) }

// ResponseBehind is Response for the filters behind CacheLookup only.
func (c *Chain) ResponseBehind(x *exchange.Exchange) error { return c.response(x, c.answers[:c.inner]) }

func (c *Chain) response(x *exchange.Exchange, answers []int) error {
	for _, i := range answers {
		if i >= x.Reached {
			continue
		}
		s := &c.steps[i]
		if err := s.filter.(Responder).Response(x); err != nil {
			if err = c.decide(s, x, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// Finding is what a filter would decide about a request, and why.
type Finding struct {
	Phase   string `json:"phase"`
	Filter  string `json:"filter"`
	Mode    string `json:"mode"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// Refusal is what the client would get, nil when the request goes on.
	Refusal *exchange.Error `json:"-"`
	// Unknown: the filter cannot tell, and the filters behind it were not asked.
	Unknown bool `json:"-"`
}

// Explain asks every filter what it would decide. It stops behind the first
// refusal that is enforced, as Request would, and behind the first that cannot tell. Nothing is charged or called.
func (c *Chain) Explain(x *exchange.Exchange) []Finding {
	found := make([]Finding, 0, len(c.steps))
	for i := range c.steps {
		s := &c.steps[i]
		f := Finding{Phase: s.phase.String(), Filter: s.name, Mode: "enforce", Verdict: telemetry.Allowed.String()}
		if s.shadow {
			f.Mode = "shadow"
		}
		o := s.filter.Explain(x)
		if s.shadow && o.Refusal != nil {
			o.Verdict, o.Refusal = telemetry.WouldRefuse, nil
		}
		f.Verdict, f.Reason, f.Refusal, f.Unknown = o.Verdict.String(), o.Reason, o.Refusal, o.Unknown
		if o.Unknown {
			f.Verdict = "unknown"
		}
		found = append(found, f)
		if o.Unknown || o.Refusal != nil || o.Verdict == telemetry.Answered {
			break
		}
	}
	return found
}

// Close closes the filters that hold something.
func (c *Chain) Close() error {
	var failed []error
	for i := range c.steps {
		if cl, ok := c.steps[i].filter.(Closer); ok {
			failed = append(failed, cl.Close())
		}
	}
	return errors.Join(failed...)
}

package policy

import (
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// probe is a filter that writes down what happens to it.
type probe struct {
	name    string
	trail   *[]string
	verdict error
	shadow  bool
	closed  error
}

func (p *probe) note(what string) { *p.trail = append(*p.trail, p.name+" "+what) }

func (p *probe) Request(*exchange.Exchange) error { p.note("request"); return p.verdict }

func (p *probe) Explain(*exchange.Exchange) Opinion {
	var refusal *exchange.Error
	if errors.As(p.verdict, &refusal) {
		return Opinion{Verdict: telemetry.Refused, Reason: p.name + " refuses", Refusal: refusal}
	}
	return Opinion{Reason: p.name + " agrees"}
}

func (p *probe) Shadow() bool { return p.shadow }

func (p *probe) Close() error { p.note("close"); return p.closed }

// responding is a probe with a response half.
type responding struct {
	probe
	answer error
}

func (p *responding) Response(*exchange.Exchange) error { p.note("response"); return p.answer }

func spec(phase Phase, f Filter) Spec {
	name := ""
	switch f := f.(type) {
	case *probe:
		name = f.name
	case *responding:
		name = f.name
	}
	return Spec{Name: name, Phase: phase, New: func(*config.Route, *Env) (Filter, error) { return f, nil }}
}

func compile(t *testing.T, specs ...Spec) *Chain {
	t.Helper()
	c, err := Compile(specs, &config.Route{}, &Env{Log: slog.New(slog.DiscardHandler)}, func(string) *telemetry.Filter { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newExchange() *exchange.Exchange { return &exchange.Exchange{Conn: &exchange.Conn{}} }

var refusal = &exchange.Error{Code: exchange.Forbidden, Side: exchange.Client}

func TestFiltersRunInTheOrderOfTheirPhases(t *testing.T) {
	var trail []string
	c := compile(t,
		spec(Compress, &responding{probe: probe{name: "compress", trail: &trail}}),
		spec(Access, &probe{name: "access", trail: &trail}),
		spec(CORS, &responding{probe: probe{name: "cors", trail: &trail}}),
		spec(Access, &probe{name: "access2", trail: &trail}),
	)
	x := newExchange()
	if err := c.Request(x); err != nil {
		t.Fatal(err)
	}
	if err := c.Response(x); err != nil {
		t.Fatal(err)
	}
	want := []string{"cors request", "access request", "access2 request", "compress request", "compress response", "cors response"}
	if !reflect.DeepEqual(trail, want) {
		t.Errorf("got %q", trail)
	}
}

func TestARefusalEndsTheChainAndOnlyTheReachedSeeTheResponse(t *testing.T) {
	var trail []string
	c := compile(t,
		spec(CORS, &responding{probe: probe{name: "cors", trail: &trail}}),
		spec(Access, &responding{probe: probe{name: "access", trail: &trail, verdict: refusal}}),
		spec(Limit, &responding{probe: probe{name: "limit", trail: &trail}}),
	)
	x := newExchange()
	if err := c.Request(x); err != error(refusal) {
		t.Fatalf("got %v", err)
	}
	_ = c.Response(x)
	want := []string{"cors request", "access request", "cors response", "access response"}
	if !reflect.DeepEqual(trail, want) {
		t.Errorf("got %q", trail)
	}
}

func TestAnAnswerEndsTheChain(t *testing.T) {
	var trail []string
	c := compile(t,
		spec(CacheLookup, &probe{name: "cache", trail: &trail, verdict: exchange.Done, shadow: true}),
		spec(TransformRequest, &probe{name: "transform", trail: &trail}),
	)
	x := newExchange()
	if err := c.Request(x); err != exchange.Done || !x.Reply {
		t.Errorf("got %v, reply %v", err, x.Reply)
	}
	if !reflect.DeepEqual(trail, []string{"cache request"}) {
		t.Errorf("got %q", trail)
	}
}

func TestAShadowRefusalGoesOn(t *testing.T) {
	var trail []string
	c := compile(t,
		spec(Access, &responding{probe: probe{name: "shadow", trail: &trail, verdict: refusal, shadow: true}, answer: refusal}),
		spec(Limit, &probe{name: "limit", trail: &trail}),
	)
	x := newExchange()
	if err := c.Request(x); err != nil {
		t.Errorf("request: %v", err)
	}
	if err := c.Response(x); err != nil {
		t.Errorf("response: %v", err)
	}
	if !reflect.DeepEqual(trail, []string{"shadow request", "limit request", "shadow response"}) {
		t.Errorf("got %q", trail)
	}
	if want := []exchange.Shadow{{Filter: "shadow", Refusal: refusal}, {Filter: "shadow", Refusal: refusal}}; !reflect.DeepEqual(x.Shadows, want) {
		t.Errorf("recorded: %v", x.Shadows)
	}
}

func TestAnErrorThatIsNoRefusalIsTheGateways(t *testing.T) {
	var trail []string
	c := compile(t, spec(Access, &probe{name: "broken", trail: &trail, verdict: errors.New("disk")}))
	err := c.Request(newExchange())
	var e *exchange.Error
	if !errors.As(err, &e) || e.Code != exchange.Internal || e.Side != exchange.Gateway {
		t.Errorf("got %v", err)
	}
}

func TestExplainStopsWhereTheRequestWould(t *testing.T) {
	var trail []string
	c := compile(t,
		spec(CORS, &probe{name: "a", trail: &trail, verdict: refusal, shadow: true}),
		spec(Access, &probe{name: "b", trail: &trail}),
		spec(Limit, &probe{name: "c", trail: &trail, verdict: refusal}),
		spec(Validate, &probe{name: "d", trail: &trail}),
	)
	got := c.Explain(newExchange())
	want := []Finding{
		{Phase: "cors", Filter: "a", Mode: "shadow", Verdict: "would_refuse", Reason: "a refuses"},
		{Phase: "access", Filter: "b", Mode: "enforce", Verdict: "allow", Reason: "b agrees"},
		{Phase: "limit", Filter: "c", Mode: "enforce", Verdict: "refuse", Reason: "c refuses", Refusal: refusal},
	}
	if !reflect.DeepEqual(got, want) || len(trail) != 0 {
		t.Errorf("got %+v, and the filters ran: %q", got, trail)
	}
}

func TestAFailedCompileLeavesNothingOpen(t *testing.T) {
	var trail []string
	bad := errors.New("cannot be read")
	_, err := Compile([]Spec{
		spec(Access, &probe{name: "open", trail: &trail}),
		{Name: "bad", New: func(*config.Route, *Env) (Filter, error) { return nil, bad }},
		{Name: "absent", New: func(*config.Route, *Env) (Filter, error) { return nil, nil }},
	}, &config.Route{}, &Env{}, func(string) *telemetry.Filter { return nil })
	if !errors.Is(err, bad) || !strings.HasPrefix(err.Error(), "bad: ") || !reflect.DeepEqual(trail, []string{"open close"}) {
		t.Errorf("%v, %q", err, trail)
	}
}

func TestTheChainNeedsTheMostOfItsFilters(t *testing.T) {
	var trail []string
	whole := spec(Validate, &probe{name: "validate", trail: &trail})
	whole.Body = WholeBody
	c := compile(t, spec(Access, &probe{name: "access", trail: &trail}), whole)
	if c.Body() != WholeBody || c.Len() != 2 || !reflect.DeepEqual(c.Names(), []string{"access", "validate"}) {
		t.Errorf("body %v, %d filters %q", c.Body(), c.Len(), c.Names())
	}
}

func TestFaultsKeepTheirPlaces(t *testing.T) {
	plain, placed := errors.New("plain"), At("rate_limits.a.cost", errors.New("placed"))
	two := errors.Join(At("plans.p.quota", errors.Join(errors.New("one"), errors.New("two"))), errors.New("other"))
	fail := func(name string, err error) Spec {
		return Spec{Name: name, New: func(*config.Route, *Env) (Filter, error) { return nil, err }}
	}
	_, err := Compile([]Spec{fail("a", plain), fail("b", placed), fail("c", two)}, &config.Route{}, &Env{}, nil)
	var got []string
	for _, f := range Faults(err, "routes[0]") {
		got = append(got, f.At+": "+f.Error())
	}
	want := []string{"routes[0]: a: plain", "rate_limits.a.cost: placed", "plans.p.quota: one", "plans.p.quota: two", "routes[0]: other"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

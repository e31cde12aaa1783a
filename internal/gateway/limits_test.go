package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// holder is a filter that has every exchange hold two things.
type holder struct{ trail *[]string }

type hold struct {
	name  string
	trail *[]string
}

func (h hold) Release() { *h.trail = append(*h.trail, "release "+h.name) }

func (f holder) Request(x *exchange.Exchange) error {
	x.Held = append(x.Held, hold{"one", f.trail}, hold{"two", f.trail})
	if x.Request.Header.Get([]byte("X-Refuse")) != nil {
		return &exchange.Error{Code: exchange.RateLimited, Side: exchange.Client}
	}
	return nil
}

func (holder) Explain(*exchange.Exchange) policy.Opinion { return policy.Opinion{} }

// gatewayOf makes a gateway with more filters.
func gatewayOf(t *testing.T, specs []policy.Spec, note func(*exchange.Exchange)) *Gateway {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(telemetry.Options{Logger: quiet, Log: config.Log{Level: "error", Access: config.AccessLog{Output: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Log: quiet, Telemetry: tel, Specs: Builtins(auth.New(auth.Options{}).Specs(), specs), Note: note})
	t.Cleanup(func() { g.Close(); _ = tel.Close(t.Context()) })
	return g
}

func TestWhatAnExchangeHoldsIsGivenBackOnceAndInOrder(t *testing.T) {
	var trail []string
	spec := policy.Spec{Name: "holder", Phase: policy.Limit, New: func(*config.Route, *policy.Env) (policy.Filter, error) { return holder{&trail}, nil }}
	g := gatewayOf(t, []policy.Spec{spec}, func(x *exchange.Exchange) { trail = append(trail, fmt.Sprint("note ", x.Response.Status)) })
	load(t, g, basic)
	for _, c := range []struct {
		x    *exchange.Exchange
		want []string
	}{
		{ask("GET /plain"), []string{"release one", "release two", "note 200"}},
		{ask("GET /plain", "X-Refuse: 1"), []string{"release one", "release two", "note 429"}},
		{ask("GET /nowhere"), []string{"note 404"}},
	} {
		trail = nil
		answered(g, c.x)
		if !reflect.DeepEqual(trail, c.want) || len(c.x.Held) != 0 {
			t.Errorf("%s: %q, holds %v", c.x.Request.RawPath, trail, c.x.Held)
		}
	}
}

const withClients = `
upstreams: {hello: {respond: {body: hello}}}
plans: {gold: {throttle: {rate: 5/s}}, free: {}}
default_plan: free
clients:
  - {id: acme, plan: gold, keys: [{name: current, value: acme-key-written-out}]}
  - {id: other, keys: [{value: key-of-somebody-else}]}
routes: [{path: /, upstream: hello, name: root}]
`

func TestExplainTellsWhoCalls(t *testing.T) {
	g := build(t, withClients)
	for key, want := range map[string]*Caller{
		"acme-key-written-out": {ID: "acme", Plan: "gold", Key: "current"},
		"key-of-somebody-else": {ID: "other", Plan: "free"},
		"key-of-nobody-at-all": nil,
	} {
		e, err := g.Explain(Question{URL: "/", Headers: [][2]string{{"X-Api-Key", key}}})
		if err != nil || !reflect.DeepEqual(e.Caller, want) {
			t.Errorf("%s: %+v, %v", key, e.Caller, err)
		}
	}
}

func TestFaultsOfFiltersAreShownAtTheirPlacesOnce(t *testing.T) {
	spec := policy.Spec{Name: "broken", New: func(_ *config.Route, env *policy.Env) (policy.Filter, error) {
		return nil, errors.Join(
			policy.At("plans.gold.throttle", errors.New("is too large")),
			&policy.Fault{At: env.At + ".rate_limit[0].cost", Code: "config.bad_value", Err: errors.New("is no cost")},
			errors.New("has no idea"),
		)
	}}
	g := gatewayOf(t, []policy.Spec{spec}, nil)
	f, found := config.Parse("test.yaml", []byte(`upstreams: {hello: {respond: {}}}
plans:
  gold: {throttle: {rate: 5/s}}
apis:
  - defaults: {rate_limit: [{rate: 5/s, cost: "2"}]}
    routes:
      - {path: /a, upstream: hello}
      - {path: /b, upstream: hello}
`), config.Env{})
	if found.Err() != nil {
		t.Fatal(found)
	}
	plan, found := g.Prepare(f)
	if plan != nil {
		t.Fatal("it was taken")
	}
	var got []string
	for _, d := range found {
		got = append(got, d.String())
	}
	want := []string{
		"test.yaml:3:10: plans.gold.throttle: is too large (config.policy)",
		"test.yaml:5:41: apis[0].defaults.rate_limit[0].cost: is no cost (config.bad_value)",
		"test.yaml:7:9: apis[0].routes[0]: has no idea (config.policy)",
		"test.yaml:8:9: apis[0].routes[1]: has no idea (config.policy)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// BenchmarkCompile is a reload of 10,000 routes and 10,000 clients.
func BenchmarkCompile(b *testing.B) {
	var text strings.Builder
	text.WriteString("upstreams: {hello: {respond: {}}}\nrate_limits: {a: {rate: 5/s}}\nplans: {gold: {throttle: {rate: 5/s}}}\nclients:\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "  - {id: c%d, plan: gold, keys: [{value: a-key-of-its-own-%08d}]}\n", i, i)
	}
	text.WriteString("routes:\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "  - {name: r%d, path: /r%d, upstream: hello, rate_limit: [a]}\n", i, i)
	}
	f, found := config.Parse("test.yaml", []byte(text.String()), config.Env{})
	if found.Err() != nil {
		b.Fatal(found[:1])
	}
	g := build(b, withClients)
	for b.Loop() {
		p, found := g.Prepare(f)
		if p == nil {
			b.Fatal(found[:1])
		}
		p.Discard()
	}
}

// A client's key, its plan and a route's limit cost no allocation either.
func TestServingALimitedClientDoesNotAllocate(t *testing.T) {
	limits := limit.New(limit.Options{})
	t.Cleanup(func() { _ = limits.Close(context.Background()) })
	g := gatewayOf(t, limits.Specs(), limits.Note)
	load(t, g, `
upstreams: {hello: {respond: {body: hello}}}
plans: {gold: {throttle: {rate: 1000000/s}, quota: {limit: 1000000000, period: day}}}
clients: [{id: acme, plan: gold, keys: [{value: acme-key-written-out}]}]
rate_limits: {per-address: {rate: 1000000/s, per: [ip]}}
routes: [{path: /, upstream: hello, name: root, rate_limit: [per-address, {algorithm: concurrency, limit: 5}]}]
`)
	x, conn, key := ask("GET /"), &exchange.Conn{Peer: netip.MustParseAddrPort("192.0.2.1:4711")}, []byte("acme-key-written-out")
	run := func() {
		x.Reset()
		x.Conn = conn
		x.Start = time.Now()
		r := &x.Request
		r.Method, r.Proto = "GET", exchange.HTTP11
		r.Host, r.Authority, r.RawPath = hostOfTest, hostOfTest, slash
		r.Header.AddID(exchange.XAPIKey, key)
		g.Serve(x)
		if x.Response.Status != 200 || len(x.Limits) != 4 || len(x.Held) != 1 {
			t.Fatalf("%d, limits %v, held %v", x.Response.Status, x.Limits, x.Held)
		}
		_, _ = x.Response.Body.Next()
		_ = x.Response.Body.Close()
		g.Done(x)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

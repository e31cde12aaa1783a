package limit

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// filterOf is the enforced filter of a route, without the chain's own costs.
func filterOf(t testing.TB, e *Engine, f *config.File, list ...any) policy.Filter {
	t.Helper()
	made, err := e.Specs()[0].New(&config.Route{Name: "users", RateLimit: uses(list...)}, &policy.Env{
		Log: e.log, File: f, Route: exchange.Route{API: "public", Name: "users"}, At: "apis[0].routes[0]",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.(policy.Closer).Close() })
	return made
}

// one decides once, with an exchange that is used again and again.
func again(x *exchange.Exchange, start time.Time) {
	conn, caller, route, client := x.Conn, x.Caller, x.Route, x.Client
	x.Reset()
	x.Conn, x.Caller, x.Route, x.Client, x.Start = conn, caller, route, client, start
}

func benchmark(b *testing.B, f policy.Filter, client string) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		x := request(client)
		n := uint32(0)
		start := time.Now()
		for pb.Next() {
			if n++; n%64 == 0 {
				start = time.Now() // the driver's reading of the clock is not the limiter's cost
			}
			x.Start = start
			x.Limits = x.Limits[:0]
			if n%8 == 0 {
				again(x, start)
			}
			if err := f.Request(x); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkFilterLocal(b *testing.B) {
	e := newEngine(b, Options{})
	benchmark(b, filterOf(b, e, &config.File{}, tokens("1000000000/s", 1000000000)), "acme")
}

func BenchmarkFilterLeased(b *testing.B) {
	l := tokens("1000000000/s", 1000000000)
	l.Scope = "leased"
	e := newEngine(b, Options{Shared: newMiddle(4).link("a")})
	benchmark(b, filterOf(b, e, &config.File{}, l), "acme")
}

// BenchmarkFilterPlan is a throttle, a quota and two limits of the route.
func BenchmarkFilterPlan(b *testing.B) {
	e := newEngine(b, Options{})
	f := &config.File{
		RateLimits: map[string]*config.RateLimit{"per-client": tokens("1000000000/s", 1000000000)},
		Plans: map[string]*config.Plan{"standard": {
			Throttle: &config.Throttle{Rate: *rate("1000000000/s")}, Quota: &config.Quota{Limit: 1000000000, Period: "day"},
		}},
		DefaultPlan: "standard",
	}
	benchmark(b, filterOf(b, e, f, "per-client", limited("sliding_window", "1000000000/s", nil)), "acme")
}

func BenchmarkRefusal(b *testing.B) {
	e := newEngine(b, Options{})
	f := filterOf(b, e, &config.File{}, tokens("1/h", 1))
	x := request("acme")
	_ = f.Request(x)
	b.ReportAllocs()
	for b.Loop() {
		again(x, x.Start)
		if f.Request(x) == nil {
			b.Fatal("admitted")
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	e := newEngine(b, Options{})
	f := filterOf(b, e, &config.File{}, tokens("1000000000/s", 1000000000))
	x := request("acme")
	if err := f.Request(x); err != nil {
		b.Fatal(err)
	}
	limits := x.Limits
	b.ReportAllocs()
	for b.Loop() {
		again(x, x.Start)
		x.Limits = limits
		_ = f.(policy.Responder).Response(x)
	}
}

//go:build !race

package limit

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// Race builds are left out: their pools drop at random what is put into them.

func TestAllocNothingWhenAdmitted(t *testing.T) {
	file := &config.File{
		RateLimits:  map[string]*config.RateLimit{"named": tokens("1000000/s", 1000000)},
		Plans:       map[string]*config.Plan{"p": {Throttle: &config.Throttle{Rate: *rate("1000000/s")}, Quota: &config.Quota{Limit: 1000000000, Period: "day"}}},
		DefaultPlan: "p",
	}
	header := tokens("1000000/s", 1000000)
	header.Per = []string{"header:X-Tenant", "query:q", "ip"}
	slots := limited("concurrency", "", func(c *config.RateLimit) { c.Limit = pointer(int64(10)) })
	e := newEngine(t, Options{})
	local := filterOf(t, e, file, "named", header, limited("sliding_window", "1000000/s", nil), limited("leaky_bucket", "1000000/s", nil), slots)
	one := filterOf(t, e, &config.File{}, tokens("1000000/s", 1000000))
	warm := filterOf(t, newEngine(t, Options{Shared: newMiddle(4).link("a")}), file, scoped("leased", tokens("1000000/s", 2000000)))
	tenant, acme, query := []byte("X-Tenant"), []byte("acme"), []byte("q=1")
	for name, f := range map[string]policy.Filter{"several": local, "one": one, "leased": warm} {
		x := request("acme")
		ask := func() {
			again(x, time.Now())
			x.Request.Header.Add(tenant, acme)
			x.Request.Query = query
			if err := f.Request(x); err != nil {
				t.Fatal(err)
			}
			_ = f.(policy.Responder).Response(x)
			for _, h := range x.Held {
				h.Release()
			}
		}
		for range 20000 {
			ask()
		}
		if n := testing.AllocsPerRun(2000, ask); n != 0 {
			t.Errorf("%s: %v allocations for each request", name, n)
		}
	}
}

func TestAllocTwiceWhenRefused(t *testing.T) {
	e := newEngine(t, Options{Shared: newMiddle(1).link("a")})
	for name, list := range map[string][]any{
		"one":     {tokens("1/h", 1)},
		"several": {tokens("1000000/s", 1000000), tokens("1/h", 1), limited("fixed_window", "1000000/s", nil)},
		"exact":   {scoped("exact", tokens("1/h", 1))},
		"leased":  {scoped("leased", tokens("1/h", 2000))},
	} {
		f := filterOf(t, e, &config.File{}, list...)
		x := request(name)
		for range 3000 {
			again(x, time.Now())
			_ = f.Request(x)
		}
		n := testing.AllocsPerRun(200, func() {
			again(x, time.Now())
			if err := f.Request(x); err == nil || exchange.AsError(err).Code != exchange.RateLimited {
				t.Fatal(err)
			}
		})
		if n > 2 {
			t.Errorf("%s: %v allocations for each refusal", name, n)
		}
	}
}

func TestAllocNothingWhenNoted(t *testing.T) {
	e := newEngine(t, Options{})
	x := request("acme")
	if n := testing.AllocsPerRun(1000, func() {
		again(x, time.Now())
		e.Note(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, what := range []string{"clients", "routes"} {
		got, err := e.Hot(what, 5)
		want := map[string]string{"clients": "acme", "routes": "public/users"}[what]
		if err != nil || len(got) != 1 || got[0].Key != want || got[0].Count < 900 {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if _, err := e.Hot("cache", 5); err == nil {
		t.Error("there is no cache yet")
	}
}

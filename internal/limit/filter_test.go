package limit

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestTheFieldsSayWhatIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{
			RateLimits:  map[string]*config.RateLimit{"per-client": tokens("100/s", 200), "a \"b\"": tokens("1/s", 3)},
			Plans:       map[string]*config.Plan{"standard": {Throttle: &config.Throttle{Rate: *rate("50/m"), Burst: pointer(int64(10))}, Quota: &config.Quota{Limit: 1000, Period: "day"}}},
			DefaultPlan: "standard",
		}
		named := newRig(t, Options{}, file, "per-client")
		x := request("")
		if err := named.ask(x); err != nil {
			t.Fatal(err)
		}
		expect(t, x, `"per-client";q=200;w=2`, `"per-client";r=199;t=1`)

		all := newRig(t, Options{}, file, "per-client", "a \"b\"", limited("fixed_window", "300/90s", nil), limited("concurrency", "", func(c *config.RateLimit) { c.Limit = pointer(int64(5)) }))
		x = request("acme")
		x.Response.Header.Add([]byte("ratelimit"), []byte(`"upstream";r=1`))
		if err := all.ask(x); err != nil {
			t.Fatal(err)
		}
		// Half a day is left; the window of 90 s began at noon, 1,764,072,000 being a multiple of 90.
		expect(t, x,
			`"a \"b\"";q=3;w=3, "users.3";q=5, "standard";q=10;w=12, "per-client";q=200;w=2, "users.2";q=300;w=90, "standard.day";q=1000;w=86400`,
			`"a \"b\"";r=2;t=1, "users.3";r=4, "standard";r=9;t=2, "per-client";r=199;t=1, "users.2";r=299;t=90, "standard.day";r=999;t=43200`)
		release(x)
	})
}

func expect(t *testing.T, x *exchange.Exchange, policy, state string) {
	t.Helper()
	if got := header(x, "RateLimit-Policy"); got != policy {
		t.Errorf("RateLimit-Policy\n got %s\nwant %s", got, policy)
	}
	if got := header(x, "RateLimit"); got != state {
		t.Errorf("RateLimit\n got %s\nwant %s", got, state)
	}
}

func TestTheFieldsStandOnRefusalsToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{RateLimits: map[string]*config.RateLimit{"wide": tokens("100/s", 100), "narrow": tokens("6/m", 1)}}
		r := newRig(t, Options{}, file, "wide", "narrow")
		if n := r.admitted(5, "acme"); n != 1 {
			t.Fatalf("%d admitted", n)
		}
		x := request("acme")
		err := r.ask(x)
		if err == nil || err.Code != exchange.RateLimited || err.HTTPStatus() != 429 || err.Side != exchange.Client {
			t.Fatalf("got %v", err)
		}
		if got := fieldOf(err, "Retry-After"); got != "10" {
			t.Errorf("Retry-After %q", got)
		}
		if want := `The limit "narrow" of 6/m is used up. Try again in 10 s.`; err.Detail != want {
			t.Errorf("detail %q", err.Detail)
		}
		narrowFirst := newRig(t, Options{}, file, "narrow", "wide")
		_ = narrowFirst.ask(request("b"))
		time.Sleep(time.Second)
		looked := request("b")
		_ = narrowFirst.ask(looked)
		expect(t, looked, `"narrow";q=1;w=10, "wide";q=100;w=1`, `"narrow";r=0;t=9, "wide";r=100;t=0`)
		// wide was charged once, by the request that was admitted.
		expect(t, x, `"narrow";q=1;w=10, "wide";q=100;w=1`, `"narrow";r=0;t=10, "wide";r=99;t=1`)
	})
}

func TestRetryAfterIsTrue(t *testing.T) {
	for name, c := range map[string]*config.RateLimit{
		"token bucket":   tokens("7/m", 3),
		"leaky bucket":   limited("leaky_bucket", "7/m", func(c *config.RateLimit) { c.Burst = pointer(int64(3)) }),
		"queue":          limited("leaky_bucket", "7/m", func(c *config.RateLimit) { c.Burst, c.Queue, c.MaxWait = pointer(int64(1)), 1, duration("5s") }),
		"fixed window":   limited("fixed_window", "10/90s", nil),
		"sliding window": limited("sliding_window", "10/60s", nil),
		"sliding log":    limited("sliding_log", "10/60s", nil),
	} {
		for _, scope := range []string{"local", "exact"} {
			t.Run(name+" "+scope, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := *c
					c.Scope = scope
					if scope == "exact" && c.Algorithm == "sliding_log" {
						return // the pool of the tests has no log
					}
					r := newRig(t, Options{Shared: newMiddle(1).link("a")}, &config.File{}, &c)
					time.Sleep(7300 * time.Millisecond)
					refused := 0
					for round := range 12 {
						x := request("acme")
						err := r.ask(x)
						if err == nil {
							time.Sleep(time.Duration(round%3) * 700 * time.Millisecond)
							continue
						}
						refused++
						wait, _ := time.ParseDuration(fieldOf(err, "Retry-After") + "s")
						if wait < time.Second {
							t.Fatalf("Retry-After %q", fieldOf(err, "Retry-After"))
						}
						if wait > time.Second {
							time.Sleep(wait - time.Second)
							if r.ask(request("acme")) == nil {
								t.Errorf("admitted %v after the refusal, Retry-After said %v", wait-time.Second, wait)
							}
							time.Sleep(time.Second)
						} else {
							time.Sleep(wait)
						}
						if err := r.ask(request("acme")); err != nil {
							t.Errorf("refused after Retry-After of %v: %v, %s", wait, err, fieldOf(err, "Retry-After"))
						}
					}
					if refused == 0 {
						t.Error("nothing was refused")
					}
				})
			})
		}
	}
}

func TestARefusalChargesNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{
			RateLimits:  map[string]*config.RateLimit{"wide": tokens("1/h", 20), "narrow": tokens("1/h", 3), "log": limited("sliding_log", "20/h", nil)},
			Plans:       map[string]*config.Plan{"p": {Throttle: &config.Throttle{Rate: *rate("1/h"), Burst: pointer(int64(20))}, Quota: &config.Quota{Limit: 20, Period: "week"}}},
			DefaultPlan: "p",
		}
		both := newRig(t, Options{}, file, "wide", "log", "narrow", limited("concurrency", "", func(c *config.RateLimit) { c.Limit = pointer(int64(1)) }))
		for range 50 {
			x := request("acme")
			_ = both.ask(x)
			release(x)
		}
		wide := compileRoute(t, both.e, file, &config.Route{Name: "wide", RateLimit: uses("wide")}, new(sync.Map))
		defer func() { _ = wide.Close() }()
		x := request("acme")
		if err := wide.Request(x); err != nil {
			t.Fatal(err)
		}
		_ = wide.Response(x)
		// 3 were admitted before, this is the fourth; the log was not asked here.
		expect(t, x, `"p.week";q=20;w=604800, "p";q=20;w=72000, "wide";q=20;w=72000`, `"p.week";r=16;t=388800, "p";r=16;t=14400, "wide";r=16;t=14400`)
	})
}

func TestTheQuotaWinsAndTheLongestWaitStands(t *testing.T) {
	bubbleAt(t, late, func(t *testing.T) {
		file := &config.File{
			Plans:       map[string]*config.Plan{"p": {Quota: &config.Quota{Limit: 2, Period: "day"}}},
			DefaultPlan: "p",
		}
		r := newRig(t, Options{}, file, tokens("2/m", 2), tokens("1/m", 5))
		if n := r.admitted(3, "acme"); n != 2 {
			t.Fatalf("%d admitted", n)
		}
		err := r.ask(request("acme"))
		if err == nil || err.Code != exchange.QuotaExceeded || err.HTTPStatus() != 429 {
			t.Fatalf("got %v", err)
		}
		if got := fieldOf(err, "Retry-After"); got != "120" {
			t.Errorf("Retry-After %q", got)
		}
		if want := `The quota "p.day" of 2 requests a day is used up. Try again in 120 s.`; err.Detail != want {
			t.Errorf("detail %q", err.Detail)
		}
		time.Sleep(2 * time.Minute)
		if err := r.ask(request("acme")); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}

func TestCosts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cost := func(c string) *config.RateLimit {
			l := tokens("1/h", 10)
			l.Cost.Text = c
			return l
		}
		for c, want := range map[string]int{"1": 10, "2": 5, "3": 3, "0.5": 20, "10": 1, "0": 100} {
			if n := newRig(t, Options{}, &config.File{}, cost(c)).admitted(100, "acme"); n != want {
				t.Errorf("cost %s: %d admitted, want %d", c, n, want)
			}
		}
		// Above the capacity waiting does not help.
		r := newRig(t, Options{}, &config.File{}, cost("11"))
		x := request("acme")
		err := r.ask(x)
		if err == nil || err.Code != exchange.RateLimited || err.Header != nil || !strings.Contains(err.Detail, `"users.0"`) {
			t.Errorf("got %v, %v", err, err.Header)
		}
		expect(t, x, `"users.0";q=10;w=36000`, `"users.0";r=10;t=0`)
	})
}

func TestCostsOfExpressions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := tokens("1/h", 10)
		l.Cost.Text = `int(request.headers["x-cost"])`
		for header, want := range map[string]int{"1": 10, "4": 2, "-3": 10, "nonsense": 10, "": 10} {
			r := newRig(t, Options{}, &config.File{}, l)
			n := 0
			for range 40 {
				x := request("acme")
				x.Request.Method = "GET"
				x.Request.Header.Add([]byte("X-Cost"), []byte(header))
				if r.ask(x) == nil {
					n++
				}
			}
			if n != want {
				t.Errorf("X-Cost %q: %d admitted, want %d", header, n, want)
			}
		}
	})
}

func TestNamedLimitsAreSharedAndInlineOnesAreNot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{RateLimits: map[string]*config.RateLimit{"all": tokens("1/h", 4)}}
		e := newEngine(t, Options{})
		var common sync.Map
		inline := tokens("1/h", 3)
		chains := map[string]*policy.Chain{}
		for _, name := range []string{"a", "b"} {
			chains[name] = compileRoute(t, e, file, &config.Route{Name: name, RateLimit: uses("all", inline)}, &common)
		}
		count := func(chain *policy.Chain) (n int) {
			for range 10 {
				if chain.Request(request("acme")) == nil {
					n++
				}
			}
			return n
		}
		if a, b := count(chains["a"]), count(chains["b"]); a != 3 || b != 1 {
			t.Errorf("a %d, b %d", a, b)
		}
		for _, c := range chains {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if n := len(e.registry.all()); n != 0 {
			t.Errorf("%d counters are left", n)
		}
	})
}

func TestKeysAreCountedApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		per := func(words ...string) *config.RateLimit {
			l := tokens("1/h", 1)
			l.Per = words
			return l
		}
		client := newRig(t, Options{}, &config.File{}, per("client"))
		one, two := request(""), request("")
		one.Client, two.Client = netip.MustParseAddr("2001:db8:0:1::1"), netip.MustParseAddr("2001:db8:0:1:ffff::2")
		other := request("")
		other.Client = netip.MustParseAddr("2001:db8:0:2::1")
		named := request("2001:db8:0:1::/64")
		for i, c := range []struct {
			x  *exchange.Exchange
			ok bool
		}{{one, true}, {two, false}, {other, true}, {named, true}, {request("acme"), true}, {request("acme"), false}, {request("b"), true}} {
			if got := client.ask(c.x) == nil; got != c.ok {
				t.Errorf("request %d: admitted %v", i, got)
			}
		}
		tenant := newRig(t, Options{}, &config.File{}, per("header:X-Tenant", "attribute:tier"))
		with := func(tenant string) *exchange.Exchange {
			x := request("acme")
			if tenant != "" {
				x.Request.Header.Add([]byte("x-tenant"), []byte(tenant))
			}
			return x
		}
		for i, c := range []struct {
			x  *exchange.Exchange
			ok bool
		}{{with("a"), true}, {with("a"), false}, {with("b"), true}, {with(""), true}, {with(""), false}} {
			if got := tenant.ask(c.x) == nil; got != c.ok {
				t.Errorf("tenant %d: admitted %v", i, got)
			}
		}
	})
}

func TestPlans(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{
			Plans: map[string]*config.Plan{
				"small": {Throttle: &config.Throttle{Rate: *rate("1/h"), Burst: pointer(int64(2))}},
				"large": {
					Throttle: &config.Throttle{Rate: *rate("1/h"), Burst: pointer(int64(5))},
					Routes:   map[string]*config.PlanRoute{"users": {Throttle: &config.Throttle{Rate: *rate("1/h"), Burst: pointer(int64(3))}}},
				},
				"bound": {APIs: []string{"private"}},
			},
		}
		r := newRig(t, Options{}, file)
		elsewhere := compileRoute(t, r.e, file, &config.Route{Name: "orders"}, new(sync.Map))
		defer func() { _ = elsewhere.Close() }()
		of := func(client, plan string) *exchange.Exchange {
			x := request(client)
			x.Caller.Plan = plan
			return x
		}
		count := func(c *policy.Chain, client, plan string) (n int) {
			for range 10 {
				if c.Request(of(client, plan)) == nil {
					n++
				}
			}
			return n
		}
		for i, c := range []struct {
			chain        *policy.Chain
			client, plan string
			want         int
		}{
			{r.chain, "a", "small", 2}, {elsewhere, "a", "small", 0}, // one throttle over all routes
			{r.chain, "b", "large", 3}, {elsewhere, "b", "large", 5}, // one of its own on users
			{r.chain, "c", "", 10}, // no default plan: no limits
		} {
			if n := count(c.chain, c.client, c.plan); n != c.want {
				t.Errorf("%d: %d admitted, want %d", i, n, c.want)
			}
		}
		if n := r.admitted(10, ""); n != 10 {
			t.Errorf("an anonymous client: %d admitted", n)
		}
		x := of("b", "large")
		if err := r.ask(x); err == nil || !strings.Contains(err.Detail, `"large.users" of 1/h`) {
			t.Errorf("got %v", err)
		}
		for plan, detail := range map[string]string{"gone": noPlan.Detail, "bound": noAPI.Detail} {
			err := r.ask(of("d", plan))
			if err == nil || err.Code != exchange.Forbidden || err.Detail != detail {
				t.Errorf("plan %s: %v", plan, err)
			}
		}
		if log := r.log.String(); strings.Count(log, "a client has a plan that does not exist") != 1 || !strings.Contains(log, "plan=gone") {
			t.Errorf("log: %s", log)
		}
	})
}

func TestShadowLimitsCountApartAndRefuseNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shadow := tokens("1/h", 2)
		shadow.Mode = "shadow"
		r := newRig(t, Options{}, &config.File{RateLimits: map[string]*config.RateLimit{"strict": shadow, "soft": tokens("1/h", 4)}}, "strict", "soft")
		would := 0
		for range 4 {
			x := request("acme")
			if err := r.ask(x); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(header(x, "RateLimit-Policy"), "strict") || !strings.Contains(header(x, "RateLimit"), `"soft"`) {
				t.Errorf("RateLimit-Policy: %s", header(x, "RateLimit-Policy"))
			}
			for _, s := range x.Shadows {
				would++
				if s.Filter != "rate_limit" || s.Refusal.Code != exchange.RateLimited {
					t.Errorf("recorded %v", s)
				}
			}
		}
		if would != 2 {
			t.Errorf("%d would have been refused", would)
		}
		x := request("acme")
		if r.ask(x) == nil || len(x.Shadows) != 0 {
			t.Error("the enforced limit refuses, and the shadow does not see it")
		}
		if c := r.e.registry.series["strict"]; c.verdicts[wouldRefuse].Load() != 2 || c.verdicts[refused].Load() != 0 || c.verdicts[allow].Load() != 2 {
			t.Errorf("counted %v", c)
		}
	})
}

func TestAQueueWaitsItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := limited("leaky_bucket", "2/s", func(c *config.RateLimit) {
			c.Burst, c.Queue, c.MaxWait = pointer(int64(1)), 10, duration("1s")
		})
		r := newRig(t, Options{}, &config.File{}, l)
		var wg sync.WaitGroup
		began := time.Now()
		took := make([]time.Duration, 5)
		refused := make([]string, 5)
		for i := range took {
			x := request("acme")
			x.Start = began.Add(time.Duration(i)) // one after the other
			wg.Go(func() {
				if err := r.chain.Request(x); err != nil {
					refused[i] = fieldOf(exchange.AsError(err), "Retry-After")
				}
				took[i] = time.Since(began).Round(time.Millisecond)
			})
		}
		wg.Wait()
		slices.Sort(took)
		if want := []time.Duration{0, 0, 0, 500 * time.Millisecond, time.Second}; !slices.Equal(took, want) {
			t.Errorf("waited %v", took)
		}
		slices.Sort(refused)
		if want := []string{"", "", "", "1", "1"}; !slices.Equal(refused, want) {
			t.Errorf("refused %q", refused)
		}
	})
}

func TestAClientThatGoesAwayLeavesTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := limited("leaky_bucket", "1/m", func(c *config.RateLimit) {
			c.Burst, c.Queue, c.MaxWait = pointer(int64(1)), 1, duration("2m")
		})
		r := newRig(t, Options{}, &config.File{}, l, tokens("1/h", 2))
		if n := r.admitted(1, "acme"); n != 1 {
			t.Fatal("the first is refused")
		}
		x := request("acme")
		var wg sync.WaitGroup
		wg.Go(func() {
			err := r.chain.Request(x)
			if e := exchange.AsError(err); e.Code != exchange.ClientGone {
				t.Errorf("got %v", err)
			}
		})
		time.Sleep(time.Second)
		x.Cancel()
		wg.Wait()
		if took := time.Since(begins); took != time.Second {
			t.Errorf("it left after %v", took)
		}
		time.Sleep(59 * time.Second)
		// Its turn is the next one's, and the bucket was not charged for it.
		if n := r.admitted(1, "acme"); n != 1 {
			t.Error("what it took was not given back")
		}
	})
}

func TestSlotsAreHeldUntilTheEnd(t *testing.T) {
	for _, scope := range []string{"local", "exact"} {
		t.Run(scope, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newMiddle(1)
				l := limited("concurrency", "", func(c *config.RateLimit) { c.Limit, c.Scope = pointer(int64(2)), scope })
				r := newRig(t, Options{Shared: m.link("a")}, &config.File{}, l)
				one, two, three := request("acme"), request("acme"), request("acme")
				if r.ask(one) != nil || r.ask(two) != nil {
					t.Fatal("refused")
				}
				expect(t, two, `"users.0";q=2`, `"users.0";r=0`)
				err := r.ask(three)
				if err == nil || fieldOf(err, "Retry-After") != "1" || err.Detail != `The limit "users.0" of 2 requests at one time is used up. Try again in 1 s.` {
					t.Fatalf("got %v", err)
				}
				if len(three.Held) != 0 {
					t.Error("a refused request holds something")
				}
				release(one)
				time.Sleep(time.Millisecond)
				if err := r.ask(three); err != nil {
					t.Errorf("behind a release: %v", err)
				}
				release(two)
				release(three)
				time.Sleep(time.Second)
				if n := m.slotsHeld(); n != 0 {
					t.Errorf("%d slots are held", n)
				}
			})
		})
	}
}

func TestExplainChargesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{Plans: map[string]*config.Plan{"p": {Quota: &config.Quota{Limit: 5, Period: "day"}}}, DefaultPlan: "p"}
		r := newRig(t, Options{}, file, tokens("1/h", 1))
		for range 5 {
			got := r.chain.Explain(request("acme"))
			want := "p.day counts c:/acme: 4 of 5 left behind it; users.0 counts c:/acme: 0 of 1 left behind it"
			if len(got) != 1 || got[0].Verdict != "allow" || got[0].Reason != want {
				t.Fatalf("got %+v", got)
			}
		}
		if err := r.ask(request("acme")); err != nil {
			t.Fatal(err)
		}
		got := r.chain.Explain(request("acme"))
		want := "p.day counts c:/acme: 3 of 5 left behind it; users.0 counts c:/acme: 0 of 1 left, refused for 1h0m0s"
		if got[0].Verdict != telemetry.Refused.String() || got[0].Reason != want || got[0].Refusal.Code != exchange.RateLimited {
			t.Errorf("got %+v", got)
		}
	})
}

func TestErrorsNameTheirPlace(t *testing.T) {
	wrong := tokens("1/s", 1)
	wrong.Per = []string{"header:"}
	huge := tokens("1000000000000/s", 1<<50)
	file := &config.File{
		RateLimits: map[string]*config.RateLimit{"a.b": wrong, "huge": huge},
		Plans:      map[string]*config.Plan{"p": {Throttle: &config.Throttle{Rate: *rate("1000000000000/s"), Burst: pointer(int64(1 << 50))}}},
	}
	cost := tokens("1/s", 1)
	cost.Cost.Text = "bad("
	e := newEngine(t, Options{})
	_, err := policy.Compile(e.Specs(), &config.Route{Name: "r", RateLimit: uses("huge", cost)}, &policy.Env{Log: e.log, File: file, At: "routes[0]"}, nil)
	got := map[string]string{}
	for _, f := range policy.Faults(err, "?") {
		got[f.At] = f.Error()
	}
	want := []string{`plans.p.throttle.rate`, `rate_limits.huge.rate`, `rate_limits["a.b"].per[0]`, `routes[0].rate_limit[1].cost`}
	if at := slices.Sorted(maps.Keys(got)); !slices.Equal(at, want) {
		t.Errorf("got %q", got)
	}
	if n := len(e.registry.all()); n != 0 {
		t.Errorf("%d counters are left", n)
	}
}

func TestTheFastKeyIsTheKey(t *testing.T) {
	long := strings.Repeat("a", 117)
	for _, c := range []*exchange.Caller{
		nil,
		{},
		{ID: "acme"},
		{Authenticator: "staff", ID: "a.b_c~d-e"},
		{ID: "a/b"},
		{Authenticator: "a:b", ID: "x"},
		{ID: "ä"},
		{ID: long},
		{ID: long + "a"},
		{Authenticator: long, ID: "a"},
		{ID: long[:116] + "/"},
	} {
		x := request("")
		x.Caller = c
		if got, want := string(clientOf(nil, x)), string(appendClient(nil, x)); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}

package limit

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func scoped(scope string, c *config.RateLimit) *config.RateLimit {
	c.Scope = scope
	return c
}

// gateways makes routes of several gateways on one store.
func gateways(t *testing.T, n int, file *config.File, list ...any) (*middle, []*rig, []*link) {
	t.Helper()
	m := newMiddle(n)
	var rigs []*rig
	var links []*link
	for i := range n {
		l := m.link(fmt.Sprintf("gateway-%d", i))
		links = append(links, l)
		rigs = append(rigs, newRig(t, Options{Shared: l}, file, list...))
	}
	return m, rigs, links
}

func TestExactLimitsAdmitTheLimitOverAllGateways(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 3, &config.File{}, scoped("exact", tokens("1/m", 30)))
		var in atomic.Int64
		var wg sync.WaitGroup
		for _, r := range rigs {
			for range 10 {
				wg.Go(func() { in.Add(int64(r.admitted(5, "acme"))) })
			}
		}
		wg.Wait()
		if in.Load() != 30 {
			t.Errorf("%d admitted", in.Load())
		}
		// Who is refused is not asked for again, however many come.
		before := links[0].takes.Load()
		if n := rigs[0].admitted(1000, "acme"); n != 0 {
			t.Errorf("%d admitted more", n)
		}
		if calls := links[0].takes.Load() - before; calls > 1 {
			t.Errorf("%d calls for refused requests", calls)
		}
		err := rigs[0].ask(request("acme"))
		if got := fieldOf(err, "Retry-After"); got != "60" {
			t.Errorf("Retry-After %q", got)
		}
		time.Sleep(time.Minute)
		if n := rigs[0].admitted(2, "acme"); n != 1 {
			t.Errorf("%d admitted a minute later", n)
		}
	})
}

func TestExactLimitsOfARequestAreOneCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 1, &config.File{}, scoped("exact", tokens("1/m", 30)), scoped("exact", tokens("1/m", 2)), tokens("1/m", 100))
		x := request("acme")
		if err := rigs[0].ask(x); err != nil || links[0].takes.Load() != 1 {
			t.Fatalf("%v, %d calls", err, links[0].takes.Load())
		}
		expect(t, x, `"users.1";q=2;w=120, "users.0";q=30;w=1800, "users.2";q=100;w=6000`, `"users.1";r=1;t=60, "users.0";r=29;t=60, "users.2";r=99;t=60`)
		_ = rigs[0].admitted(20, "acme")
		time.Sleep(time.Minute)
		x = request("acme")
		if err := rigs[0].ask(x); err != nil {
			t.Fatal(err)
		}
		// Of the wide ones only what was admitted is charged: 3, of which one is back.
		expect(t, x, `"users.1";q=2;w=120, "users.0";q=30;w=1800, "users.2";q=100;w=6000`, `"users.1";r=0;t=120, "users.0";r=28;t=120, "users.2";r=98;t=120`)
	})
}

func TestWarmLeasesMakeNoCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 2, &config.File{}, scoped("leased", tokens("10000/s", 20000)))
		in, n := 0, 0
		for range 3000 { // 1000/s and 500/s, for 3 s
			time.Sleep(time.Millisecond)
			in += rigs[0].admitted(1, "acme")
			n++
			if n%2 == 0 {
				in += rigs[1].admitted(1, "acme")
			}
		}
		if in != 4500 {
			t.Errorf("%d of 4500 admitted", in)
		}
		calls := links[0].settles.Load() + links[1].settles.Load() + links[0].takes.Load()
		if calls > 150 {
			t.Errorf("%d calls for 4500 requests", calls)
		}
		// What nobody uses any more goes back.
		time.Sleep(3 * time.Second)
		for i, r := range rigs {
			r.e.registry.all()[0].table.all(func(e *entry) bool {
				if x := e.extra.Load(); x != nil && x.lease.Held() != 0 {
					t.Errorf("gateway %d holds %d", i, x.lease.Held())
				}
				return true
			})
		}
	})
}

func TestLeasesKeepTheBound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, _ := gateways(t, 4, &config.File{}, scoped("leased", tokens("5000/s", 5000)))
		var in atomic.Int64
		var wg sync.WaitGroup
		const seconds = 3
		for i, r := range rigs {
			wg.Go(func() {
				for range seconds * 1000 {
					time.Sleep(time.Millisecond)
					in.Add(int64(r.admitted(1+5*(3-i), "acme"))) // 16, 11, 6 and 1 a millisecond
				}
			})
		}
		wg.Wait()
		most := int64(5000*1.01) + seconds*5000
		if n := in.Load(); n > most || n < most*97/100 {
			t.Errorf("%d admitted, at most %d", n, most)
		}
	})
}

func TestARequestThatFindsNothingWaitsForTheCallOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMiddle(2)
		l := m.link("a")
		l.delay = 2 * time.Millisecond
		r := newRig(t, Options{Shared: l}, &config.File{}, scoped("leased", tokens("10000/s", 20000)))
		var wg sync.WaitGroup
		var in, late atomic.Int64
		began := time.Now()
		for range 100 {
			wg.Go(func() {
				in.Add(int64(r.admitted(1, "acme")))
				if took := time.Since(began); took > 5*time.Millisecond {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if in.Load() != 100 || late.Load() > 0 || l.settles.Load() > 3 {
			t.Errorf("%d admitted, %d late, %d calls", in.Load(), late.Load(), l.settles.Load())
		}
	})
}

func TestSmallLeasedLimitsAreExact(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, rigs, links := gateways(t, 2, &config.File{}, scoped("leased", tokens("10/s", 1500)))
		if n := rigs[0].admitted(3, "acme"); n != 3 || links[0].takes.Load() != 3 || links[0].settles.Load() != 0 {
			t.Errorf("%d admitted, %d and %d calls", n, links[0].takes.Load(), links[0].settles.Load())
		}
		// With one gateway less 1 % of it is enough.
		m.peers.Store(1)
		time.Sleep(time.Second)
		if n := rigs[0].admitted(3, "acme"); n != 3 || links[0].takes.Load() != 4 || links[0].settles.Load() == 0 {
			t.Errorf("%d admitted, %d and %d calls", n, links[0].takes.Load(), links[0].settles.Load())
		}
	})
}

func TestClosingGivesLeasesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMiddle(2)
		file, list := &config.File{}, scoped("leased", tokens("1/h", 20000))
		one := newRig(t, Options{Shared: m.link("a")}, file, list)
		for range 200 {
			time.Sleep(time.Millisecond)
			one.admitted(10, "acme")
		}
		one.close()
		closeEngine(t, one.e)
		two := newRig(t, Options{Shared: m.link("b")}, file, list)
		x := request("acme")
		if err := two.ask(x); err != nil {
			t.Fatal(err)
		}
		expect(t, x, `"users.0";q=20000;w=72000000`, `"users.0";r=17999;t=7203600`)
	})
}

func TestFaults(t *testing.T) {
	for _, scope := range []string{"exact", "leased"} {
		for fault, want := range map[string]int{"local": 50, "open": 1000, "closed": 0} {
			t.Run(scope+" "+fault, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					l := scoped(scope, tokens("1/m", 100))
					l.MaxOvershoot.Of, l.OnFault = 1, fault
					_, rigs, links := gateways(t, 2, &config.File{}, l)
					r, link := rigs[0], links[0]
					link.set(false)
					if n := r.admitted(1000, "acme"); n != want {
						t.Errorf("%d admitted, want %d", n, want)
					}
					err := r.ask(request("acme"))
					switch {
					case fault == "closed" && (err == nil || err.Code != exchange.DependencyUnavailable || err.HTTPStatus() != 503):
						t.Errorf("closed: %v", err)
					case fault == "local" && (err == nil || err.Code != exchange.RateLimited || fieldOf(err, "Retry-After") == ""):
						t.Errorf("local: %v", err)
					}
					link.set(true)
					time.Sleep(2 * time.Second)
					// What was decided here is known there now.
					left := map[string]int{"local": 50, "open": 100, "closed": 100}[fault]
					if n := rigs[1].admitted(1000, "acme"); n != left {
						t.Errorf("%d admitted by the other gateway, want %d", n, left)
					}
					log := r.log.String()
					if strings.Count(log, "cannot be reached") != 1 || strings.Count(log, "can be reached again") != 1 {
						t.Errorf("log: %s", log)
					}
				})
			})
		}
	}
}

func TestWhatIsHeldLastsThroughAFault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := scoped("leased", tokens("10000/s", 20000))
		l.OnFault = "closed"
		_, rigs, links := gateways(t, 1, &config.File{}, l)
		for range 500 {
			time.Sleep(time.Millisecond)
			rigs[0].admitted(1, "acme")
		}
		links[0].set(false)
		if n := rigs[0].admitted(50, "acme"); n != 50 {
			t.Errorf("%d of 50 admitted", n)
		}
		time.Sleep(3 * time.Second)
		if n := rigs[0].admitted(1, "acme"); n != 0 {
			t.Error("a lease outlived its time")
		}
	})
}

func TestSlotsOfTheStoreAreRenewedAndSurviveAFault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := limited("concurrency", "", func(c *config.RateLimit) { c.Limit, c.Scope = pointer(int64(4)), "exact" })
		m, rigs, links := gateways(t, 1, &config.File{}, l)
		x := request("acme")
		if err := rigs[0].ask(x); err != nil {
			t.Fatal(err)
		}
		before := links[0].posts.Load()
		time.Sleep(5 * time.Second)
		if n := links[0].posts.Load() - before; n < 4 || n > 5 {
			t.Errorf("%d renewals in 5 s", n)
		}
		links[0].set(false)
		release(x) // nobody can be told now
		time.Sleep(5 * time.Second)
		links[0].set(true)
		time.Sleep(time.Second)
		if n := m.slotsHeld(); n != 0 {
			t.Errorf("%d slots are still held", n)
		}
	})
}

func TestOneLateCallDoesNotEmptyTheSpareTable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 1, &config.File{}, scoped("exact", tokens("1/h", 10)))
		in := 0
		for i := range 100 {
			links[0].down.Store(i%2 == 1) // every second call fails, and the breaker stays closed
			in += rigs[0].admitted(1, "acme")
			time.Sleep(100 * time.Millisecond)
		}
		links[0].down.Store(false)
		if in != 20 {
			t.Errorf("%d admitted, want the limit by the store and the limit here", in)
		}
	})
}

func TestRequestsOfManyCoresAndReloads(t *testing.T) {
	m := newMiddle(2)
	file := &config.File{
		RateLimits: map[string]*config.RateLimit{
			"here": tokens("1000/s", 1000), "leased": scoped("leased", tokens("100000/s", 200000)), "exact": scoped("exact", tokens("100000/s", 200000)),
			"slots": limited("concurrency", "", func(c *config.RateLimit) { c.Limit, c.Scope = pointer(int64(100)), "exact" }),
		},
		Plans:       map[string]*config.Plan{"p": {Throttle: &config.Throttle{Rate: *rate("100000/s")}, Quota: &config.Quota{Limit: 1000000, Period: "month"}}},
		DefaultPlan: "p",
	}
	link := m.link("a")
	r := newRig(t, Options{Shared: link}, file, "here", "leased", "exact", "slots", tokens("1/s", 1000))
	var mu sync.RWMutex
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			x := request("")
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				again(x, time.Now())
				x.Caller = &exchange.Caller{ID: fmt.Sprint(i % 7)}
				x.Conn = &exchange.Conn{Shard: uint32(g)}
				mu.RLock()
				_ = r.ask(x)
				release(x)
				mu.RUnlock()
			}
		})
	}
	for i := range 20 {
		time.Sleep(10 * time.Millisecond)
		if i%5 == 4 {
			link.set(i%2 == 0)
		}
		mu.Lock()
		old := r.chain
		r.compile()
		mu.Unlock()
		if err := old.Close(); err != nil {
			t.Error(err)
		}
	}
	link.set(true)
	close(stop)
	wg.Wait()
}

func TestAnUnchangedLimitKeepsItsCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		file := &config.File{RateLimits: map[string]*config.RateLimit{"a": tokens("1/h", 10)}}
		r := newRig(t, Options{}, file, "a", tokens("1/h", 20))
		if n := r.admitted(6, "acme"); n != 6 {
			t.Fatal(n)
		}
		old := r.chain
		r.file = &config.File{RateLimits: map[string]*config.RateLimit{"a": tokens("1/h", 10), "b": tokens("1/s", 1)}}
		r.compile()
		_ = old.Close()
		if n := r.admitted(20, "acme"); n != 4 {
			t.Errorf("%d admitted behind the reload, 4 were left", n)
		}
		old = r.chain
		r.file = &config.File{RateLimits: map[string]*config.RateLimit{"a": tokens("1/h", 11)}}
		r.compile()
		_ = old.Close()
		x := request("acme")
		if err := r.ask(x); err != nil {
			t.Fatal(err)
		}
		// The other begins anew; the one in place goes on: 10 were counted.
		expect(t, x, `"users.1";q=20;w=72000, "a";q=11;w=39600`, `"users.1";r=9;t=39600, "a";r=10;t=3600`)
		synctest.Wait()
	})
}

func TestWhatIsPostedLateHasLeaked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for fault, c := range map[string]struct {
			limit *config.RateLimit
			away  time.Duration // from the requests to the store's return
			left  int
		}{
			"a bucket leaks at this gateway's share": {tokens("60/m", 100), 10 * time.Second, 55},
			"a bucket is full again":                 {tokens("60/m", 100), 10 * time.Minute, 100},
			"a window goes on":                       {limited("fixed_window", "100/m", nil), 10 * time.Second, 50},
			"a window is over":                       {limited("fixed_window", "100/m", nil), time.Minute, 100},
		} {
			time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
			c.limit.Scope = "exact"
			_, rigs, links := gateways(t, 2, &config.File{}, c.limit)
			links[0].set(false)
			if n := rigs[0].admitted(100, "acme"); n != 50 {
				t.Errorf("%s: %d admitted meanwhile", fault, n)
			}
			time.Sleep(c.away)
			links[0].set(true)
			time.Sleep(900 * time.Millisecond)
			if n := rigs[1].admitted(200, "acme"); n != c.left {
				t.Errorf("%s: %d admitted, want %d", fault, n, c.left)
			}
		}
		l, err := (&Engine{}).rule(&config.File{}, tokens("60/m", 100), "x", "", "x")
		if err != nil {
			t.Fatal(err)
		}
		at := begins.UnixNano()
		for wait, want := range map[time.Duration]int64{0: 50, time.Second: 49, -time.Second: 50, 20 * time.Second: 30, time.Hour: 0} {
			if got := (owed{limit: &l.limit, cost: 50, at: at}).aged(at + int64(wait)); got != want {
				t.Errorf("of 50, %d are left after %v, want %d", got, wait, want)
			}
			if got := (owed{limit: &l.limit, cost: -50, at: at}).aged(at + int64(wait)); got != -want {
				t.Errorf("of 50, %d are given back after %v, want %d", -got, wait, want)
			}
		}
	})
}

func TestKeysThatComeOnceLeaveNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 1, &config.File{}, scoped("leased", tokens("10000/s", 10000)))
		for i := range 5000 {
			if n := rigs[0].admitted(1, fmt.Sprint("client-", i)); n != 1 {
				t.Fatal("refused")
			}
		}
		if takes, settles := links[0].takes.Load(), links[0].settles.Load(); takes != 5000 || settles != 0 {
			t.Errorf("%d takes and %d settlements", takes, settles)
		}
		for _, c := range rigs[0].e.registry.all() {
			if n := c.table.len(); n != 0 {
				t.Errorf("%d keys are kept", n)
			}
		}
		// Who comes again gets a lease.
		for range 1000 {
			time.Sleep(time.Millisecond)
			if n := rigs[0].admitted(1, "client-1"); n != 1 {
				t.Fatal("refused")
			}
		}
		if n := links[0].settles.Load(); n == 0 || n > 100 {
			t.Errorf("%d settlements for 1,000 requests of one client", n)
		}
	})
}

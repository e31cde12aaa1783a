package apptest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// sharedConfig is limits by key in a Redis, which is given time to answer: what is
// tested here is what it says.
const sharedConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {max_connections: 0}
state: {redis: {addresses: @REDIS@, timeout: 2s}}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
rate_limits:
  exact: {rate: 200/s, burst: 50, per: ["header:X-Api-Key"], scope: exact}
  exact-1000: {rate: 1000/s, burst: 100, per: ["header:X-Api-Key"], scope: exact}
  small: {rate: 100/s, burst: 50, per: ["header:X-Api-Key"], scope: leased}
  leased-400: {rate: 400/s, per: ["header:X-Api-Key"], scope: leased, max_overshoot: 10%}
  leased-1000: {rate: 1000/s, per: ["header:X-Api-Key"], scope: leased, max_overshoot: 5%}
  leased-10000-1: {rate: 10000/s, per: ["header:X-Api-Key"], scope: leased, max_overshoot: 1%}
  leased-10000-5: {rate: 10000/s, per: ["header:X-Api-Key"], scope: leased, max_overshoot: 5%}
  windows: {algorithm: fixed_window, rate: 20000/2s, per: ["header:X-Api-Key"], scope: leased, max_overshoot: 1%}
routes:
  - {path: /exact, rate_limit: [exact], upstream: ok}
  - {path: /exact-1000, rate_limit: [exact-1000], upstream: ok}
  - {path: /small, rate_limit: [small], upstream: ok}
  - {path: /leased-400, rate_limit: [leased-400], upstream: ok}
  - {path: /leased-1000, rate_limit: [leased-1000], upstream: ok}
  - {path: /leased-10000-1, rate_limit: [leased-10000-1], upstream: ok}
  - {path: /leased-10000-5, rate_limit: [leased-10000-5], upstream: ok}
  - {path: /windows, rate_limit: [windows], upstream: ok}
`

// sharedLoad is one key's load on four gateways, seven tenths of it on one.
type sharedLoad struct {
	path     string
	rate     int64   // of the limit, per second
	burst    int64   // of the limit
	asked    float64 // of what the limit allows
	length   time.Duration
	over     float64 // by which share of the capacity admissions may exceed the limit
	short    float64 // share of requests that may be refused although one counter would admit them
	scripts  float64 // scripts that Redis may run for a request
	eachOnce bool    // it runs one for each that is admitted, and at most one for a refusal
}

// TestSharedLimits has four gateways with unevenly spread traffic share limits
// through one Redis: nothing is admitted above what was promised, little is
// refused that one counter would admit, and large limits ask Redis seldom.
func TestSharedLimits(t *testing.T) {
	loads := []sharedLoad{
		{path: "/exact", rate: 200, burst: 50, asked: 1.5, length: 2 * time.Second, eachOnce: true},
		{path: "/small", rate: 100, burst: 50, asked: 1.5, length: 2 * time.Second, eachOnce: true},
		{path: "/leased-1000", rate: 1000, burst: 1000, asked: 1.5, length: 4 * time.Second, over: 0.05, short: 0.05, scripts: 0.2},
	}
	if *long {
		loads = []sharedLoad{
			{path: "/exact-1000", rate: 1000, burst: 100, asked: 1.5, length: 15 * time.Second, eachOnce: true},
			{path: "/small", rate: 100, burst: 50, asked: 1.5, length: 15 * time.Second, eachOnce: true},
			{path: "/leased-1000", rate: 1000, burst: 1000, asked: 1.5, length: 15 * time.Second, over: 0.05, short: 0.05, scripts: 0.2},
			// Enough, nearly enough, and too much.
			{path: "/leased-10000-1", rate: 10000, burst: 10000, asked: 0.8, length: 15 * time.Second, over: 0.01, short: 0.01, scripts: 0.02},
			{path: "/leased-10000-1", rate: 10000, burst: 10000, asked: 1.0, length: 15 * time.Second, over: 0.01, short: 0.01, scripts: 0.02},
			{path: "/leased-10000-1", rate: 10000, burst: 10000, asked: 1.5, length: 15 * time.Second, over: 0.01, short: 0.01, scripts: 0.02},
			{path: "/leased-10000-5", rate: 10000, burst: 10000, asked: 1.0, length: 15 * time.Second, over: 0.05, short: 0.01, scripts: 0.02},
			{path: "/leased-10000-5", rate: 10000, burst: 10000, asked: 1.5, length: 15 * time.Second, over: 0.05, short: 0.01, scripts: 0.02},
		}
	}
	r := redistest.Start(t)
	all := fleet(t, 4, setup{config: sharedConfig, vars: map[string]string{"REDIS": redisList(r.Addr())}, measured: *long})
	for i, l := range loads {
		t.Run(fmt.Sprintf("%s at %.1f", l.path[1:], l.asked), func(t *testing.T) {
			l.run(t, r, all, fmt.Sprintf("key-%d", i))
		})
	}
	if *long {
		t.Run("windows", func(t *testing.T) { sharedWindows(t, all) })
	}
}

// unevenly is the fleet's addresses, as lanes: of ten, seven go to the first.
func unevenly(all []*gateway, times int) []string {
	var addrs []string
	for range times {
		for i, g := range all {
			addrs = append(addrs, g.addr("PLAIN"))
			for range 6 {
				if i == 0 {
					addrs = append(addrs, g.addr("PLAIN"))
				}
			}
		}
	}
	return addrs
}

func (l sharedLoad) run(t *testing.T, r *redistest.Server, all []*gateway, key string) {
	times := 1
	if l.rate >= 1000 {
		times = 4
	}
	before, faults := scripts(t, r), decidedByFault(all)
	began := time.Now()
	shots := fire(t, spread(0, l.asked*float64(l.rate), l.length, get(l.path, key), unevenly(all, times)...)...).wait()
	asked := scripts(t, r) - before
	took := time.Since(began)
	n := only(t, shots, "200", "429 rate_limited")
	if more := decidedByFault(all) - faults; more > 0 {
		t.Errorf("%v requests were decided without Redis, which is there", more)
	}
	over := overshoot(shots, float64(l.burst), float64(l.rate))
	exact := exactly(limitOf(t, meter.TokenBucket, l.rate, time.Second, meter.Options{Burst: l.burst}), shots)
	missed := float64(exact-n["200"]) / float64(len(shots))
	t.Logf("%d requests (%.0f/s), %d admitted, one counter would have admitted %d (%.2f %% of the requests); %+.1f above the limit for certain (%.2f %% of %d); %d scripts (%.2f %% of the requests)",
		len(shots), float64(len(shots))/took.Seconds(), n["200"], exact, 100*missed, over, 100*over/float64(l.burst), l.burst, asked, 100*float64(asked)/float64(len(shots)))
	// An estimate of the moment of the last one may err by a part of a request.
	if over > l.over*float64(l.burst)+0.5 {
		t.Errorf("%.1f requests above the limit, want at most %.1f", over, l.over*float64(l.burst))
	}
	// Where in between each was decided makes half a per cent on a busy machine.
	if missed > max(l.short, 0.005) && exact-n["200"] > 2 {
		t.Errorf("%d of %d requests were refused although one counter would admit them", exact-n["200"], len(shots))
	}
	// Gateways tell Redis that they are there, with a script or without.
	alive := len(all) * (2 + int(took/(250*time.Millisecond)))
	if l.eachOnce && (asked < n["200"] || asked > len(shots)+alive) {
		t.Errorf("%d scripts for %d requests of which %d were admitted, want one each, but for refusals that need none", asked, len(shots), n["200"])
	}
	if !l.eachOnce && float64(asked) > l.scripts*float64(len(shots))+float64(alive) {
		t.Errorf("%d scripts for %d requests, want at most %.0f %%", asked, len(shots), 100*l.scripts)
	}
}

// decidedByFault is how many requests on_fault decided about.
func decidedByFault(all []*gateway) (n float64) {
	for _, g := range all {
		n += g.metric("sluice_limit_decisions_total", `verdict="fault"`)
	}
	return n
}

// sharedWindows checks leases of a window: they end with it, and what was granted
// within it counts as used.
func sharedWindows(t *testing.T, all []*gateway) {
	shots := fire(t, spread(0, 15000, 9*time.Second, get("/windows", "w"), unevenly(all, 4)...)...).wait()
	only(t, shots, "200", "429 rate_limited")
	window := (2 * time.Second).Nanoseconds()
	var lines []string
	first := shots[0].sent
	for _, s := range shots {
		first = min(first, s.sent)
	}
	for w := first/window + 1; w < first/window+4; w++ {
		least, most := within(shots, w*window, (w+1)*window)
		asked := 0
		for i := range shots {
			if shots[i].sent >= w*window && shots[i].got < (w+1)*window {
				asked++
			}
		}
		lines = append(lines, fmt.Sprintf("%d to %d of %d", least, most, asked))
		if least > 20200 {
			t.Errorf("%d were admitted in a window of 20,000 with an overshoot of 1 %%", least)
		}
		if float64(most) < 0.99*float64(min(asked, 20000)) {
			t.Errorf("%d were admitted in a window of 20,000, of %d that asked", most, asked)
		}
	}
	t.Logf("admitted in each window: %s", strings.Join(lines, ", "))
}

// TestSharedQuota counts a quota over two gateways, and keeps it when both have
// ended. What one of them holds or asked for in vain comes back within seconds, so
// all of it can be used and nothing more.
func TestSharedQuota(t *testing.T) {
	t.Parallel()
	awaitDay(t)
	r := redistest.Start(t)
	s := setup{config: quotaConfig(`redis: {addresses: @REDIS@, timeout: 2s}`, 40), vars: map[string]string{"REDIS": redisList(r.Addr())}}
	for life, want := range []int{40, 0} {
		all := fleet(t, 2, s)
		length := time.Duration(4-3*life) * time.Second
		n := only(t, fire(t, spread(0, 40, length, get("/", clientKey(0)), all[0].addr("PLAIN"), all[1].addr("PLAIN"))...).wait(), "200", "429 quota_exceeded")
		if n["200"] != want {
			t.Errorf("in life %d of the gateways: %v, want %d admitted", life+1, n, want)
		}
		for _, g := range all {
			if u := g.usage("c0", "day"); u.Used != 40 || u.Limit != 40 || u.Remaining != 0 {
				t.Errorf("life %d: usage %+v, want all 40 used", life+1, u)
			}
			g.stop()
		}
	}
}

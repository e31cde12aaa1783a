package apptest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// timed are the algorithms whose admissions follow from the times of requests.
var timed = []struct {
	name      string
	algorithm meter.Algorithm
}{
	{"token_bucket", meter.TokenBucket},
	{"leaky_bucket", meter.LeakyBucket},
	{"fixed_window", meter.FixedWindow},
	{"sliding_window", meter.SlidingWindow},
	{"sliding_log", meter.SlidingLog},
}

// clientKey is the key of the i-th declared client.
func clientKey(i int) string { return fmt.Sprintf("key-of-client-%05d-0123456789", i) }

// admissionsConfig declares clients, each with a key, and a route for each
// algorithm and rate that the gateway answers by itself.
func admissionsConfig(clients int, rates ...int) string {
	var b strings.Builder
	b.WriteString(`
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {max_connections: 0}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
clients:
`)
	for i := range clients {
		fmt.Fprintf(&b, "  - {id: c%d, keys: [{value: %s}]}\n", i, clientKey(i))
	}
	b.WriteString("rate_limits:\n")
	for _, a := range timed {
		for _, r := range rates {
			fmt.Fprintf(&b, "  %s-%d: {algorithm: %s, rate: %d/s}\n", a.name, r, a.name, r)
		}
	}
	b.WriteString("routes:\n")
	for _, a := range timed {
		for _, r := range rates {
			fmt.Fprintf(&b, "  - {path: /%s-%d, rate_limit: [%s-%d], upstream: ok}\n", a.name, r, a.name, r)
		}
	}
	return b.String()
}

// group is clients of one limit that all ask half as much again as it allows.
type group struct {
	name      string
	algorithm meter.Algorithm
	rate      int // per second and client
	clients   int
	first     int // number of the first client in the loop
}

// TestAdmissions puts half as much again on each client's limit as it allows, for
// every algorithm, and compares what each client was admitted with what the
// algorithm says about the times at which it asked.
func TestAdmissions(t *testing.T) {
	few, many, length := 2, 6, 3*time.Second
	if *long {
		few, many, length = 100, 1000, 30*time.Second
	}
	g := start(t, setup{config: admissionsConfig(many, 10, 100), measured: *long})
	var groups []group
	first := 0
	for _, a := range timed {
		for _, c := range [][2]int{{many, 10}, {few, 100}} {
			groups = append(groups, group{a.name, a.algorithm, c[1], c[0], first})
			first += c[0]
		}
	}
	if *long { // one at a time: each is as much as this machine should do
		for _, gr := range groups {
			gr.check(t, fire(t, gr.lanes(g, length)...).wait())
		}
		return
	}
	var lanes []lane
	for _, gr := range groups {
		lanes = append(lanes, gr.lanes(g, length)...)
	}
	shots := fire(t, lanes...).wait()
	for _, gr := range groups {
		gr.check(t, slices.DeleteFunc(slices.Clone(shots), func(s shot) bool { return s.client < gr.first || s.client >= gr.first+gr.clients }))
	}
}

func (gr group) lanes(g *gateway, length time.Duration) []lane {
	asked := 1.5 * float64(gr.rate)
	count := min(64, gr.clients)
	var lanes []lane
	for i := range count {
		var heads []string
		from, to := i*gr.clients/count, (i+1)*gr.clients/count
		for c := from; c < to; c++ {
			heads = append(heads, get(fmt.Sprintf("/%s-%d", gr.name, gr.rate), clientKey(c)))
		}
		lanes = append(lanes, lane{g.addr("PLAIN"), phased(gr.first+from, asked, int(asked*length.Seconds()), heads)})
	}
	return lanes
}

func (gr group) check(t *testing.T, shots []shot) {
	only(t, shots, "200", "429 rate_limited")
	l := limitOf(t, gr.algorithm, int64(gr.rate), time.Second, meter.Options{})
	of := make([][]shot, gr.clients)
	for _, s := range shots {
		of[s.client-gr.first] = append(of[s.client-gr.first], s)
	}
	var worst float64
	admitted, wide := 0, 0
	begin, end := shots[0].sent, int64(0)
	for c, mine := range of {
		got := len(admissions(mine))
		admitted += got
		begin, end = min(begin, mine[0].sent), max(end, mine[len(mine)-1].got)
		least, most := plausible(l, mine)
		wide = max(wide, most-least)
		off := float64(max(got-most, least-got, 0))
		// One per cent, but a request at least: counts are whole.
		if off > max(1, 0.01*float64(least)) {
			t.Errorf("%s, %d per s: client %d was admitted %d of %d times, an exact limiter admits %d to %d", gr.name, gr.rate, c, got, len(mine), least, most)
		}
		worst = max(worst, off/float64(least))
	}
	took := time.Duration(end - begin)
	t.Logf("%-14s %4d clients at %3d/s: %6d requests in %v (%.0f/s), %d admitted; the farthest client is %.2f %% off a range that is at most %d wide",
		gr.name, gr.clients, gr.rate, len(shots), took.Round(time.Millisecond), float64(len(shots))/took.Seconds(), admitted, 100*worst, wide)
}

// TestConcurrency keeps requests at work and counts how many are.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
log: {access: {output: none}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
rate_limits: {five: {algorithm: concurrency, limit: 5, per: ["header:X-Api-Key"]}}
routes: [{name: all, path: "/{rest...}", rate_limit: [five], upstream: o}]
`,
		vars: map[string]string{"ORIGIN": e.addr()},
	})
	var held, refused sync.WaitGroup
	var admitted atomic.Int64
	refused.Add(7)
	for range 12 {
		held.Go(func() {
			k := &caller{addr: g.addr("PLAIN")}
			defer k.hangUp()
			a, err := k.call("GET", "/gate/slots", "X-Case: slot\r\nX-Api-Key: a\r\n", "")
			switch {
			case err != nil:
				t.Error(err)
				refused.Done()
			case a.status == 200:
				admitted.Add(1)
			case a.status != 429 || a.code != "rate_limited":
				t.Errorf("status %d, code %q", a.status, a.code)
				refused.Done()
			default:
				refused.Done()
			}
		})
	}
	refused.Wait()
	eventually(t, 10*time.Second, func() error {
		if n := e.count("slot"); n != 5 {
			return fmt.Errorf("%d at work, want 5", n)
		}
		return nil
	})
	other := &caller{addr: g.addr("PLAIN")}
	defer other.hangUp()
	if a, err := other.call("GET", "/status/200", "X-Api-Key: b\r\n", ""); wholly(a, err) != nil {
		t.Errorf("another key: %v, %v", a, err)
	}
	close(e.opened("slots"))
	held.Wait()
	if admitted.Load() != 5 {
		t.Errorf("%d were admitted, want 5", admitted.Load())
	}
	// A slot is free again when its response has been written, which its client may
	// see a little earlier.
	free := &caller{addr: g.addr("PLAIN")}
	defer free.hangUp()
	eventually(t, 5*time.Second, func() error {
		a, err := free.call("GET", "/status/200", "X-Api-Key: a\r\n", "")
		return wholly(a, err)
	})
}

// TestQueue delays what is above a leaky bucket's capacity, in order and at its
// rate, as long as there is room to wait.
func TestQueue(t *testing.T) {
	t.Parallel()
	g := start(t, setup{config: `
listeners: [{name: plain, address: "@PLAIN@"}]
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
rate_limits: {shaped: {algorithm: leaky_bucket, rate: 10/s, burst: 2, queue: 5, per: [global], max_wait: 5s}}
routes: [{name: all, path: "/{rest...}", rate_limit: [shaped], upstream: ok}]
`})
	var lanes []lane
	for i := range 12 {
		lanes = append(lanes, spread(i, 1, time.Nanosecond, get("/", ""), g.addr("PLAIN"))...)
	}
	began := time.Now().UnixNano()
	shots := fire(t, lanes...).wait()
	n := only(t, shots, "200", "429 rate_limited")
	if n["200"] != 7 || n["429 rate_limited"] != 5 {
		t.Errorf("%v, want 7 admitted, 2 at once and 5 from the queue, and 5 refused", n)
	}
	var waits []int64
	last := int64(0)
	for _, s := range shots {
		last = max(last, s.sent)
		if s.admitted() {
			waits = append(waits, s.got-began)
		}
	}
	slices.Sort(waits)
	for i, w := range waits {
		// The bucket leaks one each 100 ms, from some time between the first and the
		// last request on.
		if want := int64(max(0, i-1)) * 100e6; w < want-5e6 {
			t.Errorf("the %d. was answered after %v, want %v or later", i+1, time.Duration(w), time.Duration(want))
		}
	}
	t.Logf("answered after %v", waits)
}

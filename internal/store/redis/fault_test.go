package redis

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// What the tests of faults promise. The recovery is the contract's; the tolerance
// is for a machine that does other things meanwhile.
const (
	budget    = 20 * time.Millisecond
	tolerance = 300 * time.Millisecond
	recovery  = 2 * time.Second
)

func faulty() Options {
	return Options{Config: &config.Redis{Timeout: config.Duration{Duration: budget}}}
}

// load is callers that take one unit a millisecond each, until stopped.
type load struct {
	c    *Client
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	took []time.Duration // of all calls
	open []time.Duration // of those that were not made
	ok   int64           // admitted
	bad  error           // that is not store.ErrUnavailable
}

func start(t *testing.T, c *Client, callers int, l *meter.Limit, keys ...string) *load {
	ctx, stop := context.WithCancel(context.Background())
	d := &load{c: c, stop: stop}
	for i := range callers {
		d.done.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := i; ctx.Err() == nil; n++ {
				begun := time.Now()
				v, err := take(c, keys[n%len(keys)], l)
				d.ended(time.Since(begun), v, err)
				<-tick.C
			}
		})
	}
	t.Cleanup(func() { d.end() })
	return d
}

func (d *load) ended(took time.Duration, v meter.Verdict, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.took = append(d.took, took)
	switch {
	case err == errOpen || err == errBusy:
		d.open = append(d.open, took)
	case err != nil && !errors.Is(err, store.ErrUnavailable):
		d.bad = err
	case err == nil && v.OK:
		d.ok++
	}
}

func (d *load) end() {
	d.stop()
	d.done.Wait()
}

// check ends the load and checks that nobody waited beyond the budget, and that
// calls while the breaker was open did not wait at all.
func (d *load) check(t *testing.T) {
	t.Helper()
	d.end()
	if d.bad != nil {
		t.Error(d.bad)
	}
	if longest := slices.Max(d.took); longest > budget+tolerance {
		t.Errorf("a call took %v", longest)
	}
	if len(d.open) > 0 {
		slices.Sort(d.open)
		if p99 := d.open[len(d.open)*99/100]; p99 > time.Millisecond {
			t.Errorf("99 %% of %d calls with an open breaker took up to %v", len(d.open), p99)
		}
	}
	t.Logf("%d calls, %d admitted, %d not made, longest %v", len(d.took), d.ok, len(d.open), slices.Max(d.took))
}

// down waits until the breaker opens, up until it closes again.
func down(t *testing.T, c *Client) {
	t.Helper()
	begun := time.Now()
	within(t, 2*time.Second, "down", func() bool { return !c.Up() })
	t.Logf("down after %v", time.Since(begun).Round(time.Millisecond))
}

func up(t *testing.T, c *Client) {
	t.Helper()
	begun := time.Now()
	within(t, recovery, "up again", c.Up)
	t.Logf("up after %v", time.Since(begun).Round(time.Millisecond))
}

func TestServerIsKilled(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, faulty(), server.Addr())
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	d := start(t, c, 8, l, "a", "b", "c")
	within(t, time.Second, "admitted", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.ok > 100 })
	server.Kill()
	down(t, c)
	server.Restart()
	up(t, c)
	d.check(t)
	// One that a loaded machine is late for may have been charged, so each has a key of its own.
	within(t, 5*time.Second, "counting again", func() bool {
		v, err := take(c, fmt.Sprint("new-", time.Now().UnixNano()), l)
		return err == nil && v.Remaining == 999999
	})
}

func TestServerIsFrozen(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, faulty(), server.Addr())
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	d := start(t, c, 100, l, "a", "b", "c")
	within(t, 5*time.Second, "admitted", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.ok > 100 })
	before := runtime.NumGoroutine()
	server.Stop()
	defer server.Cont()
	down(t, c)
	most, flying := 0, 0
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		most, flying = max(most, runtime.NumGoroutine()), max(flying, c.Stats().InFlight)
	}
	if c.Up() {
		t.Error("up while frozen")
	}
	if flying > maxInFlight || most > before+maxInFlight {
		t.Errorf("%d calls in flight, %d goroutines, %d before", flying, most, before)
	}
	server.Cont()
	up(t, c)
	d.check(t)
	v := mustTake(t, c, "one", l)
	if v.Remaining != 999999 {
		t.Errorf("%+v", v)
	}
}

func TestServerIsSlow(t *testing.T) {
	server := redistest.Start(t)
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(api, "redis", "127.0.0.1:0", server.Addr())
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer proxy.Stop()
	c := dial(t, faulty(), proxy.Listen)
	d := start(t, c, 8, newLimit(t, meter.FixedWindow, 1000000, time.Hour), "a", "b", "c")
	within(t, time.Second, "admitted", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.ok > 100 })
	if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "slow", "type": "latency", "attributes": {"latency": 50}}`)); err != nil {
		t.Fatal(err)
	}
	down(t, c)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if c.Up() {
			t.Fatal("up while slow")
		}
	}
	if err := proxy.Toxics.RemoveToxic(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	up(t, c)
	d.check(t)
}

// TestServerThatCannotWrite goes through the errors that a server answers with.
func TestServerThatCannotWrite(t *testing.T) {
	server := redistest.Start(t, "--busy-reply-threshold", "50")
	c := dial(t, faulty(), server.Addr())
	for _, test := range []struct {
		name        string
		wreck, mend []string
	}{
		{"READONLY", []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
		{"OOM", []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		{"MISCONF", []string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
		{"NOPERM", []string{"ACL", "SETUSER", "default", "-evalsha"}, []string{"ACL", "SETUSER", "default", "+evalsha"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := start(t, c, 4, newLimit(t, meter.FixedWindow, 1000000, time.Hour), test.name)
			server.Do(test.wreck...)
			down(t, c)
			server.Do(test.mend...)
			up(t, c)
			d.check(t)
		})
	}
	t.Run("BUSY", func(t *testing.T) {
		d := start(t, c, 4, newLimit(t, meter.FixedWindow, 1000000, time.Hour), "busy")
		over := make(chan error, 1)
		go func() {
			_, err := redistest.Do(server.Addr(), "EVAL", "while true do end", "0")
			over <- err
		}()
		down(t, c)
		within(t, 2*time.Second, "killed", func() bool {
			_, err := redistest.Do(server.Addr(), "SCRIPT", "KILL")
			return err == nil
		})
		<-over
		up(t, c)
		d.check(t)
	})
}

func TestKeyOfAnotherTypeIsItsOwnTrouble(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, faulty(), server.Addr())
	l := newLimit(t, meter.TokenBucket, 10, time.Second)
	server.Do("HSET", "sluice:{k}", "a", "b")
	for range 10 {
		if _, err := take(c, "k", l); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "WRONGTYPE") {
			t.Fatal(err)
		}
	}
	if !c.Up() {
		t.Error("one key opened the breaker")
	}
}

func TestSentinelFailover(t *testing.T) {
	s := redistest.StartSentinel(t)
	o := faulty()
	o.Config.Sentinel = redistest.MasterName
	c := dial(t, o, s.Addrs()...)
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	d := start(t, c, 4, l, "a", "b", "c")
	within(t, time.Second, "admitted", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.ok > 100 })

	s.Failover()
	works(t, c, s.Master(), l)

	old := s.Master()
	old.Kill()
	s.AwaitMaster(old)
	works(t, c, s.Master(), l)
	d.check(t)
}

// works waits until a take counts on the server, within the time of recovery.
func works(t *testing.T, c *Client, server *redistest.Server, l *meter.Limit) {
	t.Helper()
	begun, key := time.Now(), fmt.Sprint("w", time.Now().UnixNano())
	within(t, recovery, "working", func() bool {
		v, err := take(c, key, l)
		return err == nil && v.OK && server.Do("EXISTS", "sluice:{"+key+"}") == int64(1)
	})
	t.Logf("works after %v", time.Since(begun).Round(time.Millisecond))
}

func TestClusterTakesOverSlots(t *testing.T) {
	cluster := redistest.StartCluster(t)
	c := dial(t, Options{}, cluster.Addrs()[:1]...)
	small, large := newLimit(t, meter.TokenBucket, 1, time.Hour), newLimit(t, meter.FixedWindow, 100, time.Hour)
	charges := []store.Charge{{Key: "{a}", Limit: large, Cost: 1}, {Key: "{b}", Limit: small, Cost: 1}, {Key: "{c}", Limit: large, Cost: 2}, {Key: "{a}:2", Limit: large, Cost: 3}}
	out := make([]meter.Verdict, len(charges))
	for i, ok := range []bool{true, false, false} {
		if err := c.Take(t.Context(), charges, out); err != nil {
			t.Fatal(err)
		}
		if out[1].OK != ok || !out[0].OK || !out[2].OK || !out[3].OK {
			t.Fatalf("take %d: %+v", i, out)
		}
	}
	for key, want := range map[string]int64{"{a}": 98, "{c}": 97, "{a}:2": 96} {
		if v := mustTake(t, c, key, large); v.Remaining != want {
			t.Errorf("%s: %+v, want %d left: what others refused was given back", key, v, want)
		}
	}
	in := make([]store.Settlement, 50)
	for i := range in {
		in[i] = store.Settlement{Key: fmt.Sprintf("s:{%d}", i), Limit: large, Need: 1, Ask: 10}
	}
	grants := make([]store.Grant, len(in))
	if err := c.Settle(t.Context(), in, grants); err != nil {
		t.Fatal(err)
	}
	for i, g := range grants {
		if g.Granted != 10 || g.Level != 90 {
			t.Fatalf("%d: %+v", i, g)
		}
	}
}

func TestClusterMovesASlot(t *testing.T) {
	cluster := redistest.StartCluster(t)
	c := dial(t, faulty(), cluster.Addrs()...)
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	d := start(t, c, 4, l, "l:{x}")
	within(t, time.Second, "admitted", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.ok > 50 })
	from, to := cluster.BeginMove("{x}")
	within(t, recovery, "working", func() bool { v, err := take(c, "l:{x}", l); return err == nil && v.OK })
	cluster.EndMove("{x}", from, to)
	begun := time.Now()
	within(t, recovery, "working", func() bool { v, err := take(c, "l:{x}:2", l); return err == nil && v.OK })
	t.Logf("works after %v", time.Since(begun).Round(time.Millisecond))
	d.check(t)
	// Every admission is counted: what was late may be counted besides.
	v := mustTake(t, c, "l:{x}", l)
	if used := l.Capacity - v.Remaining; used < d.ok {
		t.Errorf("%d admitted, %d counted", d.ok, used)
	}
}

func TestClusterLosesAMaster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	c := dial(t, faulty(), cluster.Addrs()...)
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	d := start(t, c, 8, l, "{a}", "{b}", "{c}", "{d}", "{e}")
	lost := cluster.Owner("{a}")
	lost.Stop()
	defer lost.Cont()
	down(t, c)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if c.Up() {
			t.Fatal("up without a master")
		}
	}
	lost.Cont()
	up(t, c)
	mustTake(t, c, "{a}", l)
	d.check(t)
}

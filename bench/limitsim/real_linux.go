package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
	"github.com/sluice-gateway/sluice/bench/internal/load"
	"github.com/sluice-gateway/sluice/bench/internal/proc"
)

// How -real measures.
const (
	// Half as much again is 15,000/s, which two cores shared by four gateways, Redis
	// and load carry. When each request is one script they do not (at 9,000/s they are
	// full), so the exact limit is smaller.
	leasedRate = 10_000
	exactRate  = 3_000

	realRuns = 3 // of each case
	realTime = 10 * time.Second
	between  = 10 * time.Millisecond // counts
	// Before a run the machine must be this idle, share of its cores; it is waited for
	// so long, and then measured all the same, with what others use written down.
	idle      = 0.85
	quietTime = 20 * time.Second
)

var realShares = []float64{0.7, 0.1, 0.1, 0.1}

func realLimits() []limit {
	return []limit{
		{Name: "leased-1", Rate: leasedRate, Scope: "leased", Overshoot: 1},
		{Name: "leased-5", Rate: leasedRate, Scope: "leased", Overshoot: 5},
		{Name: "exact", Rate: exactRate, Scope: "exact"},
	}
}

// measure runs four gateways.
func measure(ctx context.Context) (*measured, error) {
	debug.SetGCPercent(800) // the load should not be collected in the middle of it
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, err
	}
	tools := &gateways.Tools{Root: root, Say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	var p programs
	if p.redis, err = tools.Need(ctx, "redis-server", "redis-server"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sluice-limitsim-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// Not bench/bin/sluice, which a bench may be running.
	p.sluice = filepath.Join(dir, "sluice")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", p.sluice, "./cmd/sluice")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	tools.Say("building sluice")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build sluice: %w\n%s", err, out)
	}
	f, err := launch(ctx, p, len(realShares), realLimits())
	if err != nil {
		return nil, err
	}
	defer f.stop()
	machine := proc.This()
	m := &measured{
		Commit: commit(root), Date: time.Now().UTC().Truncate(time.Second), CPU: machine.CPU, Cores: machine.Cores,
		Kernel: machine.Kernel, Redis: f.version, Seconds: realTime.Seconds(), Shares: realShares,
	}
	for _, l := range realLimits() {
		for _, offered := range []float64{0.9, 1.5} {
			m.Cases = append(m.Cases, &trial{Limit: l, Offered: offered})
		}
	}
	for round := range realRuns {
		for _, t := range m.Cases {
			quiet(ctx)
			o, err := f.run(ctx, t, fmt.Sprintf("round-%d-%g", round, t.Offered))
			if err != nil {
				return nil, fmt.Errorf("%s at %g: %w\n%s", t.Limit.Name, t.Offered, err, f.said())
			}
			fmt.Printf("%-9s %.1f  admitted %.2f%%, over %+.2f%%, falsely refused %.2f%%, scripts %.2f%%, round trip %.2f ms, lag %.2f ms, latency %.1f ms, %.2f cores and %.2f of others\n",
				t.Limit.Name, t.Offered, 100*o.admitted(), 100*o.Over, 100*o.missed(), 100*o.calls(), o.Trip, o.Lag, o.Latency, o.Used, o.Others)
			t.Runs = append(t.Runs, *o)
		}
	}
	return m, nil
}

// run puts one load on the fleet, with a key that nobody has used.
func (f *fleet) run(ctx context.Context, t *trial, key string) (*outcome, error) {
	before, err := f.reading(ctx)
	if err != nil {
		return nil, err
	}
	var runs []*load.Run
	var all []asked
	for i, share := range realShares {
		addr, err := netip.ParseAddrPort(f.gateways[i])
		if err != nil {
			return nil, err
		}
		q := load.NewRequest("GET", "http", "a.test", "/"+t.Limit.Name, []string{"X-Api-Key: " + key}, nil)
		rate := share * t.Offered * float64(t.Limit.Rate)
		r, err := load.Start(load.Target{Addr: addr, Requests: []*load.Request{q}, Status: 200, Length: -1},
			load.Plan{Conns: max(8, int(64*share)), Threads: 1, Rate: rate, Window: realTime})
		if err != nil {
			return nil, errors.Join(err, end(runs, nil, nil))
		}
		runs = append(runs, r)
		all = append(all, asked{began: r.WindowBegins().UnixNano(), rate: rate})
	}
	counts := watch(ctx, runs, all)
	o := &outcome{Over: above(&t.Limit, counts)}
	if err := end(runs, all, o); err != nil {
		return nil, err
	}
	bucket, err := t.Limit.bucket()
	if err != nil {
		return nil, err
	}
	o.Exact = exactly(bucket, all)
	after, err := f.reading(ctx)
	if err != nil {
		return nil, err
	}
	return o, o.since(before, after)
}

// watch counts until the window ends.
func watch(ctx context.Context, runs []*load.Run, all []asked) []count {
	counts := []count{{at: all[0].began}}
	tick := time.NewTicker(between)
	defer tick.Stop()
	for time.Now().Before(runs[len(runs)-1].WindowEnds()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return counts
		}
		var c count
		for i, r := range runs {
			now := r.Count()
			c.at = time.Now().UnixNano()
			c.admitted += int64(now.OK)
			due := 1 + int64(float64(c.at-all[i].began)/1e9*all[i].rate)
			c.flying += max(due-int64(now.OK+now.Errors.Total()), 0)
		}
		counts = append(counts, c)
	}
	return counts
}

// end stops the load and takes down who asked for what. Without o it only stops.
func end(runs []*load.Run, all []asked, o *outcome) error {
	results := make([]load.Result, len(runs))
	var done sync.WaitGroup
	for i, r := range runs {
		done.Go(func() { results[i] = r.Stop() })
	}
	done.Wait()
	if o == nil {
		return nil
	}
	for i, r := range results {
		refused := int64(r.Errors.Status)
		if other := int64(r.Errors.Total()) - refused; other > 0 {
			return fmt.Errorf("gateway %d: %s", i+1, r.Errors)
		}
		all[i].n = int64(r.OK) + refused
		o.Asked = append(o.Asked, all[i].n)
		o.Admitted = append(o.Admitted, int64(r.OK))
		o.Lag = max(o.Lag, float64(r.Lag.ValueAtQuantile(99))/1e6)
		o.Latency = max(o.Latency, float64(r.Latency.ValueAtQuantile(99))/1e6)
	}
	return nil
}

// reading is the state of all counters at a time.
type reading struct {
	at       time.Time
	scripts  int64
	gateways []map[string]float64
	ours     time.Duration // CPU
	busy     time.Duration // CPU of the whole machine
}

func (f *fleet) reading(ctx context.Context) (*reading, error) {
	r := &reading{}
	for _, addr := range f.admin {
		m, err := metrics(ctx, addr)
		if err != nil {
			return nil, err
		}
		r.gateways = append(r.gateways, m)
	}
	var err error
	if r.scripts, err = f.scripts(); err != nil {
		return nil, err
	}
	used, err := proc.CPU(f.pids())
	if err != nil {
		return nil, err
	}
	r.at, r.ours = time.Now(), used.Total+proc.Self()
	r.busy, _, err = machineTime()
	return r, err
}

// since takes down what happened between two readings.
func (o *outcome) since(before, after *reading) error {
	o.Calls = after.scripts - before.scripts
	o.Trip = 1e3 * medianTrip(before.gateways, after.gateways)
	wall := after.at.Sub(before.at).Seconds()
	o.Used = (after.ours - before.ours).Seconds() / wall
	o.Others = max((after.busy-before.busy).Seconds()/wall-o.Used, 0)
	if math.IsNaN(o.Trip) || math.IsInf(o.Trip, 0) {
		return errors.New("no round trips were measured")
	}
	refused := -float64(sum(o.Asked) - sum(o.Admitted))
	for i, now := range after.gateways {
		for name, v := range now {
			if !strings.HasPrefix(name, "sluice_limit_decisions_total{") {
				continue
			}
			n := v - before.gateways[i][name]
			if strings.Contains(name, `verdict="fault"`) && n > 0 {
				return fmt.Errorf("%.0f requests were decided without Redis, which is there", n)
			}
			if strings.Contains(name, `verdict="refuse"`) {
				refused += n
			}
		}
	}
	// Those under way at the very end may be missing in one of the two.
	if math.Abs(refused) > 100 {
		return fmt.Errorf("the gateways say that they refused %.0f more than were answered so", refused)
	}
	return nil
}

// machineTime is the CPU time that all programs have used, and all that there was.
func machineTime() (busy, total time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	busy, total = cpuTimes(string(text))
	return busy, total, nil
}

// quiet waits until others leave the machine alone.
func quiet(ctx context.Context) {
	for deadline := time.Now().Add(quietTime); time.Now().Before(deadline) && ctx.Err() == nil; {
		busy, total, err := machineTime()
		if err != nil {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
		busyNow, totalNow, err := machineTime()
		if err != nil || float64(busyNow-busy) <= (1-idle)*float64(totalNow-total) {
			return
		}
	}
	fmt.Println("the machine does not get quiet; measuring beside what others do")
}

// commit names what is measured; results and documents do not make it dirty.
func commit(root string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	hash, err := git("rev-parse", "--short=10", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := git("status", "--porcelain", "--", "cmd", "internal", "go.mod"); err != nil || changed != "" {
		hash += "-dirty"
	}
	return hash
}

package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

func newLimit(t testing.TB, a meter.Algorithm, n int64, per time.Duration) *meter.Limit {
	t.Helper()
	l, err := meter.New(a, n, per, meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &l
}

// BenchmarkTake is decisions over loopback, with 64 callers at a time for each
// core, each for 1,000 keys; server and client share the machine.
func BenchmarkTake(b *testing.B) {
	server := redistest.Start(b)
	c := dial(b, Options{Config: patient()}, server.Addr())
	for _, bench := range []struct {
		name   string
		limits []*meter.Limit
	}{
		{"bucket", []*meter.Limit{newLimit(b, meter.TokenBucket, 1000, time.Second)}},
		{"sliding window", []*meter.Limit{newLimit(b, meter.SlidingWindow, 1000, time.Second)}},
		{"sliding log", []*meter.Limit{newLimit(b, meter.SlidingLog, 100, time.Second)}},
		{"concurrency", []*meter.Limit{newLimit(b, meter.Concurrency, 1<<40, 0)}},
		{"bucket and quota", []*meter.Limit{newLimit(b, meter.TokenBucket, 1000, time.Second), newLimit(b, meter.FixedWindow, 1000000, time.Hour)}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			parallel(b, server, func(n int64) error {
				charges := make([]store.Charge, len(bench.limits))
				for i, l := range bench.limits {
					charges[i] = store.Charge{Key: fmt.Sprintf("l:{%d}:%s:%d", n%1000, bench.name, i), Limit: l, Cost: 1}
				}
				return c.Take(context.Background(), charges, make([]meter.Verdict, len(charges)))
			})
		})
	}
}

func BenchmarkSettle(b *testing.B) {
	server := redistest.Start(b)
	c := dial(b, Options{Config: patient()}, server.Addr())
	l := newLimit(b, meter.TokenBucket, 1000000, time.Second)
	parallel(b, server, func(n int64) error {
		in := []store.Settlement{{Key: fmt.Sprintf("l:{%d}:settled", n%1000), Limit: l, Need: 1, Ask: 100, Slack: 10000}}
		return c.Settle(context.Background(), in, make([]store.Grant, 1))
	})
}

// BenchmarkOpen is what a call costs while the breaker is open.
func BenchmarkOpen(b *testing.B) {
	c := dial(b, Options{}, redistest.Start(b).Addr())
	c.breaker.close()
	charges := []store.Charge{{Key: "k", Limit: newLimit(b, meter.TokenBucket, 1, time.Second), Cost: 1}}
	out := make([]meter.Verdict, 1)
	b.ReportAllocs()
	for b.Loop() {
		_ = c.Take(context.Background(), charges, out)
	}
}

// patient is a configuration whose budget does not matter.
func patient() *config.Redis {
	return &config.Redis{Timeout: config.Duration{Duration: 10 * time.Second}}
}

// parallel runs f and reports what it costs both sides in CPU time, too.
func parallel(b *testing.B, server *redistest.Server, f func(n int64) error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(64)
	var n, failed atomic.Int64
	theirs, ours := serverTime(b, server), ownTime(b)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if f(n.Add(1)) != nil {
				failed.Add(1)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric((serverTime(b, server)-theirs)*1e6/float64(b.N), "server-µs/op")
	b.ReportMetric((ownTime(b)-ours)*1e6/float64(b.N), "client-µs/op")
	if failed.Load() > 0 {
		b.ReportMetric(float64(failed.Load()), "failed")
	}
}

// serverTime is the server's CPU time so far, seconds.
func serverTime(b *testing.B, server *redistest.Server) (sum float64) {
	for line := range strings.Lines(server.Do("INFO", "cpu").(string)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// ownTime is this process' CPU time so far, seconds.
func ownTime(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

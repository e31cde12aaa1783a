package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, store.MaxChanges} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			server := redistest.Start(b)
			c := dial(b, Options{}, server.Addr())
			changes := make([]store.Change, n)
			round := 0
			for b.Loop() {
				for i := range changes {
					changes[i] = store.Change{Key: fmt.Sprintf("key/%d", (n*round+i)%10_000), Value: make([]byte, 300), If: store.Always, Expires: time.Now().Add(time.Hour)}
				}
				round++
				if _, err := c.Apply(context.Background(), changes); err != nil {
					b.Fatal(err)
				}
			}
			stats := server.Do("INFO", "commandstats").(string)
			_, stats, _ = strings.Cut(stats, "cmdstat_evalsha:")
			_, stats, _ = strings.Cut(stats, "usec_per_call=")
			var busy float64
			if _, err := fmt.Sscan(strings.SplitN(stats, ",", 2)[0], &busy); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(busy, "µs-of-redis/op")
		})
	}
}

func BenchmarkReadRecords100000(b *testing.B) {
	server := redistest.Start(b)
	c := dial(b, Options{}, server.Addr())
	for i := range 400 {
		var changes []store.Change
		for j := range 250 {
			changes = append(changes, store.Change{Key: fmt.Sprintf("key/%012d", 250*i+j), Value: make([]byte, 300), If: 0})
		}
		if _, err := c.Apply(b.Context(), changes); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		if err := c.All(b.Context(), "key/", func(store.Record) bool { n++; return true }); err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
	memory := int64(0)
	for _, key := range c.recordKeys() {
		if n, ok := server.Do("MEMORY", "USAGE", key, "SAMPLES", "1000").(int64); ok {
			memory += n
		}
	}
	b.ReportMetric(float64(memory)/100_000, "B/record")
}

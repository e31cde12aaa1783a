package telemetry

import (
	"io"
	"sync/atomic"
	"testing"
	"time"
)

func BenchmarkCounter(b *testing.B) {
	c := NewCounter()
	var shards atomic.Uint32
	b.RunParallel(func(p *testing.PB) {
		s := shards.Add(1)
		for p.Next() {
			c.Add(s, 1)
		}
	})
}

func BenchmarkHistogram(b *testing.B) {
	h := NewHistogram()
	for b.Loop() {
		h.Observe(1, 1234*time.Microsecond)
	}
}

func BenchmarkAppendRequestID(b *testing.B) {
	var room [RequestIDLen]byte
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		AppendRequestID(room[:0], now)
	}
}

func BenchmarkParseTrace(b *testing.B) {
	v := []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	for b.Loop() {
		ParseTrace(v)
	}
}

func BenchmarkBegin(b *testing.B) {
	t := start(b, Options{})
	x := typical()
	b.ReportAllocs()
	for b.Loop() {
		t.Begin(x)
		x.Reset()
	}
}

// BenchmarkRecord is the whole cost of metrics and access log on the request
// path, without the writer, which would be left behind. The budget is 700 ns, the
// aim 350.
func BenchmarkRecord(b *testing.B) {
	for _, format := range []string{"json", "combined", "none"} {
		b.Run(format, func(b *testing.B) {
			log := accessConfig("stdout", format)
			if format == "none" {
				log = accessConfig("none", "json")
			}
			t := start(b, Options{Log: log, Stdout: io.Discard})
			closeNow(b, t) // ends the writer
			r := t.Route("public", "get-user")
			x := typical()
			s := &t.access.stripes[x.Conn.Shard&t.access.mask]
			s.closed = false
			b.ReportAllocs()
			for b.Loop() {
				t.Record(x, r)
				if len(s.b.entries) == maxBatch/2 {
					s.b.reset()
				}
			}
			if n := t.access.full.Load(); n > 0 {
				b.Errorf("%d records were dropped", n)
			}
		})
	}
}

// BenchmarkFormat is what the writer's goroutine does for a line.
func BenchmarkFormat(b *testing.B) {
	for _, format := range []string{"json", "combined"} {
		b.Run(format, func(b *testing.B) {
			batch := newBatch()
			o := newAccessOptions(accessConfig("stdout", format).Access)
			batch.add(typical(), o, time.Millisecond, time.Microsecond)
			var f formatter
			out := make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				out = f.append(out[:0], batch, &batch.entries[0])
			}
			b.SetBytes(int64(len(out)))
		})
	}
}

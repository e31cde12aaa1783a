package server

import (
	"bytes"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// nowhere is a connection whose writes go to /dev/null, so that a benchmark sees
// the driver's own work and hardly any of the socket's.
type nowhere struct {
	net.Conn
	*os.File
}

func (n nowhere) Close() error                       { return n.File.Close() }
func (n nowhere) Read(p []byte) (int, error)         { return n.File.Read(p) }
func (n nowhere) Write(p []byte) (int, error)        { return n.File.Write(p) }
func (n nowhere) SetDeadline(t time.Time) error      { return nil }
func (n nowhere) SetReadDeadline(t time.Time) error  { return nil }
func (n nowhere) SetWriteDeadline(t time.Time) error { return nil }

type still struct {
	body   []byte
	header exchange.Header
}

func (h *still) Serve(x *exchange.Exchange) {
	x.Answer(200, "application/json", h.body)
	for i := range h.header.Len() {
		x.Response.Header.Append(*h.header.At(i))
	}
}

func (h *still) Done(*exchange.Exchange) {}

// BenchmarkProcess is everything the driver does for a request that is in the
// buffer, with one write to /dev/null.
func BenchmarkProcess(b *testing.B) {
	h := &still{body: bytes.Repeat([]byte("x"), 1024)}
	h.header.Add([]byte("Cache-Control"), []byte("no-store"))
	h.header.Add([]byte("X-Request-Id"), []byte("0190e5b4-0000-7000-8000-000000000000"))
	s := New(h, Options{})
	b.Cleanup(func() { _ = s.Close() })
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = null.Close() })
	to, err := sock.New(nowhere{File: null})
	if err != nil {
		b.Fatal(err)
	}
	var limits config.Limits
	limits.MaxHeaderSize.Bytes = 32 << 10
	c := &conn{server: s, l: newListener(s, "", nil), set: newSettings(&config.Listener{Name: "x"}, &limits), sock: to}
	request := []byte("GET /v1/users/42?verbose=1 HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: bench/1.0\r\n" +
		"Accept: application/json\r\nAccept-Encoding: gzip\r\nX-Api-Key: slk_abcdefgh_0123456789\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		c.begin(copy(c.first[:], request), false)
		if !c.process() {
			b.Fatal("the connection ended")
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(nullWrite(b, to)), "ns/write")
}

// nullWrite is what the write itself costs.
func nullWrite(b *testing.B, to *sock.Conn) int64 {
	p := make([]byte, 1300)
	const n = 10_000
	began := time.Now()
	for range n {
		if _, err := to.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began).Nanoseconds() / n
}

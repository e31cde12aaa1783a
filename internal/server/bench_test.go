package server_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// canned answers with the same bytes and no allocation of its own.
type canned struct {
	body   []byte
	header []exchange.Field
}

func newCanned(n int) *canned {
	c := &canned{body: bytes.Repeat([]byte("x"), n)}
	for _, f := range [][2]string{{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}, {"X-Request-Id", "0190e5b4-0000-7000-8000-000000000000"}} {
		c.header = append(c.header, exchange.Field{Name: []byte(f[0]), Value: []byte(f[1]), ID: exchange.Lookup([]byte(f[0]))})
	}
	return c
}

func (c *canned) Serve(x *exchange.Exchange) {
	if b := x.Request.Body; b != nil {
		for err := error(nil); err == nil; {
			_, err = b.Next()
		}
	}
	x.Answer(200, "", c.body)
	for _, f := range c.header {
		x.Response.Header.Append(f)
	}
}

func (c *canned) Done(*exchange.Exchange) {}

const benchGet = "GET /v1/users/42?verbose=1 HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: bench/1.0\r\n" +
	"Accept: application/json\r\nAccept-Encoding: gzip\r\nX-Api-Key: slk_abcdefgh_0123456789\r\n\r\n"

// roundTrip sends a request and reads until the response is there, which ends
// with the last of tail bytes.
func roundTrip(t testing.TB, c net.Conn, request, buf []byte, tail int) {
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	got := 0
	for {
		n, err := c.Read(buf[got:])
		if err != nil {
			t.Fatal(err)
		}
		got += n
		if head := bytes.Index(buf[:got], []byte("\r\n\r\n")); head >= 0 && got >= head+4+tail {
			return
		}
	}
}

func TestAnExchangeDoesNotAllocate(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	plain := func() net.Conn {
		_, addr := start(t, newCanned(1024), roomy())
		return dial(t, addr)
	}
	secure := func() net.Conn {
		_, addr := startTLS(t, newCanned(1024), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")}})
		return dialTLS(t, addr, a, "one.test", "http/1.1")
	}
	for _, c := range []struct {
		name    string
		conn    func() net.Conn
		request string
		most    float64
	}{
		{"GET", plain, benchGet, 0},
		{"POST with its body", plain, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("b", 1000), 0},
		{"POST with a long body", plain, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("b", 50_000), 0},
		{"POST chunked", plain, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0},
		{"GET over TLS", secure, benchGet, 2}, // crypto/tls: one for each record that is read, the client's too
	} {
		conn, request, buf := c.conn(), []byte(c.request), make([]byte, 8<<10)
		for range 50 { // pools and tables fill
			roundTrip(t, conn, request, buf, 1024)
		}
		// The sweeper and the runtime allocate a little now and then.
		n := testing.AllocsPerRun(500, func() { roundTrip(t, conn, request, buf, 1024) })
		if n > c.most && !raceEnabled {
			t.Errorf("%s: %v allocations, want %v", c.name, n, c.most)
		}
	}
}

// BenchmarkExchange is one request and its response over a loopback connection,
// client included.
func BenchmarkExchange(b *testing.B) {
	for _, n := range []int{1 << 10, 16 << 10} {
		b.Run("respond-"+strconv.Itoa(n), func(b *testing.B) {
			_, addr := start(b, newCanned(n), roomy())
			bench(b, addr, n)
		})
		b.Run("respond-"+strconv.Itoa(n)+"-net-http", func(b *testing.B) {
			body := bytes.Repeat([]byte("x"), n)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h.Set("Content-Type", "application/json")
				h.Set("Cache-Control", "no-store")
				h.Set("X-Request-Id", "0190e5b4-0000-7000-8000-000000000000")
				_, _ = w.Write(body)
			})}
			go func() { _ = s.Serve(l) }()
			b.Cleanup(func() { _ = s.Close() })
			bench(b, l.Addr().String(), n)
		})
	}
	b.Run("respond-tls", func(b *testing.B) {
		a := newCA(b)
		_, addr := startTLS(b, newCanned(1024), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(b, b.TempDir(), "one", "one.test")}})
		run(b, dialTLS(b, addr, a, "one.test", "http/1.1"), 1024)
	})
}

func bench(b *testing.B, addr string, n int) { run(b, dial(b, addr), n) }

func run(b *testing.B, c net.Conn, n int) {
	buf, request := make([]byte, n+1024), []byte(benchGet)
	b.ReportAllocs()
	for b.Loop() {
		roundTrip(b, c, request, buf, n)
	}
}

// idleBudget is what an idle plain connection may cost, heap and stack.
const idleBudget = 12 << 10

func TestIdleConnectionsAreSmall(t *testing.T) {
	const n = 2000
	per := idleCost(t, n)
	t.Logf("%d bytes for each of %d idle connections", per, n)
	if !raceEnabled && per > idleBudget {
		t.Errorf("over the budget of %d", idleBudget)
	}
}

// BenchmarkIdleConnections reports what 10,000 idle connections cost each, or as
// many as the limit on open files allows, two for each.
func BenchmarkIdleConnections(b *testing.B) {
	n := 10_000
	if most := openFiles(); most > 0 {
		n = min(n, (most-200)/2)
	}
	for b.Loop() {
		b.ReportMetric(float64(idleCost(b, n)), "B/conn")
		b.ReportMetric(float64(n), "conns")
	}
}

// idleCost opens n connections, uses each once, and returns the memory that one
// costs the server. The client's ends are bare file descriptors.
func idleCost(t testing.TB, n int) int {
	s, addr := start(t, newCanned(1024), roomy())
	memory := func() int {
		runtime.GC() // stacks shrink by half in each
		runtime.GC()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse)
	}
	before := memory()
	ends := make([]*os.File, 0, n)
	defer func() {
		for _, f := range ends {
			_ = f.Close()
		}
	}()
	buf := make([]byte, 4096)
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, c, []byte(benchGet), buf, 1024)
		f, err := c.(*net.TCPConn).File() // a descriptor that the poller does not know
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		ends = append(ends, f)
	}
	eventually(t, "all idle", func() bool { return s.Stats()[0].Idle == n })
	after := memory()
	return (after - before) / n
}

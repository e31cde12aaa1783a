package gatetest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/cache"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/server"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// What a hit costs with all that stands before it: a client's key, a token bucket, and
// the record of metrics. The origin is a `respond`, which is asked once for each object.

const (
	hitBody    = 1100
	hitObjects = 512
	hitKey     = "hit-key-of-the-benchmark"
)

// hitConfig has the same route with a cache, and without for comparison.
var hitConfig = fmt.Sprintf(`
listeners: [{name: plain, address: "127.0.0.1:0"}]
authenticators: {keys: {api_key: {from: ["header:X-Api-Key"]}}}
clients: [{id: acme, keys: [{value: %s}]}]
rate_limits: {per-client: {rate: 1000000000/s, burst: 1000000000, per: [client]}}
upstreams:
  origin: {respond: {headers: {Content-Type: application/json, Cache-Control: "public, max-age=3600"}, body: '%s'}}
routes:
  - {name: hit, path: "/hit/{id}", auth: [keys], rate_limit: [per-client], cache: {key: {client: false}}, upstream: origin}
  - {name: bare, path: "/bare/{id}", auth: [], upstream: origin}
`, hitKey, strings.Repeat("x", hitBody))

// hitNode is a gateway for it, and where it listens.
func hitNode(t testing.TB) (*gateway.Gateway, string) {
	t.Helper()
	f, found := config.Parse("hit.yaml", []byte(hitConfig), config.Env{})
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	f.Log.Access.Output = "none"
	log := slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(telemetry.Options{Log: f.Log, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	limits := limit.New(limit.Options{Log: log, Telemetry: tel})
	who := auth.New(auth.Options{Log: log, Telemetry: tel})
	responses := cache.New(cache.Options{Log: log, Telemetry: tel})
	g := gateway.New(gateway.Options{
		Log: log, Telemetry: tel, Specs: slices.Concat(who.Specs(), limits.Specs(), responses.Specs()), Note: limits.Note,
	})
	s := server.New(g, server.Options{Log: log})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Close()
		g.Close()
		for _, c := range []interface{ Close(context.Context) error }{responses, who, limits, tel} {
			if err := c.Close(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	plan, found := g.Prepare(f)
	if plan == nil {
		t.Fatal(found)
	}
	if err := s.Apply(f.Listeners, f.Limits, f.TrustedProxies, ""); err != nil {
		t.Fatal(err)
	}
	plan.Commit()
	responses.Configure(f)
	return g, s.Addrs()["plain"].String()
}

// inMemory makes requests without a connection.
type inMemory struct {
	g     *gateway.Gateway
	x     *exchange.Exchange
	conn  *exchange.Conn
	paths [][]byte
	n     int
}

func newInMemory(g *gateway.Gateway, prefix string) *inMemory {
	m := &inMemory{g: g, x: &exchange.Exchange{}, conn: &exchange.Conn{Peer: netip.MustParseAddrPort("192.0.2.1:4711")}}
	for i := range hitObjects {
		m.paths = append(m.paths, fmt.Appendf(nil, "%s%d", prefix, 1000+i))
	}
	return m
}

var hitHost, hitSecret, hitAcceptName, hitAccept = []byte("api.example.com"), []byte(hitKey), []byte("Accept"), []byte("application/json")

// ask makes the next request and reads its answer.
func (m *inMemory) ask(t testing.TB) {
	x := m.x
	x.Reset()
	x.Conn, x.Start = m.conn, time.Now()
	q := &x.Request
	q.Method, q.Proto = "GET", exchange.HTTP11
	q.Host, q.Authority, q.RawPath = hitHost, hitHost, m.paths[m.n%hitObjects]
	m.n++
	q.Header.AddID(exchange.Host, hitHost)
	q.Header.Add(hitAcceptName, hitAccept)
	q.Header.AddID(exchange.XAPIKey, hitSecret)
	m.g.Serve(x)
	if x.Response.Status != 200 {
		t.Fatalf("status %d", x.Response.Status)
	}
	if b, _ := x.Response.Body.Next(); len(b) != hitBody {
		t.Fatalf("%d bytes", len(b))
	}
	_ = x.Response.Body.Close()
	m.g.Done(x)
}

// BenchmarkHitInMemory is the gateway's own work for a hit, without the reading and
// writing of messages: identification, routing, key, token bucket, cache, metrics. bare is
// the same answer of a `respond`, with neither key, limit nor cache.
func BenchmarkHitInMemory(b *testing.B) {
	for _, name := range []string{"hit", "bare"} {
		b.Run(name, func(b *testing.B) {
			g, _ := hitNode(b)
			warm := newInMemory(g, "/"+name+"/")
			for range 2 * hitObjects {
				warm.ask(b)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				m := newInMemory(g, "/"+name+"/")
				for pb.Next() {
					m.ask(b)
				}
			})
		})
	}
}

// BenchmarkHitOnAConnection is a hit over a loopback connection, the client included, and
// beside it the bare answer: what both have in common is the kernel's work and that of the
// messages.
func BenchmarkHitOnAConnection(b *testing.B) {
	for _, name := range []string{"hit", "bare"} {
		b.Run(name, func(b *testing.B) {
			_, addr := hitNode(b)
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			var requests [][]byte
			for i := range hitObjects {
				requests = append(requests, fmt.Appendf(nil, "GET /%s/%d HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\nX-Api-Key: %s\r\n\r\n", name, 1000+i, hitKey))
			}
			buf := make([]byte, 8<<10)
			for _, r := range requests {
				exchangeOne(b, c, r, buf)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				exchangeOne(b, c, requests[i%hitObjects], buf)
			}
		})
	}
}

// exchangeOne sends a request and reads a response of hitBody bytes.
func exchangeOne(t testing.TB, c net.Conn, request, buf []byte) {
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	for got := 0; ; {
		n, err := c.Read(buf[got:])
		if err != nil {
			t.Fatal(err)
		}
		got += n
		if head := bytes.Index(buf[:got], []byte("\r\n\r\n")); head >= 0 && got >= head+4+hitBody {
			if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
				t.Fatalf("%s", buf[:got])
			}
			return
		}
	}
}

package upstream

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// fastOrigin answers every request head with reply, without looking at it, so that
// what is measured is the upstream.
func fastOrigin(t testing.TB, reply string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	conns := make(chan net.Conn, 1024)
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				for c := range conns {
					c.Close()
				}
				return
			}
			conns <- c
			go serveFast(c, []byte(reply))
		}
	}()
	return "http://" + l.Addr().String()
}

func serveFast(c net.Conn, reply []byte) {
	b := make([]byte, 64<<10)
	have := 0
	for {
		n, err := c.Read(b[have:])
		if err != nil {
			return
		}
		have += n
		for {
			end := bytes.Index(b[:have], []byte("\r\n\r\n"))
			if end < 0 {
				break
			}
			have = copy(b, b[end+4:have])
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	}
}

const kilobyte = 1024

func reply1K() string { return replyOf(kilobyte) }

func replyOf(n int) string {
	return "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 23:04:00 GMT\r\nContent-Type: application/json\r\n" +
		"Content-Length: " + strconv.Itoa(n) + "\r\nLast-Modified: Tue, 24 Nov 2026 22:00:00 GMT\r\nConnection: keep-alive\r\n" +
		"ETag: \"abc\"\r\n\r\n" + strings.Repeat("x", n)
}

// browser makes GETs with the fields of an ordinary client, without allocating.
type browser struct {
	x      *exchange.Exchange
	path   []byte
	query  []byte
	host   []byte
	id     []byte
	fields []exchange.Field
}

func newBrowser() *browser {
	b := &browser{
		x: new(exchange.Exchange), path: []byte("/users/42"), query: []byte("fields=name,email"),
		host: []byte("api.example.com"), id: []byte("01980f3c-7a52-7c11-8f1c-0a1b2c3d4e5f"),
	}
	b.x.Driver = &driver{}
	for _, f := range [][2]string{
		{"Host", "api.example.com"},
		{"User-Agent", "curl/8.14.1"},
		{"Accept", "*/*"},
		{"Accept-Encoding", "gzip"},
		{"Authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.e30.abcdefghijklmnopqrstuvwxyz"},
	} {
		b.fields = append(b.fields, exchange.Field{Name: []byte(f[0]), Value: []byte(f[1]), ID: exchange.Lookup([]byte(f[0]))})
	}
	return b
}

// next resets the exchange to another request.
func (b *browser) next() *exchange.Exchange {
	x, d := b.x, b.x.Driver
	x.Reset()
	x.Conn, x.Driver, x.Start, x.ID = clientConn, d, time.Now(), b.id
	x.Trace.TraceID[3], x.Trace.SpanID[2] = 1, 2
	q := &x.Request
	q.Method, q.Proto = "GET", exchange.HTTP11
	q.Authority, q.Host, q.Path, q.ForwardPath = b.host, b.host, b.path, b.path
	q.Query, q.HasQuery = b.query, true
	for i := range b.fields {
		q.Header.Append(b.fields[i])
	}
	return x
}

func forward(t testing.TB, u *Upstream, b *browser) { forwardOf(t, u, b, kilobyte) }

func forwardOf(t testing.TB, u *Upstream, b *browser, want int) {
	x := b.next()
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		piece, err := x.Response.Body.Next()
		n += len(piece)
		if err != nil {
			break
		}
	}
	_ = x.Response.Body.Close()
	if n != want {
		t.Fatalf("%d bytes", n)
	}
}

func BenchmarkForward1K(b *testing.B) {
	u := testUpstream(b, config.Upstream{}, fastOrigin(b, reply1K()))
	w := newBrowser()
	b.ReportAllocs()
	for b.Loop() {
		forward(b, u, w)
	}
}

// BenchmarkForward16K has bodies that with their heads just do not fit into a small
// buffer.
func BenchmarkForward16K(b *testing.B) {
	u := testUpstream(b, config.Upstream{}, fastOrigin(b, replyOf(16<<10)))
	w := newBrowser()
	b.ReportAllocs()
	for b.Loop() {
		forwardOf(b, u, w, 16<<10)
	}
}

func BenchmarkForward1KParallel(b *testing.B) {
	u := testUpstream(b, config.Upstream{}, fastOrigin(b, reply1K()))
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		w := newBrowser()
		for pb.Next() {
			forward(b, u, w)
		}
	})
}

// BenchmarkRaw1K is the twin without an upstream: the same bytes over a socket.
func BenchmarkRaw1K(b *testing.B) {
	url := fastOrigin(b, reply1K())
	c, err := net.Dial("tcp", url[len("http://"):])
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	u := testUpstream(b, config.Upstream{}, url)
	x := newBrowser().next()
	k := &call{u: u, x: x, ep: u.set.Load().endpoints[0], outgoing: outgoing{whole: true}}
	msg := k.appendHead(nil)
	want := len(reply1K())
	buf := make([]byte, 16<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(msg); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < want; {
			m, err := c.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			n += m
		}
	}
}

// BenchmarkPool is what all cores share for an exchange: one endpoint's counts, and
// its stack of connections.
func BenchmarkPool(b *testing.B) {
	e := endpoints(1)[0]
	now := time.Now()
	for range 256 {
		e.idle = append(e.idle, &conn{ep: e, idleSince: now, idleFor: time.Hour})
		e.open++
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e.enter()
			c := e.take(now, false)
			e.put(c)
			e.leave()
		}
	})
}

func BenchmarkHead(b *testing.B) {
	u := testUpstream(b, config.Upstream{}, "http://127.0.0.1:1")
	x := newBrowser().next()
	k := &call{u: u, x: x, ep: u.set.Load().endpoints[0], outgoing: outgoing{whole: true}}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = k.appendHead(dst[:0])
	}
}

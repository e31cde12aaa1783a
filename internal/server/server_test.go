package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Times of the servers in these tests: short, but long enough for a machine that
// is busy with other tests.
const (
	tick     = 10 * time.Millisecond
	quiet    = 200 * time.Millisecond
	grace    = 100 * time.Millisecond
	patience = 20 * time.Second // how long a test waits for what must happen
)

// seen is what Done was given.
type seen struct {
	Method, Target string
	Status         int
	Code           string // of Err, "" without one
	Aborted        bool
	In, Out        int64
}

// fake is a Handler. Without serve it answers 200 with "ok".
type fake struct {
	serve func(x *exchange.Exchange)

	mu      sync.Mutex
	records []seen
	came    chan struct{}
}

func newFake(serve func(x *exchange.Exchange)) *fake {
	return &fake{serve: serve, came: make(chan struct{}, 1)}
}

func (f *fake) Serve(x *exchange.Exchange) {
	switch {
	case x.Err != nil:
		problem(x, x.Err)
	case f.serve != nil:
		f.serve(x)
	default:
		x.Answer(200, "text/plain", []byte("ok"))
	}
}

// problem is the gateway's refusal in short.
func problem(x *exchange.Exchange, e *exchange.Error) {
	x.Err = e
	x.Answer(e.HTTPStatus(), "application/problem+json", []byte(`{"code":"`+e.Code.String()+`"}`))
	for _, h := range e.Header {
		x.Response.Header.Append(h)
	}
	x.Response.Close = x.Response.Close || e.Close
}

func (f *fake) Done(x *exchange.Exchange) {
	r := seen{
		Method: x.Request.Method, Target: string(x.Request.RawPath), Status: x.Response.Status,
		Aborted: x.Aborted != nil, In: x.BytesIn, Out: x.BytesOut,
	}
	if x.Err != nil {
		r.Code = x.Err.Code.String()
	}
	f.mu.Lock()
	f.records = append(f.records, r)
	f.mu.Unlock()
	select {
	case f.came <- struct{}{}:
	default:
	}
}

// wait returns the records once there are n.
func (f *fake) wait(t testing.TB, n int) []seen {
	t.Helper()
	end := time.After(patience)
	for {
		f.mu.Lock()
		got := append([]seen(nil), f.records...)
		f.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-f.came:
		case <-end:
			t.Fatalf("%d exchanges were done, want %d", len(got), n)
		}
	}
}

// roomy are limits that no test meets by accident.
func roomy() config.Limits {
	var l config.Limits
	l.HeaderTimeout.Duration = time.Minute
	l.BodyIdleTimeout.Duration = time.Minute
	l.IdleTimeout.Duration = time.Minute
	l.WriteIdleTimeout.Duration = time.Minute
	l.TunnelIdleTimeout.Duration = time.Minute
	l.DrainTimeout.Duration = time.Minute
	l.MaxHeaderSize.Bytes = 32 << 10
	return l
}

// start serves h on one plain listener with limits.
func start(t testing.TB, h server.Handler, limits config.Limits) (*server.Server, string) {
	t.Helper()
	s := server.NewTimed(h, server.Options{}, tick, quiet, grace)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	apply(t, s, limits, config.Listener{Name: "plain", Address: "127.0.0.1:0"})
	return s, s.Addrs()["plain"].String()
}

func apply(t testing.TB, s *server.Server, limits config.Limits, l ...config.Listener) {
	t.Helper()
	if err := s.Apply(l, limits, nil, ""); err != nil {
		t.Fatal(err)
	}
}

// client is a raw connection with a script.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return wrap(t, c)
}

func wrap(t testing.TB, c net.Conn) *client {
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{t, c, bufio.NewReader(c)}
}

func prefixes(all ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// reply is a response without its Date.
type reply struct {
	Status  int
	Header  string // sorted lines
	Body    string
	Trailer string
}

// response reads a response to a request with method.
func (c *client) response(method string) reply {
	c.t.Helper()
	r, err := c.read(method)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *client) read(method string) (reply, error) {
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	if res.StatusCode >= 200 {
		if _, err := http.ParseTime(res.Header.Get("Date")); err != nil {
			return reply{}, fmt.Errorf("date: %w", err)
		}
	}
	res.Header.Del("Date")
	body, err := io.ReadAll(res.Body)
	if res.Close && res.StatusCode != 101 {
		res.Header.Set("Connection", "close")
	}
	for _, e := range res.TransferEncoding {
		res.Header.Set("Transfer-Encoding", e)
	}
	return reply{res.StatusCode, lines(res.Header), string(body), lines(res.Trailer)}, err
}

func lines(h http.Header) string {
	var b bytes.Buffer
	_ = h.Write(&b)
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\r\n"), "\r\n", "|")
}

// ended fails unless the server has closed the connection in order.
func (c *client) ended() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); err != nil || len(b) > 0 {
		c.t.Fatalf("want the end of the connection, got %q, %v", b, err)
	}
}

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

// eventually waits for what another goroutine makes true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never came to be: %s", what)
		}
	}
}

// drained drains s in the background.
func drained(s *server.Server, within time.Duration) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		done <- s.Drain(ctx)
	}()
	return done
}

// pieces is a response body that arrives when the test says so.
type pieces struct {
	ch     chan string // closed at the end
	err    error       // what it ends with; nil: io.EOF
	closed chan struct{}
	once   sync.Once
	x      *exchange.Exchange
	cancel chan struct{}
}

func newPieces(x *exchange.Exchange) *pieces {
	p := &pieces{ch: make(chan string, 16), closed: make(chan struct{}), x: x, cancel: make(chan struct{})}
	x.OnCancel(p)
	return p
}

func (p *pieces) Cancel() { p.once.Do(func() { close(p.cancel) }) }

func (p *pieces) Next() ([]byte, error) {
	select {
	case s, ok := <-p.ch:
		if ok {
			return []byte(s), nil
		}
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	case <-p.cancel:
		return nil, &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client}
	}
}

func (p *pieces) Ready() bool { return len(p.ch) > 0 }

func (p *pieces) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// readAll reads a request body as a target does.
func readAll(x *exchange.Exchange) ([]byte, error) {
	if x.Request.Body == nil {
		return nil, nil
	}
	if x.Request.Expect {
		if err := x.Driver.Interim(100, nil); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(&exchange.Reader{Body: x.Request.Body})
}

// echo answers with the request's body and trailer.
func echo(x *exchange.Exchange) {
	b, err := readAll(x)
	if err != nil {
		problem(x, exchange.AsError(err))
		return
	}
	for i := range x.Request.Trailer.Len() {
		f := x.Request.Trailer.At(i)
		b = fmt.Appendf(b, "|%s=%s", f.Name, f.Value)
	}
	x.Answer(200, "text/plain", b)
}

var _ server.Handler = (*fake)(nil)

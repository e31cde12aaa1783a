package upstream

import (
	"bufio"
	"bytes"
	"errors"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a server on a loopback port whose every byte a test writes.
type origin struct {
	url   string
	addr  netip.AddrPort
	serve func(*peer)
	l     net.Listener
	wg    sync.WaitGroup

	mu    sync.Mutex
	shut  bool
	peers []*peer
	seen  []string // method and target of every request that was read
}

// peer is one connection to an origin.
type peer struct {
	*net.TCPConn
	o  *origin
	r  *bufio.Reader
	id int // 0 for the first connection
}

// newOrigin runs serve for every connection and closes it behind. It ends with the
// test, when the connections have.
func newOrigin(t testing.TB, serve func(*peer)) *origin {
	t.Helper()
	o := &origin{serve: serve}
	o.listen(t, "127.0.0.1:0")
	t.Cleanup(o.stop)
	return o
}

func (o *origin) listen(t testing.TB, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o.addr = l.Addr().(*net.TCPAddr).AddrPort()
	o.url = "http://" + o.addr.String()
	o.mu.Lock()
	o.l, o.shut = l, false
	o.mu.Unlock()
	o.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			p := &peer{TCPConn: c.(*net.TCPConn), o: o, r: bufio.NewReader(c), id: len(o.peers)}
			o.peers = append(o.peers, p)
			if o.shut {
				p.reset()
			}
			o.mu.Unlock()
			o.wg.Go(func() {
				defer p.Close()
				o.serve(p)
			})
		}
	})
}

// stop closes the listener and every connection, and waits for the scripts.
func (o *origin) stop() {
	o.mu.Lock()
	o.shut = true
	o.l.Close()
	for _, p := range o.peers {
		p.reset()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

func (o *origin) conns() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.peers)
}

func (o *origin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.seen...)
}

// head reads a request's head; nil when the connection ends first.
func (p *peer) head() *http.Request {
	r, err := http.ReadRequest(p.r)
	if err != nil {
		return nil
	}
	p.o.mu.Lock()
	p.o.seen = append(p.o.seen, r.Method+" "+r.RequestURI)
	p.o.mu.Unlock()
	return r
}

// request reads a request with its body, which it returns.
func (p *peer) request() (*http.Request, []byte) {
	r := p.head()
	if r == nil {
		return nil, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, nil
	}
	return r, body
}

func (p *peer) send(s string) { _, _ = io.WriteString(p.TCPConn, s) }

// reset closes with a TCP reset.
func (p *peer) reset() {
	_ = p.SetLinger(0)
	_ = p.Close()
}

// answer serves every request with s.
func answer(s string) func(*peer) {
	return func(p *peer) {
		for {
			if r, _ := p.request(); r == nil {
				return
			}
			p.send(s)
		}
	}
}

const ok2 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// shortTimes are for tests that wait for what takes its time.
func shortTimes() times {
	return times{
		idle: 55 * time.Second, sweep: 20 * time.Millisecond, resolve: 50 * time.Millisecond,
		hurry: 20 * time.Millisecond, lookup: time.Second, expect: 50 * time.Millisecond,
	}
}

// testUpstream makes an upstream that closes with the test.
func testUpstream(t testing.TB, c config.Upstream, urls ...string) *Upstream {
	t.Helper()
	return testUpstreamEnv(t, c, Env{}, usualTimes(), urls...)
}

func testUpstreamEnv(t testing.TB, c config.Upstream, env Env, times times, urls ...string) *Upstream {
	t.Helper()
	for _, u := range urls {
		c.Targets = append(c.Targets, config.Target{URL: u, Weight: 1})
	}
	u, err := newUpstream("up", &c, env, times)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func duration(d time.Duration) config.Duration { return config.Duration{Duration: d} }

// driver records the informational responses.
type driver struct {
	mu       sync.Mutex
	interims []string
	err      error
	told     chan string // when not nil, gets each of them too
}

func (d *driver) Interim(status int, h *exchange.Header) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := http.StatusText(status)
	if h != nil {
		for i := range h.Len() {
			s += "|" + string(h.At(i).Name) + "=" + string(h.At(i).Value)
		}
	}
	d.interims = append(d.interims, s)
	if d.told != nil {
		d.told <- s
	}
	return d.err
}

func (d *driver) got() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.interims...)
}

var clientConn = &exchange.Conn{
	Peer: netip.MustParseAddrPort("192.0.2.7:5000"), Local: netip.MustParseAddrPort("198.51.100.1:8080"), Listener: "plain",
}

// newExchange is a request of an HTTP/1.1 client without a body.
func newExchange(method, target string) *exchange.Exchange {
	x := new(exchange.Exchange)
	refill(x, method, target)
	return x
}

// refill resets x to another request.
func refill(x *exchange.Exchange, method, target string) {
	x.Reset()
	path, query, has := strings.Cut(target, "?")
	x.Conn, x.Start = clientConn, time.Now()
	if x.Driver == nil {
		x.Driver = &driver{}
	}
	q := &x.Request
	q.Method, q.Proto = method, exchange.HTTP11
	q.Authority, q.Host = []byte("api.example.com"), []byte("api.example.com")
	q.Target, q.RawPath, q.Path, q.ForwardPath = []byte(target), []byte(path), []byte(path), []byte(path)
	q.Query, q.HasQuery = []byte(query), has
}

// withBody gives x a body that is wholly in hand.
func withBody(x *exchange.Exchange, body string) *exchange.Exchange {
	x.Request.Body = exchange.NewBytes([]byte(body))
	x.Request.ContentLength = int64(len(body))
	return x
}

// stream is a client's body that a test feeds.
type stream struct {
	pieces   chan string
	err      error // behind the last piece; nil: io.EOF
	canceled chan struct{}
	once     sync.Once
	ahead    []string // what Ready has found
	eof      bool
}

func newStream() *stream {
	return &stream{pieces: make(chan string, 64), canceled: make(chan struct{})}
}

// streamOf is a body of pieces that all have come already, but of which the end is
// not known with the first.
func streamOf(pieces ...string) *stream {
	s := newStream()
	go func() {
		defer close(s.pieces)
		for _, p := range pieces {
			select {
			case s.pieces <- p:
			case <-s.canceled:
				return
			}
		}
	}()
	return s
}

func withStream(x *exchange.Exchange, s *stream, length int64) *exchange.Exchange {
	x.Request.Body, x.Request.ContentLength = s, length
	return x
}

func (s *stream) Next() ([]byte, error) {
	if len(s.ahead) > 0 {
		p := s.ahead[0]
		s.ahead = s.ahead[1:]
		return []byte(p), nil
	}
	if s.eof {
		return nil, s.end()
	}
	select {
	case p, ok := <-s.pieces:
		if !ok {
			s.eof = true
			return nil, s.end()
		}
		return []byte(p), nil
	case <-s.canceled:
		return nil, &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client, Cause: io.EOF}
	}
}

func (s *stream) end() error {
	if s.err != nil {
		return s.err
	}
	return io.EOF
}

func (s *stream) Ready() bool {
	if len(s.ahead) > 0 || s.eof {
		return true
	}
	select {
	case p, ok := <-s.pieces:
		if ok {
			s.ahead = append(s.ahead, p)
		}
		s.eof = !ok
		return true
	default:
		return false
	}
}

func (s *stream) Close() error { s.Cancel(); return nil }
func (s *stream) Cancel()      { s.once.Do(func() { close(s.canceled) }) }

// result is what an exchange came to, in one line a test can compare.
func result(u *Upstream, x *exchange.Exchange) string {
	if err := u.Do(x); err != nil {
		return failure(err)
	}
	body, err := readBody(x)
	s := http.StatusText(x.Response.Status)
	if len(body) > 0 {
		s += " " + string(body)
	}
	if err != nil {
		s += " then " + failure(err)
	}
	return s
}

// readBody reads the response's body and closes it.
func readBody(x *exchange.Exchange) ([]byte, error) {
	b := x.Response.Body
	if b == nil {
		return nil, nil
	}
	defer b.Close()
	var all bytes.Buffer
	for {
		piece, err := b.Next()
		all.Write(piece)
		if err == io.EOF {
			return all.Bytes(), nil
		}
		if err != nil {
			return all.Bytes(), err
		}
	}
}

func failure(err error) string {
	e, ok := errors.AsType[*exchange.Error](err)
	if !ok {
		return "not an *exchange.Error: " + err.Error()
	}
	s := e.Code.String() + " " + http.StatusText(e.HTTPStatus()) + " by " + e.Side.String()
	if e.ProxyError != "" {
		s += " (" + e.ProxyError + ")"
	}
	return s
}

// check compares.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// eventually polls until ok, for at most five seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// settled waits until nothing is in flight and returns the sums over all targets.
func settled(t testing.TB, u *Upstream) (open, idle int) {
	t.Helper()
	eventually(t, "nothing in flight", func() bool {
		var inFlight int64
		open, idle = 0, 0
		for _, s := range u.Status().Targets {
			inFlight += s.InFlight
			open += s.Open
			idle += s.Idle
		}
		return inFlight == 0
	})
	return open, idle
}

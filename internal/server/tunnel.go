package server

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// A tunnel joins a client's connection to an upgraded one of a target, and copies
// both ways until both have ended their input, or one fails. An end of input is
// passed on; a failure ends both. While nothing comes, each way holds very little
// memory, and a large buffer while it flows: most tunnels are WebSockets that are
// silent most of the time.
type tunnel struct {
	c     *conn
	far   exchange.Tunnel
	limit time.Duration // of silence; 0: none

	in, out atomic.Int64 // bytes from the client, and to it
	once    sync.Once
	failed  atomic.Pointer[error]

	seen  int64 // the sweeper's: bytes it saw last,
	quiet time.Duration
}

var errSilent = errors.New("server: nothing moved in the tunnel for too long")

// join writes the 101 and runs the tunnel to its end. The error is why it ended
// early.
func (c *conn) join() error {
	s := c.slot
	x := &s.x
	r := &x.Response
	if r.Tunnel == nil {
		return errors.Join(errNoResponse, c.apologise())
	}
	o := &s.out
	o.begin()
	c.sock.Out.Begin()
	b := http1.AppendStatusLine(o.b, http.StatusSwitchingProtocols)
	b = http1.AppendHeaderExcept(b, &r.Header, ownFields)
	b = append(b, "Connection: Upgrade\r\n"...)
	protocol := r.Header.GetID(exchange.Upgrade)
	if protocol == nil {
		protocol = x.Request.Upgrade
	}
	o.b = append(http1.AppendField(b, exchange.Upgrade.Name(), protocol), "\r\n"...)
	if err := o.flush(); err != nil {
		return err
	}
	o.end()

	t := &tunnel{c: c, far: r.Tunnel, limit: c.set.tunnelIdle}
	_ = c.sock.SetReadDeadline(time.Time{}) // an error shows at the read
	c.tunnel.Store(t)
	c.state.leave(tunnelled)
	t.run(s.in.unread())
	c.state.leave(busy)
	c.tunnel.Store(nil)
	s.in.r = s.in.w
	x.BytesIn, x.BytesOut = t.in.Load(), t.out.Load()
	if err := t.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// run copies both ways. early is what the client has sent already.
func (t *tunnel) run(early []byte) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.contain()
		t.fromClient(early)
	}()
	func() {
		defer t.contain()
		t.toClient()
	}()
	<-done
}

// contain keeps a panic of the far side from more than this tunnel.
func (t *tunnel) contain() {
	if p := recover(); p != nil {
		t.c.server.panicked(p, t.c.info.Listener)
		t.fail(errPanicked)
	}
}

func (t *tunnel) fromClient(early []byte) {
	if len(early) > 0 {
		if _, err := t.far.Write(early); err != nil {
			t.fail(err)
			return
		}
		t.in.Add(int64(len(early)))
	}
	read := t.c.sock.Read
	if t.c.tls != nil {
		read = t.c.tls.Read
	}
	t.copy(t.far.Write, read, t.far.CloseWrite, &t.in)
}

func (t *tunnel) toClient() {
	write := func(p []byte) (int, error) { return len(p), t.c.write(p) }
	t.copy(write, t.far.Read, t.c.closeWrite, &t.out)
}

// tunnelWait is the memory that each way of a silent tunnel waits with. What
// fills it flows.
const tunnelWait = 1 << 10

// copy moves bytes until the end of input, which it passes on with end.
func (t *tunnel) copy(write, read func([]byte) (int, error), end func() error, moved *atomic.Int64) {
	pool := &t.c.server.buffers
	var large *buffer
	defer func() { pool.put(large) }()
	wait := make([]byte, tunnelWait)
	for buf := wait; ; {
		n, err := read(buf)
		if n > 0 {
			if _, err := write(buf[:n]); err != nil {
				t.fail(err)
				return
			}
			moved.Add(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			if err := end(); err != nil {
				t.fail(err)
			}
			return
		case err != nil:
			t.fail(err)
			return
		case n >= tunnelWait && large == nil:
			large = pool.getLarge()
			buf = large.b
		case n < tunnelWait && large != nil:
			pool.put(large)
			large, buf = nil, wait
		}
	}
}

// fail ends both ways; the first reason is kept.
func (t *tunnel) fail(err error) {
	t.failed.CompareAndSwap(nil, &err)
	t.cut()
}

// cut interrupts both ends. It may be called from any goroutine, more than once.
func (t *tunnel) cut() {
	t.once.Do(func() { _ = t.far.Close() }) // the tunnel is over either way
	t.c.sock.Interrupt()
}

// silent is the sweeper's look, once every tick: whether nothing has moved for
// longer than allowed.
func (t *tunnel) silent(tick time.Duration) bool {
	if moved := t.in.Load() + t.out.Load(); moved != t.seen {
		t.seen, t.quiet = moved, 0
		return false
	}
	t.quiet += tick
	if t.limit == 0 || t.quiet < t.limit {
		return false
	}
	err := error(errSilent)
	t.failed.CompareAndSwap(nil, &err)
	return true
}

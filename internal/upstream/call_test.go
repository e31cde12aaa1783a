package upstream

import (
	"io"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestTimeouts(t *testing.T) {
	const late = "upstream_timeout Gateway Timeout by upstream (http_response_timeout)"
	dribble := func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nContent-")
		_, _ = io.Copy(io.Discard, p.r)
	}
	silent := func(p *peer) { _, _ = io.Copy(io.Discard, p.r) }
	for _, c := range []struct {
		name         string
		serve        func(*peer)
		try, total   time.Duration
		least, most  time.Duration
		deadlinePast bool
	}{
		{"of a try", silent, 60 * time.Millisecond, 0, 60 * time.Millisecond, time.Second, false},
		{"of a try, with half a head", dribble, 60 * time.Millisecond, 0, 60 * time.Millisecond, time.Second, false},
		{"of the exchange", silent, time.Minute, 60 * time.Millisecond, 60 * time.Millisecond, time.Second, false},
		{"of the exchange alone", silent, 0, 60 * time.Millisecond, 60 * time.Millisecond, time.Second, false},
		{"already over", silent, 0, -time.Second, 0, 500 * time.Millisecond, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t, c.serve)
			u := testUpstream(t, config.Upstream{Timeout: duration(c.try)}, o.url)
			x := newExchange("GET", "/")
			if c.total != 0 {
				x.Deadline = x.Start.Add(c.total)
			}
			check(t, "result", result(u, x), late)
			if took := time.Since(x.Start); took < c.least || took > c.most {
				t.Errorf("took %v, want %v to %v", took, c.least, c.most)
			}
			open, _ := settled(t, u)
			check(t, "open", open, 0)
		})
	}
}

// The deadline of one exchange is none of the next one's on the connection.
func TestDeadlinesDoNotLinger(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		for {
			r, _ := p.request()
			if r == nil {
				return
			}
			if r.URL.Path == "/slow" {
				wait := time.NewTimer(150 * time.Millisecond)
				<-wait.C
			}
			p.send(ok2)
		}
	})
	u := testUpstream(t, config.Upstream{Timeout: duration(time.Minute)}, o.url)
	x := newExchange("GET", "/")
	x.Deadline = x.Start.Add(100 * time.Millisecond)
	check(t, "first", result(u, x), "OK ok")
	refill(x, "GET", "/slow")
	check(t, "second", result(u, x), "OK ok")
	check(t, "connections", o.conns(), 1)
}

func TestClientGoneWhileWaiting(t *testing.T) {
	asked := make(chan struct{})
	o := newOrigin(t, func(p *peer) {
		p.head()
		close(asked)
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	go func() { <-asked; x.Cancel() }()
	check(t, "result", result(u, x), "client_gone  by client")
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

func TestClientGoneBefore(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	x.Cancel()
	check(t, "result", result(u, x), "client_gone  by client")
	check(t, "requests", len(o.requests()), 0)
}

func TestClientGoneWhileTheBodyStreams(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	piece, err := x.Response.Body.Next()
	check(t, "piece", string(piece), "a")
	check(t, "error", err, nil)
	go x.Cancel()
	_, err = readBody(x)
	check(t, "error", failure(err), "client_gone  by client")
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

func TestClientGoneWhileUploading(t *testing.T) {
	flows := make(chan struct{})
	o := newOrigin(t, func(p *peer) {
		r := p.head()
		_, _ = io.ReadFull(r.Body, make([]byte, 8))
		close(flows)
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	s := newStream()
	s.pieces <- "some"
	s.pieces <- "more"
	x := withStream(newExchange("POST", "/"), s, 100)
	go func() { <-flows; x.Cancel() }()
	check(t, "result", result(u, x), "client_gone  by client")
	<-s.canceled
}

// A Cancel that comes when the response is through must not hit the next exchange on
// the connection.
func TestLateCancelSparesTheNextExchange(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	u := testUpstream(t, config.Upstream{}, o.url)
	for range 300 {
		x := newExchange("GET", "/")
		done := make(chan struct{})
		go func() { x.Cancel(); close(done) }()
		result(u, x)
		y := newExchange("GET", "/")
		check(t, "the next", result(u, y), "OK ok")
		<-done
	}
}

// A body that is closed before its end takes its connection with it.
func TestAbandonedBody(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	_ = x.Response.Body.Close()
	open, _ := settled(t, u)
	check(t, "open", open, 0)
	if _, err := x.Response.Body.Next(); err == nil || err == io.EOF {
		t.Errorf("a read behind Close gives %v", err)
	}
}

// An exchange that was reset without closing its body is cleaned up by the next.
func TestForgottenBody(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		for {
			if r, _ := p.request(); r == nil {
				return
			}
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome")
		}
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	for range 3 {
		if err := u.Do(x); err != nil {
			t.Fatal(err)
		}
		refill(x, "GET", "/")
	}
	x.Kept.(*call).abandon()
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

func TestUsage(t *testing.T) {
	o := newOrigin(t, echo)
	u := testUpstream(t, config.Upstream{}, o.url)
	for i := range 2 {
		x := withBody(newExchange("POST", "/"), "abc")
		check(t, "result", result(u, x), "OK 3 abc")
		g := x.Usage
		if g.Sent < 0 || g.Head <= g.Sent || g.Waited <= 0 || g.Waited > time.Since(x.Start) {
			t.Errorf("times %v, %v, %v", g.Sent, g.Head, g.Waited)
		}
		g.Sent, g.Head, g.Waited = 0, 0, 0
		check(t, "usage", g, exchange.Usage{
			Name: "up", Target: o.addr.String(), Attempts: 1, Reused: i == 1, BytesIn: 5, BytesOut: 3,
		})
	}
}

func TestTunnel(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		r := p.head()
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			p.send(ok2)
			return
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\nearly")
		b := make([]byte, 4)
		_, _ = io.ReadFull(p.r, b)
		p.send("got " + string(b))
		_, _ = io.Copy(io.Discard, p.r)
		p.send(" bye")
	})
	u := testUpstream(t, config.Upstream{Timeout: duration(50 * time.Millisecond)}, o.url)
	x := newExchange("GET", "/chat")
	x.Request.Upgrade = []byte("websocket")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	check(t, "status", x.Response.Status, 101)
	check(t, "header", string(x.Response.Header.Get([]byte("X-A"))), "1")
	check(t, "in flight", u.Status().Targets[0].InFlight, 1)
	tun := x.Response.Tunnel
	b := make([]byte, 5)
	_, err := io.ReadFull(tun, b)
	check(t, "early bytes", string(b), "early")
	check(t, "error", err, nil)
	quiet := time.NewTimer(100 * time.Millisecond) // longer than the timeout of a try
	<-quiet.C
	if _, err := tun.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b = make([]byte, 8)
	_, err = io.ReadFull(tun, b)
	check(t, "reply", string(b), "got ping")
	check(t, "error", err, nil)
	if err := tun.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(tun)
	check(t, "rest", string(rest), " bye")
	check(t, "error", err, nil)
	_ = tun.Close()
	_ = tun.Close()
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

func TestTunnelEndsWithItsClient(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/chat")
	x.Request.Upgrade = []byte("websocket")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	go x.Cancel()
	if _, err := x.Response.Tunnel.Read(make([]byte, 1)); err == nil {
		t.Error("a read goes on though the client has gone")
	}
	_ = x.Response.Tunnel.Close()
}

// A target that ended its side in silence, before the request came, sends nothing that
// would wake the wait for its response: a probe finds out.
func TestProbeFindsATargetThatEndedItsSide(t *testing.T) {
	asked := make(chan struct{}, 2)
	o := newOrigin(t, func(p *peer) {
		if r, _ := p.request(); r == nil {
			return
		}
		if p.id > 0 {
			p.send(ok2)
			return
		}
		p.send(ok2)
		_ = p.CloseWrite()
		p.request()
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	check(t, "first", result(u, newExchange("GET", "/")), "OK ok")
	e := u.set.Load().endpoints[0]
	eventually(t, "the end is there", func() bool { return !e.idle[0].sock.Quiet() })
	e.idle[0].idleSince = time.Now() // so that it is not looked at
	x := newExchange("GET", "/")
	x.Probe()
	done := make(chan string)
	go func() { done <- result(u, x) }()
	for waits := true; waits; {
		select {
		case got := <-done:
			check(t, "second", got, "OK ok")
			waits = false
		default:
			x.Probe()
		}
	}
	check(t, "connections", o.conns(), 2)
}

// An upgrade that the target declines is an ordinary response.
func TestUpgradeDeclined(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/chat")
	x.Request.Upgrade = []byte("websocket")
	check(t, "result", result(u, x), "OK ok")
	_, idle := settled(t, u)
	check(t, "idle", idle, 1)
}

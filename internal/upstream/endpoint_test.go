package upstream

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// gate answers each request when it is opened for it, and tells of each that came.
type gate struct{ came, open chan string }

func newGate() *gate { return &gate{make(chan string, 100), make(chan string, 100)} }

func (g *gate) serve(p *peer) {
	for {
		r, _ := p.request()
		if r == nil {
			return
		}
		g.came <- r.RequestURI
		s, ok := <-g.open
		if !ok {
			return
		}
		p.send(s)
	}
}

// The connection used last is used next.
func TestReuseIsLastInFirstOut(t *testing.T) {
	g := newGate()
	o := newOrigin(t, g.serve)
	u := testUpstream(t, config.Upstream{}, o.url)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { check(t, "result", result(u, newExchange("GET", fmt.Sprint("/", i))), "OK ok") })
	}
	for range 3 {
		<-g.came
	}
	for range 3 {
		g.open <- ok2
	}
	wg.Wait()
	e := u.set.Load().endpoints[0]
	last := e.idle[len(e.idle)-1]
	for range 5 {
		g.open <- ok2
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
		check(t, "the same is last again", e.idle[len(e.idle)-1], last)
	}
	check(t, "connections", o.conns(), 3)
}

func TestMaxConnections(t *testing.T) {
	g := newGate()
	o := newOrigin(t, g.serve)
	u := testUpstream(t, config.Upstream{MaxConnections: 2}, o.url)
	results := make(chan string, 10)
	for i := range 2 {
		go func() { results <- result(u, newExchange("GET", fmt.Sprint("/", i))) }()
		<-g.came
	}
	// The rest waits in order.
	for i := range 4 {
		go func() { results <- result(u, newExchange("GET", fmt.Sprint("/waits/", i))) }()
		eventually(t, "it waits", func() bool { return u.Status().Targets[0].Waiting == i+1 })
	}
	for i := range 4 {
		g.open <- ok2
		check(t, "next in turn", <-g.came, fmt.Sprint("/waits/", i))
	}
	for range 2 {
		g.open <- ok2
	}
	for range 6 {
		check(t, "result", <-results, "OK ok")
	}
	check(t, "connections", o.conns(), 2)
	open, idle := settled(t, u)
	check(t, "open", open, 2)
	check(t, "idle", idle, 2)
}

// A connection that ends makes room for whoever waits.
func TestWaiterGetsTheRoomOfAClosedConnection(t *testing.T) {
	g := newGate()
	o := newOrigin(t, g.serve)
	u := testUpstream(t, config.Upstream{MaxConnections: 1}, o.url)
	results := make(chan string, 2)
	ask := func(method string) { results <- result(u, newExchange(method, "/")) }
	go ask("GET")
	<-g.came
	for _, method := range []string{"GET", "POST"} {
		go ask(method)
		eventually(t, "it waits", func() bool { return u.Status().Targets[0].Waiting == 1 })
		g.open <- "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
		check(t, "result", <-results, "OK ok")
		<-g.came
	}
	g.open <- ok2
	check(t, "result", <-results, "OK ok")
	check(t, "connections", o.conns(), 3)
}

func TestWaitingHasAnEnd(t *testing.T) {
	const busy = "upstream_unavailable Service Unavailable by upstream (connection_limit_reached)"
	g := newGate()
	o := newOrigin(t, g.serve)
	u := testUpstream(t, config.Upstream{MaxConnections: 1, Timeout: duration(200 * time.Millisecond)}, o.url)
	first := make(chan string)
	go func() { first <- result(u, newExchange("GET", "/")) }()
	<-g.came

	x := newExchange("GET", "/")
	x.Deadline = x.Start.Add(20 * time.Millisecond)
	check(t, "until the deadline", result(u, x), busy)

	x = newExchange("GET", "/")
	go func() {
		eventually(t, "it waits", func() bool { return u.Status().Targets[0].Waiting == 1 })
		x.Cancel()
	}()
	check(t, "until the client goes", result(u, x), "client_gone  by client")
	check(t, "waiting", u.Status().Targets[0].Waiting, 0)
	g.open <- ok2
	<-first
	open, idle := settled(t, u)
	check(t, "open", open, 1)
	check(t, "idle", idle, 1)
}

func TestQueueIsBounded(t *testing.T) {
	e := &endpoint{limit: 1}
	check(t, "the first", e.reserve(), true)
	for range maxWaiting {
		if ok, w := e.reserveOrWait(); ok || w == nil {
			t.Fatal("no place in the queue")
		}
	}
	ok, w := e.reserveOrWait()
	check(t, "reserved", ok, false)
	check(t, "one more", w, nil)
	check(t, "fault", failure(noSlot().err), "upstream_unavailable Service Unavailable by upstream (connection_limit_reached)")
}

// A limit and waiters under random endings leave the counts right.
func TestLimitUnderPressure(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		for n := 0; ; n++ {
			r, _ := p.request()
			if r == nil {
				return
			}
			if n%7 == 6 {
				p.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
				return
			}
			p.send(ok2)
		}
	})
	u := testUpstream(t, config.Upstream{MaxConnections: 3}, o.url)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			x := newExchange("GET", "/")
			for i := range 100 {
				refill(x, "GET", "/")
				if (i+w)%10 == 0 {
					x.Deadline = x.Start.Add(time.Millisecond)
				}
				got := result(u, x)
				if got != "OK ok" && x.Deadline.IsZero() {
					t.Error(got)
				}
			}
		})
	}
	wg.Wait()
	open, idle := settled(t, u)
	if open != idle || open > 3 {
		t.Errorf("%d open, %d idle", open, idle)
	}
	check(t, "waiting", u.Status().Targets[0].Waiting, 0)
}

func TestIdleConnectionsAge(t *testing.T) {
	o := newOrigin(t, answer("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nok"))
	u := testUpstream(t, config.Upstream{}, o.url)
	for range 3 {
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	}
	check(t, "a timeout of 0 is not kept", o.conns(), 3)

	o = newOrigin(t, answer(ok2))
	quick := shortTimes()
	quick.idle = 150 * time.Millisecond
	u = testUpstreamEnv(t, config.Upstream{}, Env{}, quick, o.url)
	check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	eventually(t, "the keeper closes it", func() bool { open, _ := settled(t, u); return open == 0 })

	e := u.set.Load().endpoints[0]
	check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	c := e.take(time.Now().Add(time.Second), false)
	if c != nil {
		t.Error("a connection is used though it is too old")
	}
}

// Idle connections that the target closed are found by the keeper, not by a request.
func TestKeeperFindsClosedConnections(t *testing.T) {
	g := newGate()
	o := newOrigin(t, g.serve)
	u := testUpstreamEnv(t, config.Upstream{}, Env{}, shortTimes(), o.url)
	var wg sync.WaitGroup
	const n = 3*sweepStep + 1
	for range n {
		wg.Go(func() { result(u, newExchange("GET", "/")) })
	}
	for range n {
		<-g.came
	}
	for range n {
		g.open <- ok2
	}
	wg.Wait()
	_, idle := settled(t, u)
	check(t, "idle", idle, n)
	o.mu.Lock()
	for i, p := range o.peers {
		if i%2 == 0 {
			_ = p.CloseWrite()
		}
	}
	o.mu.Unlock()
	eventually(t, "half of them go", func() bool { open, _ := settled(t, u); return open == n/2 })
	g.open <- ok2
	check(t, "the rest is good", result(u, newExchange("POST", "/")), "OK ok")
	check(t, "connections", o.conns(), n)
}

// Something that comes unasked, such as a 408 before the target closes, is never
// taken for the response to the next request.
func TestUnaskedResponseIsNotUsed(t *testing.T) {
	sent := make(chan struct{})
	o := newOrigin(t, func(p *peer) {
		p.request()
		p.send(ok2)
		if p.id == 0 {
			quiet := time.NewTimer(2 * cold)
			<-quiet.C
			p.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nevil")
			close(sent)
		}
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	check(t, "first", result(u, newExchange("GET", "/")), "OK ok")
	<-sent
	check(t, "second", result(u, newExchange("GET", "/")), "OK ok")
}

// A target that is down is found to be back by the keeper: no request has to fail
// for it, and none goes there before.
func TestRecoveryWithoutVictims(t *testing.T) {
	a, b := newOrigin(t, answer(ok2)), newOrigin(t, answer(ok2))
	u := testUpstreamEnv(t, config.Upstream{Balance: "round_robin", Retry: retryOn(1, "connect")}, Env{}, shortTimes(), a.url, b.url)
	for range 4 {
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	}
	addr := b.addr.String()
	b.stop()
	eventually(t, "it is set aside", func() bool {
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
		return u.Status().Targets[1].Out
	})
	failures := u.Status().Targets[1].Failures
	for range 100 {
		x := newExchange("POST", "/")
		check(t, "result", result(u, x), "OK ok")
		check(t, "attempts", x.Usage.Attempts, 1)
	}
	check(t, "failures while it is out", u.Status().Targets[1].Failures, failures)
	b.listen(t, addr)
	back := time.Now()
	eventually(t, "it is back", func() bool { return !u.Status().Targets[1].Out })
	if took := time.Since(back); took > time.Second {
		t.Errorf("it took %v", took)
	}
	before := len(b.requests())
	for range 4 {
		check(t, "result", result(u, newExchange("POST", "/")), "OK ok")
	}
	check(t, "requests there", len(b.requests())-before, 2)
}

// When all targets are set aside they are asked all the same.
func TestAllOutAreStillAsked(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	addr := o.addr.String()
	o.stop()
	slow := shortTimes()
	u := testUpstreamEnv(t, config.Upstream{}, Env{}, slow, o.url)
	e := u.set.Load().endpoints[0]
	result(u, newExchange("GET", "/"))
	check(t, "out", e.out.Load(), true)
	o.listen(t, addr)
	check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	check(t, "out", e.out.Load(), false)
}

func TestPausesGrowToUnderASecond(t *testing.T) {
	e := &endpoint{}
	now := time.Unix(1000, 0)
	check(t, "news", e.setAside(now, false), true)
	check(t, "no news", e.setAside(now, false), false)
	for i := range 20 {
		look, again := e.due(now)
		check(t, "not yet", look, false)
		pause := again.Sub(now)
		if pause < firstPause/2 || pause >= longestPause || i > 5 && pause < longestPause/2 {
			t.Fatalf("pause %d is %v", i, pause)
		}
		now = again
		look, _ = e.due(now)
		check(t, "now", look, true)
		look, _ = e.due(now)
		check(t, "only one looks", look, false)
		e.setAside(now, true)
		e.probed()
	}
	check(t, "back", e.restore(), true)
	check(t, "no news", e.restore(), false)
	e.setAside(now, false)
	_, again := e.due(now)
	check(t, "the pause begins anew", again.Sub(now) < firstPause, true)
}

func TestConnectTimeout(t *testing.T) {
	// A listener whose queue is full drops what comes: a connection that hangs.
	full := fullListener(t)
	u := testUpstream(t, config.Upstream{ConnectTimeout: duration(60 * time.Millisecond)}, "http://"+full)
	x := newExchange("GET", "/")
	check(t, "result", result(u, x), "upstream_unavailable Bad Gateway by upstream (connection_timeout)")
	x = newExchange("GET", "/")
	x.Deadline = x.Start.Add(20 * time.Millisecond)
	check(t, "result", result(u, x), "upstream_timeout Gateway Timeout by upstream (http_response_timeout)")
	x = newExchange("GET", "/")
	timer := time.AfterFunc(10*time.Millisecond, x.Cancel)
	defer timer.Stop()
	check(t, "result", result(u, x), "client_gone  by client")
}

func TestStatus(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	dead := newOrigin(t, nil)
	dead.stop()
	c := config.Upstream{Balance: "round_robin", Retry: retryOn(1, "connect"), Targets: []config.Target{
		{URL: o.url, Weight: 1}, {URL: dead.url, Weight: 1}, {URL: "http://spare.internal", Weight: 0}, {URL: "http://none.internal", Weight: 2},
	}}
	u := testUpstreamEnv(t, c, Env{Resolver: names{}}, usualTimes())
	<-u.first
	for range 6 {
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	}
	settled(t, u)
	s := u.Status()
	check(t, "retry at", s.Targets[1].RetryAt.IsZero(), false)
	s.Targets[1].RetryAt = time.Time{}
	const lookUp = "lookup none.internal: no such host"
	got := fmt.Sprintf("%+v", s)
	want := fmt.Sprintf("%+v", Status{Name: "up", Balance: "round_robin", Targets: []TargetStatus{
		{URL: o.url, Address: o.addr.String(), Weight: 1, Open: 1, Idle: 1, Requests: 6},
		{URL: dead.url, Address: dead.addr.String(), Weight: 1, Requests: 1, Failures: 1, Out: true},
		{URL: "http://spare.internal", Error: "lookup spare.internal: no such host"},
		{URL: "http://none.internal", Weight: 2, Error: lookUp},
	}})
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", strings.ReplaceAll(got, "{URL", "\n{URL"), strings.ReplaceAll(want, "{URL", "\n{URL"))
	}
}

// Close closes what is idle, and lets what is busy end by itself.
func TestClose(t *testing.T) {
	g := newGate()
	o := newOrigin(t, g.serve)
	u := testUpstream(t, config.Upstream{MaxConnections: 2}, o.url)
	g.open <- ok2
	check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	<-g.came
	busy := make(chan string, 3)
	go func() { busy <- result(u, newExchange("GET", "/busy")) }()
	<-g.came
	go func() { busy <- result(u, newExchange("GET", "/busy")) }()
	<-g.came
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	g.open <- ok2
	g.open <- ok2
	check(t, "busy", <-busy, "OK ok")
	check(t, "busy", <-busy, "OK ok")
	open, _ := settled(t, u)
	check(t, "open", open, 0)
	g.open <- ok2
	check(t, "one that comes late", result(u, newExchange("GET", "/late")), "OK ok")
	open, _ = settled(t, u)
	check(t, "open", open, 0)
}

// Whoever waits for a connection when the endpoint goes chooses another.
func TestWaiterOfAnEndpointThatGoes(t *testing.T) {
	g := newGate()
	a := newOrigin(t, g.serve)
	_, port, _ := strings.Cut(a.addr.String(), ":")
	originAt(t, "127.0.0.2:"+port, answer(ok2))
	z := &zone{names: names{}}
	z.set("users.internal", "127.0.0.1")
	u := testUpstreamEnv(t, config.Upstream{MaxConnections: 1}, Env{Resolver: z}, shortTimes(), "http://users.internal:"+port)
	results := make(chan string, 2)
	go func() { results <- result(u, newExchange("GET", "/")) }()
	<-g.came
	x := newExchange("GET", "/")
	go func() { results <- result(u, x) }()
	eventually(t, "it waits", func() bool { return u.Status().Targets[0].Waiting == 1 })
	z.set("users.internal", "127.0.0.2")
	check(t, "result", <-results, "OK ok")
	check(t, "attempts", x.Usage.Target, "127.0.0.2:"+port)
	g.open <- ok2
	check(t, "result", <-results, "OK ok")
}

var _ exchange.Canceler = (*stream)(nil)

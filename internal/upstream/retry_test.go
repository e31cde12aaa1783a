package upstream

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// slow gives x a body that is not there yet when it is asked for.
func slow(x *exchange.Exchange) {
	x.Request.Body = &pattern{left: 3, piece: make([]byte, 2), hash: io.Discard}
	x.Request.ContentLength = 3
}

// closesAfterEach answers one request on each connection, promises to go on, and
// closes it once told: what a target does whose idle timeout has passed.
func closesAfterEach(closed chan<- struct{}) func(*peer) {
	return func(p *peer) {
		if r, _ := p.request(); r == nil {
			return
		}
		p.send(ok2)
		_ = p.Close()
		closed <- struct{}{}
	}
}

// A kept connection that the target has closed is no failure: not for a GET, which
// is sent again, and not for a POST, which is never sent over it.
func TestClosedKeptConnection(t *testing.T) {
	for _, method := range []string{"GET", "PUT", "POST", "PATCH"} {
		closed := make(chan struct{}, 10)
		o := newOrigin(t, closesAfterEach(closed))
		u := testUpstream(t, config.Upstream{}, o.url)
		for i := range 5 {
			x := withBody(newExchange(method, fmt.Sprint("/", i)), "abc")
			check(t, method, result(u, x), "OK ok")
			<-closed
		}
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprint(method, " /", i))
		}
		if got := o.requests(); !slices.Equal(got, want) {
			t.Errorf("the target saw %v", got)
		}
	}
}

// dropsSecond answers the first request on a connection and breaks off at the second,
// after it has read it.
func dropsSecond(p *peer) {
	if r, _ := p.request(); r == nil {
		return
	}
	p.send(ok2)
	if r, _ := p.request(); r != nil && p.id%2 == 0 {
		p.reset()
		return
	}
	p.send(ok2)
}

// A connection that breaks after the request was read, before a byte of a response:
// the request is sent again if and only if it may be.
func TestKeptConnectionThatBreaks(t *testing.T) {
	broken := "upstream_unavailable Bad Gateway by upstream (connection_terminated)"
	key := func(x *exchange.Exchange) { x.Request.Header.Add([]byte("Idempotency-Key"), []byte("k1")) }
	for _, c := range []struct {
		method string
		prep   func(*exchange.Exchange)
		want   string
		seen   int
	}{
		{"GET", nil, "OK ok", 3},
		{"HEAD", nil, "OK", 3},
		{"DELETE", nil, "OK ok", 3},
		{"PUT", func(x *exchange.Exchange) { withBody(x, "abc") }, "OK ok", 3},
		{"QUERY", func(x *exchange.Exchange) { withBody(x, "abc") }, "OK ok", 3},
		{"POST", key, "OK ok", 3},
		{"POST", nil, broken, 2},
		{"POST", func(x *exchange.Exchange) { withBody(x, "abc") }, broken, 2},
		{"PATCH", nil, broken, 2},
		// What a pump has let go is not there to be sent again.
		{"PUT", slow, broken, 2},
	} {
		o := newOrigin(t, dropsSecond)
		u := testUpstream(t, config.Upstream{}, o.url)
		check(t, "first", result(u, newExchange("GET", "/")), "OK ok")
		x := newExchange(c.method, "/")
		if c.prep != nil {
			c.prep(x)
		}
		got := result(u, x)
		if !strings.HasPrefix(got, c.want) || strings.HasPrefix(c.want, "OK") != strings.HasPrefix(got, "OK") {
			t.Errorf("%s: got %s, want %s", c.method, got, c.want)
		}
		check(t, c.method+": requests seen", len(o.requests()), c.seen)
	}
}

// A first use that breaks is a failure of the target, not of keeping connections.
func TestFreshConnectionThatBreaks(t *testing.T) {
	o := newOrigin(t, func(p *peer) { p.request() })
	u := testUpstream(t, config.Upstream{}, o.url)
	check(t, "result", result(u, newExchange("GET", "/")), "upstream_unavailable Bad Gateway by upstream (connection_terminated)")
	check(t, "requests", len(o.requests()), 1)
}

// Half a response is not asked for again.
func TestKeptConnectionThatBreaksInsideAResponse(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.request()
		p.send(ok2)
		p.request()
		p.send("HTTP/1.1 200")
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	check(t, "first", result(u, newExchange("GET", "/")), "OK ok")
	check(t, "second", result(u, newExchange("GET", "/")), "bad_upstream_response Bad Gateway by upstream (http_response_incomplete)")
	check(t, "requests", len(o.requests()), 2)
}

// A target that is stopped and started again under load: no POST is seen twice, and
// it is back in use at once.
func TestRestartUnderLoad(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	serve := func(p *peer) {
		for {
			r, _ := p.request()
			if r == nil {
				return
			}
			mu.Lock()
			seen[r.Method+r.RequestURI]++
			mu.Unlock()
			p.send(ok2)
		}
	}
	o := newOrigin(t, serve)
	addr := o.addr.String()
	u := testUpstream(t, config.Upstream{Retry: &config.Retry{Attempts: 2, On: []string{"connect", "reset"}, Budget: config.Percent{Of: 1}}}, o.url)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			x := newExchange("GET", "/")
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				method := []string{"POST", "GET"}[i%2]
				refill(x, method, fmt.Sprintf("/%d/%d", w, i))
				switch got := result(u, x); {
				case got == "OK ok":
					good.Add(1)
				case strings.HasPrefix(got, "upstream_unavailable Bad Gateway"):
					bad.Add(1)
				default:
					t.Errorf("%s: got %s", method, got)
				}
			}
		})
	}
	for range 4 {
		before := good.Load()
		eventually(t, "traffic flows", func() bool { return good.Load() > before+200 })
		o.stop()
		failed := bad.Load()
		eventually(t, "requests fail", func() bool { return bad.Load() > failed+20 })
		o.listen(t, addr)
		restarted, before := time.Now(), good.Load()
		eventually(t, "requests succeed", func() bool { return good.Load() > before })
		if took := time.Since(restarted); took > time.Second {
			t.Errorf("it took %v until the target was used again", took)
		}
	}
	close(stop)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	for request, n := range seen {
		if n > 1 && strings.HasPrefix(request, "POST") {
			t.Errorf("%s was seen %d times", request, n)
		}
	}
}

// Connections are killed at random; every POST is seen at most once, and exactly
// once when it was answered.
func TestPostIsNeverDuplicated(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	o := newOrigin(t, func(p *peer) {
		for {
			r, _ := p.request()
			if r == nil {
				return
			}
			mu.Lock()
			seen[r.RequestURI]++
			mu.Unlock()
			switch rand.IntN(12) {
			case 0:
				p.reset()
				return
			case 1:
				return
			case 2:
				p.send(ok2)
				p.reset()
				return
			case 3:
				p.send(ok2)
				return
			case 4:
				p.send(ok2[:rand.IntN(len(ok2))])
				return
			}
			p.send(ok2)
		}
	})
	u := testUpstream(t, config.Upstream{
		Retry: &config.Retry{Attempts: 3, On: []string{"connect", "reset", "502", "503"}, Budget: config.Percent{Of: 1}},
	}, o.url)
	var wg sync.WaitGroup
	answered := make([][]string, 4)
	for w := range answered {
		wg.Go(func() {
			x := newExchange("POST", "/")
			for i := range 400 {
				id := fmt.Sprintf("/%d/%d", w, i)
				refill(x, "POST", id)
				switch i % 3 {
				case 0:
					withBody(x, "abc")
				case 1:
					withStream(x, streamOf("ab", "c"), 3)
				}
				if result(u, x) == "OK ok" {
					answered[w] = append(answered[w], id)
				}
				if x.Request.Body != nil {
					_ = x.Request.Body.Close()
				}
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was seen %d times", id, n)
		}
	}
	for _, ids := range answered {
		for _, id := range ids {
			if seen[id] != 1 {
				t.Errorf("%s was answered and seen %d times", id, seen[id])
			}
		}
	}
	settled(t, u)
}

func retryOn(attempts int, on ...string) *config.Retry {
	return &config.Retry{Attempts: attempts, On: on, Budget: config.Percent{Of: 0.2}}
}

func TestRetries(t *testing.T) {
	const echoed = "echo the body"
	const unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
	long := "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)
	for _, c := range []struct {
		name   string
		retry  *config.Retry
		method string
		prep   func(*exchange.Exchange)
		script []string // the replies in order, of all connections; "" closes
		want   string
		seen   int
	}{
		{"off", nil, "GET", nil, []string{unavailable}, "Service Unavailable busy", 1},
		{"a status", retryOn(2, "503"), "GET", nil, []string{unavailable, unavailable, ok2}, "OK ok", 3},
		{"a status with a long body", retryOn(2, "503"), "GET", nil, []string{long, ok2}, "OK ok", 2},
		{"another status", retryOn(2, "502"), "GET", nil, []string{unavailable}, "Service Unavailable busy", 1},
		{"no tries left", retryOn(2, "503"), "GET", nil, []string{unavailable, unavailable, unavailable, ok2}, "Service Unavailable busy", 3},
		{"a reset", retryOn(2, "reset"), "GET", nil, []string{"", ok2}, "OK ok", 2},
		{"half a head", retryOn(2, "reset"), "GET", nil, []string{"HTTP/1.1 2", ok2}, "OK ok", 2},
		{"not a reset", retryOn(2, "connect"), "GET", nil, []string{""}, "upstream_unavailable Bad Gateway by upstream (connection_terminated)", 1},
		{"garbage", retryOn(2, "reset", "503"), "GET", nil, []string{"garbage\r\n\r\n"}, "bad_upstream_response Bad Gateway by upstream (http_protocol_error)", 1},
		{"a late head", retryOn(2, "504"), "GET", nil, []string{"silence", ok2}, "OK ok", 2},
		{"a POST", retryOn(2, "503", "reset"), "POST", nil, []string{unavailable}, "Service Unavailable busy", 1},
		{"a POST that breaks", retryOn(2, "503", "reset"), "POST", nil, []string{""}, "upstream_unavailable Bad Gateway by upstream (connection_terminated)", 1},
		{"a POST with a key", retryOn(2, "503"), "POST", func(x *exchange.Exchange) {
			withBody(x, "abc").Request.Header.Add([]byte("idempotency-key"), []byte("1"))
		}, []string{unavailable, ok2}, "OK ok", 2},
		{"a PUT in hand", retryOn(2, "503"), "PUT", func(x *exchange.Exchange) { withBody(x, "abc") }, []string{unavailable, ok2}, "OK ok", 2},
		{"a large PUT in hand", retryOn(2, "503"), "PUT", func(x *exchange.Exchange) { withBody(x, strings.Repeat("a", 100000)) }, []string{unavailable, ok2}, "OK ok", 2},
		{"a PUT in hand, in pieces", retryOn(2, "503"), "PUT", func(x *exchange.Exchange) {
			s := newStream()
			s.ahead, s.eof = []string{"ab", "c", "d"}, true
			withStream(x, s, 4)
		}, []string{unavailable, unavailable, echoed}, "OK abcd", 3},
		{"a PUT that streams", retryOn(2, "503"), "PUT", slow, []string{unavailable}, "Service Unavailable busy", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			script := c.script
			next := func() string {
				mu.Lock()
				defer mu.Unlock()
				if len(script) == 0 {
					return "HTTP/1.1 500 Script Ended\r\nContent-Length: 0\r\n\r\n"
				}
				s := script[0]
				script = script[1:]
				return s
			}
			o := newOrigin(t, func(p *peer) {
				for {
					r, body := p.request()
					if r == nil {
						return
					}
					s := next()
					switch {
					case s == echoed:
						p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
						continue
					case s == "":
						return
					case s == "silence":
						_, _ = io.Copy(io.Discard, p.r)
						return
					}
					p.send(s)
					if s == "HTTP/1.1 2" {
						return
					}
				}
			})
			u := testUpstream(t, config.Upstream{Retry: c.retry, Timeout: duration(100 * time.Millisecond)}, o.url)
			x := newExchange(c.method, "/")
			if c.prep != nil {
				c.prep(x)
			}
			check(t, "result", result(u, x), c.want)
			check(t, "requests", len(o.requests()), c.seen)
			check(t, "attempts", x.Usage.Attempts, c.seen)
			settled(t, u)
		})
	}
}

// The next try goes to another target.
func TestRetryGoesElsewhere(t *testing.T) {
	bad := newOrigin(t, answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))
	good := newOrigin(t, answer(ok2))
	for _, balance := range []string{"p2c", "round_robin", "least_requests", "hash"} {
		u := testUpstream(t, config.Upstream{
			Balance: balance, HashOn: "path", Retry: &config.Retry{Attempts: 1, On: []string{"503"}, Budget: config.Percent{Of: 1}},
		}, bad.url, good.url)
		for i := range 30 {
			check(t, balance, result(u, newExchange("GET", fmt.Sprint("/", i))), "OK ok")
		}
	}
}

// A connection that cannot be made: nothing was sent, so even a POST whose body
// streams may try the next target, and with no retries configured nothing does.
func TestConnectFailures(t *testing.T) {
	dead := newOrigin(t, nil)
	dead.stop()
	good := newOrigin(t, echo)
	const refused = "upstream_unavailable Bad Gateway by upstream (connection_refused)"
	t.Run("alone", func(t *testing.T) {
		u := testUpstream(t, config.Upstream{Retry: retryOn(1, "connect")}, dead.url)
		x := newExchange("GET", "/")
		check(t, "result", result(u, x), refused)
		check(t, "attempts", x.Usage.Attempts, 2)
		check(t, "set aside", u.Status().Targets[0].Out, true)
	})
	t.Run("with another", func(t *testing.T) {
		u := testUpstream(t, config.Upstream{Balance: "round_robin", Retry: retryOn(1, "connect")}, dead.url, good.url)
		for range 10 {
			x := withStream(newExchange("POST", "/"), streamOf("ab", "c"), 3)
			check(t, "result", result(u, x), "OK 3 abc")
		}
	})
	t.Run("without retries", func(t *testing.T) {
		u := testUpstream(t, config.Upstream{Balance: "round_robin"}, dead.url, good.url)
		failed := 0
		for range 50 {
			switch got := result(u, withBody(newExchange("POST", "/"), "abc")); got {
			case "OK 3 abc":
			case refused:
				failed++
			default:
				t.Error(got)
			}
		}
		check(t, "failures until the target is set aside", failed, 1)
	})
}

func TestNoRetryForAClientThatHasGone(t *testing.T) {
	x := newExchange("GET", "/")
	o := newOrigin(t, func(p *peer) {
		p.request()
		x.Cancel()
		p.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
		p.request()
	})
	u := testUpstream(t, config.Upstream{Retry: retryOn(3, "503", "reset")}, o.url)
	result(u, x)
	check(t, "requests", len(o.requests()), 1)
}

func TestDeadlineEndsRetries(t *testing.T) {
	o := newOrigin(t, answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))
	u := testUpstream(t, config.Upstream{Retry: &config.Retry{Attempts: 10, On: []string{"503"}, Budget: config.Percent{Of: 1}}}, o.url)
	x := newExchange("GET", "/")
	x.Deadline = x.Start.Add(30 * time.Millisecond)
	got := result(u, x)
	if got != "Service Unavailable" && got != "upstream_timeout Gateway Timeout by upstream (http_response_timeout)" {
		t.Error(got)
	}
	if n := len(o.requests()); n > 8 {
		t.Errorf("%d tries within 30 ms, though each waits 5 ms or more for its turn", n)
	}
}

// All of an upstream fails: the target sees the requests, and the budget's share of
// them once more.
func TestBudgetHolds(t *testing.T) {
	var seen atomic.Int64
	o := newOrigin(t, func(p *peer) {
		for {
			if r, _ := p.request(); r == nil {
				return
			}
			seen.Add(1)
			p.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
		}
	})
	other := newOrigin(t, func(p *peer) {
		for {
			if r, _ := p.request(); r == nil {
				return
			}
			seen.Add(1)
			p.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
		}
	})
	u := testUpstream(t, config.Upstream{Retry: retryOn(3, "503")}, o.url, other.url)
	began := time.Now()
	const requests = 2000
	x := newExchange("GET", "/")
	for range requests {
		refill(x, "GET", "/")
		check(t, "result", result(u, x), "Service Unavailable")
	}
	most := requests*0.2 + floorMost + floorRate*time.Since(began).Seconds() + 1
	if n := float64(seen.Load() - requests); n > most || n < requests*0.15 {
		t.Errorf("%v retries, want at most %v", n, most)
	}
}

func TestBudgetInTime(t *testing.T) {
	at := time.Unix(1000, 0)
	// take takes all there is; requests does not count retries.
	take := func(b *budget, now time.Time, requests uint64) (n int) {
		for b.take(now, requests+b.taken) {
			n++
		}
		return n
	}
	b := &budget{share: 0.2, at: at, floor: floorMost}
	check(t, "at the start", take(b, at, 0), 5)
	check(t, "nothing happens", take(b, at, 0), 0)
	check(t, "a second later", take(b, at.Add(time.Second), 0), 1)
	check(t, "after 100 requests", take(b, at.Add(time.Second), 100), 20)
	check(t, "after an hour of 1 a second", take(b, at.Add(time.Hour), 3700), 5+2)
	check(t, "the clock goes back", take(b, at, 3710), 2)
	check(t, "saved, half of it leaks", func() int {
		b.take(at.Add(time.Hour), 3710+b.taken)
		b.saved, b.floor = 10, 0
		b.at = at.Add(time.Hour)
		return take(b, at.Add(time.Hour+5*time.Second), 3710)
	}(), 5+5)
}

// A target that refuses before it asked for the body leaves the body for the next.
func TestRetryBeforeTheBodyWasAskedFor(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		r := p.head()
		if r == nil || p.id == 0 {
			p.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, p.r)
			return
		}
		p.send("HTTP/1.1 100 Continue\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	})
	u := testUpstream(t, config.Upstream{Retry: retryOn(1, "503")}, o.url)
	d := &driver{told: make(chan string, 1)}
	s := newStream()
	x := withStream(newExchange("PUT", "/"), s, 3)
	x.Driver, x.Request.Expect = d, true
	go func() {
		<-d.told
		s.pieces <- "abc"
		close(s.pieces)
	}()
	check(t, "result", result(u, x), "OK abc")
	check(t, "close", x.Response.Close, false)
}

func TestRetryAfterEarlyResponseIsNone(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{Retry: retryOn(3, "503")}, o.url)
	s := newStream()
	s.pieces <- "some"
	x := withStream(newExchange("PUT", "/"), s, 100)
	check(t, "result", result(u, x), http.StatusText(http.StatusServiceUnavailable))
	check(t, "requests", len(o.requests()), 1)
	check(t, "close", x.Response.Close, true)
}

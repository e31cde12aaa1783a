package upstream

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestResponses(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20<<10)
	for _, c := range []struct {
		name, method, reply, want string
		kept                      int // connections that remain idle
	}{
		{"by length", "GET", ok2, "OK ok", 1},
		{"empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "OK", 1},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "No Content", 1},
		{"not modified with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", "Not Modified", 1},
		{"to HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "OK", 1},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "OK abcde", 1},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nall there is", "OK all there is", 0},
		{"of HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "OK ok", 0},
		{"that closes", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "OK ok", 0},
		{"large by length", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big), "OK " + big, 1},
		{"large chunked", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(big), big), "OK " + big, 1},
		{"large head", "GET", "HTTP/1.1 200 OK\r\nX-Big: " + big[:40<<10] + "\r\nContent-Length: 2\r\n\r\nok", "OK ok", 1},
		{"with early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok2, "OK ok", 1},
		{"with more than was asked for", "GET", ok2 + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "OK ok", 0},

		{"none", "GET", "", "upstream_unavailable Bad Gateway by upstream (connection_terminated)", 0},
		{"half a head", "GET", "HTTP/1.1 200 OK\r\nContent-", "bad_upstream_response Bad Gateway by upstream (http_response_incomplete)", 0},
		{"hints and nothing else", "GET", "HTTP/1.1 103 Early Hints\r\n\r\n", "bad_upstream_response Bad Gateway by upstream (http_response_incomplete)", 0},
		{"garbage", "GET", "\x16\x03\x01 what is this\r\n\r\n", "bad_upstream_response Bad Gateway by upstream (http_protocol_error)", 0},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "bad_upstream_response Bad Gateway by upstream (http_protocol_error)", 0},
		{"endless head", "GET", "HTTP/1.1 200 OK\r\nX-Big: " + big[:70<<10] + "\r\n\r\n", "bad_upstream_response Bad Gateway by upstream (http_response_header_section_size)", 0},
		{"an upgrade nobody wanted", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "bad_upstream_response Bad Gateway by upstream (http_upgrade_failed)", 0},
		{"endless hints", "GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 101), "bad_upstream_response Bad Gateway by upstream (http_protocol_error)", 0},
		{"half a body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "OK half then bad_upstream_response Bad Gateway by upstream (http_response_incomplete)", 0},
		{"half a chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "OK half then bad_upstream_response Bad Gateway by upstream (http_response_incomplete)", 0},
		{"a bad chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", "OK ok then bad_upstream_response Bad Gateway by upstream (http_protocol_error)", 0},
	} {
		for _, step := range []int{1 << 30, 1000} {
			t.Run(fmt.Sprintf("%s, %d at a time", c.name, step), func(t *testing.T) {
				o := newOrigin(t, func(p *peer) {
					if r, _ := p.request(); r == nil {
						return
					}
					for rest := c.reply; rest != ""; {
						n := min(step, len(rest))
						p.send(rest[:n])
						rest = rest[n:]
					}
					if c.kept > 0 {
						p.request()
					}
				})
				u := testUpstream(t, config.Upstream{}, o.url)
				if got := result(u, newExchange(c.method, "/")); got != c.want {
					t.Errorf("got  %.200q\nwant %.200q", got, c.want)
				}
				open, idle := settled(t, u)
				if open != c.kept || idle != c.kept {
					t.Errorf("%d open, %d idle, want %d", open, idle, c.kept)
				}
			})
		}
	}
}

// A response that comes a byte at a time is the same response.
func TestDribblingResponse(t *testing.T) {
	const reply = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n"
	o := newOrigin(t, func(p *peer) {
		for {
			if r, _ := p.request(); r == nil {
				return
			}
			for i := range len(reply) {
				p.send(reply[i : i+1])
			}
		}
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	for range 3 {
		check(t, "result", result(u, x), "OK abcde")
		check(t, "trailer", string(x.Response.Trailer.Get([]byte("x-sum"))), "7")
		check(t, "hints", strings.Join(x.Driver.(*driver).got(), " "), "Early Hints|Link=</a>")
		refill(x, "GET", "/")
	}
	check(t, "connections", o.conns(), 1)
}

// What the response's header and trailer point to holds until the exchange is reset,
// however often its memory has been used again.
func TestHeaderOutlivesTheBody(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		for n := 0; ; n++ {
			if r, _ := p.request(); r == nil {
				return
			}
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nX-N: %d\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-T: %d\r\n\r\n", n, n))
		}
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	var xs []*exchange.Exchange
	for range 5 {
		x := newExchange("GET", "/")
		check(t, "result", result(u, x), "OK a")
		xs = append(xs, x)
	}
	for n, x := range xs {
		want := fmt.Sprint(n)
		check(t, "header", string(x.Response.Header.Get([]byte("X-N"))), want)
		check(t, "trailer", string(x.Response.Trailer.Get([]byte("X-T"))), want)
	}
}

// Closing a body twice is allowed, also when its connection already serves another.
func TestSecondCloseTouchesNobody(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	u := testUpstream(t, config.Upstream{}, o.url)
	a, b := newExchange("GET", "/a"), newExchange("GET", "/b")
	if err := u.Do(a); err != nil {
		t.Fatal(err)
	}
	if _, err := readBody(a); err != nil {
		t.Fatal(err)
	}
	if err := u.Do(b); err != nil {
		t.Fatal(err)
	}
	_ = a.Response.Body.Close()
	body, err := readBody(b)
	check(t, "body", string(body), "ok")
	check(t, "error", err, nil)
	check(t, "connections", o.conns(), 1)
}

// A stream of events is passed on piece by piece, at once, and may be silent for
// longer than the timeout of a try.
func TestEventsPassAtOnce(t *testing.T) {
	next := make(chan string)
	o := newOrigin(t, func(p *peer) {
		if p.head() == nil {
			return
		}
		p.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for e := range next {
			p.send(fmt.Sprintf("%x\r\n%s\r\n", len(e), e))
		}
		p.send("0\r\n\r\n")
	})
	u := testUpstream(t, config.Upstream{Timeout: duration(50 * time.Millisecond)}, o.url)
	x := newExchange("GET", "/")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		e := fmt.Sprintf("data: %d\n\n", i)
		if i == 3 {
			quiet := time.NewTimer(120 * time.Millisecond) // longer than the timeout
			<-quiet.C
		}
		check(t, "ready", x.Response.Body.Ready(), false)
		next <- e
		piece, err := x.Response.Body.Next()
		check(t, "piece", string(piece), e)
		check(t, "error", err, nil)
	}
	close(next)
	_, err := readBody(x)
	check(t, "end", err, nil)
}

// While a body is waited for, it holds no buffer.
func TestSilentBodyHoldsNoBuffer(t *testing.T) {
	end := make(chan struct{})
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		<-end
		p.send("0\r\n\r\n")
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	k := x.Kept.(*call)
	piece, _ := x.Response.Body.Next()
	check(t, "piece", string(piece), "a")
	k.room()
	if k.in != nil {
		t.Error("a body without anything unread holds a buffer")
	}
	close(end)
	_, err := readBody(x)
	check(t, "end", err, nil)
}

func TestKeepAliveTimeIsLearned(t *testing.T) {
	for _, c := range []struct {
		value string
		want  time.Duration
	}{
		{"timeout=5", 4 * time.Second},
		{"timeout=60, max=100", 55 * time.Second},
		{"max=100, Timeout=20", 16 * time.Second},
		{"timeout=75", 55 * time.Second},
		{"timeout=1", 800 * time.Millisecond},
		{"timeout=0", 0},
		{"timeout=-1", 55 * time.Second},
		{"", 55 * time.Second},
	} {
		check(t, c.value, idleTime([]byte(c.value), 55*time.Second), c.want)
	}
}

// A body that was given to another exchange needs nothing of the first, whose end and whose
// Cancel it does not feel; it feels the other's.
func TestDetachedBodyGoesOnAlone(t *testing.T) {
	next := make(chan string)
	o := newOrigin(t, func(p *peer) {
		for {
			if r, _ := p.request(); r == nil {
				return
			}
			p.send("HTTP/1.1 200 OK\r\nX-N: v\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
			for e := range next {
				if e == "" {
					break
				}
				p.send(fmt.Sprintf("%x\r\n%s\r\n", len(e), e))
			}
			p.send("0\r\nX-T: end\r\n\r\n")
		}
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	begin := func() (exchange.Body, *exchange.Exchange, *exchange.Exchange) {
		x, y := newExchange("GET", "/"), &exchange.Exchange{}
		if err := u.Do(x); err != nil {
			t.Fatal(err)
		}
		body := x.Response.Body.(exchange.Detacher)
		check(t, "detached", body.Detach(y), true)
		return body, x, y
	}
	body, x, y := begin()
	x.Cancel()
	x.Reset()
	x.Copy(bytes.Repeat([]byte{'!'}, 2000))
	go func() {
		for _, e := range []string{"b", "c", ""} {
			next <- e
		}
	}()
	y.Response.Body = body
	got, err := readBody(y)
	check(t, "body", string(got), "abc")
	check(t, "error", err, nil)
	check(t, "trailer", string(y.Response.Trailer.Get([]byte("X-T"))), "end")
	check(t, "bytes", y.Usage.BytesIn, int64(3))

	body, _, y = begin()
	y.Cancel()
	if _, err := body.Next(); err == nil {
		_, err = body.Next()
		if err == nil {
			t.Error("a body goes on for nobody")
		}
	}
	_ = body.Close()
	close(next)
}

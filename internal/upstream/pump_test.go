package upstream

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// echo answers with how the request was framed, its body, and its trailer.
func echo(p *peer) {
	for {
		r, body := p.request()
		if r == nil {
			return
		}
		how := fmt.Sprint(r.ContentLength)
		if len(r.TransferEncoding) > 0 {
			how = r.TransferEncoding[0]
		}
		s := fmt.Sprintf("%s %s", how, body)
		for name := range r.Trailer {
			s += " " + name + "=" + r.Trailer.Get(name)
		}
		p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(s), s))
	}
}

func TestRequestBodies(t *testing.T) {
	big := strings.Repeat("0123456789", 30<<10)
	for _, c := range []struct {
		name string
		x    func() *exchange.Exchange
		want string
	}{
		{"in hand", func() *exchange.Exchange { return withBody(newExchange("POST", "/"), "abc") }, "OK 3 abc"},
		{"in hand and large", func() *exchange.Exchange { return withBody(newExchange("POST", "/"), big) }, fmt.Sprintf("OK %d %s", len(big), big)},
		{"in pieces", func() *exchange.Exchange { return withStream(newExchange("POST", "/"), streamOf("ab", "", "c"), 3) }, "OK 3 abc"},
		{"in large pieces", func() *exchange.Exchange {
			return withStream(newExchange("PUT", "/"), streamOf(big, big), int64(2*len(big)))
		}, fmt.Sprintf("OK %d %s%s", 2*len(big), big, big)},
		{"of unknown length", func() *exchange.Exchange {
			return withStream(newExchange("POST", "/"), streamOf("ab", "", "c"), exchange.Unknown)
		}, "OK chunked abc"},
		{"of unknown length and large", func() *exchange.Exchange {
			return withStream(newExchange("POST", "/"), streamOf(big, "x", big), exchange.Unknown)
		}, "OK chunked " + big + "x" + big},
		{"empty, of unknown length", func() *exchange.Exchange {
			return withStream(newExchange("POST", "/"), streamOf(), exchange.Unknown)
		}, "OK chunked "},
		{"in hand, of unknown length", func() *exchange.Exchange {
			x := withBody(newExchange("POST", "/"), "abc")
			x.Request.ContentLength = exchange.Unknown
			return x
		}, "OK chunked abc"},
		{"with a trailer", func() *exchange.Exchange {
			x := withStream(newExchange("POST", "/"), streamOf("ab", "c"), exchange.Unknown)
			x.Request.Header.Add([]byte("Trailer"), []byte("X-Sum"))
			x.Request.Trailer.Add([]byte("X-Sum"), []byte("7"))
			return x
		}, "OK chunked abc X-Sum=7"},
		{"of a GET", func() *exchange.Exchange { return withStream(newExchange("GET", "/"), streamOf("abc"), 3) }, "OK 3 abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t, echo)
			u := testUpstream(t, config.Upstream{}, o.url)
			for range 3 {
				x := c.x()
				if got := result(u, x); got != c.want {
					t.Fatalf("got  %.100q\nwant %.100q", got, c.want)
				}
				check(t, "close", x.Response.Close, false)
				settled(t, u)
			}
			check(t, "connections", o.conns(), 1)
		})
	}
}

// pattern is a body of n bytes in pieces of its own memory, and the hash of it all.
type pattern struct {
	left  int
	piece []byte
	hash  io.Writer
}

func (p *pattern) Next() ([]byte, error) {
	n := min(p.left, len(p.piece))
	p.left -= n
	for i := range n {
		p.piece[i] = byte(p.left + i*7)
	}
	_, _ = p.hash.Write(p.piece[:n])
	if p.left == 0 {
		return p.piece[:n], io.EOF
	}
	return p.piece[:n], nil
}
func (p *pattern) Ready() bool  { return false }
func (p *pattern) Close() error { return nil }

func TestLargeUploadIsExact(t *testing.T) {
	const size = 8 << 20
	for _, length := range []int64{size, exchange.Unknown} {
		o := newOrigin(t, func(p *peer) {
			r := p.head()
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 64\r\nX-N: %d %v\r\n\r\n%x", n, err, h.Sum(nil)))
			p.request()
		})
		u := testUpstream(t, config.Upstream{}, o.url)
		h := sha256.New()
		x := newExchange("POST", "/")
		x.Request.Body = &pattern{left: size, piece: make([]byte, 13<<10), hash: h}
		x.Request.ContentLength = length
		check(t, "result", result(u, x), fmt.Sprintf("OK %x", h.Sum(nil)))
		check(t, "bytes out", x.Usage.BytesOut, size)
		check(t, "close", x.Response.Close, false)
		_, idle := settled(t, u)
		check(t, "idle", idle, 1)
	}
}

// A response may come while the request still flows. It is passed on at once, and
// neither connection is used again.
func TestEarlyResponse(t *testing.T) {
	for _, reply := range []string{
		"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig",
		"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
	} {
		gone := make(chan struct{})
		o := newOrigin(t, func(p *peer) {
			p.head()
			p.send(reply)
			_, _ = io.Copy(io.Discard, p.r) // until the gateway gives up
			close(gone)
		})
		u := testUpstream(t, config.Upstream{}, o.url)
		s := newStream()
		s.pieces <- "some"
		x := withStream(newExchange("POST", "/"), s, 1<<30)
		if err := u.Do(x); err != nil {
			t.Fatal(err)
		}
		check(t, "status", x.Response.Status, 413)
		check(t, "close", x.Response.Close, true)
		body, err := readBody(x)
		check(t, "body", string(body), strings.TrimPrefix(reply[strings.Index(reply, "\r\n\r\n"):], "\r\n\r\n"))
		check(t, "error", err, nil)
		<-gone
		<-s.canceled
		open, _ := settled(t, u)
		check(t, "open", open, 0)
	}
}

// The same, from a target that does not read and closes at once.
func TestEarlyResponseAndClose(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
		_ = p.CloseWrite()
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	big := strings.Repeat("x", 1<<20)
	for range 20 {
		x := withStream(newExchange("POST", "/"), streamOf(big, big, big, big), 4<<20)
		got := result(u, x)
		if got != "Request Entity Too Large big" {
			t.Fatalf("got %q", got)
		}
	}
}

// Both directions may flow at the same time.
func TestRequestAndResponseFlowTogether(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		r := p.head()
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				p.send(fmt.Sprintf("%x\r\n%s\r\n", n, bytes.ToUpper(b[:n])))
			}
			if err != nil {
				break
			}
		}
		p.send("0\r\n\r\n")
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	s := newStream()
	x := withStream(newExchange("POST", "/"), s, exchange.Unknown)
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"one", "two", "three"} {
		s.pieces <- w
		piece, err := x.Response.Body.Next()
		check(t, "piece", string(piece), strings.ToUpper(w))
		check(t, "error", err, nil)
	}
	close(s.pieces)
	_, err := readBody(x)
	check(t, "end", err, nil)
}

// A client whose body breaks off never makes a whole request.
func TestBodyThatBreaksOff(t *testing.T) {
	tooLarge := &exchange.Error{Code: exchange.PayloadTooLarge, Side: exchange.Client, Close: true}
	for _, c := range []struct {
		name   string
		length int64
		err    error
		want   string
	}{
		{"413 by length", 100, tooLarge, "payload_too_large Request Entity Too Large by client"},
		{"413 chunked", exchange.Unknown, tooLarge, "payload_too_large Request Entity Too Large by client"},
		{"short", 100, nil, "internal Internal Server Error by gateway"},
		{"long", 3, nil, "internal Internal Server Error by gateway"},
		// An *exchange.Error may have io.EOF as its cause, and is no end.
		{"gone", exchange.Unknown, &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client, Cause: io.EOF}, "client_gone  by client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := make(chan bool, 1)
			o := newOrigin(t, func(p *peer) {
				r := p.head()
				_, err := io.Copy(io.Discard, r.Body)
				whole <- err == nil && r.ContentLength != 3
			})
			u := testUpstream(t, config.Upstream{}, o.url)
			s := newStream()
			s.err = c.err
			x := withStream(newExchange("POST", "/"), s, c.length)
			go func() {
				eventually(t, "the request begins", func() bool { return o.conns() > 0 })
				for range 10 {
					s.pieces <- "piece"
				}
				close(s.pieces)
			}()
			check(t, "result", result(u, x), c.want)
			check(t, "the target saw a whole request", <-whole, false)
			open, _ := settled(t, u)
			check(t, "open", open, 0)
		})
	}
}

// A body in hand that is not of its declared length is not sent at all: nobody could
// tell whether it is whole.
func TestBodyInHandOfAnotherLength(t *testing.T) {
	for _, length := range []int64{0, 2, 4} {
		o := newOrigin(t, echo)
		u := testUpstream(t, config.Upstream{}, o.url)
		x := withBody(newExchange("POST", "/"), "abc")
		x.Request.ContentLength = length
		check(t, "result", result(u, x), "internal Internal Server Error by gateway")
		check(t, "requests", len(o.requests()), 0)
	}
}

// When the exchange's time is over, the one who is late is to blame.
func TestLateBody(t *testing.T) {
	o := newOrigin(t, func(p *peer) { p.request() })
	u := testUpstream(t, config.Upstream{Timeout: duration(20 * time.Millisecond)}, o.url)
	s := newStream()
	x := withStream(newExchange("POST", "/"), s, 100)
	x.Deadline = x.Start.Add(150 * time.Millisecond)
	check(t, "result", result(u, x), "request_timeout Request Timeout by client")
	if took := time.Since(x.Start); took < 150*time.Millisecond {
		t.Errorf("ended after %v: the timeout of one try does not run while the client sends", took)
	}
	<-s.canceled
}

// A target that stops reading is late, however much the client has to send.
func TestTargetThatDoesNotRead(t *testing.T) {
	done := make(chan struct{})
	o := newOrigin(t, func(*peer) { <-done })
	defer close(done)
	u := testUpstream(t, config.Upstream{Timeout: duration(50 * time.Millisecond)}, o.url)
	x := newExchange("POST", "/")
	x.Request.Body = &pattern{left: 1 << 30, piece: make([]byte, 64<<10), hash: io.Discard}
	x.Request.ContentLength = 1 << 30
	check(t, "result", result(u, x), "upstream_timeout Gateway Timeout by upstream (http_response_timeout)")
}

func TestExpectIsRelayed(t *testing.T) {
	for _, hint := range []string{"", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"} {
		o := newOrigin(t, func(p *peer) {
			for {
				r := p.head()
				if r == nil {
					return
				}
				if r.Header.Get("Expect") != "100-continue" {
					p.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
					return
				}
				p.send(hint + "HTTP/1.1 100 Continue\r\nX-Go: on\r\n\r\n")
				body, _ := io.ReadAll(r.Body)
				p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			}
		})
		u := testUpstream(t, config.Upstream{}, o.url)
		for range 2 {
			d := &driver{told: make(chan string, 2)}
			s := newStream()
			x := withStream(newExchange("POST", "/"), s, 3)
			x.Driver, x.Request.Expect = d, true
			go func() {
				for said := range d.told {
					if strings.HasPrefix(said, "Continue") {
						s.pieces <- "abc"
						close(s.pieces)
						return
					}
				}
			}()
			check(t, "result", result(u, x), "OK abc")
			check(t, "last interim", d.got()[len(d.got())-1], "Continue|X-Go=on")
			check(t, "close", x.Response.Close, false)
			check(t, "expect", x.Request.Expect, false)
		}
		settled(t, u)
		check(t, "connections", o.conns(), 1)
	}
}

// A final status instead of 100: the body is not asked for.
func TestExpectIsRefused(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	s := newStream()
	x := withStream(newExchange("POST", "/"), s, 3)
	x.Request.Expect = true
	check(t, "result", result(u, x), "Forbidden no")
	check(t, "close", x.Response.Close, true)
	check(t, "interims", len(x.Driver.(*driver).got()), 0)
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

// A target that does not know Expect says nothing: after a while we say 100.
func TestExpectIsIgnored(t *testing.T) {
	o := newOrigin(t, echo)
	u := testUpstreamEnv(t, config.Upstream{}, Env{}, shortTimes(), o.url)
	d := &driver{told: make(chan string, 1)}
	s := newStream()
	x := withStream(newExchange("POST", "/"), s, 3)
	x.Driver, x.Request.Expect = d, true
	go func() {
		<-d.told
		s.pieces <- "abc"
		close(s.pieces)
	}()
	check(t, "result", result(u, x), "OK 3 abc")
	check(t, "interims", strings.Join(d.got(), " "), "Continue")
	check(t, "close", x.Response.Close, false)
}

// A body that is there already is not asked for.
func TestExpectWithTheBodyInHand(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		r := p.head()
		body, _ := io.ReadAll(r.Body)
		s := r.Header.Get("Expect") + "|" + string(body)
		p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(s), s))
	})
	u := testUpstream(t, config.Upstream{}, o.url)
	x := withBody(newExchange("POST", "/"), "abc")
	x.Request.Expect = true
	check(t, "result", result(u, x), "OK |abc")
}

// A client that cannot be told has gone.
func TestInterimThatFails(t *testing.T) {
	o := newOrigin(t, answer("HTTP/1.1 103 Early Hints\r\n\r\n"+ok2))
	u := testUpstream(t, config.Upstream{}, o.url)
	x := newExchange("GET", "/")
	x.Driver = &driver{err: http.ErrHandlerTimeout}
	check(t, "result", result(u, x), "client_gone  by client")
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

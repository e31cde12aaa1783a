package server_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/server"
)

// refused reads the refusal and the end of the connection behind it.
func (c *client) refused(status int, code string) {
	c.t.Helper()
	got := c.response("GET")
	equal(c.t, got.Status, status)
	equal(c.t, got.Body, `{"code":"`+code+`"}`)
	if !strings.Contains(got.Header, "Connection: close") {
		c.t.Errorf("the connection is said to go on: %s", got.Header)
	}
	c.ended()
}

func TestBadHeadsAreRefusedByTheHandlerAndTheConnectionCloses(t *testing.T) {
	for name, c := range map[string]struct {
		sent   string
		status int
		code   string
	}{
		"no request":            {"hello\r\n\r\n", 400, "bad_request"},
		"two lengths":           {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "bad_request"},
		"length and chunked":    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"another coding":        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "not_implemented"},
		"another version":       {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "version_not_supported"},
		"another expectation":   {"GET / HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n", 417, "expectation_failed"},
		"a head too large":      {"GET / HTTP/1.1\r\nHost: x\r\nPad: " + strings.Repeat("p", 40_000) + "\r\n\r\n", 431, "headers_too_large"},
		"a head without end":    {"GET / HTTP/1.1\r\nHost: x\r\nPad: " + strings.Repeat("p", 400_000), 431, "headers_too_large"},
		"too many fields":       {"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 300) + "\r\n", 431, "headers_too_large"},
		"a target too long":     {"GET /" + strings.Repeat("p", 40_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"},
		"almost HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505, "version_not_supported"},
		"behind a good request": {"", 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFake(nil)
			_, addr := start(t, h, roomy())
			cl := dial(t, addr)
			if c.sent == "" {
				c.sent = "GET / HTTP/1.1\r\nHost: x\r\n\r\nhello\r\n\r\n"
				defer func() { equal(t, h.wait(t, 2)[1].Code, c.code) }()
			}
			go func() { _, _ = io.WriteString(cl.Conn, c.sent) }()
			if strings.HasPrefix(c.sent, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") {
				equal(t, cl.response("GET").Status, 200)
			}
			cl.refused(c.status, c.code)
		})
	}
}

func TestASlowHeadIsAnsweredWith408(t *testing.T) {
	l := roomy()
	l.HeaderTimeout.Duration = 100 * time.Millisecond
	h := newFake(nil)
	_, addr := start(t, h, l)
	c := dial(t, addr)
	began := time.Now()
	c.send("GET / HTTP/1.1\r\n")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // it goes on byte by byte, which does not help
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = io.WriteString(c.Conn, "x")
			case <-stop:
				return
			}
		}
	})
	got := c.response("GET")
	close(stop)
	wg.Wait()
	equal(t, got.Status, 408)
	if took := time.Since(began); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	equal(t, h.wait(t, 1)[0].Code, "request_timeout")
}

func TestASlowHeadBehindARequestIsAnsweredWith408(t *testing.T) {
	l := roomy()
	l.HeaderTimeout.Duration = 100 * time.Millisecond
	_, addr := start(t, newFake(nil), l)
	for _, together := range []bool{false, true} {
		c := dial(t, addr)
		good := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		for range 3 {
			c.send(good)
			equal(t, c.response("GET").Status, 200)
		}
		if together {
			c.send(good + "GET / HT")
			equal(t, c.response("GET").Status, 200)
		} else {
			c.send("GET / HT")
		}
		c.refused(408, "request_timeout")
	}
}

func TestTheTimeOfAHeadBeginsWithItsFirstByte(t *testing.T) {
	l := roomy()
	l.HeaderTimeout.Duration = 300 * time.Millisecond
	s, addr := start(t, newFake(nil), l)
	c := dial(t, addr)
	began := time.Now()
	eventually(t, "the time of a head to pass", func() bool { return time.Since(began) > 400*time.Millisecond })
	equal(t, s.Stats()[0].Idle, 1)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET").Status, 200)
}

func TestIdleConnectionsClose(t *testing.T) {
	l := roomy()
	l.IdleTimeout.Duration = 50 * time.Millisecond
	_, addr := start(t, newFake(nil), l)
	silent := dial(t, addr)
	used := dial(t, addr)
	used.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, used.response("GET").Status, 200)
	silent.ended()
	used.ended()
}

func TestABodyThatStallsIsAnsweredWith408(t *testing.T) {
	l := roomy()
	l.BodyIdleTimeout.Duration = 50 * time.Millisecond
	h := newFake(echo)
	_, addr := start(t, h, l)
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	c.refused(408, "request_timeout")
}

func TestABodyBelowTheMinimumRateIsCut(t *testing.T) {
	l := roomy()
	l.MinBodyRate.Bytes = 1 << 20
	h := newFake(echo)
	_, addr := start(t, h, l)
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = io.WriteString(c.Conn, "x")
			case <-stop:
				return
			}
		}
	})
	got := c.response("POST")
	close(stop)
	wg.Wait()
	equal(t, got.Status, 408)
}

func TestTheDeadlineOfTheExchangeBoundsItsBodyUntilTheResponse(t *testing.T) {
	h := newFake(func(x *exchange.Exchange) {
		x.Deadline = x.Start.Add(50 * time.Millisecond)
		echo(x)
	})
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	c.refused(408, "request_timeout")
}

func TestTheDeadlineNoLongerCountsBehindTheResponseHead(t *testing.T) {
	got := make(chan string, 1)
	h := newFake(func(x *exchange.Exchange) {
		x.Deadline = x.Start.Add(50 * time.Millisecond)
		x.Answer(200, "", nil)
		x.Response.ContentLength = exchange.Unknown
		first := true
		x.Response.Body = bodyFunc(func() ([]byte, error) { // reads the request while it is the response
			if !first {
				return nil, io.EOF
			}
			first = false
			b, err := readAll(x)
			if err != nil {
				return nil, err
			}
			got <- string(b)
			return b, nil
		})
	})
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	began := time.Now()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	eventually(t, "the deadline to pass", func() bool { return time.Since(began) > 150*time.Millisecond })
	c.send("world")
	equal(t, c.response("POST").Body, "helloworld")
	equal(t, <-got, "helloworld")
}

func TestAReaderThatTakesNothingIsCut(t *testing.T) {
	l := roomy()
	l.WriteIdleTimeout.Duration = 100 * time.Millisecond
	big := make([]byte, 64<<20)
	h := newFake(func(x *exchange.Exchange) { x.Answer(200, "", big) })
	_, addr := start(t, h, l)
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if r := h.wait(t, 1)[0]; !r.Aborted {
		t.Errorf("recorded as whole: %+v", r)
	}
}

func TestAReaderThatTricklesIsCut(t *testing.T) {
	l := roomy()
	l.MinBodyRate.Bytes = 1 << 30
	h := newFake(func(x *exchange.Exchange) { x.Answer(200, "", make([]byte, 64<<20)) })
	_, addr := start(t, h, l)
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	b := make([]byte, 16<<10)
	for err := error(nil); err == nil; {
		<-tick.C
		_, err = c.Read(b)
	}
	equal(t, h.wait(t, 1)[0].Aborted, true)
}

func TestBodiesOverTheLimit(t *testing.T) {
	limited := func(x *exchange.Exchange) {
		x.Request.MaxBody = 10
		echo(x)
	}
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"as long as allowed":   {"Content-Length: 10\r\n\r\n0123456789", 200},
		"declared":             {"Content-Length: 11\r\n\r\n0123456789a", 413},
		"counted":              {"Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n6789ab\r\n0\r\n\r\n", 413},
		"chunked, as allowed":  {"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", 200},
		"far over, still sent": {"Content-Length: 8000000\r\n\r\n" + strings.Repeat("x", 8_000_000), 413},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFake(limited)
			_, addr := start(t, h, roomy())
			cl := dial(t, addr)
			// As the simple clients do, it reads only when it has sent everything: a
			// reset would lose the answer.
			cl.send("POST / HTTP/1.1\r\nHost: x\r\n" + c.body)
			equal(t, cl.response("POST").Status, c.status)
			if c.status == 413 {
				cl.ended()
				equal(t, h.wait(t, 1)[0].Code, "payload_too_large")
			}
		})
	}
}

func TestAnUnreadBodyIsReadAwayOrTheConnectionCloses(t *testing.T) {
	for name, c := range map[string]struct {
		head, body string
		on         bool
	}{
		"short":           {"Content-Length: 5", "hello", true},
		"a little longer": {"Content-Length: 60000", strings.Repeat("x", 60_000), true},
		"long":            {"Content-Length: 200000", strings.Repeat("x", 200_000), false},
		"chunked":         {"Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", true},
		"long and chunked": {
			"Transfer-Encoding: chunked",
			"30d40\r\n" + strings.Repeat("x", 200_000) + "\r\n0\r\n\r\n", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, newFake(func(x *exchange.Exchange) { x.Answer(403, "", nil) }), roomy())
			cl := dial(t, addr)
			cl.send("POST / HTTP/1.1\r\nHost: x\r\n" + c.head + "\r\n\r\n")
			cl.send(c.body)
			equal(t, cl.response("POST").Status, 403)
			if !c.on {
				cl.ended()
				return
			}
			cl.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			equal(t, cl.response("GET").Status, 403)
		})
	}
}

func TestExpectContinue(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	t.Run("is answered when the body is wanted", func(t *testing.T) {
		_, addr := start(t, newFake(func(x *exchange.Exchange) {
			_ = x.Driver.Interim(100, nil)
			_ = x.Driver.Interim(100, nil)
			echo(x)
		}), roomy())
		c := dial(t, addr)
		for range 2 {
			c.send(head)
			equal(t, c.response("POST"), reply{100, "", "", ""})
			c.send("hello")
			equal(t, c.response("POST"), reply{200, "Content-Length: 5|Content-Type: text/plain", "hello", ""})
		}
	})
	t.Run("and closes when it is not", func(t *testing.T) {
		_, addr := start(t, newFake(func(x *exchange.Exchange) { x.Answer(401, "", nil) }), roomy())
		c := dial(t, addr)
		c.send(head)
		equal(t, c.response("POST"), reply{401, "Connection: close|Content-Length: 0", "", ""})
		c.ended()
	})
	t.Run("and goes on when the body is there already", func(t *testing.T) {
		_, addr := start(t, newFake(func(x *exchange.Exchange) { x.Answer(401, "", nil) }), roomy())
		c := dial(t, addr)
		for range 2 {
			c.send(head + "hello")
			equal(t, c.response("POST"), reply{401, "Content-Length: 0", "", ""})
		}
	})
}

func TestAnEarlyAnswerWhileTheBodyFlows(t *testing.T) {
	// A target reads the body on a goroutine of its own, answers before the end,
	// and gives the rest up.
	read := make(chan error, 1)
	h := newFake(func(x *exchange.Exchange) {
		body := x.Request.Body
		first := make(chan struct{})
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			_, err := body.Next()
			close(first)
			for err == nil {
				_, err = body.Next()
			}
			read <- err
		}()
		<-first
		x.Answer(200, "", nil)
		x.Response.ContentLength = exchange.Unknown
		x.Response.Body = &joining{wait: finished, give: body.(exchange.Canceler).Cancel}
	})
	_, addr := start(t, h, roomy())
	for _, body := range []string{"Content-Length: 10000\r\n\r\nstart", "Content-Length: 1000000\r\n\r\nstart"} {
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\nHost: x\r\n" + body)
		got := c.response("POST")
		equal(t, got.Status, 200)
		equal(t, got.Body, "early")
		var e *exchange.Error
		if err := <-read; !errors.As(err, &e) {
			t.Errorf("the reader got %v", err)
		}
	}
}

// joining is a response body that ends at once and whose Close waits for the
// reader of the request body.
type joining struct {
	wait chan struct{}
	give func()
}

func (j *joining) Next() ([]byte, error) { return []byte("early"), io.EOF }
func (j *joining) Ready() bool           { return true }

func (j *joining) Close() error {
	j.give()
	<-j.wait
	return nil
}

func TestAnEarlyAnswerLeavesTheConnectionToTheNextRequest(t *testing.T) {
	h := newFake(func(x *exchange.Exchange) {
		if x.Request.Body == nil {
			x.Answer(204, "", nil)
			return
		}
		body, finished := x.Request.Body, make(chan struct{})
		go func() {
			defer close(finished)
			for err := error(nil); err == nil; {
				_, err = body.Next()
			}
		}()
		x.Answer(200, "", nil)
		x.Response.ContentLength = exchange.Unknown
		x.Response.Body = &joining{wait: finished, give: func() {}}
	})
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	for range 20 {
		c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nstart")
		equal(t, c.response("POST").Body, "early")
		c.send("later")
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		equal(t, c.response("GET").Status, 204)
	}
}

func TestAClientThatLeavesInsideItsBody(t *testing.T) {
	h := newFake(echo)
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	c.Close()
	r := h.wait(t, 1)[0]
	equal(t, r.Code, "client_gone")
	equal(t, r.In, 5)
}

func TestAClientThatLeavesIsNoticedWhileItsTargetWorks(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		h := newFake(func(x *exchange.Exchange) {
			p := newPieces(x)
			x.Answer(200, "", nil)
			x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
			if !streaming {
				<-p.cancel
			}
		})
		_, addr := start(t, h, roomy())
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if streaming {
			if _, err := c.r.ReadByte(); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		if r := h.wait(t, 1)[0]; !r.Aborted {
			t.Errorf("streaming %v: recorded as whole: %+v", streaming, r)
		}
	}
}

func TestMaxConnections(t *testing.T) {
	l := roomy()
	l.MaxConnections = 2
	s, addr := start(t, newFake(nil), l)
	a, b := dial(t, addr), dial(t, addr)
	for _, c := range []*client{a, b} {
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		equal(t, c.response("GET").Status, 200)
	}
	over := dial(t, addr)
	line, _ := over.r.ReadString('\n')
	equal(t, line, "HTTP/1.1 503 Service Unavailable\r\n")
	equal(t, s.Stats()[0].Refused, 1)
	a.Close()
	eventually(t, "a place", func() bool { return s.Stats()[0].Open == 1 })
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET").Status, 200)
}

func TestConnectionsOfOneAddress(t *testing.T) {
	l := roomy()
	l.MaxConnectionsPerIP = 1
	s, addr := start(t, newFake(nil), l)
	from := func(ip string) *client {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		cl := wrap(t, c)
		cl.send("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n")
		return cl
	}
	equal(t, from("127.0.0.1").response("GET").Status, 200)
	equal(t, from("127.0.0.2").response("GET").Status, 200)
	if line, err := from("127.0.0.1").r.ReadString('\n'); err == nil && !strings.Contains(line, " 503 ") {
		t.Errorf("a second connection got %q", line)
	}
	eventually(t, "one refusal", func() bool { return s.Stats()[0].Refused == 1 })

	// A trusted proxy brings many clients.
	if err := s.Apply([]config.Listener{{Name: "plain", Address: "127.0.0.1:0"}}, l, prefixes("127.0.0.1/32"), ""); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		equal(t, from("127.0.0.1").response("GET").Status, 200)
	}
}

func TestAdmission(t *testing.T) {
	l := roomy()
	l.Admission.MaxInFlight, l.Admission.Queue = 1, 1
	l.Admission.QueueTimeout.Duration = time.Minute
	turn := make(chan struct{})
	entered := make(chan struct{}, 8)
	h := newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		x.Answer(200, "", nil)
	})
	_, addr := start(t, h, l)
	get := func() *client {
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return c
	}
	first := get()
	<-entered
	// Of the next two, one waits and the other is refused, whichever came first.
	second, third := get(), get()
	answers := make(chan reply, 2)
	go func() { answers <- second.response("GET") }()
	go func() { answers <- third.response("GET") }()
	got := <-answers
	equal(t, got, reply{503, "Content-Length: 21|Content-Type: application/problem+json|Retry-After: 60", `{"code":"overloaded"}`, ""})
	turn <- struct{}{}
	equal(t, first.response("GET").Status, 200)
	<-entered
	turn <- struct{}{}
	equal(t, (<-answers).Status, 200)
	// The refused connection goes on.
	first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	turn <- struct{}{}
	equal(t, first.response("GET").Status, 200)
}

func TestAdmissionWaitsNoLongerThanItsTimeout(t *testing.T) {
	l := roomy()
	l.Admission.MaxInFlight, l.Admission.Queue = 1, 10
	l.Admission.QueueTimeout.Duration = 20 * time.Millisecond
	turn := make(chan struct{})
	entered := make(chan struct{}, 8)
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		x.Answer(200, "", nil)
	}), l)
	first := dial(t, addr)
	first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET").Status, 503)
	close(turn)
	equal(t, first.response("GET").Status, 200)
}

func TestAHandlerThatPanics(t *testing.T) {
	t.Run("before the response", func(t *testing.T) {
		h := newFake(func(x *exchange.Exchange) { panic("ouch") })
		_, addr := start(t, h, roomy())
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		line, _ := c.r.ReadString('\n')
		equal(t, line, "HTTP/1.1 500 Internal Server Error\r\n")
		r := h.wait(t, 1)[0]
		equal(t, r.Status, 500)
		equal(t, r.Aborted, true)
	})
	t.Run("inside the body", func(t *testing.T) {
		h := newFake(func(x *exchange.Exchange) {
			x.Answer(200, "", nil)
			x.Response.Body, x.Response.ContentLength = bodyFunc(func() ([]byte, error) { panic("ouch") }), exchange.Unknown
		})
		_, addr := start(t, h, roomy())
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if got, err := c.read("GET"); err == nil {
			t.Errorf("the client takes it for whole: %+v", got)
		}
		equal(t, len(h.wait(t, 1)), 1)
	})
	t.Run("or leaves no response", func(t *testing.T) {
		h := newFake(func(*exchange.Exchange) {})
		_, addr := start(t, h, roomy())
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		line, _ := c.r.ReadString('\n')
		equal(t, line, "HTTP/1.1 500 Internal Server Error\r\n")
	})
}

func TestALateResponseBehindOneThatWaitedForItsClient(t *testing.T) {
	l := roomy()
	l.WriteIdleTimeout.Duration = time.Second // what a busy machine may take from a client that reads
	big := make([]byte, 16<<20)               // more than the sockets hold
	h := newFake(func(x *exchange.Exchange) {
		if string(x.Request.RawPath) == "/big" {
			x.Answer(200, "", big)
			return
		}
		p := newPieces(x)
		x.Answer(200, "", nil)
		x.Response.Body, x.Response.ContentLength = p, 2
		time.AfterFunc(5*l.WriteIdleTimeout.Duration/4, func() {
			p.ch <- "ok"
			close(p.ch)
		})
	})
	ask := func(t *testing.T, c *client) {
		c.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
		equal(t, len(c.response("GET").Body), len(big))
		c.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
		equal(t, c.response("GET").Body, "ok")
	}
	t.Run("plain", func(t *testing.T) {
		_, addr := start(t, h, l)
		ask(t, dial(t, addr))
	})
	t.Run("TLS", func(t *testing.T) {
		a := newCA(t)
		_, addr := startTLS(t, h, l, &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, t.TempDir(), "one", "one.test")}})
		ask(t, dialTLS(t, addr, a, "one.test", "http/1.1"))
	})
	onH2(t, func() *fake { return h }, l, func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		res, err := c.Get(base + "/big")
		equal(t, len(answer(t, res, err).Body), len(big))
		res, err = c.Get(base + "/late")
		equal(t, answer(t, res, err).Body, "ok")
	})
}

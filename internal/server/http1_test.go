package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

const okHead = "Content-Length: 2|Content-Type: text/plain"

func TestAGetIsAnsweredAndTheConnectionGoesOn(t *testing.T) {
	h := newFake(nil)
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	for range 3 {
		c.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
		equal(t, c.response("GET"), reply{200, okHead, "ok", ""})
	}
	for _, r := range h.wait(t, 3) {
		r.Out = 0
		equal(t, r, seen{Method: "GET", Target: "/a", Status: 200})
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	h := newFake(func(x *exchange.Exchange) { x.Answer(200, "", x.Copy(x.Request.RawPath)) })
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	var all strings.Builder
	const n = 200 // more than fits into the first buffers
	for i := range n {
		all.WriteString("GET /" + strings.Repeat("x", i) + " HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	go c.send(all.String())
	for i := range n {
		if got := c.response("GET").Body; got != "/"+strings.Repeat("x", i) {
			t.Fatalf("response %d has %q", i, got)
		}
	}
}

func TestAHeadThatComesByteByByte(t *testing.T) {
	_, addr := start(t, newFake(nil), roomy())
	c := dial(t, addr)
	for _, b := range "GET / HTTP/1.1\r\nHost: x\r\n\r\n" {
		c.send(string(b))
	}
	equal(t, c.response("GET"), reply{200, okHead, "ok", ""})
}

func TestHeadsAroundTheBufferSizes(t *testing.T) {
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		x.Answer(200, "", x.Copy(x.Request.Header.Get([]byte("Pad"))))
	}), roomy())
	c := dial(t, addr)
	for _, n := range []int{400, 460, 470, 480, 490, 500, 512, 600, 8000, 8140, 8160, 8192, 9000, 20_000, 32_000} {
		pad := strings.Repeat("p", n)
		c.send("GET / HTTP/1.1\r\nHost: x\r\nPad: " + pad + "\r\n\r\n")
		if got := c.response("GET"); got.Body != pad {
			t.Fatalf("pad of %d: status %d, %d bytes back", n, got.Status, len(got.Body))
		}
	}
}

func TestBodiesComeAsTheyWereSent(t *testing.T) {
	_, addr := start(t, newFake(echo), roomy())
	big := strings.Repeat("0123456789abcdef", 20_000)
	chunks := func(s string, n int) string {
		var b strings.Builder
		for len(s) > 0 {
			k := min(n, len(s))
			b.WriteString(hex(k) + "\r\n" + s[:k] + "\r\n")
			s = s[k:]
		}
		return b.String() + "0\r\n"
	}
	for name, c := range map[string]struct{ head, body, want string }{
		"length":              {"Content-Length: 5", "hello", "hello"},
		"no bytes":            {"Content-Length: 0", "", ""},
		"long":                {"Content-Length: 320000", big, big},
		"chunked":             {"Transfer-Encoding: chunked", chunks("hello, world", 5) + "\r\n", "hello, world"},
		"chunked, long":       {"Transfer-Encoding: chunked", chunks(big, 70_000) + "\r\n", big},
		"chunked, many":       {"Transfer-Encoding: chunked", chunks(big[:20_000], 3) + "\r\n", big[:20_000]},
		"chunked, trailer":    {"Transfer-Encoding: chunked", chunks("hi", 9) + "A: b\r\nC: d\r\n\r\n", "hi|A=b|C=d"},
		"chunked, no bytes":   {"Transfer-Encoding: chunked", "0\r\n\r\n", ""},
		"long behind padding": {"Pad: " + strings.Repeat("p", 7900) + "\r\nContent-Length: 320000", big, big},
		"long behind much padding": {
			"Pad: " + strings.Repeat("p", 20_000) + "\r\nTransfer-Encoding: chunked",
			chunks(big, 9000) + "\r\n", big,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := dial(t, addr)
			for range 2 { // the second shows that nothing was left behind
				go c2.send("POST /p HTTP/1.1\r\nHost: x\r\n" + c.head + "\r\n\r\n" + c.body)
				got := c2.response("POST")
				if got.Status != 200 || got.Body != c.want {
					t.Fatalf("status %d, %d bytes, want %d", got.Status, len(got.Body), len(c.want))
				}
			}
		})
	}
}

func hex(n int) string {
	const digits = "0123456789abcdef"
	s := ""
	for ; n > 0; n /= 16 {
		s = digits[n%16:n%16+1] + s
	}
	return s
}

func TestABodyThatIsThereIsReadyAndEndsWithItsPiece(t *testing.T) {
	type view struct {
		ready bool
		piece string
		err   error
	}
	got := make(chan view, 1)
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		v := view{ready: x.Request.Body.Ready()}
		p, err := x.Request.Body.Next()
		v.piece, v.err = string(p), err
		got <- v
		x.Answer(204, "", nil)
	}), roomy())
	for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\nHost: x\r\n" + body)
		equal(t, <-got, view{true, "hello", io.EOF})
		equal(t, c.response("POST"), reply{204, "", "", ""})
	}
}

func TestABodyThatIsOnItsWayIsNotReady(t *testing.T) {
	ready := make(chan bool, 1)
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		ready <- x.Request.Body.Ready()
		echo(x)
	}), roomy())
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
	equal(t, <-ready, false)
	c.send("hello")
	equal(t, c.response("POST").Body, "hello")
}

func TestWhatFollowsABodyIsTheNextRequest(t *testing.T) {
	_, addr := start(t, newFake(echo), roomy())
	c := dial(t, addr)
	body := strings.Repeat("b", 50_000)
	post := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + body
	go c.send(post + post + "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + post)
	for i, want := range []string{body, body, "", body} {
		if got := c.response("POST").Body; got != want {
			t.Fatalf("response %d has %d bytes, want %d", i, len(got), len(want))
		}
	}
}

func TestAnEmptyLineBehindABodyIsNoRequest(t *testing.T) {
	l := roomy()
	l.HeaderTimeout.Duration = 50 * time.Millisecond
	h := newFake(echo)
	s, addr := start(t, h, l)
	c := dial(t, addr)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi\r\n")
	equal(t, c.response("POST").Body, "hi")
	eventually(t, "idle", func() bool { return s.Stats()[0].Idle == 1 })
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET").Status, 200)
}

func TestHTTP10(t *testing.T) {
	stream := func(x *exchange.Exchange) {
		p := newPieces(x)
		p.ch <- "a"
		p.ch <- "b"
		close(p.ch)
		x.Answer(200, "text/plain", nil)
		x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
	}
	for name, c := range map[string]struct {
		serve func(*exchange.Exchange)
		head  string
		want  reply
		on    bool
	}{
		"closes":                   {nil, "GET / HTTP/1.0\r\n\r\n", reply{200, "Connection: close|" + okHead, "ok", ""}, false},
		"goes on when asked":       {nil, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", reply{200, "Connection: keep-alive|" + okHead, "ok", ""}, true},
		"unknown length":           {stream, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", reply{200, "Connection: close|Content-Type: text/plain", "ab", ""}, false},
		"1.1 asks for the end":     {nil, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", reply{200, "Connection: close|" + okHead, "ok", ""}, false},
		"1.1 with unknown length":  {stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", reply{200, "Content-Type: text/plain|Transfer-Encoding: chunked", "ab", ""}, true},
		"HEAD with unknown length": {stream, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", reply{200, "Content-Type: text/plain", "", ""}, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, newFake(c.serve), roomy())
			cl := dial(t, addr)
			cl.send(c.head)
			equal(t, cl.response(strings.Fields(c.head)[0]), c.want)
			if !c.on {
				cl.ended()
				return
			}
			cl.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			equal(t, cl.response("GET").Status, 200)
		})
	}
}

func TestResponsesWithoutABody(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		status int
		length int64
		want   string
	}{
		"HEAD has the length of a GET": {"HEAD", 200, 17, "Content-Length: 17"},
		"HEAD of nothing":              {"HEAD", 200, 0, "Content-Length: 0"},
		"HEAD of unknown":              {"HEAD", 200, exchange.Unknown, ""},
		"304 with a length":            {"GET", 304, 17, "Content-Length: 17"},
		"304 without":                  {"GET", 304, 0, ""},
		"204 never has one":            {"GET", 204, 17, ""},
		"an empty 200":                 {"GET", 200, 0, "Content-Length: 0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, newFake(func(x *exchange.Exchange) {
				x.Answer(c.status, "", nil)
				x.Response.ContentLength = c.length
			}), roomy())
			cl := dial(t, addr)
			for range 2 {
				cl.send(c.method + " / HTTP/1.1\r\nHost: x\r\n\r\n")
				equal(t, cl.response(c.method), reply{c.status, c.want, "", ""})
			}
		})
	}
}

func TestTheDriverOwnsConnectionFields(t *testing.T) {
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		x.Answer(200, "", []byte("ok"))
		h := &x.Response.Header
		for _, f := range [][2]string{
			{"Connection", "upgrade"},
			{"Keep-Alive", "timeout=5"},
			{"Transfer-Encoding", "gzip"},
			{"Content-Length", "99"},
			{"Upgrade", "h2c"},
			{"X-Good", "yes"},
			{"X-Bad", "a\r\nInjected: 1"},
			{"Server", "origin"},
		} {
			h.Add([]byte(f[0]), []byte(f[1]))
		}
		h.Append(exchange.Field{Name: []byte("X-Hop"), Value: []byte("1"), Hop: true})
	}), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET"), reply{200, "Content-Length: 2|Server: origin|X-Good: yes", "ok", ""})
}

func TestAResponseDateIsKept(t *testing.T) {
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		x.Answer(204, "", nil)
		x.Response.Header.AddID(exchange.Date, []byte("Thu, 01 Jan 1970 00:00:00 GMT"))
	}), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	head := make([]byte, 512)
	n, _ := c.Read(head)
	equal(t, string(head[:n]), "HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")
}

func TestResponseTrailers(t *testing.T) {
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		p := newPieces(x)
		p.ch <- "data"
		close(p.ch)
		x.Answer(200, "", nil)
		x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
		x.Response.Trailer.Add([]byte("Checksum"), []byte("42"))
	}), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET"), reply{200, "Transfer-Encoding: chunked", "data", "Checksum: 42"})
}

func TestEventsAreNotHeldBack(t *testing.T) {
	ps := make(chan *pieces, 1)
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		p := newPieces(x)
		x.Answer(200, "text/event-stream", nil)
		x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
		ps <- p
	}), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	p := <-ps
	read := func(want string) {
		t.Helper()
		for {
			line, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == want+"\r\n" {
				return
			}
		}
	}
	read("") // the head comes before any event
	for _, e := range []string{"one", "two", "three"} {
		p.ch <- e
		read(e)
	}
	close(p.ch)
	read("0")
	<-p.closed
}

func TestLargePiecesArriveWhole(t *testing.T) {
	for _, n := range []int{100, 7000, 8000, 8100, 8192, 9000, 20_000, 24 << 10, 25_000, 31_000, 33_000, 100_000, 3 << 20} {
		for _, known := range []bool{true, false} {
			want := strings.Repeat("x", n)
			_, addr := start(t, newFake(func(x *exchange.Exchange) {
				p := newPieces(x)
				p.ch <- want
				p.ch <- "tail"
				p.ch <- want
				close(p.ch)
				x.Answer(200, "", nil)
				x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
				if known {
					x.Response.ContentLength = int64(2*n + 4)
				}
			}), roomy())
			c := dial(t, addr)
			c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if got := c.response("GET").Body; got != want+"tail"+want {
				t.Errorf("pieces of %d, length known %v: %d bytes came", n, known, len(got))
			}
		}
	}
}

func TestBodiesThatDisagreeWithTheirLength(t *testing.T) {
	for name, sent := range map[string]string{"short": "ab", "long": "abcdef", "failed": "ab!"} {
		t.Run(name, func(t *testing.T) {
			h := newFake(func(x *exchange.Exchange) {
				p := newPieces(x)
				p.ch <- strings.TrimSuffix(sent, "!")
				if strings.HasSuffix(sent, "!") {
					p.err = errors.New("upstream died")
				}
				close(p.ch)
				x.Answer(200, "", nil)
				x.Response.Body, x.Response.ContentLength = p, 4
			})
			_, addr := start(t, h, roomy())
			c := dial(t, addr)
			c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if got, err := c.read("GET"); err == nil {
				t.Errorf("the client takes it for whole: %+v", got)
			}
			if r := h.wait(t, 1)[0]; !r.Aborted {
				t.Errorf("recorded as whole: %+v", r)
			}
		})
	}
}

func TestAnEndlessBodyThatFailsIsReset(t *testing.T) {
	ps := make(chan *pieces, 1)
	h := newFake(func(x *exchange.Exchange) {
		p := newPieces(x)
		p.ch <- "some"
		p.err = errors.New("upstream died")
		x.Answer(200, "", nil)
		x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
		ps <- p
	})
	_, addr := start(t, h, roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.0\r\n\r\n")
	for got := ""; !strings.HasSuffix(got, "some"); {
		b, err := c.r.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		got += string(b)
	}
	close((<-ps).ch)
	if _, err := c.r.ReadByte(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the client takes it for whole: %v", err)
	}
}

func TestInterimResponses(t *testing.T) {
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		var h exchange.Header
		h.Add([]byte("Link"), []byte("</style.css>"))
		_ = x.Driver.Interim(103, &h)
		_ = x.Driver.Interim(100, nil) // nobody has asked for it
		x.Answer(204, "", nil)
	}), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET"), reply{103, "Link: </style.css>", "", ""})
	equal(t, c.response("GET"), reply{204, "", "", ""})
	c = dial(t, addr)
	c.send("GET / HTTP/1.0\r\n\r\n")
	equal(t, c.response("GET"), reply{204, "Connection: close", "", ""})
}

func TestInterimAfterTheResponseIsRefused(t *testing.T) {
	late := make(chan error, 1)
	_, addr := start(t, newFake(func(x *exchange.Exchange) {
		d := x.Driver
		p := newPieces(x)
		x.Answer(200, "", nil)
		x.Response.Body, x.Response.ContentLength = bodyFunc(func() ([]byte, error) {
			late <- d.Interim(103, nil)
			return nil, io.EOF
		}), exchange.Unknown
		_ = p
	}), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET").Status, 200)
	if err := <-late; err == nil {
		t.Error("an interim response behind the final one")
	}
}

// bodyFunc is a body that is never ready.
type bodyFunc func() ([]byte, error)

func (f bodyFunc) Next() ([]byte, error) { return f() }
func (bodyFunc) Ready() bool             { return false }
func (bodyFunc) Close() error            { return nil }

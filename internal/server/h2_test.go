package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/server"
)

// onH2 runs a test over HTTP/2 with TLS and with prior knowledge in plain text.
func onH2(t *testing.T, h func() *fake, limits config.Limits, f func(t *testing.T, h *fake, c *http.Client, base string, s *server.Server)) {
	a, dir := newCA(t), t.TempDir()
	cert := a.files(t, dir, "one", "one.test")
	conf := &tls.Config{RootCAs: a.pool, ServerName: "one.test"}
	t.Run("h2", func(t *testing.T) {
		h := h()
		s, addr := startTLS(t, h, limits, &config.ListenerTLS{Certificates: []config.Certificate{cert}})
		tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, DisableCompression: true}
		defer tr.CloseIdleConnections()
		f(t, h, &http.Client{Transport: tr, Timeout: patience}, "https://"+addr, s)
	})
	t.Run("h2c", func(t *testing.T) {
		h := h()
		s, addr := start(t, h, limits)
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: p, DisableCompression: true}
		defer tr.CloseIdleConnections()
		f(t, h, &http.Client{Transport: tr, Timeout: patience}, "http://"+addr, s)
	})
}

// answer reads a response as the tests of HTTP/1 do.
func answer(t testing.TB, res *http.Response, err error) reply {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, res.ProtoMajor, 2)
	if _, err := http.ParseTime(res.Header.Get("Date")); err != nil {
		t.Error(err)
	}
	res.Header.Del("Date")
	return reply{res.StatusCode, lines(res.Header), string(body), lines(res.Trailer)}
}

func TestHTTP2Requests(t *testing.T) {
	type request struct {
		Method, Path, Query, Authority, Host, Fields string
		TLS                                          bool
		Proto                                        exchange.Proto
		Length                                       int64
	}
	got := make(chan request, 1)
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			q := &x.Request
			r := request{
				Method: q.Method, Path: string(q.RawPath), Query: string(q.Query), Authority: string(q.Authority),
				Host: string(q.Host), TLS: q.TLS, Proto: q.Proto, Length: q.ContentLength,
			}
			for _, name := range []string{"cookie", "a", "te", "x_under", "expect", "content-length"} {
				for v := range q.Header.Values([]byte(name)) {
					r.Fields += name + "=" + string(v) + "|"
				}
			}
			got <- r
			echo(x)
		})
	}
	onH2(t, h, roomy(), func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		r, _ := http.NewRequest("PUT", base+"/a/%41?b=c&d", strings.NewReader("hello"))
		r.Host = "Api.Example.test:8443"
		r.Header = http.Header{"Cookie": {"a=1", "b=2"}, "A": {"b"}, "Te": {"trailers"}, "X_under": {"x"}}
		res, err := c.Do(r)
		equal(t, answer(t, res, err), reply{200, "Content-Length: 5|Content-Type: text/plain", "hello", ""})
		equal(t, <-got, request{
			Method: "PUT", Path: "/a/%41", Query: "b=c&d", Authority: "Api.Example.test:8443", Host: "api.example.test",
			Fields: "cookie=a=1; b=2|a=b|te=trailers|content-length=5|", TLS: strings.HasPrefix(base, "https"),
			Proto: exchange.HTTP2, Length: 5,
		})
	})
}

func TestHTTP2BodiesAndTrailers(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 200_000)
	announced := func(x *exchange.Exchange) {
		echo(x)
		for v := range x.Request.Header.ValuesID(exchange.Trailer) {
			x.Response.Header.Add([]byte("Announced"), x.Copy(v))
		}
	}
	onH2(t, func() *fake { return newFake(announced) }, roomy(), func(t *testing.T, h *fake, c *http.Client, base string, _ *server.Server) {
		for i, body := range []string{big, "x", ""} {
			r, _ := http.NewRequest("POST", base+"/", io.MultiReader(strings.NewReader(body))) // of unknown length
			r.Trailer = http.Header{"Checksum": {"42"}, "X-Forwarded-For": {"192.0.2.1"}}
			res, err := c.Do(r)
			got := answer(t, res, err)
			if got.Status != 200 || got.Body != body+"|Checksum=42" {
				t.Errorf("body %d: status %d, %d bytes", i, got.Status, len(got.Body))
			}
			if !strings.HasPrefix(got.Header, "Announced: Checksum|Announced: X-Forwarded-For|") {
				t.Errorf("the trailer was not announced: %s", got.Header)
			}
			equal(t, h.wait(t, i+1)[i].In, int64(len(body)))
		}
		res, err := c.Get(base)
		equal(t, answer(t, res, err).Body, "")
	})
}

func TestHTTP2Responses(t *testing.T) {
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			p := newPieces(x)
			p.ch <- "<html>"
			p.ch <- "ab"
			close(p.ch)
			x.Answer(200, "", nil)
			x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
			for _, f := range [][2]string{
				{"Connection", "close"},
				{"Keep-Alive", "timeout=5"},
				{"Transfer-Encoding", "chunked"},
				{"Content-Length", "99"},
				{"X-Good", "yes"},
				{"x-good", "again"},
				{"X-Bad", "a\r\nInjected: 1"},
			} {
				x.Response.Header.Add([]byte(f[0]), []byte(f[1]))
			}
			x.Response.Trailer.Add([]byte("Checksum"), []byte("42"))
		})
	}
	onH2(t, h, roomy(), func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		res, err := c.Get(base)
		equal(t, answer(t, res, err), reply{200, "X-Good: yes|X-Good: again", "<html>ab", "Checksum: 42"})
		res, err = c.Head(base)
		equal(t, answer(t, res, err), reply{200, "X-Good: yes|X-Good: again", "", ""})
	})
}

func TestHTTP2ResponsesWithoutABody(t *testing.T) {
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			switch string(x.Request.RawPath) {
			case "/304":
				x.Answer(304, "", nil)
			case "/204":
				x.Answer(204, "", nil)
			default:
				x.Answer(200, "text/plain", []byte("hello"))
			}
		})
	}
	onH2(t, h, roomy(), func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		res, err := c.Head(base)
		equal(t, answer(t, res, err), reply{200, "Content-Length: 5|Content-Type: text/plain", "", ""})
		res, err = c.Get(base + "/304")
		equal(t, answer(t, res, err), reply{304, "", "", ""})
		res, err = c.Get(base + "/204")
		equal(t, answer(t, res, err), reply{204, "", "", ""})
	})
}

func TestHTTP2EventsAreNotHeldBack(t *testing.T) {
	ps := make(chan *pieces, 1)
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			p := newPieces(x)
			x.Answer(200, "text/event-stream", nil)
			x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
			ps <- p
		})
	}
	onH2(t, h, roomy(), func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		res, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		p := <-ps
		for _, e := range []string{"one", "two", "three"} {
			p.ch <- e
			expect(t, res.Body, e)
		}
		close(p.ch)
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q, %v", rest, err)
		}
	})
}

func TestHTTP2InterimResponses(t *testing.T) {
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			var h exchange.Header
			h.Add([]byte("Link"), []byte("</style.css>"))
			_ = x.Driver.Interim(103, &h)
			_ = x.Driver.Interim(100, nil)
			echo(x)
		})
	}
	onH2(t, h, roomy(), func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		var got []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, http.StatusText(code)+" "+h.Get("Link"))
			return nil
		}})
		r, _ := http.NewRequestWithContext(ctx, "POST", base, strings.NewReader("hello"))
		r.Header.Set("Expect", "100-continue")
		res, err := c.Do(r)
		equal(t, answer(t, res, err), reply{200, "Content-Length: 5|Content-Type: text/plain", "hello", ""})
		equal(t, strings.Join(got, ","), "Early Hints </style.css>,Continue ")
	})
}

func TestHTTP2ResponsesThatBreakOff(t *testing.T) {
	for name, sent := range map[string]string{"short": "ab", "long": "abcdef", "failed": "ab!"} {
		h := func() *fake {
			return newFake(func(x *exchange.Exchange) {
				p := newPieces(x)
				p.ch <- strings.TrimSuffix(sent, "!")
				if strings.HasSuffix(sent, "!") {
					p.err = errors.New("upstream died")
				}
				close(p.ch)
				x.Answer(200, "", nil)
				x.Response.Body, x.Response.ContentLength = p, 4
			})
		}
		onH2(t, h, roomy(), func(t *testing.T, h *fake, c *http.Client, base string, _ *server.Server) {
			res, err := c.Get(base)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Errorf("%s: the client takes it for whole", name)
			}
			equal(t, h.wait(t, 1)[0].Aborted, true)
		})
	}
}

func TestHTTP2RequestsThatAreRefused(t *testing.T) {
	limits := roomy()
	limits.MaxHeaderSize.Bytes = 4 << 10
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			x.Request.MaxBody = 10
			echo(x)
		})
	}
	long := strings.Repeat("x", 5000)
	onH2(t, h, limits, func(t *testing.T, h *fake, c *http.Client, base string, _ *server.Server) {
		for i, q := range []struct {
			name   string
			change func(*http.Request)
			path   string
			body   string
			status int
			code   string
		}{
			{"a head too large", func(r *http.Request) { r.Header.Set("Pad", long) }, "/", "", 431, "headers_too_large"},
			{"a path too long", nil, "/" + long, "", 414, "uri_too_long"},
			{"another expectation", func(r *http.Request) { r.Header.Set("Expect", "cake") }, "/", "", 417, "expectation_failed"},
			{"a body too large", nil, "/", "0123456789a", 413, "payload_too_large"},
			{"a host that is none", func(r *http.Request) { r.Host = "x:99999" }, "/", "", 400, "bad_request"},
			{"a path with a bad byte", nil, `/a\b`, "", 400, "bad_request"},
		} {
			r, err := http.NewRequest("POST", base, strings.NewReader(q.body))
			if err != nil {
				t.Fatal(err)
			}
			r.URL.Opaque = q.path
			if q.change != nil {
				q.change(r)
			}
			res, err := c.Do(r)
			if err != nil {
				t.Errorf("%s: %v", q.name, err)
				continue
			}
			got := answer(t, res, err)
			if got.Status != q.status || got.Body != `{"code":"`+q.code+`"}` {
				t.Errorf("%s: %+v", q.name, got)
			}
			equal(t, h.wait(t, i+1)[i].Code, q.code)
		}
	})
}

func TestAHTTP2ClientThatLeavesIsNoticed(t *testing.T) {
	entered := make(chan *pieces, 1)
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) {
			p := newPieces(x)
			x.Answer(200, "", nil)
			x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
			entered <- p
			<-p.cancel
		})
	}
	onH2(t, h, roomy(), func(t *testing.T, h *fake, c *http.Client, base string, _ *server.Server) {
		ctx, leave := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			r, _ := http.NewRequestWithContext(ctx, "GET", base, nil)
			_, err := c.Do(r)
			failed <- err
		}()
		<-entered
		leave()
		equal(t, h.wait(t, 1)[0].Aborted, true)
		if err := <-failed; err == nil {
			t.Error("the client got an answer")
		}
	})
}

// probed is a target that is looked after while it works.
type probed struct{ ch chan struct{} }

func (p probed) Cancel() {}

func (p probed) Probe() {
	select {
	case p.ch <- struct{}{}:
	default:
	}
}

func TestTargetsThatTakeLongAreProbed(t *testing.T) {
	looked := make(chan struct{}, 1)
	h := func(x *exchange.Exchange) {
		x.OnCancel(probed{looked})
		<-looked
		x.OnCancel(nil)
		x.Answer(204, "", nil)
	}
	onH2(t, func() *fake { return newFake(h) }, roomy(), func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		res, err := c.Get(base)
		equal(t, answer(t, res, err).Status, 204)
	})
	_, addr := start(t, newFake(h), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, c.response("GET").Status, 204)
}

// h2raw speaks HTTP/2 frame by frame.
func h2raw(t testing.TB, addr string) (*http2.Framer, *client) {
	t.Helper()
	c := dial(t, addr)
	c.send(http2.ClientPreface)
	fr := http2.NewFramer(c.Conn, c.r)
	_ = fr.WriteSettings()
	_ = fr.WriteSettingsAck()
	return fr, c
}

// until reads frames until one is what is looked for.
func until(t testing.TB, fr *http2.Framer, ok func(http2.Frame) bool) {
	t.Helper()
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if ok(f) {
			return
		}
	}
}

// HPACK of ":method: POST, :scheme: http, :path: /, :authority: x".
var rawPost = []byte{0x83, 0x86, 0x84, 0x01, 0x01, 'x'}

// headers1 opens stream 1 with a whole request.
var headers1 = http2.HeadersFrameParam{StreamID: 1, BlockFragment: rawPost, EndHeaders: true, EndStream: true}

func isReset(id uint32) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		_, ok := f.(*http2.RSTStreamFrame)
		return ok && f.Header().StreamID == id
	}
}

func TestAHTTP2BodyThatStalls(t *testing.T) {
	for name, change := range map[string]func(*config.Limits){
		"for too long":           func(l *config.Limits) { l.BodyIdleTimeout.Duration = 50 * time.Millisecond },
		"below the minimum rate": func(l *config.Limits) { l.MinBodyRate.Bytes = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			l := roomy()
			change(&l)
			h := newFake(echo)
			_, addr := start(t, h, l)
			fr, _ := h2raw(t, addr)
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: rawPost, EndHeaders: true})
			_ = fr.WriteData(1, false, []byte("some"))
			until(t, fr, func(f http2.Frame) bool { _, ok := f.(*http2.HeadersFrame); return ok })
			r := h.wait(t, 1)[0]
			r.Out = 0
			equal(t, r, seen{Method: "POST", Target: "/", Status: 408, Code: "request_timeout", In: 4})
		})
	}
}

func TestAHTTP2ClientThatLetsNothingFlow(t *testing.T) {
	l := roomy()
	l.WriteIdleTimeout.Duration = 50 * time.Millisecond
	h := newFake(func(x *exchange.Exchange) { x.Answer(200, "", make([]byte, 1<<20)) })
	_, addr := start(t, h, l)
	fr, _ := h2raw(t, addr)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: rawPost, EndHeaders: true, EndStream: true})
	until(t, fr, isReset(1))
	equal(t, h.wait(t, 1)[0].Aborted, true)
}

func TestHTTP2FloodsAreBounded(t *testing.T) {
	t.Run("streams", func(t *testing.T) {
		turn := make(chan struct{})
		h := newFake(func(x *exchange.Exchange) { <-turn; x.Answer(204, "", nil) })
		s, addr := start(t, h, roomy())
		fr, _ := h2raw(t, addr)
		for i := range uint32(300) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: rawPost, EndHeaders: true, EndStream: true})
		}
		until(t, fr, isReset(501)) // the 251st
		equal(t, s.Stats()[0].Streams <= 250, true)
		close(turn)
		h.wait(t, 250)
	})
	t.Run("rapid resets", func(t *testing.T) {
		turn := make(chan struct{})
		h := newFake(func(x *exchange.Exchange) { <-turn; x.Answer(204, "", nil) })
		s, addr := start(t, h, roomy())
		fr, c := h2raw(t, addr)
		go func() {
			for i := range uint32(100_000) {
				if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: rawPost, EndHeaders: true, EndStream: true}) != nil ||
					fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
					return
				}
			}
		}()
		_, _ = io.Copy(io.Discard, c.r) // ends when the server has had enough
		equal(t, s.Stats()[0].Streams <= 250, true)
		close(turn)
	})
}

func TestHTTP2ConnectionSpecificFieldsAreRefused(t *testing.T) {
	_, addr := start(t, newFake(nil), roomy())
	fr, _ := h2raw(t, addr)
	block := append(bytes.Clone(rawPost), 0x00, 10)
	block = append(block, "connection"...)
	block = append(append(block, 5), "close"...)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
	until(t, fr, func(f http2.Frame) bool {
		h, ok := f.(*http2.HeadersFrame)
		return ok && bytes.Contains(h.HeaderBlockFragment(), []byte{0x8c}) || f.Header().Type == http2.FrameRSTStream // :status 400
	})
}

func TestHTTP2HandlersThatPanic(t *testing.T) {
	h := func() *fake { return newFake(func(x *exchange.Exchange) { panic("ouch") }) }
	onH2(t, h, roomy(), func(t *testing.T, h *fake, c *http.Client, base string, _ *server.Server) {
		res, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		equal(t, res.StatusCode, 500)
		equal(t, strings.Contains(string(b), `"code":"internal"`), true)
		r := h.wait(t, 1)[0]
		equal(t, r.Status, 500)
	})
}

func TestAdmissionCountsHTTP2Too(t *testing.T) {
	l := roomy()
	l.Admission.MaxInFlight = 1
	turn, entered := make(chan struct{}), make(chan struct{}, 4)
	h := func() *fake {
		return newFake(func(x *exchange.Exchange) { entered <- struct{}{}; <-turn; x.Answer(204, "", nil) })
	}
	onH2(t, h, l, func(t *testing.T, _ *fake, c *http.Client, base string, _ *server.Server) {
		first := make(chan int, 1)
		go func() {
			res, err := c.Get(base)
			if err == nil {
				res.Body.Close()
				first <- res.StatusCode
			}
		}()
		<-entered
		res, err := c.Get(base)
		got := answer(t, res, err)
		equal(t, got.Status, 503)
		equal(t, strings.Contains(got.Header, "Retry-After: 1"), true)
		turn <- struct{}{}
		equal(t, <-first, 204)
	})
}

func TestHTTP2ConnectionsOutliveAChangeOfLimits(t *testing.T) {
	h := newFake(func(x *exchange.Exchange) { x.Answer(200, "", []byte(x.Conn.Listener)) })
	s, addr := start(t, h, roomy())
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	c := &http.Client{Transport: tr, Timeout: patience}
	get := func() string {
		res, err := c.Get("http://" + addr)
		return answer(t, res, err).Body
	}
	equal(t, get(), "plain")
	for range 3 {
		l := roomy()
		l.MaxHeaderSize.Bytes = 8 << 10
		apply(t, s, l, config.Listener{Name: "renamed", Address: "127.0.0.1:0"})
		equal(t, get(), "plain") // the connection goes on with what it began with
	}
	tr.CloseIdleConnections()
	eventually(t, "the connection to end", func() bool { return s.Stats()[0].Open == 0 })
	equal(t, get(), "renamed")
	tr.CloseIdleConnections()
}

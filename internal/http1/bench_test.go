package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// Benchmarks with their twins of net/http, and the budgets of allocation.

const (
	wrkRequest = "GET /api/users/42?page=2 HTTP/1.1\r\nHost: api.example.com\r\nX-Api-Key: slk_0123456789abcdef\r\nAccept: */*\r\n\r\n"

	browserRequest = "GET /api/users/42?page=2 HTTP/1.1\r\nHost: api.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://app.example.com/start\r\nConnection: keep-alive\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\nUpgrade-Insecure-Requests: 1\r\n" +
		"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-site\r\nPriority: u=0, i\r\n\r\n"

	hopRequest = "POST /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n"

	originResponse = "HTTP/1.1 200 OK\r\nServer: nginx/1.26.3\r\nDate: Tue, 24 Nov 2026 23:00:00 GMT\r\nContent-Type: application/json\r\n" +
		"Content-Length: 1024\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6564f0a0-400\"\r\nAccept-Ranges: bytes\r\n\r\n"
)

// chunkedBody is 64 KiB in chunks of 4 KiB, with a trailer.
var chunkedBody = func() []byte {
	var trailer exchange.Header
	trailer.Add([]byte("X-Sum"), []byte("1"))
	return encode(bytes.Repeat([]byte("x"), 64<<10), func(n int) int { return min(n, 4096) }, &trailer)
}()

func decodeAll(b []byte, d *http1.Decoder, f http1.Framing, trailer *exchange.Header) (n int) {
	trailer.Reset()
	d.Reset(f, exchange.Upstream, usual, trailer)
	for {
		piece, took, err := d.Next(b)
		n += len(piece)
		if err != nil {
			return n
		}
		b = b[took:]
	}
}

func TestNothingIsAllocatedForMessagesInOrder(t *testing.T) {
	var req exchange.Request
	var res exchange.Response
	var trailer exchange.Header
	var d http1.Decoder
	out := make([]byte, 0, 4096)
	parse := func(raw string) func() {
		b := []byte(raw)
		return func() {
			req.Header.Reset()
			req = exchange.Request{Header: req.Header}
			if _, _, err := http1.ParseRequest(b, usual, &req); err != nil {
				t.Fatal(err)
			}
		}
	}
	answer := []byte(originResponse)
	plain := bytes.Repeat([]byte("x"), 1024)
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"request of wrk", parse(wrkRequest)},
		{"request of a browser", parse(browserRequest)},
		{"request that names fields in Connection", parse(hopRequest)},
		{"request of a WebSocket", parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")},
		{"request to an absolute target", parse("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n")},
		{"request that expects", parse("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")},
		{"unfinished request", func() {
			if _, _, err := http1.ParseRequest(answer[:9], usual, &req); err != http1.ErrIncomplete {
				t.Fatal(err)
			}
		}},
		{"response", func() {
			res.Header.Reset()
			if _, _, err := http1.ParseResponse(answer, usual, "GET", &res); err != nil {
				t.Fatal(err)
			}
		}},
		{"body with a length", func() { decodeAll(plain, &d, http1.Framing{Kind: http1.ByLength, Length: 1024}, &trailer) }},
		{"chunked body with a trailer", func() {
			if decodeAll(chunkedBody, &d, chunked, &trailer) != 64<<10 || trailer.Len() != 1 {
				t.Fatal("the body is not whole")
			}
		}},
		{"request written", func() {
			out = http1.AppendRequestLine(out[:0], req.Method, req.Target)
			out = http1.AppendHeader(out, &req.Header)
			out = http1.AppendFraming(out, http1.RequestFraming(&req))
		}},
		{"response written", func() {
			out = http1.AppendStatusLine(out[:0], 200)
			out = http1.AppendHeaderExcept(out, &res.Header, http1.SkipOf(exchange.Date))
			out = http1.AppendFraming(out, http1.ResponseFraming(exchange.HTTP11, "GET", &res))
		}},
		{"chunks written", func() {
			out = http1.AppendChunkHead(out[:0], 4096)
			out = http1.AppendLastChunk(out, &trailer)
		}},
	} {
		tt.f() // the header grows once
		if n := testing.AllocsPerRun(100, tt.f); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	for name, raw := range map[string]string{"wrk": wrkRequest, "browser": browserRequest} {
		msg := []byte(raw)
		b.Run(name+"/sluice", func(b *testing.B) {
			var r exchange.Request
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				r.Header.Reset()
				r = exchange.Request{Header: r.Header}
				if _, _, err := http1.ParseRequest(msg, usual, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/nethttp", func(b *testing.B) {
			in := strings.NewReader(raw)
			buf := bufio.NewReader(in)
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(raw)
				buf.Reset(in)
				if _, err := http.ReadRequest(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseResponse(b *testing.B) {
	msg := []byte(originResponse)
	b.Run("sluice", func(b *testing.B) {
		var r exchange.Response
		b.SetBytes(int64(len(msg)))
		b.ReportAllocs()
		for b.Loop() {
			r.Header.Reset()
			if _, _, err := http1.ParseResponse(msg, usual, "GET", &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("nethttp", func(b *testing.B) {
		in := strings.NewReader(originResponse)
		buf := bufio.NewReader(in)
		b.SetBytes(int64(len(msg)))
		b.ReportAllocs()
		for b.Loop() {
			in.Reset(originResponse)
			buf.Reset(in)
			if _, err := http.ReadResponse(buf, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeChunked(b *testing.B) {
	b.Run("sluice", func(b *testing.B) {
		var d http1.Decoder
		var trailer exchange.Header
		b.SetBytes(64 << 10)
		b.ReportAllocs()
		for b.Loop() {
			decodeAll(chunkedBody, &d, chunked, &trailer)
		}
	})
	b.Run("nethttp", func(b *testing.B) {
		in := bytes.NewReader(chunkedBody)
		buf := bufio.NewReader(in)
		piece := make([]byte, 32<<10)
		b.SetBytes(64 << 10)
		b.ReportAllocs()
		for b.Loop() {
			in.Reset(chunkedBody)
			buf.Reset(in)
			r := httputil.NewChunkedReader(buf)
			for {
				if _, err := r.Read(piece); err == io.EOF {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkWriteRequest(b *testing.B) {
	b.Run("sluice", func(b *testing.B) {
		var r exchange.Request
		if _, _, err := http1.ParseRequest([]byte(browserRequest), usual, &r); err != nil {
			b.Fatal(err)
		}
		out := make([]byte, 0, 4096)
		b.SetBytes(int64(len(browserRequest)))
		b.ReportAllocs()
		for b.Loop() {
			out = http1.AppendRequestLine(out[:0], r.Method, r.Target)
			out = http1.AppendHeader(out, &r.Header)
			out = http1.AppendFraming(out, http1.RequestFraming(&r))
			out = append(out, "\r\n"...)
		}
	})
	b.Run("nethttp", func(b *testing.B) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(browserRequest)))
		if err != nil {
			b.Fatal(err)
		}
		var out bytes.Buffer
		b.SetBytes(int64(len(browserRequest)))
		b.ReportAllocs()
		for b.Loop() {
			out.Reset()
			if err := r.Write(&out); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkWriteResponse(b *testing.B) {
	b.Run("sluice", func(b *testing.B) {
		var r exchange.Response
		if _, _, err := http1.ParseResponse([]byte(originResponse), usual, "GET", &r); err != nil {
			b.Fatal(err)
		}
		out := make([]byte, 0, 4096)
		b.SetBytes(int64(len(originResponse)))
		b.ReportAllocs()
		for b.Loop() {
			out = http1.AppendStatusLine(out[:0], r.Status)
			out = http1.AppendHeader(out, &r.Header)
			out = http1.AppendFraming(out, http1.ResponseFraming(exchange.HTTP11, "GET", &r))
			out = append(out, "\r\n"...)
		}
	})
	b.Run("nethttp", func(b *testing.B) {
		in := strings.NewReader(originResponse)
		r, err := http.ReadResponse(bufio.NewReader(in), nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Body, r.ContentLength = http.NoBody, 0
		var out bytes.Buffer
		b.SetBytes(int64(len(originResponse)))
		b.ReportAllocs()
		for b.Loop() {
			out.Reset()
			if err := r.Write(&out); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkHeadEnd(b *testing.B) {
	msg := []byte(browserRequest)
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if end, _ := http1.HeadEnd(msg, 0); end != len(msg) {
			b.Fatal(end)
		}
	}
}

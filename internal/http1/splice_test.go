package http1_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Messages put together from pieces that mean something reach further than
// bytes that a fuzzer changes: most of them get past the request line.

// parts are the pieces; each line of a message takes one of each of its lists.
var (
	starts = []string{
		"GET / HTTP/1.1", "POST /a?b HTTP/1.1", "HEAD /%41%2f HTTP/1.1", "OPTIONS * HTTP/1.1", "OPTIONS http://b HTTP/1.1", "GET http://B:80/x?y HTTP/1.1",
		"PUT http://b?q HTTP/1.1", "CONNECT b:443 HTTP/1.1", "GET / HTTP/1.0", "POST http://b/ HTTP/1.0", "get /| HTTP/1.1", "GET /a#b HTTP/1.1", "GET / HTTP/1.7",
		"GET //b HTTP/1.1", "GET /%zz HTTP/1.1", "GET http://[::1]:1/ HTTP/1.1", "GET / HTTP/2.0", "POST /?%zz HTTP/1.1", "DELETE /;a HTTP/1.1", "PRI * HTTP/1.1",
	}
	statuses = []string{
		"HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 100 Continue",
		"HTTP/1.1 103 x", "HTTP/1.1 500 a  b", "HTTP/1.7 200 OK", "HTTP/1.1 101 x", "HTTP/1.1 999 x", "HTTP/1.1 099 x", "HTTP/1.1 206 x", "HTTP/1.1 205 x",
	}
	names = []string{
		"Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Trailer", "Pragma", "Cache-Control", "X-A", "x-a", "X_A", "TE", "Upgrade",
		"content-length", "TRANSFER-ENCODING", "host", "Cookie", "!#$%&'*+-.^`|~", "Keep-Alive", "Content_Length", "Content-Length ", "X\tA", "",
	}
	colons = []string{": ", ":", ":  \t", " : ", "\t:", ":\r\n ", ""}
	values = []string{
		"", "a", "a.example:80", "5", "0", "3", "05", "+5", "5, 5", "-1", "0x5", "1 ", "chunked", "Chunked", "chunked, chunked", "gzip, chunked", "identity", "close",
		"keep-alive", "close, keep-alive", "upgrade", "x-a", "X-A, close", "host", "100-continue", "websocket", "h2c", "no-cache", "X-Sum", "Content-Length", "\x80\xff",
		"a\tb", "a b", "\x00", "\x7f", "[::1]", "[:::]", "b", "5\x0b", "trailers",
	}
	ends   = []string{"\r\n", "\n", "\r", "\r\r\n", "\r\n\r\n", "\r\n "}
	bodies = []string{
		"", "hello", "abc", "0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "3;a=b\r\nabc\r\n00\r\nX-Sum: 1\r\n\r\n", "3\r\nabc\r\n0\r\nX_Sum: 1\r\nContent-Length: 5\r\nX-A: b\r\nX-A: c\r\n\r\n",
		"3\r\nabc0\r\n\r\n", "3\nabc\n0\n\n", "0x3\r\nabc\r\n0\r\n\r\n", "3 \r\nabc\r\n0\r\n\r\n", "A\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "3;a=\"\r\n\"\r\nabc\r\n0\r\n\r\n",
		"3\r\nabc\r\n0\r\nX-Sum : 1\r\n\r\n", "3\r\nabc\r\n0\r\n", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nConnection: X-A\r\nX-A: 1\r\n\r\n", "ffffffffffffffff\r\n",
	}
	behind = []string{"", "", "", "GET /next HTTP/1.1\r\nHost: b\r\n\r\n", "\r\n", "0\r\n\r\n"}
)

// splice makes a message. Mostly it takes the pieces that are in order.
func splice(r *rand.Rand, lines []string) []byte {
	odd := func() bool { return r.IntN(12) == 0 }
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	usually := func(list []string, good int) string {
		if odd() {
			return pick(list)
		}
		return list[r.IntN(good)]
	}
	var b strings.Builder
	if odd() {
		b.WriteString(pick(ends))
	}
	b.WriteString(pick(lines) + usually(ends, 1))
	if !odd() {
		b.WriteString("Host: a" + usually(ends, 1))
	}
	for range r.IntN(5) {
		b.WriteString(usually(names, len(names)-3) + usually(colons, 3))
		b.WriteString(pick(values) + usually(ends, 1))
	}
	switch r.IntN(4) { // a framing that is in order
	case 0:
		b.WriteString("Content-Length: " + usually(values, 6) + "\r\n")
	case 1:
		b.WriteString("Transfer-Encoding: " + pick([]string{"chunked", "chunked", "chunked", "CHUNKED", "chunked ", "gzip, chunked"}) + "\r\n")
	}
	b.WriteString(usually(ends, 1) + pick(bodies) + pick(behind))
	return []byte(b.String())
}

// rounds of each test: enough for every pair of pieces to meet.
const rounds = 10_000

func TestSplicedRequestsAreReadAsNetHTTPReadsThem(t *testing.T) {
	r := rand.New(rand.NewPCG(9112, 6))
	accepted := 0
	for range rounds {
		raw := splice(r, starts)
		whole := readRequest(raw, atOnce, tight)
		if whole.head != "" {
			accepted++
		}
		sameInPieces(t, whole, readRequest(raw, bySeed([]byte{byte(r.IntN(4)), byte(r.IntN(20))}), tight))
		blame(t, whole, exchange.Client)
		compareRequest(t, raw, whole)
		if t.Failed() {
			t.Fatalf("the message is %q", raw)
		}
	}
	if accepted < rounds/10 {
		t.Errorf("only %d of %d messages were accepted", accepted, rounds)
	}
}

func TestSplicedResponsesAreReadAsNetHTTPReadsThem(t *testing.T) {
	r := rand.New(rand.NewPCG(9112, 4))
	accepted := 0
	for range rounds {
		raw := splice(r, statuses)
		method := []string{"GET", "HEAD", "POST"}[r.IntN(3)]
		whole := readResponse(raw, atOnce, tight, method)
		if whole.head != "" {
			accepted++
		}
		sameInPieces(t, whole, readResponse(raw, bySeed([]byte{byte(r.IntN(4)), byte(r.IntN(20))}), tight, method))
		blame(t, whole, exchange.Upstream)
		compareResponse(t, raw, method, whole)
		if t.Failed() {
			t.Fatalf("the message is %q, to %s", raw, method)
		}
	}
	if accepted < rounds/10 {
		t.Errorf("only %d of %d messages were accepted", accepted, rounds)
	}
}

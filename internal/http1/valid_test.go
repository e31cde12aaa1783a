package http1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// valid is a message in order and how it is read: describeRequest's or
// describeResponse's lines without the start line or status, then the body.
type valid struct{ name, raw, want string }

// validRequests have LF for CR LF in their heads.
var validRequests = []valid{
	{"the least", "GET / HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
`},
	{"a browser", "GET /a/b.html?x=1&y=%20 HTTP/1.1\nHost: www.example.com:8080\nUser-Agent: Mozilla/5.0 (X11)\n" +
		"Accept: text/html, */*;q=0.8\nAccept-Encoding: gzip, br\nCookie: a=b; c=d\nConnection: keep-alive\n\n", `
authority "www.example.com:8080", host "www.example.com", path "/a/b.html", query "x=1&y=%20"
none, keep-alive, length 0
Host: www.example.com:8080
User-Agent: Mozilla/5.0 (X11)
Accept: text/html, */*;q=0.8
Accept-Encoding: gzip, br
Cookie: a=b; c=d
-Connection: keep-alive
`},
	{"every case of name", "GET / HTTP/1.1\nhOsT: A.Example\ncOOKIE: a=b\nX-CUSTOM: V\n\n", `
authority "A.Example", host "a.example", path "/"
none, keep-alive, length 0
hOsT: A.Example
cOOKIE: a=b
X-CUSTOM: V
`},
	{"an empty query", "GET /? HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/", query ""
none, keep-alive, length 0
Host: a
`},
	{"a question mark in the query", "GET /a?b?c=/d HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/a", query "b?c=/d"
none, keep-alive, length 0
Host: a
`},
	{"every byte of a path", "GET /-._~!$&'()*+,;=:@%41 HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/-._~!$&'()*+,;=:@%41"
none, keep-alive, length 0
Host: a
`},
	{"what browsers leave as it is", "GET /[a]{b}|c^d`e?[a]{b}|c^d`e HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/[a]{b}|c^d` + "`" + `e", query "[a]{b}|c^d` + "`" + `e"
none, keep-alive, length 0
Host: a
`},
	{"a path with a colon", "GET /a:b://c HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/a:b://c"
none, keep-alive, length 0
Host: a
`},
	{"two slashes", "GET //b/c HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "//b/c"
none, keep-alive, length 0
Host: a
`},
	{"an absolute target", "GET http://B.example:81/x?y HTTP/1.1\nHost: a\n\n", `
authority "B.example:81", host "b.example", path "/x", query "y"
none, keep-alive, length 0
Host: a
`},
	{"an absolute target of https", "GET https://b/ HTTP/1.1\nHost: b\n\n", `
authority "b", host "b", path "/"
none, keep-alive, length 0
Host: b
`},
	{"an absolute target without a path", "GET http://b HTTP/1.1\nHost: b\n\n", `
authority "b", host "b", path "/"
none, keep-alive, length 0
Host: b
`},
	{"an absolute target of a query", "GET http://b?x HTTP/1.1\nHost: b\n\n", `
authority "b", host "b", path "/", query "x"
none, keep-alive, length 0
Host: b
`},
	{"an absolute target with a query that looks like a user", "GET http://b?@c HTTP/1.1\nHost: b\n\n", `
authority "b", host "b", path "/", query "@c"
none, keep-alive, length 0
Host: b
`},
	{"OPTIONS of the server", "OPTIONS * HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "*"
none, keep-alive, length 0
Host: a
`},
	{"OPTIONS of the server, absolute", "OPTIONS http://b:81 HTTP/1.1\nHost: b\n\n", `
authority "b:81", host "b", path "*"
none, keep-alive, length 0
Host: b
`},
	{"OPTIONS of the root, absolute", "OPTIONS http://b/ HTTP/1.1\nHost: b\n\n", `
authority "b", host "b", path "/"
none, keep-alive, length 0
Host: b
`},
	{"OPTIONS of the root with a query, absolute", "OPTIONS http://b?x HTTP/1.1\nHost: b\n\n", `
authority "b", host "b", path "/", query "x"
none, keep-alive, length 0
Host: b
`},
	{"CONNECT", "CONNECT b:443 HTTP/1.1\nHost: a\n\n", `
authority "b:443", host "b", path ""
none, keep-alive, length 0
Host: a
`},
	{"an IPv4 host", "GET / HTTP/1.1\nHost: 192.0.2.1:80\n\n", `
authority "192.0.2.1:80", host "192.0.2.1", path "/"
none, keep-alive, length 0
Host: 192.0.2.1:80
`},
	{"an IPv6 host", "GET / HTTP/1.1\nHost: [2001:DB8::192.0.2.1]\n\n", `
authority "[2001:DB8::192.0.2.1]", host "[2001:db8::192.0.2.1]", path "/"
none, keep-alive, length 0
Host: [2001:DB8::192.0.2.1]
`},
	{"the shortest IPv6 host", "GET / HTTP/1.1\nHost: [::]:1\n\n", `
authority "[::]:1", host "[::]", path "/"
none, keep-alive, length 0
Host: [::]:1
`},
	{"the longest IPv6 host", "GET / HTTP/1.1\nHost: [2001:0db8:1111:2222:3333:4444:5555:6666]:65535\n\n", `
authority "[2001:0db8:1111:2222:3333:4444:5555:6666]:65535", host "[2001:0db8:1111:2222:3333:4444:5555:6666]", path "/"
none, keep-alive, length 0
Host: [2001:0db8:1111:2222:3333:4444:5555:6666]:65535
`},
	{"a host with an underscore and a dot at the end", "GET / HTTP/1.1\nHost: my_host-1.example.\n\n", `
authority "my_host-1.example.", host "my_host-1.example.", path "/"
none, keep-alive, length 0
Host: my_host-1.example.
`},
	{"a length", "POST /a HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Type: text/plain\n\nhello", `
authority "a", host "a", path "/a"
length 5, keep-alive, length 5
Host: a
-Content-Length: 5
Content-Type: text/plain
body hello`},
	{"a length of zero", "POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
-Content-Length: 0
`},
	{"the largest length", "POST / HTTP/1.1\nHost: a\nContent-Length: 999999999999999999\n\nhello", `
authority "a", host "a", path "/"
length 999999999999999999, keep-alive, length 999999999999999999
Host: a
-Content-Length: 999999999999999999
body hello`},
	{"POST without a body", "POST / HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
`},
	{"chunks", "PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n5\nhello\n6;x=y\n world\n0\n\n", `
authority "a", host "a", path "/"
chunked, keep-alive, length -1
Host: a
-Transfer-Encoding: chunked
body hello world`},
	{"chunks with a trailer", "PUT / HTTP/1.1\nHost: a\nTrailer: X-Sum\nTransfer-Encoding: chunked\n\n1\na\n0\nX-Sum: 1\nContent-Length: 9\n\n", `
authority "a", host "a", path "/"
chunked, keep-alive, length -1
Host: a
Trailer: X-Sum
-Transfer-Encoding: chunked
body a
trailer X-Sum: 1`},
	{"a close", "GET / HTTP/1.1\nHost: a\nConnection: close\n\n", `
authority "a", host "a", path "/"
none, close, length 0
Host: a
-Connection: close
`},
	{"a close among others", "GET / HTTP/1.1\nHost: a\nConnection: keep-alive ,\tCLOSE, x-hop\nX-Hop: 1\nx-hop: 2\nX-Hop-Not: 3\n\n", `
authority "a", host "a", path "/"
none, close, length 0
Host: a
-Connection: keep-alive ,	CLOSE, x-hop
-X-Hop: 1
-x-hop: 2
X-Hop-Not: 3
`},
	{"a close in the second field", "GET / HTTP/1.1\nHost: a\nConnection: keep-alive\nConnection: close\n\n", `
authority "a", host "a", path "/"
none, close, length 0
Host: a
-Connection: keep-alive
-Connection: close
`},
	{"HTTP/1.0", "GET / HTTP/1.0\n\n", `
authority "", host "", path "/"
none, close, length 0
`},
	{"HTTP/1.0 that is kept alive", "GET / HTTP/1.0\nHost: a\nConnection: Keep-Alive\nKeep-Alive: 300\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
-Connection: Keep-Alive
-Keep-Alive: 300
`},
	{"HTTP/1.0 that is kept alive and closed", "GET / HTTP/1.0\nConnection: keep-alive, close\n\n", `
authority "", host "", path "/"
none, close, length 0
-Connection: keep-alive, close
`},
	{"HTTP/1.9", "GET / HTTP/1.9\nHost: a\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
`},
	{"an expectation", "POST / HTTP/1.1\nHost: a\nExpect: 100-Continue\nContent-Length: 1\n\na", `
authority "a", host "a", path "/"
length 1, keep-alive, length 1, expects 100-continue
Host: a
-Expect: 100-Continue
-Content-Length: 1
body a`},
	{"an expectation without a body", "POST / HTTP/1.1\nHost: a\nExpect: 100-continue\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
-Expect: 100-continue
`},
	{"an expectation in HTTP/1.0", "POST / HTTP/1.0\nExpect: 100-continue\nContent-Length: 1\n\na", `
authority "", host "", path "/"
length 1, close, length 1
-Expect: 100-continue
-Content-Length: 1
body a`},
	{"a WebSocket", "GET /chat HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: keep-alive, Upgrade\nSec-WebSocket-Key: x\n\n", `
authority "a", host "a", path "/chat"
none, keep-alive, length 0, upgrade "websocket"
Host: a
-Upgrade: websocket
-Connection: keep-alive, Upgrade
Sec-WebSocket-Key: x
`},
	{"an upgrade to one of several", "GET / HTTP/1.1\nHost: a\nUpgrade: foo/2, websocket\nConnection: upgrade\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0, upgrade "foo/2, websocket"
Host: a
-Upgrade: foo/2, websocket
-Connection: upgrade
`},
	{"an upgrade of nothing", "GET / HTTP/1.1\nHost: a\nConnection: upgrade\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
-Connection: upgrade
`},
	{"hop-by-hop fields", "GET / HTTP/1.1\nHost: a\nTE: trailers\nProxy-Authorization: x\nProxy-Connection: y\nKeep-Alive: z\nProxy-Authenticate: w\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
-TE: trailers
-Proxy-Authorization: x
-Proxy-Connection: y
-Keep-Alive: z
-Proxy-Authenticate: w
`},
	{"repeated fields keep their order", "GET / HTTP/1.1\nA: 1\nHost: a\nB: 2\na: 3\nA: 4\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
A: 1
Host: a
B: 2
a: 3
A: 4
`},
	{"white space around values", "GET / HTTP/1.1\nHost:a\nA:\nB: \t \nC:  c \t c\t \n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
A: 
B: 
C: c 	 c
`},
	{
		"bytes beyond ASCII in a value", "GET / HTTP/1.1\nHost: a\nA: \x80\xfe\xff\n\n",
		"\nauthority \"a\", host \"a\", path \"/\"\nnone, keep-alive, length 0\nHost: a\nA: \x80\xfe\xff\n",
	},
	{"names with underscores are dropped", "GET / HTTP/1.1\nHost: a\nX_A: 1\nX-A: 2\n__: 3\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
X-A: 2
`},
	{"an empty line in front", "\nGET / HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
`},
	{"a method nobody knows", "x!-1 / HTTP/1.1\nHost: a\n\n", `
authority "a", host "a", path "/"
none, keep-alive, length 0
Host: a
`},
}

var validResponses = []valid{
	{"the least", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", `
none, keep-alive, length 0
-Content-Length: 0
`},
	{"a length", "HTTP/1.1 200 OK\nDate: x\nContent-Length: 5\nSet-Cookie: a=b\nSet-Cookie: c=d\n\nhello", `
length 5, keep-alive, length 5
Date: x
-Content-Length: 5
Set-Cookie: a=b
Set-Cookie: c=d
body hello`},
	{"chunks", "HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n5\nhello\n0\n\n", `
chunked, keep-alive, length -1
-Transfer-Encoding: Chunked
body hello`},
	{"chunks with a trailer", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\nGrpc-Status: 0\n\n", `
chunked, keep-alive, length -1
-Transfer-Encoding: chunked
body hello
trailer Grpc-Status: 0`},
	{"the end of the connection", "HTTP/1.1 200 OK\n\nhello", `
until close, close, length -1
body hello`},
	{"the end of the connection though kept alive", "HTTP/1.1 200 OK\nConnection: keep-alive\n\nhello", `
until close, close, length -1
-Connection: keep-alive
body hello`},
	{"HTTP/1.0", "HTTP/1.0 200 OK\nContent-Length: 1\n\na", `
length 1, close, length 1
-Content-Length: 1
body a`},
	{"HTTP/1.0 that is kept alive", "HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 1\n\na", `
length 1, keep-alive, length 1
-Connection: keep-alive
-Content-Length: 1
body a`},
	{"a close", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 1\n\na", `
length 1, close, length 1
-Connection: close
-Content-Length: 1
body a`},
	{"an interim response", "HTTP/1.1 103 Early Hints\nLink: </a>\n\n", `
none, keep-alive, length 0
Link: </a>
`},
	{"no content", "HTTP/1.1 204 No Content\n\n", `
none, keep-alive, length 0
`},
	{"not modified, with a length", "HTTP/1.1 304 Not Modified\nContent-Length: 7\nETag: \"a\"\n\n", `
none, keep-alive, length 7
-Content-Length: 7
ETag: "a"
`},
	{"not modified, without a length", "HTTP/1.1 304 Not Modified\n\n", `
none, keep-alive, length -1
`},
	{"a switch of protocols", "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n\x81\x00", "\n" +
		"upgraded, close, length 0\n-Connection: Upgrade\n-Upgrade: websocket\nbody \x81\x00"},
	{"no reason", "HTTP/1.1 404 \nContent-Length: 0\n\n", `
none, keep-alive, length 0
-Content-Length: 0
`},
	{"no reason and no space", "HTTP/1.1 404\nContent-Length: 0\n\n", `
none, keep-alive, length 0
-Content-Length: 0
`},
	{"names with underscores", "HTTP/1.1 200 OK\nX_A: 1\nContent-Length: 0\n\n", `
none, keep-alive, length 0
X_A: 1
-Content-Length: 0
`},
	{"fields that Connection names", "HTTP/1.1 200 OK\nX-Hop: 1\nConnection: x-hop\nContent-Length: 0\n\n", `
none, keep-alive, length 0
-X-Hop: 1
-Connection: x-hop
-Content-Length: 0
`},
	{"fields that Connection may not name", "HTTP/1.1 200 OK\nConnection: Set-Cookie, content-type\nSet-Cookie: a=b\nContent-Type: c\nContent-Length: 0\n\n", `
none, keep-alive, length 0
-Connection: Set-Cookie, content-type
Set-Cookie: a=b
Content-Type: c
-Content-Length: 0
`},
	{"hop-by-hop fields", "HTTP/1.1 407 x\nProxy-Authenticate: a\nKeep-Alive: b\nUpgrade: c\nTrailer: d\nContent-Length: 0\n\n", `
none, keep-alive, length 0
-Proxy-Authenticate: a
-Keep-Alive: b
-Upgrade: c
Trailer: d
-Content-Length: 0
`},
}

// headResponses answer HEAD.
var headResponses = []valid{
	{"a length", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", `
none, keep-alive, length 5
-Content-Length: 5
`},
	{"chunks", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", `
none, keep-alive, length -1
-Transfer-Encoding: chunked
`},
	{"neither", "HTTP/1.1 200 OK\n\n", `
none, keep-alive, length -1
`},
}

// account writes a message as the tables do.
func account(m message, head string) string {
	s := "\n" + head
	if m.body != "" {
		s += "body " + m.body
	}
	if m.tail != "" {
		s += "\ntrailer " + strings.TrimSuffix(m.tail, "\r\n")
	}
	return s
}

func TestValidRequestsAreReadInFull(t *testing.T) {
	for _, v := range validRequests {
		for name, cut := range map[string]cuts{"at once": atOnce, "singly": singly, "in threes": bySeed([]byte{3})} {
			m := readRequest([]byte(crlf(v.raw)), cut, usual)
			start, head, _ := strings.Cut(m.head, "\n")
			line, _, _ := strings.Cut(strings.TrimPrefix(v.raw, "\n"), "\n")
			line = strings.Replace(line, "HTTP/1.9", "HTTP/1.1", 1)
			if got := account(m, head); got != v.want || start != line {
				t.Errorf("%s, %s: %v (%v)\n%s%s\nwant\n%s%s", v.name, name, m, m.err, start, got, line, v.want)
			}
		}
	}
}

func TestValidResponsesAreReadInFull(t *testing.T) {
	for method, table := range map[string][]valid{"GET": validResponses, "HEAD": headResponses} {
		for _, v := range table {
			for name, cut := range map[string]cuts{"at once": atOnce, "singly": singly, "in threes": bySeed([]byte{3})} {
				m := readResponse([]byte(crlf(v.raw)), cut, usual, method)
				status, head, _ := strings.Cut(m.head, "\n")
				if got := account(m, head); got != v.want || status != v.raw[9:12] {
					t.Errorf("%s, %s: %v (%v)\n%s%s\nwant\n%s", v.name, name, m, m.err, status, got, v.want)
				}
			}
		}
	}
}

// Requests that stand one behind the other are read one by one.
func TestPipelinedRequestsAreReadOneByOne(t *testing.T) {
	var all string
	for _, v := range validRequests {
		if !strings.Contains(v.raw, "999999999999999999") { // which is unfinished
			all += crlf(v.raw)
		}
	}
	for n := 0; all != ""; n++ {
		m := readRequest([]byte(all), atOnce, usual)
		if !m.whole {
			t.Fatalf("%d requests, then %v (%v) in front of %q", n, m, m.err, all)
		}
		if alone := readRequest([]byte(all[:len(all)-len(m.rest)]), atOnce, usual); alone.head != m.head || alone.body != m.body || alone.rest != "" {
			t.Errorf("with others behind:\n%s%q\nalone:\n%s%q", m.head, m.body, alone.head, alone.body)
		}
		all = m.rest
		if all == "" && n+2 != len(validRequests) {
			t.Errorf("%d requests, want %d", n+1, len(validRequests)-1)
		}
	}
}

func TestLimitsHoldToTheByte(t *testing.T) {
	const raw = "GET /abc HTTP/1.1\r\nHost: a\r\nA: 1\r\nB_B: 2\r\nC: 3\r\n\r\n"
	line := strings.Index(raw, "\n")
	for _, tt := range []struct {
		head, fields int
		want         string
	}{
		{len(raw), 4, "forward"},
		{len(raw) + 1, 5, "forward"},
		{len(raw) - 1, 4, "431"},
		{len(raw), 3, "431"},
		{len(raw), 0, "431"},
		{line + 1, 4, "431"},
		{line, 4, "431"},
		{line - 1, 4, "414"},
		{0, 4, "414"},
	} {
		for name, cut := range map[string]cuts{"at once": atOnce, "singly": singly} {
			if m := readRequest([]byte(raw), cut, http1.Limits{Head: tt.head, Fields: tt.fields}); m.String() != tt.want {
				t.Errorf("head %d, %d fields, %s: %v (%v), want %s", tt.head, tt.fields, name, m, m.err, tt.want)
			}
		}
	}
	const answer = "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		head, fields int
		want         string
	}{
		{len(answer), 2, "forward"},
		{len(answer) - 1, 2, "502"},
		{len(answer), 1, "502"},
	} {
		for name, cut := range map[string]cuts{"at once": atOnce, "singly": singly} {
			if m := readResponse([]byte(answer), cut, http1.Limits{Head: tt.head, Fields: tt.fields}, "GET"); m.String() != tt.want {
				t.Errorf("head %d, %d fields, %s: %v (%v), want %s", tt.head, tt.fields, name, m, m.err, tt.want)
			}
		}
	}
}

// A refused request is recorded as far as it was read.
func TestARefusedRequestIsReadUntilTheMistake(t *testing.T) {
	for _, tt := range []struct{ raw, want string }{
		{"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", ` ""`},
		{"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", `GET "/a#b"`},
		{"GET /a HTTP/2.0\r\nHost: a\r\n\r\n", `GET "/a"`},
		{"POST /a HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B : 2\r\n\r\n", `POST "/a"` + "\nHost: a\nX-A: 1\n"},
		{"POST /a HTTP/1.1\r\nHost: a b\r\nX-A: 1\r\n\r\n", `POST "/a"` + "\nHost: a b\nX-A: 1\n"},
	} {
		var r exchange.Request
		n, _, err := http1.ParseRequest([]byte(tt.raw), usual, &r)
		got := fmt.Sprintf("%s %q", r.Method, r.Target)
		if h := describeHeader(&r.Header); h != "" {
			got += "\n" + h
		}
		if err == nil || n != 0 || got != tt.want {
			t.Errorf("%q: %d, %v, %s\nwant %s", tt.raw, n, err, got, tt.want)
		}
	}
}

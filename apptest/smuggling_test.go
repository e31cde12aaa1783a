package apptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// hidden is a request that a probe hides in the body, or behind the end, of
// another. It must never come to an origin.
const hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\nX-Hidden: 1\r\n\r\n"

// probes are messages that two implementations may frame in two ways. "~" stands
// for the hidden request, "#" for its length, and "%" for its length in hex.
var probes = map[string]string{
	"CL.TE":                    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
	"TE.CL":                    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%\r\n~\r\n0\r\n\r\n",
	"CL.CL":                    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nContent-Length: #\r\n\r\n~",
	"CL list":                  "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0, #\r\n\r\n~",
	"CL same list":             "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: #, #\r\n\r\n~",
	"CL signed":                "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +#\r\n\r\n~",
	"CL minus":                 "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: -1\r\n\r\n~",
	"CL hex":                   "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x%\r\n\r\n~",
	"CL underscore":            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1_0\r\n\r\n~",
	"CL empty":                 "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: \r\n\r\n~",
	"CL overflow":              "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 18446744073709551616\r\n\r\n~",
	"CL space inside":          "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0 #\r\n\r\n~",
	"CL space before colon":    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length : #\r\n\r\n~",
	"CL folded":                "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n #\r\n\r\n~",
	"CL vertical tab":          "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\v#\r\n\r\n~",
	"CL behind a bare CR":      "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\rContent-Length: #\r\n\r\n~",
	"CL behind a bare LF":      "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\nContent-Length: #\r\n\r\n~",
	"CL behind NUL":            "POST / HTTP/1.1\r\nHost: a.test\r\nX: y\x00\r\nContent-Length: 0\r\n\r\n~",
	"TE xchunked":              "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n~",
	"TE chunked twice":         "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
	"TE identity":              "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n~",
	"TE chunked, identity":     "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n~",
	"TE identity, chunked":     "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n~",
	"TE gzip":                  "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip\r\n\r\n~",
	"TE gzip, chunked":         "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n~",
	"TE tab":                   "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n~",
	"TE space before colon":    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n~",
	"TE folded":                "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n~",
	"TE quoted":                "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n~",
	"TE with a parameter":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n~",
	"TE with a control byte":   "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \x01chunked\r\n\r\n0\r\n\r\n~",
	"TE with a high byte":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \x85chunked\r\n\r\n0\r\n\r\n~",
	"TE empty":                 "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:\r\nContent-Length: 0\r\n\r\n~",
	"TE on HTTP/1.0":           "POST / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
	"TE in Connection":         "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n~",
	"chunk size signed":        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n~",
	"chunk size minus":         "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n~",
	"chunk size 0x":            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n~",
	"chunk size overflow":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n0\r\n\r\n~",
	"chunk size with a space":  "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n 0\r\n\r\n~",
	"chunk size, bare LF":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n~",
	"chunk size, bare CR":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\r~",
	"chunk extension, bare LF": "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n%\r\n0\r\n\r\n~",
	"chunk data, no CRLF":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxXX0\r\n\r\n~",
	"chunk data, bare LF":      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n~",
	"trailer, bare LF":         "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\n~",
	"head ends in bare LFs":    "POST / HTTP/1.1\nHost: a.test\nContent-Length: #\n\n~",
	"empty line of bare LF":    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: #\r\n\n~",
	"space before first field": "POST / HTTP/1.1\r\n Host: a.test\r\nContent-Length: #\r\n\r\n~",
	"field without colon":      "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length\r\n\r\n~",
	"line end in the target":   "GET /\rx HTTP/1.1\r\nHost: a.test\r\n\r\n~",
	"two spaces":               "POST  / HTTP/1.1\r\nHost: a.test\r\nContent-Length: #\r\n\r\n~",
	"no version":               "POST /\r\nHost: a.test\r\nContent-Length: #\r\n\r\n~",
	"HTTP/1.2":                 "POST / HTTP/1.2\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: #\r\n\r\n~",
	"HTTP/2.0 in clear":        "POST / HTTP/2.0\r\nHost: a.test\r\nContent-Length: #\r\n\r\n~",
	"two hosts":                "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n~",
	"no host":                  "GET / HTTP/1.1\r\n\r\n~",
	"Connection names CL":      "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Content-Length\r\nContent-Length: #\r\n\r\n~",
	"Connection names Host":    "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Host\r\nContent-Length: #\r\n\r\n~",
	"upgrade with a body":      "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: #\r\n\r\n~",
	"GET with a body":          "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: #\r\n\r\n~",
	"HEAD with a body":         "HEAD / HTTP/1.1\r\nHost: a.test\r\nContent-Length: #\r\n\r\n~",
	"early answer":             "POST /nowhere HTTP/1.1\r\nHost: b.test\r\nContent-Length: #\r\n\r\n~",
	"early answer to Expect":   "POST /nowhere HTTP/1.1\r\nHost: b.test\r\nExpect: 100-continue\r\nContent-Length: #\r\n\r\n~",
}

const plainGateway = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {header_timeout: 2s, body_idle_timeout: 2s, request_timeout: 5s}
log: {access: {output: none}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
apis: [{name: a, hosts: [a.test], routes: [{name: all, path: "/{rest...}", upstream: o}]}]
`

// TestSmuggling hides a request in ambiguous messages. The gateway refuses each
// and closes, or takes the hidden request for what it is, a body: the origin
// never sees it as a request of its own.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	o := gatetest.NewOrigin(t, gatetest.Answer(func(s *gatetest.Seen) string {
		if s.Method == http.MethodHead {
			return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
		}
		return gatetest.Text("ok")
	}))
	g := start(t, setup{config: plainGateway, vars: map[string]string{"ORIGIN": o.Addr}})
	fill := strings.NewReplacer("~", hidden, "#", fmt.Sprint(len(hidden)), "%", fmt.Sprintf("%x", len(hidden)))
	for name, probe := range probes {
		t.Run(name, func(t *testing.T) {
			replies, end := exchangeRaw(t, g.addr("PLAIN"), fill.Replace(probe))
			switch {
			case len(replies) != 1:
				t.Errorf("%d replies (%v), want one: no second request is there", len(replies), replies)
			case replies[0] >= 400 && replies[0] != http.StatusNotFound && !isClosed(end):
				t.Errorf("status %d and then %v, want a closed connection", replies[0], end)
			}
		})
	}
	for _, s := range o.Requests() {
		if s.Header.Has("X-Hidden") || strings.Contains(s.Target, "hidden") {
			t.Errorf("the hidden request reached the origin:\n%s", s.Raw)
		}
	}
	if bad := o.Bad(); bad != nil {
		t.Errorf("the origin received what can be read in two ways: %v", bad)
	}
}

// exchangeRaw sends msg and returns the statuses of all replies until the
// connection ends, or stays quiet for a moment, and how it ended.
func exchangeRaw(t testing.TB, addr, msg string) (statuses []int, end error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, msg); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(msg, " ")
	r := bufio.NewReader(c)
	for {
		// The first reply is waited for; what is not there soon after is not there.
		wait := 10 * time.Second
		if len(statuses) > 0 {
			wait = 300 * time.Millisecond
		}
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && len(statuses) == 0 {
				t.Errorf("no reply to %q", msg)
			}
			return statuses, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return statuses, err
		}
		resp.Body.Close()
		if resp.StatusCode >= 200 {
			statuses = append(statuses, resp.StatusCode)
			method = http.MethodGet
		}
	}
}

// isClosed reports whether a read ended because the other side closed.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// TestPipelining answers requests that come in one write in their order.
func TestPipelining(t *testing.T) {
	t.Parallel()
	o := gatetest.NewOrigin(t, gatetest.Answer(func(s *gatetest.Seen) string { return gatetest.Text(s.Target + " " + string(s.Body)) }))
	g := start(t, setup{config: plainGateway, vars: map[string]string{"ORIGIN": o.Addr}})
	c, err := net.Dial("tcp", g.addr("PLAIN"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var msg strings.Builder
	const n = 50
	for i := range n {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&msg, "GET /%d HTTP/1.1\r\nHost: a.test\r\n\r\n", i)
		case 1:
			fmt.Fprintf(&msg, "POST /%d HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody", i)
		default:
			fmt.Fprintf(&msg, "POST /%d HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", i)
		}
	}
	if _, err := io.WriteString(c, msg.String()); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for i := range n {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("reply %d: %v", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		want := fmt.Sprintf("/%d body", i)
		if i%3 == 0 {
			want = fmt.Sprintf("/%d ", i)
		}
		if err != nil || string(body) != want {
			t.Fatalf("reply %d: %q, %v, want %q", i, body, err, want)
		}
	}
}

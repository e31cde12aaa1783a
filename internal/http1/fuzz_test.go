package http1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// The oracle is net/http: whatever this package accepts, net/http accepts, with
// the same meaning. The other way round nothing is asked, since this package is
// the stricter. Where the two differ on purpose:
//
//   - One empty line in front of a request is skipped here (RFC 9112 §2.2), and
//     refused there.
//   - Names with "_" are dropped from requests and their trailers here.
//   - A bad percent-encoding in a path is the router's to refuse (router.
//     Canonicalize); there the whole request is.
//   - Trailer is passed on here, and nothing depends on it; there it may not name
//     a framing field.
//   - Framing, routing and control fields are dropped from trailers here.
//   - net/http adds Cache-Control: no-cache to Pragma: no-cache.
//   - The empty path of "http://host" and of "OPTIONS http://host" is "/" and "*"
//     here.
//   - net/http takes Connection out of a response when it says close.
//   - There, the body of a 101 is not the rest of the connection.

// maxFuzz bounds the messages: beyond it both have limits of their own.
const maxFuzz = 4 << 10

// tight are limits that a fuzzer can reach.
var tight = http1.Limits{Head: 2 << 10, Fields: 40}

func FuzzRequest(f *testing.F) {
	for _, c := range requests(f) {
		if len(c.Raw) <= maxFuzz {
			f.Add(c.Raw, []byte{1})
			f.Add(append(slices.Clone(c.Raw), "\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"...), []byte{9, 1, 30})
		}
	}
	for _, v := range validRequests {
		f.Add([]byte(crlf(v.raw)), []byte{3, 1, 7, 2})
	}
	f.Fuzz(func(t *testing.T, raw, seed []byte) {
		if len(raw) > maxFuzz {
			return
		}
		whole := readRequest(raw, atOnce, tight)
		sameInPieces(t, whole, readRequest(raw, bySeed(seed), tight))
		blame(t, whole, exchange.Client)
		compareRequest(t, raw, whole)
	})
}

// FuzzChunked is FuzzRequest for the body alone.
func FuzzChunked(f *testing.F) {
	head := []byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, c := range requests(f) {
		if _, body, ok := bytes.Cut(c.Raw, []byte("Transfer-Encoding: chunked\r\n\r\n")); ok && len(body) <= maxFuzz {
			f.Add(body, []byte{1})
			f.Add(body, []byte{4, 1})
		}
	}
	f.Fuzz(func(t *testing.T, body, seed []byte) {
		if len(body) > maxFuzz {
			return
		}
		raw := append(slices.Clone(head), body...)
		whole := readRequest(raw, atOnce, tight)
		sameInPieces(t, whole, readRequest(raw, bySeed(seed), tight))
		blame(t, whole, exchange.Client)
		compareRequest(t, raw, whole)
	})
}

func FuzzResponse(f *testing.F) {
	for _, c := range responses(f) {
		if len(c.Raw) <= maxFuzz {
			f.Add(c.Raw, []byte{1}, c.Method == "HEAD")
			f.Add(append(slices.Clone(c.Raw), "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"...), []byte{9, 1, 30}, c.Method == "HEAD")
		}
	}
	for _, v := range validResponses {
		f.Add([]byte(crlf(v.raw)), []byte{3, 1, 7, 2}, false)
	}
	for _, v := range headResponses {
		f.Add([]byte(crlf(v.raw)), []byte{5}, true)
	}
	f.Fuzz(func(t *testing.T, raw, seed []byte, head bool) {
		if len(raw) > maxFuzz {
			return
		}
		method := "GET"
		if head {
			method = "HEAD"
		}
		whole := readResponse(raw, atOnce, tight, method)
		sameInPieces(t, whole, readResponse(raw, bySeed(seed), tight, method))
		blame(t, whole, exchange.Upstream)
		compareResponse(t, raw, method, whole)
	})
}

// sameInPieces checks that a message read in pieces is the one read at once.
// The bytes of a body in front of a mistake may be fewer.
func sameInPieces(t *testing.T, whole, pieces message) {
	t.Helper()
	if pieces.String() != whole.String() || pieces.head != whole.head || pieces.whole != whole.whole || pieces.rest != whole.rest ||
		pieces.sent != whole.sent || pieces.tail != whole.tail || whole.err == nil && pieces.body != whole.body {
		t.Errorf("at once %v (%v)\n%s%q, %q behind\nin pieces %v (%v)\n%s%q, %q behind",
			whole, whole.err, whole.head, whole.body, whole.rest, pieces, pieces.err, pieces.head, pieces.body, pieces.rest)
	}
}

// blame checks that a refusal is complete.
func blame(t *testing.T, m message, side exchange.Side) {
	t.Helper()
	switch e := m.err; {
	case e == nil:
	case e.Side != side || !e.Close || e.Retry:
		t.Errorf("the refusal is %+v", e)
	case side == exchange.Client && (!slices.Contains([]int{400, 414, 417, 431, 501, 505}, e.HTTPStatus()) || !http1.IsValue([]byte(e.Detail))):
		t.Errorf("the refusal is %d, %q", e.HTTPStatus(), e.Detail)
	case side == exchange.Upstream && e.HTTPStatus() != 502:
		t.Errorf("the failure is %d", e.HTTPStatus())
	}
}

func compareRequest(t *testing.T, raw []byte, got message) {
	t.Helper()
	if got.head == "" {
		return
	}
	var r exchange.Request
	_, f, err := http1.ParseRequest(raw, tight, &r)
	if err != nil {
		t.Fatalf("a second time: %v", err)
	}
	if r.Query != nil && string(r.RawPath)+"?"+string(r.Query) != string(r.Target) && r.Target[0] == '/' {
		t.Errorf("%q and %q are not %q", r.RawPath, r.Query, r.Target)
	}
	in := bytes.NewReader(bytes.TrimPrefix(raw, []byte("\r\n")))
	buf := bufio.NewReaderSize(in, 64<<10)
	req, err := http.ReadRequest(buf)
	if err != nil {
		if badEscape(r.RawPath) || r.Header.Has(exchange.Trailer) {
			return
		}
		t.Fatalf("net/http refuses it: %v\n%s", err, got.head)
	}
	same(t, "method", r.Method, req.Method)
	same(t, "target", string(r.Target), req.RequestURI)
	same(t, "authority", string(r.Authority), req.Host)
	same(t, "host", string(r.Host), hostOf(req.Host))
	same(t, "length", r.ContentLength, req.ContentLength)
	same(t, "chunked", f.Kind == http1.Chunked, len(req.TransferEncoding) == 1)
	same(t, "close", !f.KeepAlive, req.Close)
	same(t, "version", r.Proto == exchange.HTTP11, req.ProtoAtLeast(1, 1))
	if r.Method != "CONNECT" {
		path, err := url.PathUnescape(string(r.RawPath))
		if req.URL.Path == "" {
			req.URL.Path = "/"
			if r.Method == "OPTIONS" && !r.HasQuery {
				req.URL.Path = "*"
			}
		}
		if err != nil || path != req.URL.Path {
			t.Errorf("path %q, net/http has %q, %v", r.RawPath, req.URL.Path, err)
		}
		same(t, "query", string(r.Query), req.URL.RawQuery)
	}
	pragma(req.Header, &r.Header)
	compareHeader(t, &r.Header, req.Header, true)
	compareBody(t, got, req.Body, in, buf)
	if got.whole && f.Kind == http1.Chunked {
		var trailer exchange.Header
		readTrailer(raw, f, exchange.Client, &trailer)
		compareTrailer(t, &trailer, req.Trailer, true)
	}
}

func compareResponse(t *testing.T, raw []byte, method string, got message) {
	t.Helper()
	if got.head == "" {
		return
	}
	var r exchange.Response
	_, f, err := http1.ParseResponse(raw, tight, method, &r)
	if err != nil {
		t.Fatalf("a second time: %v", err)
	}
	in := bytes.NewReader(raw)
	buf := bufio.NewReaderSize(in, 64<<10)
	res, err := http.ReadResponse(buf, &http.Request{Method: method})
	if err != nil {
		if r.Header.Has(exchange.Trailer) {
			return
		}
		t.Fatalf("net/http refuses it: %v\n%s", err, got.head)
	}
	same(t, "status", r.Status, res.StatusCode)
	pragma(res.Header, &r.Header)
	compareHeader(t, &r.Header, res.Header, false)
	if f.Kind == http1.Upgraded {
		return
	}
	same(t, "chunked", f.Kind == http1.Chunked, len(res.TransferEncoding) == 1 && res.Body != http.NoBody)
	same(t, "close", !f.KeepAlive, res.Close)
	if f.Kind == http1.ByLength || f.Kind == http1.Chunked || f.Kind == http1.UntilClose || method == "HEAD" && !r.Header.Has(exchange.TransferEncoding) {
		if r.Status >= 200 && r.Status != 204 && r.Status != 304 {
			same(t, "length", r.ContentLength, res.ContentLength)
		}
	}
	compareBody(t, got, res.Body, in, buf)
	if got.whole && f.Kind == http1.Chunked {
		var trailer exchange.Header
		readTrailer(raw, f, exchange.Upstream, &trailer)
		compareTrailer(t, &trailer, res.Trailer, false)
	}
}

func same[T comparable](t *testing.T, what string, ours, theirs T) {
	t.Helper()
	if ours != theirs {
		t.Errorf("%s %#v, net/http has %#v", what, ours, theirs)
	}
}

// badEscape reports whether net/url refuses a path for its percent-encodings.
func badEscape(path []byte) bool {
	_, err := url.PathUnescape(string(path))
	return err != nil
}

// hostOf is a Host without its port, in lower case.
func hostOf(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(host)
}

// pragma takes back what net/http adds for Pragma: no-cache.
func pragma(theirs http.Header, ours *exchange.Header) {
	if theirs.Get("Pragma") == "no-cache" && !ours.Has(exchange.CacheControl) {
		theirs.Del("Cache-Control")
	}
}

// byName is a header as net/http keeps it.
func byName(h *exchange.Header) http.Header {
	m := http.Header{}
	for i := range h.Len() {
		f := h.At(i)
		m.Add(textproto.CanonicalMIMEHeaderKey(string(f.Name)), string(f.Value))
	}
	return m
}

func compareHeader(t *testing.T, ours *exchange.Header, theirs http.Header, request bool) {
	t.Helper()
	mine, other := byName(ours), maps.Clone(theirs)
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Trailer"} { // compared as what they say
		delete(mine, name)
		delete(other, name)
	}
	if request {
		delete(mine, "Host")
		maps.DeleteFunc(other, func(name string, _ []string) bool { return strings.Contains(name, "_") })
	} else if theirs["Connection"] == nil {
		delete(mine, "Connection")
	}
	if !maps.EqualFunc(mine, other, slices.Equal) {
		t.Errorf("fields %q, net/http has %q", mine, other)
	}
}

// compareBody reads net/http's body, and compares it and where the message ends.
func compareBody(t *testing.T, got message, body io.Reader, in *bytes.Reader, buf *bufio.Reader) {
	t.Helper()
	b, err := io.ReadAll(body)
	switch {
	case got.whole && (err != nil || string(b) != got.body):
		t.Errorf("body %q, net/http has %q, %v", got.body, b, err)
	case got.whole && len(got.rest) != in.Len()+buf.Buffered():
		t.Errorf("%d bytes are behind the message, net/http leaves %d", len(got.rest), in.Len()+buf.Buffered())
	case got.wait && err == nil:
		t.Errorf("the body is unfinished after %q, net/http has all of %q", got.body, b)
	case got.wait && !strings.HasPrefix(string(b), got.body):
		t.Errorf("an unfinished body %q, net/http has %q", got.body, b)
	}
}

// readTrailer reads the chunked body behind the head of raw for its trailer.
func readTrailer(raw []byte, f http1.Framing, side exchange.Side, trailer *exchange.Header) {
	end, _ := http1.HeadEnd(raw[2:], 0) // an empty line may be in front
	var d http1.Decoder
	d.Reset(f, side, tight, trailer)
	for b := raw[2+end:]; ; {
		_, n, err := d.Next(b)
		if err != nil {
			return
		}
		b = b[n:]
	}
}

// compareTrailer checks that our trailer is net/http's without what is dropped.
func compareTrailer(t *testing.T, ours *exchange.Header, theirs http.Header, request bool) {
	t.Helper()
	mine := byName(ours)
	for name, values := range mine {
		if !slices.Equal(values, theirs[name]) {
			t.Errorf("trailer %s: %q, net/http has %q", name, values, theirs[name])
		}
	}
	for name := range theirs {
		if exchange.Lookup([]byte(name)) == exchange.Other && (!request || !strings.Contains(name, "_")) && mine[name] == nil &&
			len(theirs[name]) > 0 {
			t.Errorf("trailer %s is dropped", name)
		}
	}
}

// FuzzEncodeDecode: what is written in any chunks and read in any pieces is the
// same.
func FuzzEncodeDecode(f *testing.F) {
	f.Add([]byte("hello"), []byte{2}, []byte{1}, []byte("X-Sum"), []byte("1"))
	f.Add([]byte("0\r\n\r\nGET / HTTP/1.1\r\n"), []byte{1, 5}, []byte{3, 1, 200}, []byte("Content-Length"), []byte("5"))
	f.Add([]byte{}, []byte{}, []byte{}, []byte("a"), []byte("\r\n"))
	f.Add(bytes.Repeat([]byte("\r\n"), 500), []byte{1}, []byte{7}, []byte("_"), []byte(" x "))
	f.Fuzz(func(t *testing.T, data, sizes, seed, name, value []byte) {
		if len(data) > maxFuzz || len(name)+len(value) > 1000 {
			return
		}
		var trailer exchange.Header
		tail := ""
		if http1.IsToken(name) {
			trailer.Add(name, value)
			if known := exchange.Lookup(name) != exchange.Other; http1.IsValue(value) && !known && !bytes.Contains(name, []byte("_")) {
				tail = fmt.Sprintf("%s: %s\r\n", name, bytes.Trim(value, " \t"))
			} else if known {
				trailer.Reset()
			}
		}
		raw := append(encode(data, bySeed(sizes), &trailer), "GET"...)
		m := decode(chunked, raw, bySeed(seed))
		if !m.whole || m.body != string(data) || m.rest != "GET" || m.tail != tail {
			t.Errorf("%v (%v): %q, trailer %q, %q behind; want %q, trailer %q", m, m.err, m.body, m.tail, m.rest, data, tail)
		}
	})
}

// FuzzWrite: whatever names and values are handed to the serialisers, a message
// has exactly the lines that are meant, and is read back with the same fields.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("X-A"), []byte("b"), []byte("X-B"), []byte("c\r\nEvil: d"))
	f.Add([]byte("a"), []byte(""), []byte("A"), []byte(" b\t"))
	f.Add([]byte("Content-Type"), []byte("text/html"), []byte("Cookie"), []byte("a=b\x00"))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 []byte) {
		var h, want exchange.Header
		h.AddID(exchange.Host, []byte("a"))
		want.AddID(exchange.Host, []byte("a"))
		for _, f := range [][2][]byte{{name1, value1}, {name2, value2}} {
			id := exchange.Lookup(f[0])
			if !http1.IsToken(f[0]) || bytes.Contains(f[0], []byte("_")) || reads(id) {
				continue
			}
			h.Add(f[0], f[1])
			if http1.IsValue(f[1]) {
				want.Add(f[0], bytes.Trim(f[1], " \t"))
			}
		}
		out := http1.AppendRequestLine(nil, "GET", []byte("/"))
		out = http1.AppendHeader(out, &h)
		out = append(out, "\r\n"...)
		if n := bytes.Count(out, []byte("\r")); n != want.Len()+2 || bytes.Count(out, []byte("\n")) != n {
			t.Errorf("%d fields, but %q", want.Len(), out)
		}
		var r exchange.Request
		n, _, err := http1.ParseRequest(out, http1.Limits{Head: len(out), Fields: 3}, &r)
		if err != nil || n != len(out) || describeHeader(&r.Header) != describeHeader(&want) {
			t.Errorf("%q is read as %v\n%swant\n%s", out, err, describeHeader(&r.Header), describeHeader(&want))
		}
	})
}

// reads reports whether the parser obeys a field, so that it may refuse it or
// mark it as hop-by-hop.
func reads(id exchange.HeaderID) bool {
	switch id {
	case exchange.Host, exchange.ContentLength, exchange.TransferEncoding, exchange.Connection, exchange.Expect, exchange.Upgrade,
		exchange.KeepAlive, exchange.ProxyConnection, exchange.TE, exchange.Trailer, exchange.ProxyAuthenticate, exchange.ProxyAuthorization:
		return true
	}
	return false
}

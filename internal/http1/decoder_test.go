package http1_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

var chunked = http1.Framing{Kind: http1.Chunked}

// decode reads a body that arrives as cut says, all of it in one buffer.
func decode(f http1.Framing, raw []byte, cut cuts) message {
	var m message
	var trailer exchange.Header
	in := &feed{coming: raw, cut: cut}
	in.body(&m, f, exchange.Client, usual, &trailer)
	return m
}

// step is what one call of Next gave.
type step struct {
	piece string
	n     int
	err   error
}

func TestNextYieldsPiecesAsTheyArrive(t *testing.T) {
	length := func(n int64) http1.Framing { return http1.Framing{Kind: http1.ByLength, Length: n} }
	for _, tt := range []struct {
		name string
		f    http1.Framing
		fed  []string // one call each; what an earlier call did not take must be given again
		want []step
	}{
		{"no body", http1.Framing{}, []string{"", "abc"}, []step{{"", 0, io.EOF}, {"", 0, io.EOF}}},
		{
			"a length in one piece", length(3),
			[]string{"abcdef", "def"},
			[]step{{"abc", 3, io.EOF}, {"", 0, io.EOF}},
		},
		{
			"a length in three pieces", length(5),
			[]string{"ab", "", "cd", "ef"},
			[]step{{"ab", 2, nil}, {"", 0, http1.ErrIncomplete}, {"cd", 2, nil}, {"e", 1, io.EOF}},
		},
		{"a length of zero", length(0), []string{"", "abc"}, []step{{"", 0, io.EOF}, {"", 0, io.EOF}}},
		{
			"until close",
			http1.Framing{Kind: http1.UntilClose},
			[]string{"ab", "", "c"},
			[]step{{"ab", 2, nil}, {"", 0, http1.ErrIncomplete}, {"c", 1, nil}},
		},
		{
			"an upgraded connection",
			http1.Framing{Kind: http1.Upgraded},
			[]string{"ab", ""},
			[]step{{"ab", 2, nil}, {"", 0, http1.ErrIncomplete}},
		},
		{"chunks at once", chunked, []string{"3\r\nabc\r\n0\r\n\r\nGET"}, []step{{"abc", 13, io.EOF}}},
		{
			"two chunks", chunked,
			[]string{"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "de\r\n0\r\n\r\n"},
			[]step{{"abc", 11, nil}, {"de", 9, io.EOF}},
		},
		{
			"a chunk in pieces", chunked,
			[]string{"4", "4\r", "4\r\n", "ab", "cd\r", "\r\n", "0\r\n\r", "\r\n"},
			[]step{
				{"", 0, http1.ErrIncomplete},
				{"", 0, http1.ErrIncomplete},
				{"", 3, http1.ErrIncomplete},
				{"ab", 2, nil},
				{"cd", 2, nil},
				{"", 2, http1.ErrIncomplete},
				{"", 3, http1.ErrIncomplete},
				{"", 2, io.EOF},
			},
		},
		{
			"the end arrives later", chunked,
			[]string{"2\r\nab\r\n0\r\n", "\r\n"},
			[]step{{"ab", 10, nil}, {"", 2, io.EOF}},
		},
	} {
		var d http1.Decoder
		var trailer exchange.Header
		d.Reset(tt.f, exchange.Client, usual, &trailer)
		var got []step
		for _, fed := range tt.fed {
			piece, n, err := d.Next([]byte(fed))
			got = append(got, step{string(piece), n, err})
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got\n%v\nwant\n%v", tt.name, got, tt.want)
		}
	}
}

func TestTheZeroDecoderHasNoBody(t *testing.T) {
	var d http1.Decoder
	if piece, n, err := d.Next([]byte("GET")); len(piece) != 0 || n != 0 || err != io.EOF && !errors.Is(err, http1.ErrIncomplete) {
		t.Errorf("got %q, %d, %v", piece, n, err)
	}
	if err := d.Finish(); err != nil {
		t.Errorf("at the end: %v", err)
	}
}

func TestResetForgetsTheBodyBefore(t *testing.T) {
	var d http1.Decoder
	var trailer exchange.Header
	for _, before := range []string{"5", "5\r\nab", "5\r\nhello", "5\r\nhello\r\n0\r\nX: 1\r\n", "zz\r\n"} {
		d.Reset(chunked, exchange.Client, usual, &trailer)
		_, _, _ = d.Next([]byte(before))
		d.Reset(chunked, exchange.Client, usual, &trailer)
		if piece, n, err := d.Next([]byte("3\r\nabc\r\n0\r\n\r\n")); string(piece) != "abc" || n != 13 || err != io.EOF {
			t.Errorf("after %q: %q, %d, %v", before, piece, n, err)
		}
	}
}

func TestFinishEndsOnlyWhatMayEndWithTheConnection(t *testing.T) {
	for _, tt := range []struct {
		f    http1.Framing
		fed  string
		side exchange.Side
		code exchange.Code // of the error
		ok   bool
	}{
		{http1.Framing{}, "", exchange.Client, 0, true},
		{http1.Framing{Kind: http1.ByLength, Length: 3}, "abc", exchange.Client, 0, true},
		{http1.Framing{Kind: http1.ByLength, Length: 3}, "ab", exchange.Client, exchange.BadRequest, false},
		{http1.Framing{Kind: http1.ByLength, Length: 3}, "ab", exchange.Upstream, exchange.BadUpstreamResponse, false},
		{chunked, "3\r\nabc\r\n0\r\n\r\n", exchange.Upstream, 0, true},
		{chunked, "3\r\nabc\r\n0\r\n", exchange.Upstream, exchange.BadUpstreamResponse, false},
		{chunked, "3\r\nabc\r\n", exchange.Upstream, exchange.BadUpstreamResponse, false},
		{chunked, "", exchange.Client, exchange.BadRequest, false},
		{http1.Framing{Kind: http1.UntilClose}, "abc", exchange.Upstream, 0, true},
		{http1.Framing{Kind: http1.UntilClose}, "", exchange.Upstream, 0, true},
		{http1.Framing{Kind: http1.Upgraded}, "abc", exchange.Upstream, 0, true},
	} {
		var d http1.Decoder
		var trailer exchange.Header
		d.Reset(tt.f, tt.side, usual, &trailer)
		_, _, _ = d.Next([]byte(tt.fed))
		err := d.Finish()
		if tt.ok {
			if err != nil || !d.Ended() {
				t.Errorf("%s %q: %v, ended: %v", tt.f.Kind, tt.fed, err, d.Ended())
			}
			continue
		}
		e := exchange.AsError(err)
		if e.Code != tt.code || e.Side != tt.side || !e.Close || !errors.Is(err, io.ErrUnexpectedEOF) || d.Ended() {
			t.Errorf("%s %q: %+v, ended: %v", tt.f.Kind, tt.fed, e, d.Ended())
		}
		if tt.side == exchange.Upstream && e.ProxyError != "http_response_incomplete" {
			t.Errorf("%s %q: proxy error %q", tt.f.Kind, tt.fed, e.ProxyError)
		}
	}
}

func TestATrailerMayBeUnwanted(t *testing.T) {
	var d http1.Decoder
	d.Reset(chunked, exchange.Client, usual, nil)
	if piece, n, err := d.Next([]byte("0\r\nX: 1\r\n\r\nGET")); len(piece) != 0 || n != 11 || err != io.EOF {
		t.Errorf("got %q, %d, %v", piece, n, err)
	}
	d.Reset(chunked, exchange.Client, usual, nil)
	if _, _, err := d.Next([]byte("0\r\nX : 1\r\n\r\n")); exchange.AsError(err).Code != exchange.BadRequest {
		t.Errorf("a bad trailer that nobody wants: %v", err)
	}
}

// A trailer is no second head: what frames, routes, authenticates or controls
// is dropped, everything else is kept in order.
func TestATrailerKeepsWhatMayBeInOne(t *testing.T) {
	const kept = "X-Sum: 1\r\nGrpc-Status: 0\r\nServer-Timing: a\r\nDigest: b\r\nx-sum: 2\r\n"
	dropped := []string{
		"Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", "Connection: close", "Keep-Alive: a", "TE: trailers",
		"Trailer: X", "Upgrade: x", "Expect: y", "Authorization: a", "Proxy-Authorization: a", "Proxy-Authenticate: a", "Cookie: a=b",
		"Set-Cookie: a=b", "X-Api-Key: a", "Cache-Control: no-store", "Content-Type: a/b", "Content-Encoding: gzip", "Range: bytes=1-",
		"If-Match: *", "If-None-Match: *", "Age: 1", "Expires: 0", "Date: x", "Location: /", "Retry-After: 1", "Vary: *", "X-Forwarded-For: 1",
		"X-Forwarded-Host: b", "X-Forwarded-Proto: https", "Forwarded: for=1", "X-Real-IP: 1", "X-Request-Id: 1", "Client-Cert: :x:", "Via: x",
	}
	for _, line := range dropped {
		m := decode(chunked, []byte("0\r\n"+strings.ReplaceAll(kept, "Digest", line+"\r\nDigest")+"\r\n"), atOnce)
		if !m.whole || m.tail != kept {
			t.Errorf("with %s: %v (%v)\n%s", line, m, m.err, m.tail)
		}
	}
}

// encode writes data in chunks as cut says.
func encode(data []byte, cut cuts, trailer *exchange.Header) []byte {
	var out []byte
	for len(data) > 0 {
		n := cut(len(data))
		out = http1.AppendChunkHead(out, n)
		out = append(append(out, data[:n]...), "\r\n"...)
		data = data[n:]
	}
	return http1.AppendLastChunk(out, trailer)
}

func TestWhatIsEncodedIsDecodedInAnyPieces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var trailer exchange.Header
	trailer.Add([]byte("X-Sum"), []byte("1"))
	for round := range 200 {
		data := make([]byte, rnd.IntN(3000))
		for i := range data {
			data[i] = "\r\n0a;"[rnd.IntN(5)] // what the framing itself is made of
		}
		some := func(n int) int { return 1 + rnd.IntN(min(n, 1+rnd.IntN(500))) }
		raw := append(encode(data, some, &trailer), "GET"...)
		if m := decode(chunked, raw, some); !m.whole || m.body != string(data) || m.rest != "GET" || m.tail != "X-Sum: 1\r\n" {
			t.Fatalf("round %d: %v (%v), %d of %d bytes, %q behind, trailer %q", round, m, m.err, len(m.body), len(data), m.rest, m.tail)
		}
	}
}

// A broken byte anywhere in the framing is found, or it changed nothing that
// frames.
func TestABrokenChunkIsFoundInAnyPieces(t *testing.T) {
	const raw = "3\r\nabc\r\n1A;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nX-Sum: 1\r\n\r\n"
	for at := range len(raw) {
		for _, c := range []byte("\x00\t\n\v\r !\"+,-.01259:;=AFGXafgx~\x7f\x80\xff") {
			b := []byte(raw)
			b[at] = c
			whole := decode(chunked, b, atOnce)
			for _, cut := range []cuts{singly, bySeed([]byte{5, 1})} {
				got := decode(chunked, b, cut)
				if got.String() != whole.String() || got.whole != whole.whole || whole.err == nil && (got.body != whole.body || got.tail != whole.tail) {
					t.Fatalf("%q: in pieces %v (%v) %q, at once %v (%v) %q", b, got, got.err, got.body, whole, whole.err, whole.body)
				}
			}
			if bytes.IndexByte([]byte("\r\n"), raw[at]) >= 0 && c != raw[at] && whole.whole && !strings.Contains(raw[at:], "X-Sum") {
				t.Errorf("%q is read as whole: %q", b, whole.body)
			}
		}
	}
}

// Bytes that are not data are bounded, whatever the number of chunks.
func TestFramingMayNotOutweighTheData(t *testing.T) {
	chunk := "1;x=" + strings.Repeat("y", 200) + "\r\na\r\n"
	m := decode(chunked, []byte(strings.Repeat(chunk, 10_000)+"0\r\n\r\n"), atOnce)
	if m.err == nil || m.err.HTTPStatus() != 400 {
		t.Errorf("two megabytes of extensions around 10 KB of data: %v", m)
	}
	large := "400;x=" + strings.Repeat("y", 200) + "\r\n" + strings.Repeat("a", 0x400) + "\r\n"
	if m := decode(chunked, []byte(strings.Repeat(large, 1000)+"0\r\n\r\n"), atOnce); !m.whole || len(m.body) != 0x400*1000 {
		t.Errorf("extensions that the data outweighs: %v (%v), %d bytes", m, m.err, len(m.body))
	}
	small := strings.Repeat("1\r\na\r\n", 100_000)
	if m := decode(chunked, []byte(small+"0\r\n\r\n"), atOnce); !m.whole || len(m.body) != 100_000 {
		t.Errorf("chunks of one byte: %v (%v), %d bytes", m, m.err, len(m.body))
	}
}

// The size line of a chunk is bounded to the byte, and before it ends.
func TestASizeLineMayHave256Bytes(t *testing.T) {
	for _, cut := range []cuts{atOnce, singly} {
		for extra, want := range map[int]bool{250: true, 251: true, 252: false, 253: false} { // and "5;x=", CR
			m := decode(chunked, []byte("5;x="+strings.Repeat("y", extra)+"\r\nhello\r\n0\r\n\r\n"), cut)
			if m.whole != want || (m.err == nil) != want {
				t.Errorf("%d bytes of extension: %v (%v)", extra, m, m.err)
			}
		}
		if m := decode(chunked, []byte("5;x="+strings.Repeat("y", 300)), cut); m.err == nil {
			t.Errorf("a size line of 304 bytes that has not ended: %v", m)
		}
	}
}

func ExampleDecoder() {
	var d http1.Decoder
	var trailer exchange.Header
	d.Reset(http1.Framing{Kind: http1.Chunked}, exchange.Client, http1.Limits{Head: 4096, Fields: 16}, &trailer)
	b := []byte("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\nGET / HTTP/1.1\r\n")
	for {
		piece, n, err := d.Next(b)
		fmt.Printf("%q\n", piece)
		b = b[n:]
		if err == io.EOF {
			fmt.Printf("behind it: %q\n", b)
			return
		}
	}
	// Output:
	// "hello"
	// ", world"
	// behind it: "GET / HTTP/1.1\r\n"
}

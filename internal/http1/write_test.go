package http1_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// before is what every serialiser must leave in front of what it appends.
const before = "before|"

func TestSerialisersAppendTheirLines(t *testing.T) {
	var h exchange.Header
	h.Add([]byte("Server"), []byte("a"))
	h.Append(exchange.Field{Name: []byte("Connection"), Value: []byte("x"), ID: exchange.Connection, Hop: true})
	h.Add([]byte("X-B"), nil)
	h.Append(exchange.Field{Name: []byte("X-Hop"), Value: []byte("x"), Hop: true})
	h.Add([]byte("date"), []byte("c d"))
	h.Add([]byte("Bad"), []byte("e\r\nEvil: f"))
	var none exchange.Header
	b := func() []byte { return []byte(before) }
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"request line", http1.AppendRequestLine(b(), "GET", []byte("/a?b")), "GET /a?b HTTP/1.1\n"},
		{"field", http1.AppendField(b(), []byte("X-A"), []byte("b c\t\xff")), "X-A: b c\t\xff\n"},
		{"empty field", http1.AppendField(b(), []byte("X-A"), nil), "X-A: \n"},
		{"field with CR LF", http1.AppendField(b(), []byte("X-A"), []byte("b\r\nEvil: c")), ""},
		{"field with CR", http1.AppendField(b(), []byte("X-A"), []byte("b\rc")), ""},
		{"field with LF", http1.AppendField(b(), []byte("X-A"), []byte("longer than a word\n")), ""},
		{"field with NUL", http1.AppendField(b(), []byte("X-A"), []byte("\x00")), ""},
		{"header", http1.AppendHeader(b(), &h), "Server: a\nX-B: \ndate: c d\n"},
		{"empty header", http1.AppendHeader(b(), &none), ""},
		{
			"header without some", http1.AppendHeaderExcept(b(), &h, http1.SkipOf(exchange.Date, exchange.Server, exchange.Host)),
			"X-B: \n",
		},
		{"header without none", http1.AppendHeaderExcept(b(), &h, http1.SkipOf()), "Server: a\nX-B: \ndate: c d\n"},
		{"status", http1.AppendStatusLine(b(), 200), "HTTP/1.1 200 OK\n"},
		{"interim status", http1.AppendStatusLine(b(), 100), "HTTP/1.1 100 Continue\n"},
		{"status without a reason", http1.AppendStatusLine(b(), 599), "HTTP/1.1 599 \n"},
		{"status of another class", http1.AppendStatusLine(b(), 999), "HTTP/1.1 999 \n"},
		{"chunk of one", http1.AppendChunkHead(b(), 1), "1\n"},
		{"large chunk", http1.AppendChunkHead(b(), 0xabcdef0), "abcdef0\n"},
		{"last chunk", http1.AppendLastChunk(b(), nil), "0\n\n"},
		{"last chunk without a trailer", http1.AppendLastChunk(b(), &none), "0\n\n"},
		{"last chunk with a trailer", http1.AppendLastChunk(b(), &h), "0\nServer: a\nX-B: \ndate: c d\n\n"},
		{"framing of no body", http1.AppendFraming(b(), http1.Framing{}), ""},
		{"framing of a length", http1.AppendFraming(b(), http1.Framing{Kind: http1.ByLength, Length: 1 << 40}), "Content-Length: 1099511627776\n"},
		{"framing of nothing", http1.AppendFraming(b(), http1.Framing{Kind: http1.ByLength}), "Content-Length: 0\n"},
		{"framing of chunks", http1.AppendFraming(b(), http1.Framing{Kind: http1.Chunked}), "Transfer-Encoding: chunked\n"},
		{"framing until close", http1.AppendFraming(b(), http1.Framing{Kind: http1.UntilClose}), ""},
		{"framing of an upgrade", http1.AppendFraming(b(), http1.Framing{Kind: http1.Upgraded}), ""},
	} {
		if want := before + crlf(tt.want); string(tt.got) != want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, want)
		}
	}
}

func TestEveryStatusLineIsReadBack(t *testing.T) {
	for status := 100; status <= 999; status++ {
		line := http1.AppendStatusLine(nil, status)
		var r exchange.Response
		n, _, err := http1.ParseResponse(append(line, "\r\n"...), usual, "GET", &r)
		if err != nil || n != len(line)+2 || r.Status != status || !bytes.Contains(line, []byte(http.StatusText(status))) {
			t.Errorf("%q: %d, %v", line, r.Status, err)
		}
	}
}

// A value with any byte that is not allowed in one is left out, wherever the
// byte stands: the values are scanned in words of eight bytes.
func TestNoValueEndsALine(t *testing.T) {
	for c := range 256 {
		allowed := c >= 0x20 && c != 0x7f || c == '\t'
		for size := 1; size <= 18; size++ {
			for at := range size {
				for _, fill := range []byte{'a', '\t', 0xff} {
					v := bytes.Repeat([]byte{fill}, size)
					v[at] = byte(c)
					if http1.IsValue(v) != allowed {
						t.Fatalf("IsValue(%q) is %v", v, !allowed)
					}
					out := http1.AppendField(nil, []byte("X"), v)
					if want := "X: " + string(v) + "\r\n"; allowed && string(out) != want || !allowed && len(out) != 0 {
						t.Fatalf("%q is written as %q", v, out)
					}
					if fill != 'a' {
						continue
					}
					m := readRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: "+string(v)+"\r\n\r\n"), atOnce, usual)
					if (m.err == nil) != (allowed && c != '\n') {
						t.Fatalf("%q is read as %v", v, m)
					}
				}
			}
		}
	}
}

func TestTokensAreTheOnesOfTheRFC(t *testing.T) {
	const tchar = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for c := range 256 {
		want := strings.IndexByte(tchar, byte(c)) >= 0
		for _, b := range [][]byte{{byte(c)}, {'a', byte(c)}, {byte(c), 'a'}, []byte("abcdefgh" + string([]byte{byte(c)}))} {
			if http1.IsToken(b) != want {
				t.Errorf("IsToken(%q) is %v", b, !want)
			}
		}
		m := readRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nX"+string([]byte{byte(c)})+"Y: 1\r\n\r\n"), atOnce, usual)
		if accepted := m.err == nil; accepted != (want || c == ':') { // the colon ends the name
			t.Errorf("a name with %q: %v", string(rune(c)), m)
		}
	}
	if http1.IsToken(nil) || http1.IsToken([]byte{}) {
		t.Error("nothing is a token")
	}
}

func TestSplitAuthority(t *testing.T) {
	for _, tt := range []struct{ in, host string }{
		{"a", "a"},
		{"A.b-c_d.9", "A.b-c_d.9"},
		{"a.", "a."},
		{"a:", "a"},
		{"a:0", "a"},
		{"a:80", "a"},
		{"a:65535", "a"},
		{"a:00080", "a"},
		{"127.0.0.1:1", "127.0.0.1"},
		{"[::]", "[::]"},
		{"[::1]:80", "[::1]"},
		{"[2001:DB8::a]", "[2001:DB8::a]"},
		{"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"},
		{strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{"", ""},
		{":", ""},
		{":80", ""},
		{".", ""},
		{".a", ""},
		{"a:65536", ""},
		{"a:99999", ""},
		{"a:000080", ""},
		{"a:x", ""},
		{"a:8 ", ""},
		{"a:+8", ""},
		{"a:80:80", ""},
		{"a b", ""},
		{"a/", ""},
		{"a@b", ""},
		{"@a", ""},
		{"a,b", ""},
		{"a%2e", ""},
		{"a\x00", ""},
		{"\xc3\xa9", ""},
		{"a!", ""},
		{"*", ""},
		{"[", ""},
		{"[]", ""},
		{"[]:80", ""},
		{"[a]", ""},
		{"[1.2.3.4]", ""},
		{"[::1", ""},
		{"::1", ""},
		{"[::1]a", ""},
		{"[::1]:x", ""},
		{"[::1%25a]", ""},
		{"[::1%a]", ""},
		{"[::g]", ""},
		{"[:]", ""},
		{"[:::]", ""},
		{"[1::2::3]", ""},
		{"[12345::]", ""},
		{"[1:2:3:4:5:6:7:8:9]", ""},
		{"[1:2:3:4:5:6:7]", ""},
		{"[::1.2.3.256]", ""},
		{"[::1.2.3]", ""},
		{"[[::1]]", ""},
		{"[v1.a]", ""},
		{strings.Repeat("a", 300), ""},
	} {
		host, ok := http1.SplitAuthority([]byte(tt.in))
		if ok != (tt.host != "") || ok && string(host) != tt.host {
			t.Errorf("%q: got %q, %v, want %q", tt.in, host, ok, tt.host)
		}
	}
}

func TestFramingOfWhatIsWritten(t *testing.T) {
	body := exchange.NewBytes([]byte("hello"))
	for _, tt := range []struct {
		method string
		length int64
		body   exchange.Body
		want   string
	}{
		{"GET", 0, nil, "none, keep-alive"},
		{"DELETE", 0, nil, "none, keep-alive"},
		{"POST", 0, nil, "length 0, keep-alive"},
		{"PUT", 0, nil, "length 0, keep-alive"},
		{"PATCH", 0, nil, "length 0, keep-alive"},
		{"GET", 5, body, "length 5, keep-alive"},
		{"POST", 5, body, "length 5, keep-alive"},
		{"POST", exchange.Unknown, body, "chunked, keep-alive"},
		{"GET", exchange.Unknown, body, "chunked, keep-alive"},
	} {
		r := exchange.Request{Method: tt.method, ContentLength: tt.length, Body: tt.body}
		if got := describeFraming(http1.RequestFraming(&r)); got != tt.want {
			t.Errorf("%s, length %d: %s, want %s", tt.method, tt.length, got, tt.want)
		}
	}
	for _, tt := range []struct {
		proto  exchange.Proto
		method string
		status int
		length int64
		want   http1.Framing
	}{
		{exchange.HTTP11, "GET", 200, 5, http1.Framing{Kind: http1.ByLength, Length: 5, KeepAlive: true}},
		{exchange.HTTP11, "GET", 200, 0, http1.Framing{Kind: http1.ByLength, KeepAlive: true}},
		{exchange.HTTP11, "GET", 200, exchange.Unknown, http1.Framing{Kind: http1.Chunked, KeepAlive: true}},
		{exchange.HTTP10, "GET", 200, exchange.Unknown, http1.Framing{Kind: http1.UntilClose}},
		{exchange.HTTP10, "GET", 200, 5, http1.Framing{Kind: http1.ByLength, Length: 5, KeepAlive: true}},
		{exchange.HTTP11, "HEAD", 200, 5, http1.Framing{Length: 5, KeepAlive: true}},
		{exchange.HTTP11, "HEAD", 200, exchange.Unknown, http1.Framing{Length: exchange.Unknown, KeepAlive: true}},
		{exchange.HTTP10, "HEAD", 200, exchange.Unknown, http1.Framing{Length: exchange.Unknown, KeepAlive: true}},
		{exchange.HTTP11, "GET", 304, 5, http1.Framing{Length: 5, KeepAlive: true}},
		{exchange.HTTP11, "GET", 204, 0, http1.Framing{Length: exchange.Unknown, KeepAlive: true}},
		{exchange.HTTP11, "GET", 103, 0, http1.Framing{Length: exchange.Unknown, KeepAlive: true}},
		{exchange.HTTP11, "GET", 101, 0, http1.Framing{Kind: http1.Upgraded}},
	} {
		r := exchange.Response{Status: tt.status, ContentLength: tt.length}
		if got := http1.ResponseFraming(tt.proto, tt.method, &r); got != tt.want {
			t.Errorf("%s %s %d, length %d: %+v, want %+v", tt.proto, tt.method, tt.status, tt.length, got, tt.want)
		}
	}
}

func TestFrameKindsHaveNames(t *testing.T) {
	for kind, want := range map[http1.FrameKind]string{
		http1.NoBody: "none", http1.ByLength: "length", http1.Chunked: "chunked", http1.UntilClose: "until close", http1.Upgraded: "upgraded",
	} {
		if kind.String() != want {
			t.Errorf("%d is %q, want %q", kind, kind, want)
		}
	}
}

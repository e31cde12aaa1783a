package upstream

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// headOf is what a target at url gets for x, without the request line and the empty
// line, one field a line.
func headOf(t *testing.T, c config.Upstream, url string, x *exchange.Exchange) string {
	t.Helper()
	u := testUpstream(t, c, url)
	k := new(call)
	k.begin(u, x)
	k.ep = &endpoint{target: u.targets[0]}
	defer func() { k.ep = nil }()
	if f := k.takeBody(); f != nil {
		t.Fatal(f.err)
	}
	return strings.ReplaceAll(string(k.appendHead(nil)), "\r\n", "\n")
}

func TestRequestHead(t *testing.T) {
	x := newExchange("GET", "/users/1?a=b&c=%20")
	h := &x.Request.Header
	h.Add([]byte("host"), []byte("api.example.com"))
	h.Add([]byte("ACCEPT"), []byte("*/*"))
	h.Add([]byte("Cookie"), []byte("a=1"))
	h.Add([]byte("Cookie"), []byte("b=2"))
	h.Append(exchange.Field{Name: []byte("X-Nominated"), Value: []byte("1"), Hop: true})
	h.Add([]byte("X-Forwarded-For"), []byte("203.0.113.9"))
	h.Add([]byte("X-Forwarded-Proto"), []byte("https"))
	h.Add([]byte("X-Forwarded-Host"), []byte("evil.example"))
	h.Add([]byte("X-Forwarded-Port"), []byte("1"))
	h.Add([]byte("X-Forwarded-Prefix"), []byte("/evil"))
	h.Add([]byte("Forwarded"), []byte("for=203.0.113.9"))
	h.Add([]byte("Via"), []byte("1.0 before"))
	h.Add([]byte("X-Request-Id"), []byte("theirs"))
	h.Add([]byte("traceparent"), []byte("theirs"))
	h.Add([]byte("tracestate"), []byte("k=v"))
	h.Add([]byte("TE"), []byte("gzip"))
	h.Add([]byte("Connection"), []byte("close"))
	h.Add([]byte("Expect"), []byte("100-continue"))
	h.Add([]byte("Content-Length"), []byte("7"))
	h.Add([]byte("Transfer-Encoding"), []byte("chunked"))
	x.ID = []byte("id-1")
	x.Trace = exchange.Trace{TraceID: [16]byte{15: 1}, SpanID: [8]byte{7: 2}, Flags: 1}
	x.Request.ForwardPrefix = []byte("/v1")
	got := headOf(t, config.Upstream{}, "http://127.0.0.1:1/base/", x)
	want := `GET /base/users/1?a=b&c=%20 HTTP/1.1
Host: api.example.com
ACCEPT: */*
Cookie: a=1
Cookie: b=2
tracestate: k=v
X-Forwarded-For: 192.0.2.7
X-Forwarded-Proto: http
X-Forwarded-Host: api.example.com
X-Forwarded-Port: 8080
X-Forwarded-Prefix: /v1
Forwarded: for=192.0.2.7;host="api.example.com";proto=http
Via: 1.0 before, 1.1 sluice
X-Request-Id: id-1
traceparent: 00-00000000000000000000000000000001-0000000000000002-01

`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRequestHeadBehindATrustedProxy(t *testing.T) {
	x := newExchange("GET", "/")
	x.Trusted = true
	x.Request.TLS, x.Request.Proto = true, exchange.HTTP2
	x.Request.Authority = []byte("[2001:db8::5]:8443")
	x.Conn = &exchange.Conn{Peer: netip.MustParseAddrPort("[2001:db8::1]:99"), Local: netip.MustParseAddrPort("[::1]:443")}
	h := &x.Request.Header
	h.Add([]byte("X-Forwarded-For"), []byte("203.0.113.9"))
	h.Add([]byte("X-Forwarded-For"), []byte("198.51.100.2, 10.0.0.1"))
	h.Add([]byte("X-Forwarded-Proto"), []byte("http"))
	h.Add([]byte("X-Forwarded-Host"), []byte("www.example.com"))
	h.Add([]byte("X-Forwarded-Port"), []byte("80"))
	h.Add([]byte("X-Forwarded-Prefix"), []byte("/outer"))
	h.Add([]byte("Forwarded"), []byte(`for=203.0.113.9;by="[::2]"`))
	x.Request.ForwardPrefix = []byte("/v1")
	got := headOf(t, config.Upstream{}, "http://127.0.0.1:1", x)
	want := `GET / HTTP/1.1
Host: [2001:db8::5]:8443
X-Forwarded-For: 203.0.113.9, 198.51.100.2, 10.0.0.1, 2001:db8::1
X-Forwarded-Proto: http
X-Forwarded-Host: www.example.com
X-Forwarded-Port: 80
X-Forwarded-Prefix: /outer/v1
Forwarded: for=203.0.113.9;by="[::2]", for="[2001:db8::1]";host="[2001:db8::5]:8443";proto=https
Via: 2.0 sluice

`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The certificate that a client proved to have is passed on (RFC 9440); a trusted
// proxy's word about its own client is left as it is.
func TestClientCertificate(t *testing.T) {
	for _, c := range []struct {
		trusted bool
		tls     *exchange.TLSInfo
		want    string
	}{
		{false, nil, ""},
		{false, &exchange.TLSInfo{}, ""},
		{false, &exchange.TLSInfo{Client: []byte{1, 2, 3, 4}}, "Client-Cert: :AQIDBA==:\n"},
		{true, &exchange.TLSInfo{Client: []byte{1, 2, 3, 4}}, "Client-Cert: :their=:\n"},
	} {
		x := newExchange("GET", "/")
		x.Trusted = c.trusted
		x.Conn = &exchange.Conn{Peer: clientConn.Peer, Local: clientConn.Local, TLS: c.tls}
		if c.trusted {
			x.Request.Header.Add([]byte("Client-Cert"), []byte(":their=:"))
		}
		got := ""
		for line := range strings.Lines(headOf(t, config.Upstream{}, "http://127.0.0.1:1", x)) {
			if strings.HasPrefix(line, "Client-Cert") {
				got += line
			}
		}
		check(t, "field", got, c.want)
	}
}

func TestHost(t *testing.T) {
	for _, c := range []struct{ host, url, authority, want string }{
		{"", "http://users.internal:81", "api.example.com", "api.example.com"},
		{"", "https://users.internal", "api.example.com", "users.internal"},
		{"", "https://127.0.0.1:444", "api.example.com", "api.example.com"},
		{"client", "https://users.internal", "api.example.com:81", "api.example.com:81"},
		{"target", "http://users.internal:81", "api.example.com", "users.internal:81"},
		{"target", "http://[::1]:81/x", "api.example.com", "[::1]:81"},
		{"users.example", "http://users.internal:81", "api.example.com", "users.example"},
		{"client", "http://users.internal:81", "", "users.internal:81"},
	} {
		x := newExchange("GET", "/")
		x.Request.Authority = []byte(c.authority)
		u := testUpstreamEnv(t, config.Upstream{Host: c.host}, Env{Resolver: names{}}, usualTimes(), c.url)
		k := new(call)
		k.begin(u, x)
		k.ep = &endpoint{target: u.targets[0]}
		head := string(k.appendHead(nil))
		_, rest, _ := strings.Cut(head, "\r\nHost: ")
		got, _, _ := strings.Cut(rest, "\r\n")
		check(t, c.host+" "+c.url, got, c.want)
		check(t, "number of Host fields", strings.Count(head, "\r\nHost: "), 1)
		k.ep = nil
	}
}

func TestRequestTarget(t *testing.T) {
	for _, c := range []struct {
		url, method, path, query string
		hasQuery                 bool
		want                     string
	}{
		{"http://h", "GET", "", "", false, "/"},
		{"http://h/", "GET", "/", "", false, "/"},
		{"http://h/a/", "GET", "", "", false, "/a"},
		{"http://h/a%20b", "GET", "/c%2Fd", "", true, "/a%20b/c%2Fd?"},
		{"http://h", "GET", "/x", "q=a b\r\nX: y", true, "/x?q=a%20b%0D%0AX:%20y"},
		{"http://h", "GET", "/x y", "", false, "/x%20y"},
		{"http://h/a", "OPTIONS", "*", "", false, "*"},
	} {
		target, err := newTarget(config.Target{URL: c.url, Weight: 1}, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		q := exchange.Request{ForwardPath: []byte(c.path), Query: []byte(c.query), HasQuery: c.hasQuery}
		check(t, c.url+" "+c.path, string(appendTarget(nil, target.base, &q)), c.want)
	}
}

func TestBodyFraming(t *testing.T) {
	chunked := func(x *exchange.Exchange) { withStream(x, streamOf("abc"), exchange.Unknown) }
	sized := func(x *exchange.Exchange) { withStream(x, streamOf("abc"), 3) }
	inHand := func(x *exchange.Exchange) { withBody(x, "abc") }
	empty := func(x *exchange.Exchange) { withBody(x, "") }
	none := func(*exchange.Exchange) {}
	for _, c := range []struct {
		method string
		body   func(*exchange.Exchange)
		want   string
	}{
		{"GET", none, ""},
		{"DELETE", none, ""},
		{"POST", none, "Content-Length: 0\n"},
		{"PUT", none, "Content-Length: 0\n"},
		{"PATCH", none, "Content-Length: 0\n"},
		{"POST", empty, "Content-Length: 0\n"},
		{"GET", empty, ""},
		{"GET", inHand, "Content-Length: 3\n"},
		{"DELETE", sized, "Content-Length: 3\n"},
		{"GET", chunked, "Transfer-Encoding: chunked\n"},
		{"HEAD", chunked, "Transfer-Encoding: chunked\n"},
		{"POST", sized, "Content-Length: 3\n"},
	} {
		x := newExchange(c.method, "/")
		c.body(x)
		_, got, _ := strings.Cut(headOf(t, config.Upstream{}, "http://127.0.0.1:1", x), "Via: 1.1 sluice\n")
		check(t, c.method, strings.TrimSuffix(got, "\n"), c.want)
		if x.Request.Body != nil {
			_ = x.Request.Body.Close()
		}
	}
}

func TestConnectionFields(t *testing.T) {
	for _, c := range []struct {
		name string
		prep func(*exchange.Exchange)
		want string
	}{
		{"an upgrade", func(x *exchange.Exchange) { x.Request.Upgrade = []byte("websocket") }, "Connection: Upgrade\nUpgrade: websocket\n"},
		{"trailers", func(x *exchange.Exchange) { x.Request.Header.Add([]byte("TE"), []byte("Trailers")) }, "TE: trailers\nConnection: TE\n"},
		{"nothing", func(*exchange.Exchange) {}, ""},
	} {
		x := newExchange("GET", "/")
		c.prep(x)
		_, got, _ := strings.Cut(headOf(t, config.Upstream{}, "http://127.0.0.1:1", x), "Via: 1.1 sluice\n")
		check(t, c.name, strings.TrimSuffix(got, "\n"), c.want)
	}
}

func TestTargetsThatAreRefused(t *testing.T) {
	for url, want := range map[string]string{
		"ftp://h":            `target "ftp://h": the scheme is to be http or https`,
		"http://":            `target "http://" has no host`,
		"http://u:secret@h":  `target on "h": a name and password do not belong into the URL`,
		"http://h?x=y":       `target "http://h?x=y": only a path may follow the host`,
		"http://h/#f":        `target "http://h/#f": only a path may follow the host`,
		"http://h:0":         `target "http://h:0": "0" is not a port`,
		"http://h:99999":     `target "http://h:99999": "99999" is not a port`,
		"http://[::1":        `target "http://[::1" is not a URL`,
		"127.0.0.1:80":       `target "127.0.0.1:80" is not a URL`,
		"http://h:80:90/a b": `target "http://h:80:90/a b" is not a URL`,
	} {
		_, err := New("up", &config.Upstream{Targets: []config.Target{{URL: url, Weight: 1}}}, Env{})
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", url, err, want)
		}
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	at := []config.Target{{URL: "http://127.0.0.1:1", Weight: 1}}
	for _, c := range []struct {
		c    config.Upstream
		want string
	}{
		{config.Upstream{}, "no target has a weight above 0"},
		{config.Upstream{Targets: []config.Target{{URL: "http://127.0.0.1:1"}}}, "no target has a weight above 0"},
		{config.Upstream{Targets: at, Protocol: "h2"}, `protocol: "h2" is not supported yet, take http1`},
		{config.Upstream{Targets: at, Balance: "best"}, `balance: "best" is not p2c, round_robin, least_requests or hash`},
		{config.Upstream{Targets: at, Balance: "hash", HashOn: "header:"}, `hash_on: "header:" is not client, ip, path, header:NAME, query:NAME or cookie:NAME`},
		{config.Upstream{Targets: at, Balance: "hash", HashOn: "ip:4"}, `hash_on: "ip:4" is not client, ip, path, header:NAME, query:NAME or cookie:NAME`},
		{config.Upstream{Targets: at, Retry: &config.Retry{Attempts: 1, On: []string{"200"}}}, `retry.on: "200" is not connect, reset or a status from 300 to 599`},
		{config.Upstream{Targets: at, TLS: config.UpstreamTLS{Cert: "c.pem"}}, "tls.cert and tls.key belong together"},
		{config.Upstream{Targets: at, TLS: config.UpstreamTLS{CA: "none.pem"}}, "tls.ca: open none.pem: no such file or directory"},
	} {
		_, err := New("up", &c.c, Env{})
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

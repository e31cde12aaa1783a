package gateway

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const basic = `
trusted_proxies: [10.0.0.0/8]
limits: {max_body_size: 1KiB, request_timeout: 3s}
upstreams:
  hello: {respond: {status: 200, headers: {Content-Type: text/plain}, body: hello}}
  other: {respond: {status: 203, body: other}}
apis:
  - name: public
    hosts: [api.example.com]
    base_path: /v1
    routes:
      - {name: get, methods: [GET], path: "/users/{id}", upstream: hello}
      - {name: put, methods: [PUT], path: "/users/{id}", upstream: hello, max_body_size: 2KiB, timeout: 1s}
      - {name: rewritten, path: "/old/{id}/{rest...}", upstream: hello, request: {path: "/new/{rest}/{params.id}"}}
      - {name: mixed, path: "/mixed/a{x}/{y}", upstream: hello, request: {path: "/m/{x}/{y}"}}
      - {name: root, path: /, upstream: hello}
      - {name: slashes, path: "/files/{name}", upstream: hello, encoded_slash: keep}
      - {name: denied, path: /denied, upstream: hello, ip: {deny: [192.0.2.0/24]}}
      - {name: shadowed, path: /shadowed, upstream: hello, ip: {allow: [198.51.100.0/24], mode: shadow}}
routes:
  - {name: version2, path: /plain, when: {headers: {X-Version: "2"}}, upstream: other}
  - {name: plain, path: /plain, upstream: hello}
`

// build makes a gateway that serves text, and closes it with the test.
func build(t testing.TB, text string) *Gateway {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(telemetry.Options{Logger: quiet, Log: config.Log{Level: "error", Access: config.AccessLog{Output: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Log: quiet, Telemetry: tel, Specs: Builtins(auth.New(auth.Options{}).Specs(), nil)})
	t.Cleanup(func() { g.Close(); _ = tel.Close(t.Context()) })
	load(t, g, text)
	return g
}

func load(t testing.TB, g *Gateway, text string) {
	t.Helper()
	f, found := config.Parse("test.yaml", []byte(text), config.Env{})
	if found.Err() != nil {
		t.Fatal(found)
	}
	p, more := g.Prepare(f)
	if more.Err() != nil {
		t.Fatal(more)
	}
	p.Commit()
}

// ask makes the exchange of a request line and header lines.
func ask(line string, lines ...string) *exchange.Exchange {
	x := request("192.0.2.1", lines...)
	fillRequest(x, line)
	return x
}

func fillRequest(x *exchange.Exchange, line string) {
	method, target, _ := strings.Cut(line, " ")
	x.Start = time.Now()
	r := &x.Request
	r.Method, r.Proto = method, exchange.HTTP11
	if rest, ok := strings.CutPrefix(target, "http://"); ok {
		host, path, _ := strings.Cut(rest, "/")
		r.Authority, r.Host, target = []byte(host), []byte(host), "/"+path
	}
	path, query, has := strings.Cut(target, "?")
	r.RawPath, r.Query, r.HasQuery = []byte(path), []byte(query), has
}

// answered is what the tests look at in a response.
func answered(g *Gateway, x *exchange.Exchange) (status int, body string) {
	g.Serve(x)
	status = x.Response.Status
	if x.Response.Body != nil {
		b, _ := x.Response.Body.Next()
		body = string(b)
		_ = x.Response.Body.Close()
	}
	g.Done(x)
	return status, body
}

func TestRequestsReachTheirRoutes(t *testing.T) {
	g := build(t, basic)
	for _, c := range []struct {
		line, header string
		status       int
		route        string
		forward      string
	}{
		{"GET http://api.example.com/v1/users/7", "", 200, "get", "/users/7"},
		{"GET http://api.example.com/v1//users/./x/../7", "", 200, "get", "/users/7"},
		{"HEAD http://api.example.com/v1/users/7", "", 200, "get", "/users/7"},
		{"PUT http://api.example.com/v1/users/7", "", 200, "put", "/users/7"},
		{"DELETE http://api.example.com/v1/users/7", "", 405, "", ""},
		{"GET http://api.example.com/v1/nothing", "", 404, "", ""},
		{"GET http://other.example.com/v1/users/7", "", 404, "", ""},
		{"GET http://api.example.com/v1/old/a%20b/c/d", "", 200, "rewritten", "/new/c/d/a%20b"},
		{"GET http://api.example.com/v1/old/a", "", 200, "rewritten", "/new/a"},
		{"GET http://api.example.com/v1", "", 200, "root", "/"},
		{"GET http://api.example.com/v1/", "", 200, "root", "/"},
		{"GET http://api.example.com/v12", "", 404, "", ""},
		{"GET http://api.example.com/v1/mixed/a../b", "", 400, "mixed", ""},
		{"GET http://api.example.com/v1/mixed/ab/b", "", 200, "mixed", "/m/b/b"},
		{"GET http://api.example.com/v1/files/a%2Fb", "", 200, "slashes", "/files/a%2Fb"},
		{"GET http://api.example.com/v1/users/a%2Fb", "", 400, "", ""},
		{"GET http://api.example.com/v1/users/a;b", "", 400, "", ""},
		{"GET http://api.example.com/v1/denied", "", 403, "denied", "/denied"},
		{"GET http://api.example.com/v1/shadowed", "", 200, "shadowed", "/shadowed"},
		{"GET /plain", "X-Version: 2", 203, "version2", "/plain"},
		{"GET /plain", "X-Version: 1", 200, "plain", "/plain"},
		{"CONNECT example.com:443", "", 405, "", ""},
		{"OPTIONS *", "", 204, "", ""},
	} {
		x := ask(c.line)
		if c.header != "" {
			x = ask(c.line, c.header)
		}
		status, _ := answered(g, x)
		route := ""
		if x.Route != nil {
			route = x.Route.Name
		}
		if status != c.status || route != c.route || string(x.Request.ForwardPath) != c.forward {
			t.Errorf("%s: %d by %q, forward %q", c.line, status, route, x.Request.ForwardPath)
		}
		if len(x.Response.Header.GetID(exchange.XRequestID)) != 36 {
			t.Errorf("%s: request id %q", c.line, x.Response.Header.GetID(exchange.XRequestID))
		}
	}
}

func TestABodyDeclaredTooLargeIsRefusedByTheRoutesOwnLimit(t *testing.T) {
	g := build(t, basic)
	for _, c := range []struct {
		line   string
		length int64
		status int
	}{
		{"GET http://api.example.com/v1/users/7", 1024, 200},
		{"GET http://api.example.com/v1/users/7", 1025, 413},
		{"PUT http://api.example.com/v1/users/7", 2048, 200},
		{"PUT http://api.example.com/v1/users/7", 2049, 413},
	} {
		x := ask(c.line)
		x.Request.ContentLength = c.length
		if status, _ := answered(g, x); status != c.status {
			t.Errorf("%s with %d bytes: %d", c.line, c.length, status)
		}
	}
}

func TestRequestIDsOfTrustedProxiesAreKept(t *testing.T) {
	g := build(t, basic)
	x := request("10.1.2.3", "X-Request-Id: from-the-edge")
	fillRequest(x, "GET /plain")
	answered(g, x)
	if got := string(x.Response.Header.GetID(exchange.XRequestID)); got != "from-the-edge" {
		t.Errorf("got %q", got)
	}
}

func TestAnErrorOfTheDriverBecomesTheAnswer(t *testing.T) {
	g := build(t, basic)
	x := ask("GET /plain")
	x.Err = &exchange.Error{Code: exchange.HeadersTooLarge, Close: true}
	if status, _ := answered(g, x); status != 431 || !x.Response.Close {
		t.Errorf("%d, close %v", status, x.Response.Close)
	}
}

func TestAnExchangeEndsUnderTheRulesItBeganUnder(t *testing.T) {
	g := build(t, basic)
	x := ask("GET /plain")
	g.Serve(x)
	old := x.Pin.(*Snapshot)
	load(t, g, strings.ReplaceAll(basic, "body: hello", "body: changed"))
	select {
	case <-old.closed:
		t.Fatal("the old snapshot closed under an exchange")
	default:
	}
	g.Done(x)
	<-old.closed
	if _, body := answered(g, ask("GET /plain")); body != "changed" {
		t.Errorf("the new rules are not in force: %q", body)
	}
}

func TestAnUnchangedUpstreamOutlivesTheReload(t *testing.T) {
	g := build(t, basic)
	before := g.current.Load().routes[0].targets.upstreams[0]
	load(t, g, basic+"  - {path: /new, upstream: hello}\n")
	if after := g.current.Load().routes[0].targets.upstreams[0]; after != before {
		t.Error("the upstream was made anew")
	}
	load(t, g, strings.ReplaceAll(basic, "body: hello", "body: changed"))
	if after := g.current.Load().routes[0].targets.upstreams[0]; after == before {
		t.Error("a changed upstream was kept")
	}
}

func TestABadConfigurationChangesNothing(t *testing.T) {
	g := build(t, basic)
	before := g.current.Load()
	held := len(g.upstreams.held)
	for _, text := range []string{
		strings.ReplaceAll(basic, `"/users/{id}", upstream: hello, max`, `"/users/{id", upstream: hello, max`),
		strings.ReplaceAll(basic, "{params.id}", "{nobody}"),
		basic + "  - {path: /plain, upstream: hello}\n",
	} {
		f, found := config.Parse("test.yaml", []byte(text), config.Env{})
		if found.Err() == nil {
			var p *Plan
			if p, found = g.Prepare(f); p != nil {
				t.Errorf("it was taken: %s", text)
				p.Discard()
				continue
			}
		}
		if found.Err() == nil {
			t.Error("refused without a reason")
		}
	}
	if g.current.Load() != before || len(g.upstreams.held) != held {
		t.Error("something has changed")
	}
}

func TestExplainTellsWhatServeWouldDo(t *testing.T) {
	g := build(t, basic)
	for _, c := range []struct {
		q       Question
		route   string
		status  int
		last    string
		forward string
	}{
		{Question{URL: "http://api.example.com/v1/users/7?a=b"}, "get", 0, "match", "GET /users/7?a=b"},
		{Question{URL: "http://api.example.com/v1/denied", Client: "192.0.2.9"}, "denied", 403, "refuse", ""},
		{Question{URL: "http://api.example.com/v1/denied", Client: "203.0.113.1"}, "denied", 0, "allow", "GET /denied"},
		{Question{URL: "http://api.example.com/v1/shadowed"}, "shadowed", 0, "would_refuse", "GET /shadowed"},
		{Question{URL: "/plain", Headers: [][2]string{{"X-Version", "2"}}}, "version2", 0, "match", "GET /plain"},
		{Question{URL: "/nowhere"}, "", 404, "refuse", ""},
		{Question{Method: "POST", URL: "http://api.example.com/v1/users/7"}, "", 405, "refuse", ""},
		{Question{Method: "PUT", URL: "http://api.example.com/v1/users/7", Body: strings.Repeat("x", 2049)}, "put", 413, "refuse", ""},
	} {
		e, err := g.Explain(c.q)
		if err != nil {
			t.Errorf("%+v: %v", c.q, err)
			continue
		}
		last := e.Phases[len(e.Phases)-1].Verdict
		if e.Route != c.route || e.Status != c.status || last != c.last || e.Forward != c.forward {
			t.Errorf("%+v:\n%+v", c.q, e)
		}
	}
}

// The gateway's own share of a request costs no allocation.
func TestServingDoesNotAllocate(t *testing.T) {
	g := build(t, basic)
	x := ask("GET http://api.example.com/v1/users/7", "Accept: */*", "User-Agent: curl")
	conn := x.Conn
	run := func() {
		x.Reset()
		x.Conn = conn
		x.Start = time.Now()
		r := &x.Request
		r.Method, r.Proto = "GET", exchange.HTTP11
		r.Host, r.Authority, r.RawPath = hostOfTest, hostOfTest, pathOfTest
		g.Serve(x)
		_, _ = x.Response.Body.Next()
		_ = x.Response.Body.Close()
		g.Done(x)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

var hostOfTest, pathOfTest = []byte("api.example.com"), []byte("/v1/users/7")

func BenchmarkServe(b *testing.B) {
	g := build(b, basic)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		x := &exchange.Exchange{}
		conn := &exchange.Conn{Peer: netip.MustParseAddrPort("192.0.2.1:4711")}
		accept := []byte("Accept")
		for pb.Next() {
			x.Reset()
			x.Conn = conn
			x.Start = time.Now()
			r := &x.Request
			r.Method, r.Proto = "GET", exchange.HTTP11
			r.Host, r.Authority, r.RawPath = hostOfTest, hostOfTest, pathOfTest
			r.Header.Add(accept, hostOfTest)
			g.Serve(x)
			_, _ = x.Response.Body.Next()
			_ = x.Response.Body.Close()
			g.Done(x)
		}
	})
}

func TestExplainTakesTheListenerOfTheScheme(t *testing.T) {
	secure := config.Listener{Name: "secure", TLS: &config.ListenerTLS{}}
	all := []config.Listener{{Address: ":80", Redirect: "https"}, {Name: "plain"}, secure}
	for _, c := range []struct {
		named string
		tls   bool
		want  string
		fails bool
	}{
		{"", false, "plain", false},
		{"", true, "secure", false},
		{"plain", true, "plain", false},
		{":80", false, "", true},
		{"nobody", false, "", true},
	} {
		got, err := Question{Listener: c.named}.listener(all, c.tls)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%q, TLS %v: %q, %v", c.named, c.tls, got, err)
		}
	}
	if got, _ := (Question{}).listener([]config.Listener{secure}, false); got != "secure" {
		t.Errorf("with nothing of the scheme: %q", got)
	}
}

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const document = `# what is said here may be secret too: hunter2
admin:
  address: 127.0.0.1:0
  token: ${ADMIN_TOKEN:-}
upstreams:
  hello:
    respond: {status: 200, headers: {X-Key: "${file:key.txt}"}}
routes:
  - {name: hello, path: /hello, upstream: hello}
`

// node is a gateway that the tests stand in for.
type node struct {
	t        *testing.T
	dir      string
	asked    gateway.Question
	draining bool
	routes   []Route
	panics   bool

	directory *auth.Directory // nil: there is no place for clients and keys
	records   *drawer         // of the directory
	storeAway bool
	cache     Cache    // nil: there is none
	asks      []string // of the limiter

	mu       sync.Mutex
	started  *config.File
	running  *config.File
	changes  []Change
	refuse   config.Diagnostics // from Apply
	fail     error              // from Apply
	overtake func()             // runs once, before an Apply
}

func newNode(t *testing.T, text string) *node {
	n := &node{t: t, dir: t.TempDir()}
	f, found := n.Parse([]byte(text))
	if found.Err() != nil {
		t.Fatal(found.Err())
	}
	n.started, n.running = f, f
	return n
}

func (n *node) Ready() bool { return !n.draining }

func (n *node) Routes() []Route {
	if n.panics {
		panic("out of order")
	}
	return n.routes
}

func (n *node) Upstreams() []upstream.Status {
	return []upstream.Status{{Name: "hello", Respond: true}}
}

func (n *node) Explain(q gateway.Question) (*gateway.Explanation, error) {
	n.asked = q
	if q.URL == "::" {
		return nil, errors.New("the URL cannot be read")
	}
	return &gateway.Explanation{
		Request: "GET /hello", Client: "127.0.0.1", Route: "hello",
		Phases: []policy.Finding{{Phase: "router", Filter: "router", Mode: "enforce", Verdict: "match", Reason: "/hello matches /hello"}},
	}, nil
}

func (n *node) Usage(ctx context.Context, client, period string, declared map[string][]string) ([]limit.Usage, error) {
	n.asks = append(n.asks, fmt.Sprint(client, " ", period, " ", declared))
	if n.storeAway {
		return nil, errors.New("no connection to 192.0.2.1:6379")
	}
	if client == "new" || period == "week" {
		return nil, ctx.Err()
	}
	return []limit.Usage{{Client: "acme", Plan: "gold", Period: "day", Limit: 10, Used: 3, Remaining: 7, ResetsAt: time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)}}, nil
}

func (n *node) Hot(what string, most int) ([]limit.Hot, error) {
	n.asks = append(n.asks, fmt.Sprint(what, " ", most))
	if what == "routes" {
		return nil, nil
	}
	return []limit.Hot{{Key: "c:/acme", Count: 5, Error: 1}}, nil
}

func (n *node) Running() *config.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

func (n *node) Started() *config.File { return n.started }

func (n *node) Parse(text []byte) (*config.File, config.Diagnostics) {
	return config.Parse(n.dir+"/sluice.yaml", text, config.Env{
		Lookup:   func(name string) (string, bool) { return "value-of-" + name, name == "SET" },
		ReadFile: func(name string) ([]byte, error) { return []byte("k3y-of-the-file"), nil },
	})
}

func (n *node) Apply(f *config.File, c Change) (config.Diagnostics, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.overtake != nil {
		first := n.overtake
		n.overtake = nil
		first()
	}
	if c.From != n.running {
		return nil, ErrChanged
	}
	if n.fail != nil || n.refuse != nil {
		return n.refuse, n.fail
	}
	n.changes = append(n.changes, c)
	if !c.DryRun {
		n.running = f
	}
	return nil, nil
}

// start serves the admin API of n until the test ends.
func start(t *testing.T, n *node, c config.Admin) *Server {
	t.Helper()
	if c.Address == "" {
		c.Address = "127.0.0.1:0"
	}
	s, err := New(Options{
		Config: c, Gateway: n, Configuration: n, Limits: n, Cache: n.cache, Identities: n.directory, Log: slog.New(slog.DiscardHandler),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "sluice_up 1\n") }),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to the API without a connection. header is names and
// values; a Host replaces 127.0.0.1.
func (s *Server) ask(method, target, body string, header ...string) reply {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:9901"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.serve(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

// refused checks that a reply is the problem document of a code.
func (r reply) refused(t *testing.T, status int, code string) problem {
	t.Helper()
	p := decode[problem](t, r.body)
	if r.status != status || p.Status != status || p.Code != code || p.Type != problemBase+code || p.Title == "" || p.Detail == "" ||
		r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s, want %d %s", r.status, r.body, status, code)
	}
	if id := r.header.Get("X-Request-Id"); len(id) != 36 || p.Instance != id {
		t.Errorf("instance %q, request id %q", p.Instance, id)
	}
	return p
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	s := start(t, newNode(t, document), config.Admin{})
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/nothing", "/v1/routes/", "/v1/config/x", "/debug/pprof/", "/debug/pprof/heap", "/metrics/x", "//v1/routes"} {
		s.ask("GET", path, "").refused(t, 404, "not_found")
	}
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/v1/routes", "GET, HEAD"},
		{"DELETE", "/v1/config", "GET, HEAD, PUT"},
		{"PATCH", "/v1/config", "GET, HEAD, PUT"},
		{"GET", "/v1/explain", "POST"},
		{"HEAD", "/v1/explain", "POST"},
		{"OPTIONS", "/v1/upstreams", "GET, HEAD"},
		{"POST", "/healthz", "GET, HEAD"},
		{"get", "/readyz", "GET, HEAD"},
	} {
		r := s.ask(c.method, c.path, "")
		r.refused(t, 405, "method_not_allowed")
		if got := r.header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
}

func TestUnknownQueryParametersAreRefused(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	yaml := []string{"Content-Type", "application/yaml"}
	for _, query := range []string{"dryrun=1", "dry_run=yes", "dry_run=1&dry_run=0", "dry-run", "persist=2", "x=1", "%zz=1", "DRY_RUN=1"} {
		s.ask("PUT", "/v1/config?"+query, document, yaml...).refused(t, 400, "bad_request")
	}
	s.ask("GET", "/v1/routes?page=2", "").refused(t, 400, "bad_request")
	if len(n.changes) > 0 {
		t.Errorf("a refused request made %v", n.changes)
	}
}

func TestProbesFollowTheGateway(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready"} {
		r := s.ask("GET", path, "")
		if got := decode[State](t, r.body); r.status != 200 || got.Status != want || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	n.draining = true
	s.ask("GET", "/readyz", "").refused(t, 503, "not_ready")
	if r := s.ask("GET", "/healthz", ""); r.status != 200 {
		t.Errorf("draining, /healthz: %d", r.status)
	}
}

func TestListsAreNeverNull(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	if got := s.ask("GET", "/v1/routes", "").body; got != "{\n  \"routes\": []\n}\n" {
		t.Errorf("no routes: %s", got)
	}
	n.routes = []Route{{Name: "hello", Path: "/<hello>", Upstreams: []Share{{Name: "hello", Weight: 1}}, Config: "routes[0]"}}
	r := s.ask("GET", "/v1/routes", "")
	if got := decode[RouteList](t, r.body); r.status != 200 || len(got.Routes) != 1 || !strings.Contains(r.body, "/<hello>") {
		t.Errorf("%d %s", r.status, r.body)
	}
	r = s.ask("GET", "/v1/upstreams", "")
	if got := decode[UpstreamList](t, r.body); r.status != 200 || len(got.Upstreams) != 1 || got.Upstreams[0].Name != "hello" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestAPanicIsAProblemAndALogLine(t *testing.T) {
	n := newNode(t, document)
	n.panics = true
	s := start(t, n, config.Admin{})
	var log bytes.Buffer
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	r := s.ask("GET", "/v1/routes", "")
	r.refused(t, 500, "internal")
	if strings.Contains(r.body, "out of order") || !strings.Contains(log.String(), "out of order") || !strings.Contains(log.String(), r.header.Get("X-Request-Id")) {
		t.Errorf("answered %s, logged %s", r.body, &log)
	}
}

func TestExplainTakesHeadersInEveryForm(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	for headers, want := range map[string][][2]string{
		`{"B": "2", "A": ["1", "3"]}`:          {{"A", "1"}, {"A", "3"}, {"B", "2"}},
		`[["B", "2"], ["A", "1"], ["B", "3"]]`: {{"B", "2"}, {"A", "1"}, {"B", "3"}},
		`{}`:                                   nil,
		`null`:                                 nil,
	} {
		r := s.ask("POST", "/v1/explain", `{"method": "PUT", "url": "/hello?a=1", "body": "x", "listener": "l", "client": "10.0.0.1", "headers": `+headers+`}`, "Content-Type", "application/json; charset=utf-8")
		got, err := json.Marshal(n.asked)
		if err != nil {
			t.Fatal(err)
		}
		expected, err := json.Marshal(gateway.Question{Method: "PUT", URL: "/hello?a=1", Headers: want, Body: "x", Listener: "l", Client: "10.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		if r.status != 200 || !bytes.Equal(got, expected) {
			t.Errorf("%s: %d, asked %s, want %s", headers, r.status, got, expected)
		}
		if e := decode[gateway.Explanation](t, r.body); e.Route != "hello" || len(e.Phases) != 1 {
			t.Errorf("answered %s", r.body)
		}
	}
}

func TestExplainRefusesWhatItCannotRead(t *testing.T) {
	s := start(t, newNode(t, document), config.Admin{})
	for _, body := range []string{"", "{", "[]", `{"url": "::"}`, `{"url": 1}`, `{"uri": "/"}`, `{"url": "/"} {}`, `{"url": "/", "headers": {"A": 1}}`, `{"url": "/", "headers": "A: 1"}`, `{"url": "/", "headers": [["A"], 1]}`} {
		s.ask("POST", "/v1/explain", body, "Content-Type", "application/json").refused(t, 400, "bad_request")
	}
	s.ask("POST", "/v1/explain", `{"url": "/", "body": "`+strings.Repeat("x", maxQuestion)+`"}`, "Content-Type", "application/json").refused(t, 413, "payload_too_large")
	s.ask("POST", "/v1/explain", "url: /", "Content-Type", "application/yaml").refused(t, 415, "unsupported_media_type")
}

func TestPprofOnlyWhenAskedFor(t *testing.T) {
	s := start(t, newNode(t, document), config.Admin{Pprof: true})
	for path, want := range map[string]string{
		"/debug/pprof/":                    "goroutine",
		"/debug/pprof/goroutine?debug=1":   "goroutine profile: total",
		"/debug/pprof/cmdline":             "admin.test",
		"/debug/pprof/symbol":              "num_symbols",
		"/debug/pprof/heap?gc=1&debug=1":   "HeapAlloc",
		"/debug/pprof/trace?seconds=0.01":  "",
		"/debug/pprof/profile?seconds=1&x": "",
	} {
		if r := s.ask("GET", path, ""); r.status != 200 || !strings.Contains(r.body, want) {
			t.Errorf("%s: %d %.80s", path, r.status, r.body)
		}
	}
	if r := s.ask("GET", "/debug/pprof/nothing", ""); r.status != 404 {
		t.Errorf("an unknown profile: %d", r.status)
	}
	s.ask("GET", "/debug/pprof/", "", "Host", "evil.test").refused(t, 403, "forbidden")
	s.ask("POST", "/debug/pprof/symbol", "").refused(t, 405, "method_not_allowed")
}

// get asks over a connection.
func get(t *testing.T, addr net.Addr, path string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := c.Get("http://" + addr.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestProbesAndMetricsHaveAddressesOfTheirOwn(t *testing.T) {
	s := start(t, newNode(t, document), config.Admin{Token: config.NewSecret("t0ken"), Probes: "127.0.0.1:0", Metrics: "127.0.0.1:0"})
	addrs := s.Addrs()
	if len(addrs) != 3 || addrs["address"] != s.Addr() {
		t.Fatalf("addresses %v", addrs)
	}
	for _, c := range []struct {
		at, path string
		want     int
	}{
		{"probes", "/healthz", 200},
		{"probes", "/readyz", 200},
		{"probes", "/metrics", 404},
		{"probes", "/v1/config", 404},
		{"probes", "/", 404},
		{"metrics", "/metrics", 200},
		{"metrics", "/healthz", 404},
		{"metrics", "/v1/routes", 404},
		{"metrics", "/debug/pprof/", 404},
		{"address", "/healthz", 200},
		{"address", "/readyz", 200},
		{"address", "/metrics", 401},
		{"address", "/v1/config", 401},
		{"address", "/nothing", 401},
	} {
		if status, body := get(t, addrs[c.at], c.path); status != c.want {
			t.Errorf("%s%s: %d %s, want %d", c.at, c.path, status, body, c.want)
		}
	}
	if _, body := get(t, addrs["metrics"], "/metrics"); body != "sluice_up 1\n" {
		t.Errorf("metrics: %q", body)
	}
}

func TestNewRefusesAddressesThatItCannotOrMustNotHave(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := newNode(t, document)
	for _, c := range []struct {
		config config.Admin
		want   string
	}{
		{config.Admin{Address: "0.0.0.0:0"}, "admin.address: 0.0.0.0:0 is not a loopback address"},
		{config.Admin{Address: ":0"}, "needs admin.token"},
		{config.Admin{Address: taken.Addr().String()}, "admin.address: listen tcp " + taken.Addr().String()},
		{config.Admin{Address: "127.0.0.1:0", Probes: taken.Addr().String()}, "admin.probes: "},
		{config.Admin{Address: "127.0.0.1:0", Probes: "127.0.0.1:0", Metrics: taken.Addr().String()}, "address already in use"},
	} {
		s, err := New(Options{Config: c.config, Gateway: n, Configuration: n, Limits: n, Log: slog.New(slog.DiscardHandler)})
		if s != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.config, err, c.want)
		}
	}
	s, err := New(Options{Config: config.Admin{Address: "0.0.0.0:0", Token: config.NewSecret("t")}, Gateway: n, Configuration: n, Limits: n, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWithoutAnAddressThereIsNoAPI(t *testing.T) {
	n := newNode(t, document)
	s, err := New(Options{Config: config.Admin{Probes: "127.0.0.1:0"}, Gateway: n, Configuration: n, Limits: n, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != nil || len(s.Addrs()) != 1 {
		t.Errorf("addresses %v", s.Addrs())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCloseLetsARequestFinish(t *testing.T) {
	n := newNode(t, document)
	begun, release := make(chan struct{}), make(chan struct{})
	s, err := New(Options{
		Config: config.Admin{Address: "127.0.0.1:0"}, Gateway: n, Configuration: n, Limits: n, Log: slog.New(slog.DiscardHandler),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-release
			_, _ = io.WriteString(w, "late")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		_, body := get(t, s.Addr(), "/metrics")
		answered <- body
	}()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	for { // until Close is at work: nobody is let in any more
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		_ = c.Close()
	}
	close(release)
	if body := <-answered; body != "late" {
		t.Errorf("answered %q", body)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

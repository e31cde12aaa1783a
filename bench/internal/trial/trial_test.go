//go:build linux

package trial

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/url"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
	"github.com/sluice-gateway/sluice/bench/internal/load"
	"github.com/sluice-gateway/sluice/bench/internal/proc"
	"github.com/sluice-gateway/sluice/bench/internal/report"
)

// The test's own program is also the sink and the gateway under test.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == SinkCommand:
		err = ServeSink(context.Background(), os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "proxy":
		err = serveProxy(os.Args[2], os.Args[3])
	default:
		goleak.VerifyTestMain(m)
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// serveProxy forwards with what the standard library has. Its metrics count a
// thousand allocations more whenever they are read.
func serveProxy(listen, origin string) error {
	to, err := url.Parse("http://" + origin)
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 100}
	reads := 0
	return http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			reads++
			fmt.Fprintf(w, "# HELP x\ngo_memstats_mallocs_total %d\n", 1000*reads)
			return
		}
		if r.URL.Path == profilePath {
			pprof.Profile(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
}

const profilePath = "/debug/pprof/profile"

// stub is a gateway for tests.
type stub struct {
	name    string
	command func(*gateways.Setup) gateways.Command
	lacks   string
	metrics bool
}

func (g *stub) Name() string                                             { return g.name }
func (g *stub) Prepare(context.Context, *gateways.Tools) (string, error) { return "1", nil }
func (g *stub) Lacks(*gateways.Setup) string                             { return g.lacks }
func (g *stub) Notes() []string                                          { return nil }

func (g *stub) Write(s *gateways.Setup) (gateways.Command, error) {
	c := g.command(s)
	if g.metrics {
		c.Metrics = s.Listen
	}
	return c, nil
}

func proxy(s *gateways.Setup) gateways.Command {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return gateways.Command{Path: self, Args: []string{"proxy", s.Listen, s.Origin}}
}

func bench(t *testing.T, names ...string) *Bench {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Fatal("nginx is needed: apt-get install nginx")
		}
	}
	b := &Bench{Nginx: path, Rounds: 2, Warm: 20 * time.Millisecond, Window: 100 * time.Millisecond, Threads: 1, Cores: 2, Say: t.Logf}
	for _, s := range Scenarios() {
		for _, n := range names {
			if s.Name == n {
				s.Conns = []int{4}
				b.Scenarios = append(b.Scenarios, s)
			}
		}
	}
	return b
}

// nothingRuns checks that no child of ours is left.
func nothingRuns(t *testing.T) {
	t.Helper()
	tree, err := proc.Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range tree[1:] {
		state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		t.Errorf("left running: %s", state)
	}
}

func TestRunMeasuresEveryGatewayAndStopsThemAll(t *testing.T) {
	b := bench(t, "forward", "upload-1MiB")
	b.Gateways = []gateways.Gateway{
		&stub{name: "base", command: proxy, metrics: true},
		&stub{name: "rival", command: proxy},
		&stub{name: "unable", lacks: "cannot"},
		&stub{name: "broken", command: func(*gateways.Setup) gateways.Command {
			return gateways.Command{Path: "sh", Args: []string{"-c", "echo line 7 is wrong >&2; exit 3"}}
		}},
	}
	got, err := b.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	nothingRuns(t)
	if len(got) != 2 {
		t.Fatalf("%d scenarios, want 2", len(got))
	}
	for _, s := range got {
		if len(s.Gateways) != 4 || len(s.CPU["rival"]) != 2 || len(s.CPU) != 1 {
			t.Fatalf("%s: %d gateways, pairs %v; want 4 and two pairs", s.Name, len(s.Gateways), s.CPU)
		}
		for i, rounds := range []int{2, 2} {
			g := s.Gateways[i]
			if g.Failed != "" || len(g.Closed) != rounds || len(g.Open) != rounds {
				t.Fatalf("%s of %s: %d closed and %d open rounds, failed %q; want %d each", g.Name, s.Name, len(g.Closed), len(g.Open), g.Failed, rounds)
			}
			for _, c := range g.Closed {
				if c.Requests == 0 || c.CPU() < 1 || c.CPU() > 1e5 || c.Origin <= 0 || c.LoadCPU <= 0 || c.Resident < 1<<20 || c.Latency.P50 <= 0 {
					t.Errorf("%s of %s: %+v", g.Name, s.Name, c)
				}
				if want := i == 0; (c.Allocs >= 0) != want {
					t.Errorf("%s of %s: %v allocations, metrics read: %v", g.Name, s.Name, c.Allocs, want)
				}
			}
			for _, o := range g.Open {
				if o.Rate <= 0 || o.Latency.P50 <= 0 || o.Alone.P50 <= 0 || o.CPU <= 0 {
					t.Errorf("%s of %s: %+v", g.Name, s.Name, o)
				}
			}
		}
		// The reading of the metrics itself is not charged to the requests.
		if a := s.Gateways[0].Closed[0].Allocs; a != 0 {
			t.Errorf("%v allocations a request, want 0", a)
		}
		if s.Gateways[2].Lacks != "cannot" || len(s.Gateways[2].Closed) != 0 {
			t.Errorf("%+v took part", s.Gateways[2])
		}
		if f := s.Gateways[3].Failed; !strings.Contains(f, "exit status 3") || !strings.Contains(f, "line 7 is wrong") {
			t.Errorf("failed with %q, want what the program said", f)
		}
	}
}

func TestLimitIsComparedWithNone(t *testing.T) {
	b := bench(t, "limit-exact")
	var err error
	if b.Redis, err = exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is needed: apt-get install redis-server")
	}
	var setups []gateways.Setup
	command := func(s *gateways.Setup) gateways.Command {
		setups = append(setups, *s)
		return proxy(s)
	}
	sharing := func(s *gateways.Setup) gateways.Command {
		c := command(s)
		c.Shares = true
		return c
	}
	b.Gateways = []gateways.Gateway{
		&stub{name: "base", command: sharing}, &stub{name: "rival", command: command}, &stub{name: "unable", lacks: "cannot"},
	}
	got, err := b.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	nothingRuns(t)
	if len(got) != 1 || len(got[0].Gateways) != 3 {
		t.Fatalf("%+v", got)
	}
	for i, g := range got[0].Gateways[:2] {
		pairs := []int{2 * basePairs, 2}[i]
		if g.Failed != "" || len(g.Closed) != 2 || len(g.Limit) != pairs || g.Limit[0].A <= 0 || g.Limit[0].B <= 0 {
			t.Errorf("%s: %+v, want two rounds, and %d pairs with and without", g.Name, g, pairs)
			continue
		}
		// Redis has nothing to do here, but takes a little to do it.
		if c := g.Closed[0]; (c.Store > 0) != (i == 0) || c.Store > c.CPU() {
			t.Errorf("%s: %v µs of Redis", g.Name, c.Store)
		}
	}
	if got[0].Gateways[2].Limit != nil {
		t.Errorf("%+v took part", got[0].Gateways[2])
	}
	if len(setups) != 4 {
		t.Fatalf("%d gateways were started, want two and their twins", len(setups))
	}
	for i, s := range setups {
		if (s.Limit == nil) != (i%2 == 1) {
			t.Errorf("setup %d: limit %+v", i, s.Limit)
		}
		if s.Limit != nil && (s.Limit.Scope != "exact" || s.Limit.Redis == "" || s.Limit.Field != tenantField) {
			t.Errorf("setup %d: limit %+v", i, s.Limit)
		}
	}
}

func TestEveryKeyIsAskedFor(t *testing.T) {
	for _, s := range Scenarios() {
		if s.Limit == "" {
			continue
		}
		if n := len(requests(&s)); n != limitKeys {
			t.Errorf("%s: %d requests, want one for each of %d keys", s.Name, n, limitKeys)
		}
	}
	if key(0) == key(1) || key(7) != key(limitKeys+7) {
		t.Error("keys do not repeat after as many as there are")
	}
}

func TestInterruptStopsEverything(t *testing.T) {
	b := bench(t, "forward")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.Window = time.Hour
	b.Gateways = []gateways.Gateway{&stub{name: "base", command: func(s *gateways.Setup) gateways.Command {
		time.AfterFunc(time.Second, cancel)
		return proxy(s)
	}}}
	if _, err := b.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
	nothingRuns(t)
}

func TestProgramThatDoesNotStopIsKilledWithItsChildren(t *testing.T) {
	sp := newSpawner()
	defer sp.close()
	p, err := sp.run("stubborn", t.TempDir(), gateways.Command{Path: "sh", Args: []string{"-c", "sleep 1000 & echo up; wait"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = p.await(context.Background(), 10*time.Second, func() error {
		if p.out.String() != "up" {
			return errors.New("not up")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := proc.Tree(p.cmd.Process.Pid)
	if err != nil || len(tree) != 2 {
		t.Fatalf("tree %v, %v", tree, err)
	}
	p.stop()
	nothingRuns(t)
	if proc, err := proc.Tree(tree[1]); err == nil {
		t.Errorf("child %v goes on", proc)
	}
}

func TestTurnsAlternate(t *testing.T) {
	a, b, c := &subject{}, &subject{}, &subject{}
	gone := &subject{}
	gone.result.Failed = "x"
	cases := []struct {
		name     string
		subjects []*subject
		round    int
		want     [][]*subject
	}{
		{"even", []*subject{a, b, c}, 0, [][]*subject{{a, b}, {a, c}}},
		{"odd", []*subject{a, b, gone, c}, 1, [][]*subject{{b, a}, {c, a}}},
		{"alone", []*subject{a}, 0, [][]*subject{{a}}},
		{"rivals gone", []*subject{a, gone}, 0, [][]*subject{{a}}},
		{"base gone", []*subject{gone, b, c}, 0, [][]*subject{{b}, {c}}},
		{"all gone", []*subject{gone}, 0, nil},
	}
	for _, c := range cases {
		got := turns(c.subjects, c.round)
		if len(got) != len(c.want) {
			t.Errorf("%s: %d turns, want %d", c.name, len(got), len(c.want))
			continue
		}
		for i := range got {
			for j := range c.want[i] {
				if len(got[i]) != len(c.want[i]) || got[i][j] != c.want[i][j] {
					t.Errorf("%s: turn %d is another", c.name, i)
				}
			}
		}
	}
}

func TestRateIsHalfOfTheMedianSaturation(t *testing.T) {
	s := &subject{}
	for i, want := range []float64{5000, 10500, 10000} {
		s.saw(report.Closed{Rate: []float64{10000, 32000, 20000}[i]})
		if s.rate != want {
			t.Errorf("after %d windows: %v, want %v", i+1, s.rate, want)
		}
	}
}

func TestAccountIsPerRequestOfTheWindow(t *testing.T) {
	at := time.Unix(1000, 0)
	before := reading{
		at: at, count: load.Counters{OK: 1000}, load: time.Second, mallocs: 5e6, atMalloc: 990,
		gateway: proc.Usage{Total: time.Second, User: 400 * time.Millisecond, System: 600 * time.Millisecond}, origin: proc.Usage{Total: time.Second},
	}
	after := reading{
		at: at.Add(2 * time.Second), count: load.Counters{OK: 21000}, load: time.Second + 200*time.Millisecond, mallocs: 5e6 + 41000, atMalloc: 20990,
		gateway: proc.Usage{Total: 1500 * time.Millisecond, User: 500 * time.Millisecond, System: 1000 * time.Millisecond}, origin: proc.Usage{Total: 1300 * time.Millisecond},
	}
	s := &subject{metrics: "x", scrape: 1000}
	got := s.account(before, after)
	got.User, got.System = math.Round(got.User*1e6)/1e6, math.Round(got.System*1e6)/1e6
	want := got
	want.Requests, want.Rate, want.User, want.System, want.LoadCPU, want.Origin, want.Allocs = 20000, 10000, 5, 20, 10, 15, 2
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestFindMetricReadsOneWithoutLabels(t *testing.T) {
	text := "# HELP a b\n# TYPE a counter\na{x=\"y\"} 1\nab 2\na 1.5e+06\n"
	if v, err := findMetric(strings.NewReader(text), "a"); v != 1.5e6 || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := findMetric(strings.NewReader(text), "b"); err == nil {
		t.Error("no error for a metric that is not there")
	}
}

func TestPathsCoverTheRoutesEvenly(t *testing.T) {
	for _, s := range Scenarios() {
		routes := map[string]int{}
		for _, r := range s.routes() {
			if !strings.HasPrefix(r, "/") || !strings.HasSuffix(r, "/") {
				t.Fatalf("%s: route %q", s.Name, r)
			}
			routes[r] = 0
		}
		paths := s.paths()
		for _, p := range paths {
			routes[p[:strings.LastIndexByte(p, '/')+1]]++
		}
		for r, n := range routes {
			if n != len(paths)/len(routes) {
				t.Fatalf("%s: route %s is asked for %d times", s.Name, r, n)
			}
		}
		if s.Many && len(routes) != 10_000 {
			t.Errorf("%d routes, want 10,000", len(routes))
		}
		if again := s.paths(); !reflect.DeepEqual(paths, again) {
			t.Errorf("%s: another order of paths the second time", s.Name)
		}
	}
}

func TestAnswersAreOfTheSizeThatIsSaid(t *testing.T) {
	for _, n := range []int{usualAnswer, largeAnswer} {
		a := answer(n)
		if len(a) != n || strings.ContainsAny(a, "'\\$\n") || strings.Contains(a, `"""`) {
			t.Errorf("answer of %d bytes, want %d and nothing that needs escaping: %s", len(a), n, a)
		}
	}
}

func TestDurationIsFromRoundsAndWindows(t *testing.T) {
	b := &Bench{
		Gateways: make([]gateways.Gateway, 3), Rounds: 7, Warm: time.Second, Window: time.Second,
		Scenarios: []Scenario{{Conns: []int{1, 2}, Budgeted: true}, {Conns: []int{1}}},
	}
	// Of each: a warm-up of three, 7 rounds of 2 pairs, and latency of three with
	// the origin's in 7 or 3 rounds; 2 s each.
	want := 2*(3*2+28*2+42*2)*time.Second + (3*2+28*2+18*2)*time.Second
	if got := b.Lasts(); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	// And with a limit each has a twin, warmed up and measured beside it.
	b.Scenarios[1].Limit = "local"
	want += (3*(1+7*2) + 7*2*(basePairs-1)) * 2 * time.Second
	if got := b.Lasts(); got != want {
		t.Errorf("%v with a limit, want %v", got, want)
	}
	b.Profile = time.Minute
	if got := b.Lasts(); got != want+time.Minute {
		t.Errorf("%v with a profile, want a minute more than %v", got, want)
	}
}

func TestTailKeepsTheEndAndCutsLongLines(t *testing.T) {
	var out tail
	for i := range 100 {
		fmt.Fprintf(&out, "line %d\n", i)
	}
	fmt.Fprintf(&out, "%s\n", strings.Repeat("x", 1000))
	lines := strings.Split(out.String(), "\n")
	if len(lines) != keptLines || lines[0] != "line 61" || lines[keptLines-1] != strings.Repeat("x", longLine)+"…" {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
	if out.taken() {
		t.Error("no port was taken")
	}
	fmt.Fprintln(&out, "listen: address already in use")
	if !out.taken() {
		t.Error("a port was taken")
	}
}

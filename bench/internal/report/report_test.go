package report

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

var update = flag.Bool("update", false, "write the golden files")

// sample is a run with everything that a table can show.
func sample() *Run {
	closed := func(user, system, rate, allocs float64) Closed {
		return Closed{Requests: 1000, Rate: rate, User: user, System: system, Resident: 20 << 20, Allocs: allocs}
	}
	return &Run{
		Commit:  "0123456789",
		Date:    time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC),
		Machine: Machine{CPU: "AMD EPYC", Cores: 2, Kernel: "6.1.0", Memory: 24 << 30},
		Settings: Settings{
			Base: "sluice", Rounds: 3, Warm: 300 * time.Millisecond, Window: 2 * time.Second, Threads: 1,
			Pinning: "Gateway, load and origin share all cores.",
		},
		Versions: []Version{{"sluice", "0.1"}, {"nginx", "1.22.1"}},
		Notes:    []string{"A note."},
		Scenarios: []Scenario{
			{
				Name: "forward", Conns: 64, About: "GET of 1.1 KB.",
				Gateways: []Gateway{
					{
						Name: "sluice", Closed: []Closed{closed(10, 20, 30000, 0.02), closed(11, 20, 31000, 0.04), closed(9, 20, 29000, 0.03)},
						Open: []Open{
							{Rate: 15000, CPU: 40, Latency: Latency{0.3, 1.2, 4, 9}, Alone: Latency{0.18, 0.1, 1, 2}},
							{Rate: 15000, CPU: 41, Latency: Latency{0.31, 1.3, 5, 9}, Alone: Latency{0.2, 0.2, 1, 2}},
						},
					},
					{Name: "nginx", Closed: []Closed{closed(5, 19, 40000, -1), closed(5, 20, 39000, -1), closed(5, 18, 41000, -1)}},
					{Name: "varnish", Lacks: "does not terminate TLS"},
					{Name: "caddy", Failed: "12 of 90 requests failed: 12 wrong status", Closed: []Closed{closed(50, 50, 10000, -1)}},
				},
				CPU: map[string][]stats.Pair{"nginx": {{A: 30, B: 24}, {A: 31, B: 25}, {A: 29, B: 23}}, "caddy": {{A: 30, B: 100}}},
			},
			{
				Name: "limit-leased", Conns: 64, About: "As forward, with a limit.",
				Gateways: []Gateway{
					{
						Name: "sluice", Limit: []stats.Pair{{A: 31, B: 30.5}, {A: 32, B: 30}, {A: 30.5, B: 30}},
						Closed: []Closed{{Requests: 1000, Rate: 29000, User: 11, System: 20, Store: 2, Resident: 20 << 20}},
						Profiles: []Profile{
							{Requests: 200_000, CPU: 40, Split: attribution.Split{Samples: 780, Request: 12, Beside: 5, Nobody: 50, Seconds: 7.8}},
							{Requests: 300_000, CPU: 30, Split: attribution.Split{Samples: 820, Request: 13, Beside: 6, Nobody: 70, Seconds: 8.2}},
						},
					},
					{Name: "nginx", Closed: []Closed{closed(5, 20, 40000, -1)}, Limit: []stats.Pair{{A: 25, B: 24.8}}},
					{Name: "varnish", Lacks: "has no rate limit"},
				},
				CPU: map[string][]stats.Pair{"nginx": {{A: 31, B: 25}}},
			},
			{Name: "h2-forward", Conns: 16, Streams: 4, About: "HTTP/2.", Gateways: []Gateway{{Name: "sluice", Closed: []Closed{closed(40, 60, 9000, 3)}}}},
		},
	}
}

func TestTablesAreAsInTheGoldenFiles(t *testing.T) {
	for name, write := range map[string]func(*Run, *strings.Builder) error{
		"long.md":  func(r *Run, b *strings.Builder) error { return r.Markdown(b) },
		"short.md": func(r *Run, b *strings.Builder) error { return r.Short(b) },
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := write(sample(), &b); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || b.String() != string(want) {
				t.Errorf("%s (%v); got:\n%s", path, err, b.String())
			}
		})
	}
}

func TestRunSurvivesJSON(t *testing.T) {
	text, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var got Run
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if want := sample(); !reflect.DeepEqual(&got, want) {
		t.Errorf("got %+v\nwant %+v", &got, want)
	}
}

func TestFailuresNameGatewayAndScenario(t *testing.T) {
	want := []string{"caddy in forward, 64 connections: 12 of 90 requests failed: 12 wrong status"}
	if got := sample().Failures(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestVerdictsSayByHowMuchABudgetIsMissed(t *testing.T) {
	cases := []struct {
		must, aim, figure float64
		want              string
	}{
		{1.35, 1.2, 1.1, "met, aim too"},
		{1.35, 1.2, 1.2, "met, aim too"},
		{1.35, 1.2, 1.204, "met, aim too"}, // shown as 1.20
		{1.35, 1.2, 1.26, "met, aim missed by 5 %"},
		{1.35, 1.2, 1.35, "met, aim missed by 13 %"},
		{1.35, 1.2, 1.62, "**missed** by 20 %"},
		{2, 0, 0, "met, aim too"},
		{2, 0, 0.02, "met, aim missed by 0.02"},
		{2, 0, 3, "**missed** by 50 %"},
	}
	for _, c := range cases {
		b := Budget{Must: c.must, Aim: c.aim, Digits: 2}
		if got := b.Verdict(c.figure); got != c.want {
			t.Errorf("%v of ≤ %v, aim %v: %q, want %q", c.figure, c.must, c.aim, got, c.want)
		}
	}
}

func TestProfilesAddUpToOneEstimate(t *testing.T) {
	g := sample().Scenarios[1].Gateways[0]
	a := g.Attribution()
	// 36 of 1,600 samples of 17 s of CPU for half a million requests.
	if a.CPU != 34 || a.Seconds != 16 || !near(a.All.Median, 0.765) || !near(a.All.Margin, 2*math.Sqrt(37)/1600*34) || a.All.N != 1600 {
		t.Errorf("%+v", a)
	}
	if !near(a.Request.Median+a.Beside.Median, a.All.Median) || !near(a.Nobody.Median, 2.55) {
		t.Errorf("%+v", a)
	}
	if seen := g.Profiles[0].Seen(); !near(seen, 0.975) {
		t.Errorf("the profile saw %v of the CPU, want 0.975", seen)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestTheBetterRivalIsTheOneThatCostsLess(t *testing.T) {
	measured := func(name string) Gateway { return Gateway{Name: name, Closed: []Closed{{Requests: 1}}} }
	s := &Scenario{
		Gateways: []Gateway{measured("sluice"), measured("nginx"), measured("haproxy")},
		CPU:      map[string][]stats.Pair{"nginx": {{A: 14, B: 16}, {A: 14, B: 14}}, "haproxy": {{A: 14, B: 13}, {A: 13, B: 13}, {A: 15, B: 13}}},
	}
	for _, c := range []struct {
		rivals []string
		want   float64
		n      int
	}{
		{[]string{"nginx", "haproxy"}, 14.0 / 13, 3},
		{[]string{"haproxy", "nginx"}, 14.0 / 13, 3},
		{[]string{"nginx", "varnish"}, (14.0/16 + 1) / 2, 2},
		{[]string{"varnish"}, 0, 0},
	} {
		if got := overBest(c.rivals...)(s, "sluice"); got.N != c.n || c.n > 0 && got.Median != c.want {
			t.Errorf("over the best of %v: %+v, want %v of %d pairs", c.rivals, got, c.want, c.n)
		}
	}
}

func TestBudgetsAreJudgedOfWhatWasMeasured(t *testing.T) {
	var got []string
	for _, j := range sample().judge() {
		got = append(got, j.What+": "+j.Verdict(j.m.Median))
	}
	want := []string{
		// Caddy failed, so nothing is said about it.
		"CPU per request over nginx's: met, aim missed by 5 %",
		"heap allocations per request: met, aim missed by 0.03",
		"added latency at half of saturation, p50: met, aim missed by 15 %",
		"added latency at half of saturation, p99: **missed** by 10 %",
		"added latency at half of saturation, p99.9: met, aim missed by 75 %",
		"CPU that the limit adds: met, aim missed by 54 %", // by profile; the differences would do
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	unprofiled := sample()
	unprofiled.Scenarios[1].Gateways[0].Profiles = nil
	if last := unprofiled.judge()[5]; last.m.Margin != 0 || last.m.Median != 0.5 {
		t.Errorf("without profiles %+v, want the difference", last)
	}
	other := sample()
	other.Settings.Base = "nginx"
	if j := other.judge(); len(j) != 0 {
		t.Errorf("budgets of Sluice judged of nginx: %v", j)
	}
}

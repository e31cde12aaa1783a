package report

import (
	"fmt"
	"math"
	"strconv"

	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

// Budget is one line of the design's performance budget.
type Budget struct {
	What     string
	Scenario string
	Conns    int
	Must     float64
	Aim      float64
	Digits   int
	Unit     string
	// Measure gives the figure; without samples (N is 0) it was not measured.
	Measure func(s *Scenario, base string) stats.Summary
}

// Budgets are what this bench can tell about. The rest are benchmarks and
// allocation tests that stand beside the code.
func Budgets() []Budget {
	const name, conns = "forward", 64
	return []Budget{
		{"CPU per request over nginx's", name, conns, 1.35, 1.2, 2, "", ratio("nginx")},
		{"CPU per request over Caddy's", name, conns, 0.25, 0.2, 2, "", ratio("caddy")},
		{"heap allocations per request", name, conns, 2, 0, 2, "", heap},
		{"added latency at half of saturation, p50", name, conns, 0.15, 0.1, 3, " ms", added(func(l Latency) float64 { return l.P50 })},
		{"added latency at half of saturation, p99", name, conns, 1, 0.5, 2, " ms", added(func(l Latency) float64 { return l.P99 })},
		{"added latency at half of saturation, p99.9", name, conns, 5, 2, 2, " ms", added(func(l Latency) float64 { return l.P999 })},
		{"CPU that the limit adds", "limit-local", conns, 1, 0.5, 2, " µs", limit},
		{"CPU per request over nginx's", "limit-local", conns, 1.4, 1.2, 2, "", ratio("nginx")},
		{"heap allocations per request", "limit-local", conns, 2, 0, 2, "", heap},
		{"CPU that the limit adds", "limit-leased", conns, 1, 0.5, 2, " µs", limit},
		{"CPU per request over nginx's", "key-limit", conns, 1.4, 1.2, 2, "", ratio("nginx")},
		{"heap allocations per request", "key-limit", conns, 2, 0, 2, "", heap},
		{"CPU per request over the better of nginx's and HAProxy's", "key-limit-hit", conns, 1.05, 0.95, 2, "", overBest("nginx", "haproxy")},
		{"heap allocations per request", "key-limit-hit", conns, 0, 0, 1, "", heap},
		{"CPU per request over nginx's with keys", "jwt-limit", conns, 1.45, 1.25, 2, "", ratio("nginx")},
		{"heap allocations per request", "jwt-limit", conns, 2, 0, 2, "", heap},
	}
}

func allocs(c Closed) float64 { return c.Allocs }

func heap(s *Scenario, base string) stats.Summary {
	g := s.gateway(base)
	if g == nil || g.over(allocs).Min < 0 {
		return stats.Summary{}
	}
	return g.over(allocs)
}

// limit is what the scenario's rate limit takes of the base's CPU per request by its
// profiles; without them, what it adds by the differences.
func limit(s *Scenario, base string) stats.Summary {
	g := s.gateway(base)
	if g == nil {
		return stats.Summary{}
	}
	if len(g.Profiles) > 0 {
		return g.Attribution().All
	}
	return stats.Differences(g.Limit)
}

func ratio(rival string) func(*Scenario, string) stats.Summary {
	return func(s *Scenario, base string) stats.Summary {
		if s.gateway(base) == nil || s.gateway(rival) == nil {
			return stats.Summary{}
		}
		return stats.Ratios(s.CPU[rival])
	}
}

// overBest is the ratio to the rival that costs least in pairs with the base; those that were not
// measured are left out.
func overBest(rivals ...string) func(*Scenario, string) stats.Summary {
	return func(s *Scenario, base string) stats.Summary {
		var highest stats.Summary
		for _, rival := range rivals {
			if r := ratio(rival)(s, base); r.N > 0 && (highest.N == 0 || r.Median > highest.Median) {
				highest = r
			}
		}
		return highest
	}
}

func added(quantile func(Latency) float64) func(*Scenario, string) stats.Summary {
	return func(s *Scenario, base string) stats.Summary {
		g := s.gateway(base)
		if g == nil {
			return stats.Summary{}
		}
		return g.at(func(o Open) float64 { return quantile(o.Latency) - quantile(o.Alone) })
	}
}

// Verdict says whether the figure keeps to the budget, and by how much it does not.
func (b Budget) Verdict(figure float64) string {
	// What is shown is what is judged.
	if shown, err := strconv.ParseFloat(num(figure, b.Digits), 64); err == nil {
		figure = shown
	}
	switch {
	case figure > b.Must:
		return "**missed** by " + excess(figure, b.Must)
	case figure > b.Aim:
		return "met, aim missed by " + excess(figure, b.Aim)
	}
	return "met, aim too"
}

func excess(figure, limit float64) string {
	if limit == 0 {
		return fmt.Sprintf("%.2f", figure)
	}
	return fmt.Sprintf("%.0f %%", math.Ceil(100*(figure-limit)/limit-1e-9))
}

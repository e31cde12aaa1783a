package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

// page collects Markdown.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) {
	fmt.Fprintf(p, format, args...)
	p.WriteByte('\n')
}

func (p *page) row(cells ...string) { p.line("| %s |", strings.Join(cells, " | ")) }

func (p *page) head(cells ...string) {
	p.row(cells...)
	p.line("|%s", strings.Repeat("---|", len(cells)))
}

// Title is the scenario's name with its connections.
func (s *Scenario) Title() string {
	switch {
	case s.Streams > 0:
		return fmt.Sprintf("%s, %d connections of %d streams", s.Name, s.Conns, s.Streams)
	case s.Conns == 1:
		return s.Name + ", 1 connection"
	}
	return fmt.Sprintf("%s, %d connections", s.Name, s.Conns)
}

// num is a number, or a dash where there is none.
func num(v float64, digits int) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// span is a median with its spread, or an estimate with its margin.
func span(s stats.Summary, digits int) string {
	if s.N == 0 {
		return "–"
	}
	if s.Margin > 0 {
		return num(s.Median, digits) + " ± " + num(s.Margin, digits)
	}
	if s.N == 1 {
		return num(s.Median, digits)
	}
	return fmt.Sprintf("%s (%s to %s)", num(s.Median, digits), num(s.Min, digits), num(s.Max, digits))
}

// Markdown writes the whole report.
func (r *Run) Markdown(w io.Writer) error {
	var p page
	p.line("# Bench of %s\n", r.Commit)
	p.line("%s, %d cores of %s, %.0f GiB, Linux %s.", r.Date.UTC().Format("2 January 2006 15:04 UTC"), r.Machine.Cores, r.Machine.CPU,
		float64(r.Machine.Memory)/(1<<30), r.Machine.Kernel)
	var versions []string
	for _, v := range r.Versions {
		versions = append(versions, v.Name+" "+v.Version)
	}
	p.line("%s.\n", strings.Join(versions, " · "))
	p.line("%s\n", r.method())
	r.failures(&p)
	r.budgets(&p)
	for i := range r.Scenarios {
		r.scenario(&p, &r.Scenarios[i])
	}
	p.line("## Notes\n")
	for _, n := range r.Notes {
		p.line("- %s", n)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

func (r *Run) method() string {
	s := r.Settings
	return fmt.Sprintf("Medians of %d interleaved rounds of %v each (least to greatest in brackets), after %v of warm-up that is left out. "+
		"CPU is that of the gateway's whole process tree from the operating system's accounting, over the window in which the requests were counted; "+
		"ratios are taken pair by pair: %s and the rival one right after the other, in turn the one and the other first. "+
		"Latency is from an open loop at half of the saturation that the gateway reached in this run, counted from when a request was due; "+
		"what is added is over the origin alone at the same rate, measured right beside it. %s",
		s.Rounds, s.Window, s.Warm, s.Base, s.Pinning)
}

func (r *Run) failures(p *page) {
	failed := r.Failures()
	if len(failed) == 0 {
		return
	}
	p.line("## Failed\n")
	for _, f := range failed {
		p.line("- %s", strings.ReplaceAll(f, "\n", "\n  "))
	}
	p.line("")
}

// judged is a budget with what was measured of it.
type judged struct {
	Budget
	title string
	m     stats.Summary
}

// judge finds the budgets that were measured.
func (r *Run) judge() []judged {
	var out []judged
	for _, b := range Budgets() {
		for i := range r.Scenarios {
			s := &r.Scenarios[i]
			if s.Name != b.Scenario || s.Conns != b.Conns || r.Settings.Base != "sluice" {
				continue
			}
			if m := b.Measure(s, r.Settings.Base); m.N > 0 {
				out = append(out, judged{b, s.Title(), m})
			}
		}
	}
	return out
}

// Verdicts are the budgets in a line each.
func (r *Run) Verdicts() []string {
	var out []string
	for _, j := range r.judge() {
		out = append(out, fmt.Sprintf("%s: %s: %s%s, must be ≤ %s: %s", j.title, j.What, span(j.m, j.Digits), j.Unit, trim(j.Must),
			strings.ReplaceAll(j.Verdict(j.m.Median), "*", "")))
	}
	return out
}

func (r *Run) budgets(p *page) {
	list := r.judge()
	if len(list) == 0 {
		return
	}
	p.line("## Budgets\n")
	p.head("what", "must be", "aim", "measured", "verdict")
	profiled := false
	for _, j := range list {
		p.row(j.title+": "+j.What, "≤ "+trim(j.Must)+j.Unit, trim(j.Aim)+j.Unit, span(j.m, j.Digits)+j.Unit, j.Verdict(j.m.Median))
		profiled = profiled || j.m.Margin > 0
	}
	p.line("")
	if profiled {
		p.line("What a limit adds is judged by what the limiter takes in the gateway's own CPU profile. " +
			"The difference of the same gateway with the limit and without stands beside it in the scenario's table: " +
			"at saturation chance decides how much work each wake-up finds, and that moves the difference by more than the limit.\n")
	}
}

func trim(v float64) string { return fmt.Sprintf("%g", v) }

func (r *Run) scenario(p *page, s *Scenario) {
	p.line("## %s\n", s.Title())
	p.line("%s\n", s.About)
	base := r.Settings.Base
	p.head("gateway", "CPU µs per request", "user + system", base+" over it", "requests/s", "resident MiB", "allocations")
	for i := range s.Gateways {
		g := &s.Gateways[i]
		if why := g.absent(); why != "" {
			p.row(g.Name, why, "", "", "", "", "")
			continue
		}
		compared := "1"
		if g.Name != base {
			compared = span(stats.Ratios(s.CPU[g.Name]), 2)
		}
		heap := "–"
		if a := g.over(allocs); a.Min >= 0 {
			heap = num(a.Median, 2)
		}
		p.row(g.Name,
			span(g.over(Closed.CPU), 1),
			num(g.over(func(c Closed) float64 { return c.User }).Median, 1)+" + "+num(g.over(func(c Closed) float64 { return c.System }).Median, 1),
			compared,
			span(g.over(func(c Closed) float64 { return c.Rate }), 0),
			num(g.over(func(c Closed) float64 { return float64(c.Resident) / (1 << 20) }).Median, 0),
			heap)
	}
	p.line("")
	s.limits(p)
	s.latency(p)
}

// limits tells what the rate limit of a scenario that has one adds.
func (s *Scenario) limits(p *page) {
	first := true
	for i := range s.Gateways {
		g := &s.Gateways[i]
		if g.absent() != "" || len(g.Limit) == 0 {
			continue
		}
		if first {
			p.head("gateway", "CPU µs with the limit", "without", "difference", "the limiter takes, by profile", "CPU of Redis, µs per request")
			first = false
		}
		with, without := make([]float64, len(g.Limit)), make([]float64, len(g.Limit))
		for i, pair := range g.Limit {
			with[i], without[i] = pair.A, pair.B
		}
		shared := "–"
		if store := g.over(func(c Closed) float64 { return c.Store }); store.Max > 0 {
			shared = span(store, 1)
		}
		profiled := "–"
		if len(g.Profiles) > 0 {
			profiled = span(g.Attribution().All, 2)
		}
		p.row(g.Name, span(stats.Of(with), 1), span(stats.Of(without), 1), span(stats.Differences(g.Limit), 2), profiled, shared)
	}
	if first {
		return
	}
	p.line("")
	for i := range s.Gateways {
		if g := &s.Gateways[i]; g.absent() == "" && len(g.Profiles) > 0 {
			p.line("%s\n", g.caption())
		}
	}
}

// caption explains what the profiles say.
func (g *Gateway) caption() string {
	a := g.Attribution()
	return fmt.Sprintf("By profile: %s took %.1f µs of CPU per request under full load, and in %.0f s of its CPU samples the limiter was on the stack for %s µs of that: "+
		"%s µs while a request was served, %s µs in goroutines of its own, system calls to Redis included. (± is chance of sampling, 19 times in 20.) "+
		"Left out is what the limiter causes elsewhere: the goroutines' scheduling and the collector, which are %s µs in all, with the limit or not, and say not for whom they work; "+
		"more wake-ups elsewhere where requests had to wait for Redis; others' cache misses; and the writing of two more response fields, some 80 bytes among the other fields'.",
		g.Name, a.CPU, a.Seconds, span(a.All, 2), span(a.Request, 2), span(a.Beside, 2), span(a.Nobody, 1))
}

func (g *Gateway) absent() string {
	switch {
	case g.Lacks != "":
		return g.Lacks
	case g.Failed != "":
		return "failed"
	case len(g.Closed) == 0:
		return "not measured"
	}
	return ""
}

func (s *Scenario) latency(p *page) {
	quantiles := []struct {
		of     func(Latency) float64
		digits int
	}{
		{func(l Latency) float64 { return l.P50 }, 3},
		{func(l Latency) float64 { return l.P99 }, 2},
		{func(l Latency) float64 { return l.P999 }, 2},
	}
	first := true
	for i := range s.Gateways {
		g := &s.Gateways[i]
		if g.absent() != "" || len(g.Open) == 0 {
			continue
		}
		if first {
			p.head("gateway", "at requests/s", "p50 ms", "p99 ms", "p99.9 ms", "added p50", "added p99", "added p99.9", "CPU µs at this rate")
			first = false
		}
		cells := []string{g.Name, num(g.at(func(o Open) float64 { return o.Rate }).Median, 0)}
		for _, q := range quantiles {
			cells = append(cells, num(g.at(func(o Open) float64 { return q.of(o.Latency) }).Median, q.digits))
		}
		for _, q := range quantiles {
			cells = append(cells, span(g.at(func(o Open) float64 { return q.of(o.Latency.Minus(o.Alone)) }), q.digits))
		}
		p.row(append(cells, num(g.at(func(o Open) float64 { return o.CPU }).Median, 1))...)
	}
	if !first {
		p.line("")
	}
}

// Short writes the one table that the README shows: CPU per request, and in
// brackets how much of the base's that is.
func (r *Run) Short(w io.Writer) error {
	var p page
	var names []string
	for _, s := range r.Scenarios {
		for _, g := range s.Gateways {
			if !slices.Contains(names, g.Name) {
				names = append(names, g.Name)
			}
		}
	}
	p.head(append([]string{"CPU µs per request"}, names...)...)
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		cells := []string{s.Title()}
		for _, name := range names {
			cells = append(cells, s.short(name, r.Settings.Base))
		}
		p.row(cells...)
	}
	for i := range r.Scenarios {
		if line := r.Scenarios[i].shortLimit(r.Settings.Base); line != "" {
			p.line("\n%s", line)
		}
	}
	p.line("\nIn brackets: %s's over it, the median of %d pairs. %d cores of %s; commit %s; bench/results has everything.",
		r.Settings.Base, r.Settings.Rounds, r.Machine.Cores, r.Machine.CPU, r.Commit)
	_, err := io.WriteString(w, p.String())
	return err
}

// shortLimit says what the base's limiter takes; empty: it was not profiled.
func (s *Scenario) shortLimit(base string) string {
	g := s.gateway(base)
	if g == nil || len(g.Profiles) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: the limiter takes %s µs by %s's own profile; with and without it differ by %s µs.",
		s.Title(), span(g.Attribution().All, 2), base, span(stats.Differences(g.Limit), 2))
}

func (s *Scenario) short(name, base string) string {
	g := s.gateway(name)
	if g == nil {
		return "–"
	}
	cpu := num(g.over(Closed.CPU).Median, 1)
	if name == base {
		return cpu
	}
	return cpu + " (" + num(stats.Ratios(s.CPU[name]).Median, 2) + ")"
}

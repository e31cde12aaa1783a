// Limitsim plays rate limits at internet scale: 10 to 500 gateways, a million
// clients with Zipf traffic, a store 0.5 to 10 ms away, which fails, and gateways
// that crash; with the real leases of internal/limit/meter, in fake time. It
// writes tables and plots of what the store has to do and how wrong the decisions
// are, beside the exact limit on the same trace.
//
//	cd bench && go run ./limitsim           about two minutes; writes ../docs/limits-model.md and ../docs/img/limits-*.svg
//	cd bench && go run ./limitsim -quick    seconds; for tests
//	cd bench && go run ./limitsim -real     five minutes: four real gateways and a Redis; writes limitsim/real.json and the
//	                                        part of the document that has them beside the model
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	quick := flag.Bool("quick", false, "play small and short scenarios")
	real := flag.Bool("real", false, "measure four real gateways, and write only what the document says of them")
	out := flag.String("out", filepath.Join("..", "docs"), "the `folder` to write limits-model.md and img/limits-*.svg to")
	flag.Parse()
	err := error(nil)
	if *real {
		err = runReal(*out)
	} else {
		err = run(*quick, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "limitsim:", err)
		os.Exit(1)
	}
}

// runReal measures, keeps the figures, and puts them into the document.
func runReal(out string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := measure(ctx)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("limitsim", "real.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	section, err := m.section()
	if err != nil {
		return err
	}
	path := filepath.Join(out, "limits-model.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(withSection(string(doc), section)), 0o644)
}

// withSection replaces the document's last part.
func withSection(doc, section string) string {
	doc, _, _ = strings.Cut(doc, besideHead)
	return strings.TrimRight(doc, "\n") + "\n\n" + section
}

func run(quick bool, out string) error {
	p, err := playAll(scenarios(quick))
	if err != nil {
		return err
	}
	m, err := read(kept)
	if err != nil {
		return err
	}
	if p.beside, err = m.section(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(out, "img"), 0o755); err != nil {
		return err
	}
	for name, text := range p.files() {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// plan is all scenarios, by what they show; results has one for each.
type plan struct {
	scale, trips, faults []scenario
}

type played struct {
	scale, trips, faults []*result
	took                 time.Duration
	beside               string // the section about the real run
}

// scenarios has the traffic at 16 times the limit: the busiest client of a million
// then asks for twice its limit, the second one for its limit.
func scenarios(quick bool) plan {
	base := scenario{
		gateways: 50, limit: 10_000, slack: 0.05, trip: 2 * time.Millisecond,
		length: 10 * time.Second, clients: 1_000_000, seed: 1,
	}
	if quick {
		base.gateways, base.limit, base.length, base.clients = 10, 2000, 4*time.Second, 10_000
	}
	with := func(name string, f func(*scenario)) scenario {
		s := base
		s.name = name
		f(&s)
		s.rate = 16 * float64(s.limit)
		return s
	}
	size := func(gateways int, limit int64, slack float64, seconds float64) scenario {
		return with(fmt.Sprintf("%d gateways", gateways), func(s *scenario) {
			s.gateways, s.limit, s.slack = gateways, limit, slack
			s.length = time.Duration(seconds * float64(time.Second))
		})
	}
	var p plan
	if quick {
		p.scale = []scenario{size(5, 2000, 0.05, 2), size(10, 2000, 0.05, 2), size(10, 200, 0.05, 2)}
	} else {
		p.scale = []scenario{
			size(10, 10_000, 0.01, 10), size(10, 10_000, 0.05, 10), size(50, 10_000, 0.05, 10), size(100, 20_000, 0.05, 6),
			size(200, 50_000, 0.05, 3), size(500, 100_000, 0.05, 2), size(500, 10_000, 0.05, 6),
		}
	}
	for _, d := range []time.Duration{500 * time.Microsecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond} {
		p.trips = append(p.trips, with(d.String(), func(s *scenario) { s.trip = d; s.length /= 2 }))
	}
	third := base.length / 3
	p.faults = []scenario{
		with("nothing fails", func(*scenario) {}),
		with("the store is away", func(s *scenario) { s.away, s.back = third, 2*third }),
		with("a tenth of the gateways is killed", func(s *scenario) { s.crash = third }),
	}
	return p
}

func playAll(p plan) (*played, error) {
	begin := time.Now()
	all := &played{}
	for _, part := range []struct {
		in  []scenario
		out *[]*result
	}{{p.scale, &all.scale}, {p.trips, &all.trips}, {p.faults, &all.faults}} {
		for _, s := range part.in {
			r, err := play(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Printf("%-36s %9d requests, %8.0f calls/s, over %+.2f%%, falsely refused %.2f%%\n",
				s.name, r.Requests, r.callsPerSecond(), 100*r.Over, 100*r.False)
			*part.out = append(*part.out, r)
		}
	}
	all.took = time.Since(begin).Round(time.Second)
	return all, nil
}

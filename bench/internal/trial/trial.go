//go:build linux

// Package trial runs the bench: it starts an origin and the gateways, puts load on
// them in turn, and writes down what each cost.
//
// For every scenario and number of connections all gateways are started and run
// side by side, idle but for the one whose turn it is. A first window of each,
// left out of the figures, warms it up and gives a first idea of its saturation.
// Then come the rounds. In each, the base and every rival are measured one right after the
// other, in odd rounds the rival first; then latency, at half of the gateway's
// saturation, with the origin alone at the same rate before or after it.
package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
	"github.com/sluice-gateway/sluice/bench/internal/load"
	"github.com/sluice-gateway/sluice/bench/internal/report"
	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

// Bench is what to measure and how.
type Bench struct {
	Gateways  []gateways.Gateway // prepared; the first is the base
	Scenarios []Scenario
	Nginx     string // path, for the origin
	Redis     string // path, for limits that are shared; needed by some scenarios only
	Rounds    int
	Warm      time.Duration
	Window    time.Duration
	Profile   time.Duration // how long the base's limit is profiled; 0: not at all
	Threads   int           // of the load
	Pin       []int         // cores of the gateways; empty: all cores are shared by all
	Cores     int           // of the machine
	Say       func(format string, args ...any)

	dir      string
	tls      *gateways.Files
	spawn    *spawner
	from     *origin
	loadCPUs []int // cores of load and origin; empty: all
}

// Lasts is about how long the measurements take, without building and starting.
func (b *Bench) Lasts() time.Duration {
	var sum time.Duration
	window := b.Warm + b.Window
	for _, sc := range b.Scenarios {
		latency := b.Rounds
		if !sc.Budgeted {
			latency = min(latency, latencyRounds)
		}
		n := len(b.Gateways)
		closed := b.Rounds * max(1, 2*(n-1))
		if sc.Limit != "" {
			closed += n*(1+2*b.Rounds) + 2*b.Rounds*(basePairs-1)
		}
		if sc.Attributed() {
			sum += time.Duration(len(sc.Conns)) * b.Profile
		}
		one := time.Duration(n)*(max(b.Warm, time.Second)+b.Window) + time.Duration(closed+2*latency*n)*window
		sum += time.Duration(len(sc.Conns)) * one
	}
	return sum
}

// Rounds whose latency is measured in scenarios that have no budget for it.
const latencyRounds = 3

// Run measures everything. What failed for one gateway stands in its result; an
// error is what ended the run.
func (b *Bench) Run(ctx context.Context) (scenarios []report.Scenario, err error) {
	b.dir, err = os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	for cpu := range b.Cores {
		if len(b.Pin) > 0 && !slices.Contains(b.Pin, cpu) {
			b.loadCPUs = append(b.loadCPUs, cpu)
		}
	}
	if b.tls, err = certificate(b.dir); err != nil {
		return nil, err
	}
	b.spawn = newSpawner()
	defer b.spawn.close()
	dir, err := b.folder("origin")
	if err != nil {
		return nil, err
	}
	if b.from, err = startOrigin(ctx, b.spawn, b.Nginx, dir, b.loadCPUs); err != nil {
		return nil, err
	}
	defer b.from.stop()
	for i := range b.Scenarios {
		for _, conns := range b.Scenarios[i].Conns {
			done, err := b.scenario(ctx, &b.Scenarios[i], conns)
			if err != nil {
				return scenarios, err
			}
			scenarios = append(scenarios, done)
		}
	}
	return scenarios, nil
}

// folder makes a new folder.
func (b *Bench) folder(name string) (string, error) {
	return os.MkdirTemp(b.dir, name+"-")
}

// scenario measures one scenario with so many connections.
func (b *Bench) scenario(ctx context.Context, sc *Scenario, conns int) (report.Scenario, error) {
	out := report.Scenario{Name: sc.Name, About: sc.About, Conns: conns, Streams: sc.Streams, CPU: map[string][]stats.Pair{}}
	b.Say("%s", out.Title())
	list := requests(sc)
	var subjects []*subject
	defer func() {
		for _, s := range subjects {
			s.end()
		}
	}()
	store, addr, err := b.store(ctx, sc)
	if err != nil {
		return out, err
	}
	if store != nil {
		defer store.stop()
	}
	for _, g := range b.Gateways {
		s, err := b.start(ctx, sc, g, conns, list, limited(sc, addr))
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		subjects = append(subjects, s)
		b.note(s, err)
		if sc.Limit == "" || s.absent() {
			continue
		}
		if err := b.bare(ctx, sc, g, s, list); err != nil {
			return out, err
		}
		if s.shares {
			s.store = store
		}
	}
	if err := b.warm(ctx, subjects); err != nil {
		return out, err
	}
	for round := range b.Rounds {
		if err := b.round(ctx, sc, &out, subjects, round); err != nil {
			return out, err
		}
	}
	if err := b.attribute(ctx, subjects[0]); err != nil {
		return out, err
	}
	for _, s := range subjects {
		out.Gateways = append(out.Gateways, s.result)
	}
	return out, nil
}

// warm runs a first window of each subject.
func (b *Bench) warm(ctx context.Context, subjects []*subject) error {
	for _, s := range subjects {
		for _, m := range []*subject{s, s.bare} {
			if m == nil || s.absent() {
				continue
			}
			c, err := b.closed(ctx, m, max(b.Warm, time.Second))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.note(s, err)
			m.saw(c)
			b.Say("  %-8s warm-up: %.0f requests/s, %.1f µs", m.result.Name, c.Rate, c.CPU())
		}
	}
	return nil
}

// note writes down what went wrong for a subject.
func (b *Bench) note(s *subject, err error) {
	if err != nil {
		s.result.Failed = err.Error()
		b.Say("  %-8s FAILED: %v", s.result.Name, err)
	}
}

// saw takes a closed window into the subject's saturation, the median of all so
// far: one disturbed window does not set the rate of the open loops.
func (s *subject) saw(c report.Closed) {
	s.rates = append(s.rates, c.Rate)
	s.rate = max(1, stats.Of(s.rates).Median/2)
}

func (s *subject) absent() bool { return s.result.Lacks != "" || s.result.Failed != "" }

// turns says who is measured after whom in a round: the base, which is the first,
// and each rival in turn, in odd rounds the rival first. Without rivals or without
// the base it is each by itself.
func turns(subjects []*subject, round int) [][]*subject {
	var present []*subject
	for _, s := range subjects {
		if !s.absent() {
			present = append(present, s)
		}
	}
	var out [][]*subject
	if subjects[0].absent() || len(present) == 1 {
		for _, s := range present {
			out = append(out, []*subject{s})
		}
		return out
	}
	for _, rival := range present[1:] {
		pair := []*subject{present[0], rival}
		if round%2 == 1 {
			slices.Reverse(pair)
		}
		out = append(out, pair)
	}
	return out
}

// round measures everybody once.
func (b *Bench) round(ctx context.Context, sc *Scenario, out *report.Scenario, subjects []*subject, round int) error {
	base := subjects[0]
	for _, pair := range turns(subjects, round) {
		s := pair[0]
		if s == base {
			s = pair[len(pair)-1]
		}
		got := map[*subject]float64{}
		for _, m := range pair {
			if m.absent() {
				continue // failed earlier in this round
			}
			c, err := b.closed(ctx, m, b.Warm)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if b.note(m, err); err != nil {
				continue
			}
			m.result.Closed = append(m.result.Closed, c)
			m.saw(c)
			got[m] = c.CPU()
			b.Say("  round %d  %-8s %7.1f µs  %7.0f requests/s  load %.1f µs  origin %.1f µs", round+1, m.result.Name, c.CPU(), c.Rate, c.LoadCPU, c.Origin)
		}
		if len(got) == 2 {
			out.CPU[s.result.Name] = append(out.CPU[s.result.Name], stats.Pair{A: got[base], B: got[s]})
		}
	}
	if err := b.adds(ctx, subjects, round); err != nil {
		return err
	}
	if !sc.Budgeted && round >= latencyRounds {
		return nil
	}
	for _, s := range subjects {
		if s.absent() {
			continue
		}
		o, err := b.open(ctx, s, round%2 == 1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if b.note(s, err); err == nil {
			s.result.Open = append(s.result.Open, o)
			more := o.Latency.Minus(o.Alone)
			b.Say("  round %d  %-8s at %.0f/s: added p50 %.3f  p99 %.3f  p99.9 %.3f ms", round+1, s.result.Name, o.Rate, more.P50, more.P99, more.P999)
		}
	}
	return nil
}

// How long a gateway may take to answer; some compile a configuration of 10,000
// routes.
const startPatience = 3 * time.Minute

// start configures and starts a gateway and sees to it that it answers rightly.
// The subject is there also when there is an error.
func (b *Bench) start(ctx context.Context, sc *Scenario, g gateways.Gateway, conns int, list []*load.Request, limit *gateways.Limit) (*subject, error) {
	s := &subject{conns: conns, cached: sc.Cached, result: report.Gateway{Name: g.Name()}}
	var addr string
	s.origin, addr = b.from.of(sc)
	s.alone = plain(sc, addr, list)
	setup := gateways.Setup{
		Cores: b.Cores, Origin: addr, Routes: sc.routes(), Large: sc.Large, HTTP2: sc.Streams > 0, Limit: limit, Cache: sc.Cached,
		Profile: b.Profile > 0 && sc.Attributed(),
	}
	if len(b.Pin) > 0 {
		setup.Cores = len(b.Pin)
	}
	if sc.Answer {
		setup.Answer = answer(usualAnswer)
	}
	if sc.Upload {
		setup.MaxBody = 2 * uploadSize
	}
	if sc.TLS {
		setup.TLS = b.tls
	}
	if s.result.Lacks = g.Lacks(&setup); s.result.Lacks != "" {
		return s, nil
	}
	// Another program may take a free port before the gateway does.
	for try := 0; ; try++ {
		err := b.launch(ctx, sc, g, &setup, s)
		if err == nil {
			s.target = target(sc, setup.Listen, list)
		}
		if !errors.Is(err, errTaken) || try == 2 {
			return s, err
		}
		b.Say("  %-8s found its port taken, once more", g.Name())
	}
}

var errTaken = errors.New("port was taken")

func (b *Bench) launch(ctx context.Context, sc *Scenario, g gateways.Gateway, setup *gateways.Setup, s *subject) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	setup.Listen, setup.Admin = ports[0], ports[1]
	if setup.Dir, err = b.folder(g.Name()); err != nil {
		return err
	}
	command, err := g.Write(setup)
	if err != nil {
		return err
	}
	p, err := b.spawn.run(g.Name(), setup.Dir, command, b.Pin)
	if err != nil {
		return err
	}
	if err := p.await(ctx, startPatience, func() error { return probe(sc, setup.Listen) }); err != nil {
		p.stop()
		if p.out.taken() {
			err = errors.Join(errTaken, err)
		}
		return err
	}
	s.shares, s.profile, s.limiter = command.Shares, command.Profile, command.Limiter
	if s.metrics = command.Metrics; s.metrics != "" {
		if err := s.calibrateScrape(); err != nil {
			p.stop()
			return fmt.Errorf("metrics of %s: %w", g.Name(), err)
		}
	}
	s.process = p
	return nil
}

// certificate makes a key pair for the gateways that terminate TLS.
func certificate(dir string) (*gateways.Files, error) {
	cert, key, err := selfSigned(host, time.Now())
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	f := &gateways.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Both: filepath.Join(dir, "both.pem")}
	for path, text := range map[string][]byte{f.Cert: cert, f.Key: key, f.Both: slices.Concat(cert, key)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return f, nil
}

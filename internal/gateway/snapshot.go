package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/router"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

// Snapshot is one configuration, compiled. It never changes: a reload builds
// another and swaps the pointer. An exchange pins the snapshot it began with, so
// it ends under the rules it began under; what the snapshot holds is given back
// when the last of them has left.
type Snapshot struct {
	file      *config.File
	table     *router.Table
	routes    []*route
	upstreams []*upstream.Upstream
	trusted   proxies
	maxBody   int64
	// lenient is what any route keeps in a path. A path is read with it before the
	// route is known, and read again with the route's own options where they differ.
	lenient router.PathOptions

	pins    pins
	retired atomic.Bool
	once    sync.Once
	release []func() error
	closed  chan struct{}
	log     *slog.Logger
}

// compile builds a snapshot. The problems are in file order; with an error among
// them the snapshot is nil and nothing is held.
func (g *Gateway) compile(f *config.File) (*Snapshot, config.Diagnostics) {
	b := &builder{g: g, file: f, reported: map[config.Diagnostic]bool{}, s: &Snapshot{
		file: f, trusted: f.TrustedProxies, maxBody: f.Limits.MaxBodySize.Bytes, closed: make(chan struct{}), log: g.log,
	}}
	upstreams := b.upstreams()
	all := place(f)
	b.routeTable(all)
	for i, p := range all {
		b.s.routes = append(b.s.routes, b.route(i, p, upstreams))
	}
	if b.found.Err() != nil || unrouted(f) {
		b.faults(limit.Check(f), "") // of routes that are none, there was no filter to make
	}
	b.found.Sort()
	if b.found.Err() != nil {
		b.s.close()
		return nil, b.found
	}
	return b.s, b.found
}

type builder struct {
	g     *Gateway
	file  *config.File
	s     *Snapshot
	found config.Diagnostics
	// common is what filters of all routes share, see policy.Common.
	common   sync.Map
	reported map[config.Diagnostic]bool // faults of filters
}

func (b *builder) problem(path, code, format string, args ...any) {
	b.found = append(b.found, b.file.Diagnose(path, code, format, args...))
}

// upstreams acquires every upstream, kept from the running snapshot where its
// block is unchanged.
func (b *builder) upstreams() map[string]*upstream.Upstream {
	made := make(map[string]*upstream.Upstream, len(b.file.Upstreams))
	for name, c := range b.file.Upstreams {
		key, err := upstreamKey(name, c, b.g.env.Dir)
		if err != nil {
			b.problem("upstreams."+name, "config.upstream", "%v", err)
			continue
		}
		u, err := b.g.upstreams.acquire(key, func() (*upstream.Upstream, error) {
			return upstream.New(name, c, b.g.env)
		})
		if err != nil {
			b.problem("upstreams."+name, "config.upstream", "%v", err)
			continue
		}
		b.s.release = append(b.s.release, func() error { return b.g.upstreams.release(key) })
		made[name] = u
		b.s.upstreams = append(b.s.upstreams, u)
	}
	return made
}

// upstreamKey is equal for blocks that would behave the same: the same settings
// and the same content of the files they name.
func upstreamKey(name string, c *config.Upstream, dir string) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	h.Write(text)
	for _, file := range []string{c.TLS.CA, c.TLS.Cert, c.TLS.Key} {
		if file == "" {
			continue
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		h.Write(content)
	}
	return name + " " + hex.EncodeToString(h.Sum(nil)), nil
}

// routeTable builds the router and reports patterns that are wrong or clash.
func (b *builder) routeTable(all []placed) {
	rules := make([]router.Route, 0, len(all))
	for i, p := range all {
		rules = append(rules, p.rules(i)...)
	}
	table, conflicts := router.New(rules)
	for _, c := range conflicts {
		at := all[c.A].at
		if c.B < 0 {
			b.problem(b.field(all[c.A], c.Field), "config.bad_route", "%s", c.Reason)
			continue
		}
		other := all[c.B].at
		if name := all[c.B].route.Name; name != "" {
			other += " (" + name + ")"
		}
		b.problem(at, "config.conflict", "matches the same requests as %s, for example %s; make one more specific, or remove it", other, c.Example)
	}
	b.s.table = table
}

// field is where the config has what the router calls by field.
func (b *builder) field(p placed, field string) string {
	name, rest, _ := strings.Cut(field, "[")
	switch name {
	case "hosts", "listeners":
		api, _, _ := strings.Cut(p.at, ".routes")
		if rest != "" {
			return api + "." + name + "[" + rest
		}
		return api + "." + name
	}
	if strings.HasPrefix(field, "headers.") || strings.HasPrefix(field, "query.") {
		return p.at + ".when." + field
	}
	return p.at + "." + field
}

// route compiles one route; what is wrong with it is reported.
func (b *builder) route(i int, p placed, upstreams map[string]*upstream.Upstream) *route {
	pattern, strip := p.pattern()
	r := &route{id: i, source: p.route, at: p.at, strip: strip, maxBody: b.s.maxBody, timeout: b.file.Limits.RequestTimeout.Duration}
	r.info = exchange.Route{Name: p.route.Name, Pattern: pattern}
	if p.api != nil {
		r.info.API, r.info.Stage = p.api.Name, p.api.Stage
		r.hosts, r.listeners = p.api.Hosts, p.api.Listeners
	}
	if r.info.Name == "" {
		r.info.Name = p.at
	}
	if t := p.route.Timeout; t != nil {
		r.timeout = t.Duration
	}
	if m := p.route.MaxBodySize; m != nil {
		r.maxBody = m.Bytes
	}
	r.paths = router.PathOptions{
		KeepParameters:   p.route.PathParameters == "keep",
		KeepEncodedSlash: p.route.EncodedSlash == "keep",
	}
	b.s.lenient.KeepParameters = b.s.lenient.KeepParameters || r.paths.KeepParameters
	b.s.lenient.KeepEncodedSlash = b.s.lenient.KeepEncodedSlash || r.paths.KeepEncodedSlash
	r.meter = b.g.telemetry.Route(r.info.API, r.info.Name)
	b.s.release = append(b.s.release, func() error { r.meter.Release(); return nil })
	if !p.own {
		b.targets(r, p, upstreams)
	}
	if q := p.route.Request; q != nil && q.Path != "" {
		names, err := router.ParamNames(pattern)
		if err != nil {
			return r // the router's table has reported the pattern
		}
		t, err := parsePathTemplate(q.Path, names)
		if err != nil {
			b.problem(p.at+".request.path", "config.bad_path", "%v", err)
		}
		r.rewrite = t
	}
	chain, err := policy.Compile(b.g.specs, p.route, &policy.Env{
		Log: b.g.log, File: b.file, Route: r.info, At: p.at, Common: &b.common,
		Buffer: b.g.memory.buffer,
		Again:  func(x *exchange.Exchange, before func(*exchange.Exchange) bool) { b.g.again(r, x, before) },
	}, func(filter string) *telemetry.Filter {
		m := b.g.telemetry.Filter(r.info.API, r.info.Name, filter)
		b.s.release = append(b.s.release, func() error { m.Release(); return nil })
		return m
	})
	if err != nil {
		b.faults(err, p.at)
		return r
	}
	r.chain = chain
	b.s.release = append(b.s.release, chain.Close)
	return r
}

func (b *builder) targets(r *route, p placed, upstreams map[string]*upstream.Upstream) {
	sum := 0
	for i, w := range p.route.Upstream {
		weight := w.Weight
		if weight == 0 && len(p.route.Upstream) == 1 {
			weight = 1
		}
		u, ok := upstreams[w.Name]
		switch {
		case b.file.Upstreams[w.Name] == nil:
			b.problem(fmt.Sprintf("%s.upstream[%d]", p.at, i), "config.unknown_reference", "there is no upstream %q", w.Name)
			continue
		case !ok || weight == 0:
			continue
		}
		sum += weight
		r.targets.upstreams = append(r.targets.upstreams, u)
		r.targets.ends = append(r.targets.ends, sum)
	}
	if len(p.route.Upstream) == 0 {
		b.problem(p.at, "config.missing", "the route has no upstream; name one under `upstream`")
	} else if sum == 0 && b.found.Err() == nil {
		b.problem(p.at+".upstream", "config.bad_value", "all weights are 0; give at least one upstream a share")
	}
}

// retire marks a snapshot that is no longer current. It closes when, and as soon
// as, nobody uses it.
func (s *Snapshot) retire() {
	s.retired.Store(true)
	s.settle()
}

// leave ends an exchange's use.
func (s *Snapshot) leave(shard uint32) {
	s.pins.leave(shard)
	if s.retired.Load() {
		s.settle()
	}
}

// meterOf is the counter of the route that x was given, nil without one.
func (s *Snapshot) meterOf(x *exchange.Exchange) *telemetry.Route {
	if s == nil || x.Route == nil {
		return nil
	}
	return s.routes[x.RouteID].meter
}

func (s *Snapshot) settle() {
	if s.pins.idle() {
		s.once.Do(func() { go s.close() }) // not on the exchange that happens to be the last
	}
}

func (s *Snapshot) close() {
	for _, release := range s.release {
		if err := release(); err != nil {
			s.log.Warn("closing what an old configuration held", "error", err)
		}
	}
	close(s.closed)
}

// allow is the value of Allow.
func allow(methods []string) []byte { return []byte(strings.Join(methods, ", ")) }

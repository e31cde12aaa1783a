//go:build linux

package trial

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
	"github.com/sluice-gateway/sluice/bench/internal/load"
	"github.com/sluice-gateway/sluice/bench/internal/proc"
	"github.com/sluice-gateway/sluice/bench/internal/report"
	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

// subject is a running gateway, or the origin alone, with the load for it.
type subject struct {
	*process
	target  load.Target
	conns   int
	metrics string      // host:port of its Prometheus metrics; empty: it has none
	scrape  float64     // heap allocations that reading them makes
	rates   []float64   // of the closed windows so far, requests per second
	rate    float64     // half of their median
	origin  *process    // what serves it
	alone   load.Target // the same load, without the gateway
	cached  bool        // all answers come from its cache
	shares  bool        // its limit, through a Redis
	store   *process    // that Redis; nil: none
	bare    *subject    // the same gateway without the limit; nil: not measured
	profile string      // URL of its CPU profile; empty: it has none
	limiter *attribution.Part
	result  report.Gateway
}

// requests are a scenario's, in the form of the load.
func requests(sc *Scenario) []*load.Request {
	fields := []string{"User-Agent: sluice-bench", "Accept: application/json"}
	scheme := "http"
	if sc.TLS {
		scheme = "https"
	}
	if sc.Upload {
		// One body serves for all.
		return []*load.Request{load.NewRequest("POST", scheme, host, sinkRoute+"1", fields, make([]byte, uploadSize))}
	}
	var all []*load.Request
	paths := sc.paths()
	if sc.Limit != "" {
		for i := range limitKeys {
			all = append(all, load.NewRequest("GET", scheme, host, paths[i%len(paths)], append(fields, sc.credentials(i)...), nil))
		}
		return all
	}
	for _, p := range paths {
		all = append(all, load.NewRequest("GET", scheme, host, p, fields, nil))
	}
	return all
}

// expected is the body of every right answer.
func (s *Scenario) expected() string {
	switch {
	case s.Upload:
		return received(uploadSize)
	case s.Large:
		return answer(largeAnswer)
	}
	return answer(usualAnswer)
}

func target(sc *Scenario, addr string, list []*load.Request) load.Target {
	t := load.Target{
		Addr: netip.MustParseAddrPort(addr), Requests: list, Status: http.StatusOK, Length: int64(len(sc.expected())),
	}
	if sc.TLS {
		t.TLS = &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"http/1.1"}}
		if sc.Streams > 0 {
			t.TLS.NextProtos = []string{"h2"}
			t.Streams = sc.Streams
		}
	}
	return t
}

// plain is the same load on an origin, which speaks neither TLS nor HTTP/2. It
// has as many requests under way.
func plain(sc *Scenario, addr string, list []*load.Request) load.Target {
	bare := *sc
	bare.TLS, bare.Streams = false, 0
	return target(&bare, addr, list)
}

// probe asks for one answer and compares it, byte for byte; where a cache is measured,
// for a second one, which must be the first again.
func probe(sc *Scenario, addr string) error {
	first, err := ask(sc, addr)
	if err != nil || !sc.Cached {
		return err
	}
	second, err := ask(sc, addr)
	if err == nil && (first == "" || second != first) {
		err = fmt.Errorf("an answer that was to come from the cache has %s %q, the one before it %q", serialField, second, first)
	}
	return err
}

// ask is one request, and the check of its answer. It returns the answer's serial.
func ask(sc *Scenario, addr string) (serial string, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: host},
		ForceAttemptHTTP2: sc.Streams > 0, DisableKeepAlives: true,
	}}
	scheme, method := "http", "GET"
	if sc.TLS {
		scheme = "https"
	}
	var body io.Reader
	path := sc.paths()[0]
	if sc.Upload {
		method, body = "POST", strings.NewReader(strings.Repeat("x", uploadSize))
	}
	req, err := http.NewRequest(method, scheme+"://"+addr+path, body)
	if err != nil {
		return "", err
	}
	req.Host = host
	if sc.Limit != "" {
		for _, line := range sc.credentials(0) {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || string(got) != sc.expected() {
		return "", fmt.Errorf("%s %s: status %d, %d bytes that begin with %.200q; wanted 200 and %d bytes", method, path, resp.StatusCode, len(got), got, len(sc.expected()))
	}
	if sc.TLS && (resp.TLS.Version != tls.VersionTLS13 || resp.TLS.CipherSuite != tls.TLS_AES_128_GCM_SHA256) {
		return "", fmt.Errorf("chooses %s with %s, the others AES-128-GCM with TLS 1.3", tls.CipherSuiteName(resp.TLS.CipherSuite), tls.VersionName(resp.TLS.Version))
	}
	if sc.Streams > 0 && resp.ProtoMajor != 2 {
		return "", fmt.Errorf("answers in %s, HTTP/2 is wanted", resp.Proto)
	}
	return resp.Header.Get(serialField), nil
}

// mallocs reads the number of heap allocations since the start of a Go program
// from its metrics.
func mallocs(addr string) (float64, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return findMetric(resp.Body, "go_memstats_mallocs_total")
}

// findMetric reads a metric without labels from Prometheus's text format.
func findMetric(r io.Reader, name string) (float64, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("no metric %s", name), lines.Err())
}

// calibrateScrape finds what a reading of the metrics itself allocates: the median of
// several, since their buffers come from pools that the collector empties.
func (s *subject) calibrateScrape() error {
	var costs []float64
	var before float64
	for i := range 10 {
		after, err := mallocs(s.metrics)
		if err != nil {
			return err
		}
		if i > 0 {
			costs = append(costs, after-before)
		}
		before = after
	}
	s.scrape = stats.Of(costs).Median
	return nil
}

// reading is all counters at one moment.
type reading struct {
	at       time.Time
	count    load.Counters
	gateway  proc.Usage
	origin   proc.Usage
	store    proc.Usage
	load     time.Duration
	mallocs  float64
	atMalloc uint64 // requests when mallocs was read
	asked    uint64 // requests that the origin had; only where all come from a cache
}

// read takes a reading. The counters whose ratio matters most are read last and
// close together; the metrics, which take long, are read outside of that.
func (s *subject) read(run *load.Run, tree, origin []int, first bool) (reading, error) {
	var r reading
	var err error
	scrape := func() error {
		if s.metrics == "" {
			return nil
		}
		if r.mallocs, err = mallocs(s.metrics); err != nil {
			return err
		}
		r.atMalloc = run.Count().OK
		return nil
	}
	if s.cached {
		if r.asked, err = asked(s.alone.Addr.String()); err != nil {
			return r, err
		}
	}
	if first {
		if err := scrape(); err != nil {
			return r, err
		}
	}
	if r.origin, err = proc.CPU(origin); err != nil {
		return r, err
	}
	if s.store != nil {
		if r.store, err = proc.CPU([]int{s.store.cmd.Process.Pid}); err != nil {
			return r, err
		}
	}
	r.load = proc.Self()
	if r.gateway, err = proc.CPU(tree); err != nil {
		return r, err
	}
	r.count, r.at = run.Count(), time.Now()
	if !first {
		err = scrape()
	}
	return r, err
}

// closed measures one window of as many requests as the subject takes.
func (b *Bench) closed(ctx context.Context, s *subject, warm time.Duration) (report.Closed, error) {
	return b.saturate(ctx, s, warm, b.Window)
}

// saturate measures a window of a given length of as many requests as the subject takes.
func (b *Bench) saturate(ctx context.Context, s *subject, warm, window time.Duration) (report.Closed, error) {
	return b.observe(ctx, s, warm, window, sleepUntil)
}

// observe is saturate with something to do in the window, which ends when that is over.
func (b *Bench) observe(
	ctx context.Context, s *subject, warm, window time.Duration, during func(ctx context.Context, end time.Time) error,
) (report.Closed, error) {
	tree, err := proc.Tree(s.cmd.Process.Pid)
	if err != nil {
		return report.Closed{}, errors.Join(err, s.ended())
	}
	origin, err := proc.Tree(s.origin.cmd.Process.Pid)
	if err != nil {
		return report.Closed{}, errors.Join(err, s.origin.ended())
	}
	run, err := load.Start(s.target, load.Plan{
		Conns: s.conns, Threads: b.Threads, Warm: warm, Window: window, CPUs: b.loadCPUs,
	})
	if err != nil {
		return report.Closed{}, errors.Join(err, s.ended())
	}
	stopped := false
	defer func() {
		if !stopped {
			run.Stop()
		}
	}()
	if err := sleepUntil(ctx, run.WindowBegins()); err != nil {
		return report.Closed{}, err
	}
	before, err := s.read(run, tree, origin, true)
	if err != nil {
		return report.Closed{}, err
	}
	if err := during(ctx, before.at.Add(window)); err != nil {
		return report.Closed{}, err
	}
	after, err := s.read(run, tree, origin, false)
	if err != nil {
		return report.Closed{}, err
	}
	resident, err := proc.Resident(tree)
	if err != nil {
		return report.Closed{}, err
	}
	res := run.Stop()
	stopped = true
	if n := res.Errors.Total(); n > 0 {
		return report.Closed{}, errors.Join(fmt.Errorf("%d of %d requests failed: %s", n, n+res.OK, res.Errors), s.ended())
	}
	c := s.account(before, after)
	if c.Requests == 0 {
		return report.Closed{}, errors.New("no request was answered")
	}
	if err := s.allCached(before, after); err != nil {
		return report.Closed{}, err
	}
	c.Resident, c.Latency, c.Conns = resident, quantiles(res.Latency), res.Reconnects
	return c, nil
}

// account turns two readings into figures per request.
func (s *subject) account(before, after reading) report.Closed {
	n := after.count.OK - before.count.OK
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }
	user, system := after.gateway.Since(before.gateway).Split()
	c := report.Closed{
		Requests: n, Rate: float64(n) / after.at.Sub(before.at).Seconds(),
		User: per(user), System: per(system), LoadCPU: per(after.load - before.load),
		Origin: per(after.origin.Since(before.origin).Total), Store: per(after.store.Since(before.store).Total), Allocs: -1,
	}
	if s.metrics != "" && after.atMalloc > before.atMalloc {
		c.Allocs = max(0, after.mallocs-before.mallocs-s.scrape) / float64(after.atMalloc-before.atMalloc)
	}
	return c
}

func quantiles(h *hdrhistogram.Histogram) report.Latency {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
	return report.Latency{P50: at(50), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1e6}
}

// open measures a subject at its rate, and the origin alone at the same.
func (b *Bench) open(ctx context.Context, s *subject, aloneFirst bool) (report.Open, error) {
	o := report.Open{Rate: s.rate}
	gateway := func() error {
		tree, err := proc.Tree(s.cmd.Process.Pid)
		if err != nil {
			return errors.Join(err, s.ended())
		}
		before, err := proc.CPU(tree)
		if err != nil {
			return err
		}
		res, err := b.paced(ctx, s.target, s.conns, s.rate)
		if err != nil {
			return errors.Join(err, s.ended())
		}
		after, err := proc.CPU(tree)
		if err != nil {
			return err
		}
		o.Latency, o.Lag = quantiles(res.Latency), float64(res.Lag.ValueAtQuantile(99))/1e6
		o.CPU = float64(after.Since(before).Total.Nanoseconds()) / 1e3 / float64(res.OK)
		return nil
	}
	alone := func() error {
		res, err := b.paced(ctx, s.alone, s.conns*max(1, s.target.Streams), s.rate)
		if err != nil {
			return fmt.Errorf("origin alone: %w", err)
		}
		o.Alone = quantiles(res.Latency)
		return nil
	}
	steps := []func() error{gateway, alone}
	if aloneFirst {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// paced runs an open loop.
func (b *Bench) paced(ctx context.Context, t load.Target, conns int, rate float64) (load.Result, error) {
	res, err := load.Do(t, load.Plan{
		Conns: conns, Threads: b.Threads, Rate: rate, Warm: b.Warm, Window: b.Window, CPUs: b.loadCPUs,
	}, ctx.Done())
	switch {
	case err != nil:
		return res, err
	case ctx.Err() != nil:
		return res, ctx.Err()
	case res.Errors.Total() > 0:
		return res, fmt.Errorf("at %.0f requests/s: %d of %d failed: %s", rate, res.Errors.Total(), res.Errors.Total()+res.OK, res.Errors)
	case res.OK == 0 || res.Recorded == 0:
		return res, errors.New("no request was answered")
	}
	return res, nil
}

func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

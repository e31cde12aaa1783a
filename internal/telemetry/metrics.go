package telemetry

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Metrics are read when somebody scrapes: nothing here runs on the request path,
// and a scrape only loads counters.

// exchangeCodes is the number of exchange.Code values: they are consecutive and
// ClientGone is the last.
const exchangeCodes = int(exchange.ClientGone) + 1

// maxScrapes bounds the scrapes at work, each of which holds the whole answer in
// memory.
const maxScrapes = 4

// Emit gives one value and the values of the labels, in the order they were
// registered with.
type Emit func(value float64, labels ...string)

// RegisterGauge exposes values that read emits at every scrape, such as the
// connections of a listener. read must not block and must not emit the same
// labels twice; label values must come from the configuration or a fixed list.
// It panics when the name is taken or wrong: names are constants.
func (t *Telemetry) RegisterGauge(name, help string, labels []string, read func(Emit)) {
	t.register(prometheus.GaugeValue, name, help, labels, read)
}

// RegisterCounter is RegisterGauge for values that only grow.
func (t *Telemetry) RegisterCounter(name, help string, labels []string, read func(Emit)) {
	t.register(prometheus.CounterValue, name, help, labels, read)
}

func (t *Telemetry) register(kind prometheus.ValueType, name, help string, labels []string, read func(Emit)) {
	t.metrics.MustRegister(&reader{
		desc: prometheus.NewDesc(name, help, labels, nil), kind: kind, read: read,
	})
}

// RegisterHistogram exposes one histogram without labels.
func (t *Telemetry) RegisterHistogram(name, help string, h *Histogram) {
	t.metrics.MustRegister(&histogramReader{desc: prometheus.NewDesc(name, help, nil, nil), h: h})
}

// Handler serves the metrics in the format that the scraper asks for.
func (t *Telemetry) Handler() http.Handler { return t.scrape }

// reader exposes what a function emits.
type reader struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(Emit)
}

func (r *reader) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

func (r *reader) Collect(ch chan<- prometheus.Metric) {
	r.read(func(v float64, labels ...string) {
		m, err := prometheus.NewConstMetric(r.desc, r.kind, v, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(r.desc, err)
		}
		ch <- m
	})
}

type histogramReader struct {
	desc *prometheus.Desc
	h    *Histogram
}

func (r *histogramReader) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

func (r *histogramReader) Collect(ch chan<- prometheus.Metric) { sendHistogram(ch, r.desc, r.h) }

func sendHistogram(ch chan<- prometheus.Metric, desc *prometheus.Desc, h *Histogram, labels ...string) {
	d := h.Load()
	if d.Count == 0 && len(labels) > 0 {
		return
	}
	ch <- prometheus.MustNewConstHistogram(desc, d.Count, d.Sum.Seconds(), d.Buckets, labels...)
}

// configState is what is known of the running configuration.
type configState struct {
	hash string
	at   time.Time
	ok   bool // the last attempt to load one succeeded
}

// ConfigApplied tells that a configuration runs since now; hash names its
// content. The first one is the start, later ones count as reloads.
func (t *Telemetry) ConfigApplied(hash string, now time.Time) {
	if old := t.config.Swap(&configState{hash: hash, at: now, ok: true}); old != nil {
		t.reloads[0].Add(1)
	}
}

// ConfigFailed tells that a configuration was refused and the old one stays.
func (t *Telemetry) ConfigFailed() {
	t.reloads[1].Add(1)
	for {
		old := t.config.Load()
		failed := configState{}
		if old != nil {
			failed = *old
		}
		failed.ok = false
		if t.config.CompareAndSwap(old, &failed) {
			return
		}
	}
}

// registerOwn registers the process's metrics and those of exchanges.
func (t *Telemetry) registerOwn(o Options) {
	t.metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&exchanges{t},
	)
	t.RegisterGauge("sluice_build_info", "1, with what is running.", []string{"version", "commit", "go"}, func(emit Emit) {
		emit(1, o.Version, o.Commit, runtime.Version())
	})
	t.RegisterGauge("sluice_requests_in_flight", "Exchanges at work.", nil, func(emit Emit) {
		emit(float64(int64(t.totals.sum(inFlight))))
	})
	t.RegisterCounter("sluice_request_bytes_total", "Bytes of request bodies read.", nil, func(emit Emit) {
		emit(float64(t.totals.sum(bytesIn)))
	})
	t.RegisterCounter("sluice_response_bytes_total", "Bytes of responses written, heads included.", nil, func(emit Emit) {
		emit(float64(t.totals.sum(bytesOut)))
	})
	t.RegisterCounter("sluice_responses_aborted_total", "Responses that ended early.", nil, func(emit Emit) {
		emit(float64(t.totals.sum(aborted)))
	})
	t.RegisterCounter("sluice_refusals_total", "Answers of the gateway's own, by the code of the problem document.", []string{"code"}, func(emit Emit) {
		for c := range exchangeCodes {
			emit(float64(t.totals.sum(refusals+c)), exchange.Code(c).String())
		}
	})
	t.registerConfig()
	t.RegisterCounter("sluice_access_log_dropped_total", "Access log records that were not written, by reason.", []string{"reason"}, func(emit Emit) {
		emit(float64(t.access.full.Load()), "full")
		emit(float64(t.access.failed.Load()), "write_error")
	})
	t.RegisterCounter("sluice_error_log_suppressed_total", "Errors that were counted but not logged, because there were too many.", nil, func(emit Emit) {
		emit(float64(t.errors.suppressed.Load()))
	})
	t.scrape = promhttp.HandlerFor(t.metrics, promhttp.HandlerOpts{
		ErrorLog:            scrapeErrors{o.Logger},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

func (t *Telemetry) registerConfig() {
	t.RegisterGauge("sluice_config_ok", "1 when the last configuration that was loaded runs, 0 when it was refused and an older one runs.", nil, func(emit Emit) {
		if c := t.config.Load(); c != nil && c.ok {
			emit(1)
			return
		}
		emit(0)
	})
	t.RegisterCounter("sluice_config_reloads_total", "Configurations loaded after the start, by result.", []string{"result"}, func(emit Emit) {
		emit(float64(t.reloads[0].Load()), "ok")
		emit(float64(t.reloads[1].Load()), "failed")
	})
	t.RegisterGauge("sluice_config_info", "1, with the hash of the running configuration.", []string{"hash"}, func(emit Emit) {
		if c := t.config.Load(); c != nil && c.hash != "" {
			emit(1, c.hash)
		}
	})
	t.RegisterGauge("sluice_config_applied_timestamp_seconds", "When the running configuration was applied, in Unix seconds.", nil, func(emit Emit) {
		if c := t.config.Load(); c != nil && !c.at.IsZero() {
			emit(float64(c.at.UnixMilli()) / 1e3)
		}
	})
}

// scrapeErrors hands the metrics handler's complaints to the log.
type scrapeErrors struct{ log *slog.Logger }

func (e scrapeErrors) Println(v ...any) {
	for _, x := range v {
		if err, ok := x.(error); ok {
			e.log.Error("metrics are incomplete", "cause", err)
		}
	}
}

// exchanges exposes the series of routes and filters.
type exchanges struct{ t *Telemetry }

var (
	requestsDesc = prometheus.NewDesc("sluice_requests_total",
		"Exchanges that ended, by route, method and status.", []string{"api", "route", "method", "code"}, nil)
	durationDesc = prometheus.NewDesc("sluice_request_duration_seconds",
		"Time of exchanges: total, the gateway's own share, and the waits for the upstream.", []string{"api", "route", "part"}, nil)
	verdictDesc = prometheus.NewDesc("sluice_filter_verdicts_total",
		"Decisions of filters.", []string{"api", "route", "filter", "verdict"}, nil)
	filterTimeDesc = prometheus.NewDesc("sluice_filter_duration_seconds",
		"Time of filters, from a sample of the requests.", []string{"api", "route", "filter"}, nil)
)

func (e *exchanges) Describe(ch chan<- *prometheus.Desc) {
	ch <- requestsDesc
	ch <- durationDesc
	ch <- verdictDesc
	ch <- filterTimeDesc
}

func (e *exchanges) Collect(ch chan<- prometheus.Metric) {
	routes, filters := e.t.series.all()
	e.t.noRoute.collect(ch)
	for _, r := range routes {
		r.collect(ch)
	}
	for _, f := range filters {
		f.collect(ch)
	}
}

func (r *Route) collect(ch chan<- prometheus.Metric) {
	for m := range r.codes {
		table := r.codes[m].Load()
		if table == nil {
			continue
		}
		for s := range table {
			if c := table[s].Load(); c != nil {
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(c.Load()),
					r.key.api, r.key.route, methods[m], statuses[s])
			}
		}
	}
	if c := r.durations.Load(); c != nil {
		for part, name := range partNames {
			sendHistogram(ch, durationDesc, &Histogram{c: c, at: part * histogramCells}, r.key.api, r.key.route, name)
		}
	}
}

// collect exposes every verdict from the start, so that the first refusal is an
// increase and not a new series.
func (f *Filter) collect(ch chan<- prometheus.Metric) {
	c := f.c.Load()
	for v, name := range verdictNames {
		n := uint64(0)
		if c != nil {
			n = c.sum(histogramCells + v)
		}
		ch <- prometheus.MustNewConstMetric(verdictDesc, prometheus.CounterValue, float64(n),
			f.key.api, f.key.route, f.key.filter, name)
	}
	if c != nil {
		sendHistogram(ch, filterTimeDesc, &Histogram{c: c}, f.key.api, f.key.route, f.key.filter)
	}
}

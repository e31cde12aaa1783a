// Package telemetry tells what the gateway does: request ids and trace context,
// counters and histograms behind /metrics, the access log, and the log of
// operations.
//
// # On the request path
//
// Begin and Record are called once per exchange each. They take no lock that
// cores share, allocate nothing and never wait for a disk, a pipe or a scrape:
// counters are striped (see cells), the access log copies what it needs into a
// bounded buffer (see accessLog), and errors go through a bounded queue (see
// errorLog). What does not fit is dropped and counted.
//
// # Beside it
//
// Two goroutines per Telemetry write the access log and the errors; Close ends
// them. Series are registered when a configuration is compiled and freed when it
// retires (see registry); the labels of what is exposed come from the
// configuration and from fixed tables only, never from a request.
package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Options are what a Telemetry is made with.
type Options struct {
	Log config.Log // as Reconfigure takes it
	Dir string     // what a relative access.output is relative to

	Logger *slog.Logger   // the log of operations; nil: discarded
	Level  *slog.LevelVar // set from Log.Level; nil: nobody asks

	Stdout, Stderr io.Writer // of the access log; nil: the process's own

	Version, Commit string // for sluice_build_info
}

// Telemetry is the one place that exchanges are recorded in. All methods may be
// called from any goroutine.
type Telemetry struct {
	level   *slog.LevelVar
	series  *registry
	metrics *prometheus.Registry
	scrape  http.Handler
	totals  *cells
	noRoute *Route
	access  *accessLog
	errors  *errorLog
	config  atomic.Pointer[configState]
	reloads [2]atomic.Uint64 // ok, failed
}

// Cells of Telemetry.totals.
const (
	inFlight = iota
	bytesIn
	bytesOut
	aborted
	refusals // and behind it one for each exchange.Code
)

// timedShare is the share of exchanges whose filters are timed, as a mask: two
// readings of the clock (120 ns) for each filter are too much for every request,
// and 1 in 64 still shows each filter's distribution.
const timedShare = 64 - 1

// New opens the access log and starts. The error names the file that cannot be
// opened.
func New(o Options) (*Telemetry, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Level == nil {
		o.Level = new(slog.LevelVar)
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	t := &Telemetry{
		level:   o.Level,
		series:  newRegistry(),
		totals:  newCells(refusals + exchangeCodes),
		metrics: prometheus.NewRegistry(),
	}
	t.noRoute = &Route{owner: t.series}
	var err error
	if t.access, err = newAccessLog(o); err != nil {
		return nil, err
	}
	t.errors = newErrorLog(o.Logger)
	t.level.Set(Level(o.Log.Level))
	t.registerOwn(o)
	return t, nil
}

// Route returns the counters of a route of the configuration. Two calls with
// the same names share them. The caller calls Release when its configuration
// retires.
func (t *Telemetry) Route(api, name string) *Route {
	return t.series.route(seriesKey{api: label(api), route: label(name)})
}

// Filter returns the counters of a filter (not "") of a route, under the rules
// of Route.
func (t *Telemetry) Filter(api, route, filter string) *Filter {
	return t.series.filter(seriesKey{label(api), label(route), label(filter)})
}

// Begin counts x as in flight until Record, gives it its request id and its
// trace, and chooses whether its filters are timed. The id is that of a trusted
// proxy when it is valid (see ValidRequestID), so x.Trusted must be set, and a
// new one otherwise. x.Request's own fields stay as the client sent them, but for
// a tracestate without a valid traceparent.
func (t *Telemetry) Begin(x *exchange.Exchange) {
	t.totals.add(shard(x), inFlight, 1)
	now := x.Start
	if now.IsZero() {
		now = time.Now()
	}
	x.ID = nil
	if x.Trusted {
		if id := x.Request.Header.GetID(exchange.XRequestID); ValidRequestID(id) {
			x.ID = id
		}
	}
	if x.ID == nil {
		x.ID = AppendRequestID(x.Scratch(RequestIDLen)[:0], now)
	}
	ContinueTrace(x)
	x.Timed = rand.Uint64()&timedShare == 0
}

// Record counts and logs x, once, when its response was written or given up. r
// is the counters of the route that was chosen, nil when there was none. Every
// Begin has its Record.
func (t *Telemetry) Record(x *exchange.Exchange, r *Route) {
	if r == nil {
		r = t.noRoute
	}
	s := shard(x)
	total := x.Elapsed
	if total == 0 && !x.Start.IsZero() {
		total = time.Since(x.Start)
	}
	own := max(total-x.Usage.Waited-x.ClientWait, 0)
	waited := x.Usage.Waited
	if x.Usage.Attempts == 0 {
		waited = -1
	}
	status := x.Response.Status
	r.count(s, x.Request.Method, status)
	r.time(s, total, own, waited)

	row := t.totals.row(s)
	atomic.AddUint64(&row[inFlight], ^uint64(0))
	if x.BytesIn > 0 {
		atomic.AddUint64(&row[bytesIn], uint64(x.BytesIn))
	}
	if x.BytesOut > 0 {
		atomic.AddUint64(&row[bytesOut], uint64(x.BytesOut))
	}
	if x.Err != nil && int(x.Err.Code) < exchangeCodes {
		atomic.AddUint64(&row[refusals+int(x.Err.Code)], 1)
	}
	if x.Aborted != nil {
		atomic.AddUint64(&row[aborted], 1)
	}
	if x.Err != nil || x.Aborted != nil {
		t.errors.note(x, total)
	}
	for i := range x.Shadows {
		t.errors.shadow(x, &x.Shadows[i], total)
	}
	t.access.record(x, total, own)
}

// LogChange is a new log section, ready to be current. It must be committed or
// discarded.
type LogChange struct {
	t    *Telemetry
	c    config.Log
	next *sink
}

// Prepare opens what the log section of a new configuration names (level,
// format, output, sample, redact). The error names an output that cannot be
// opened; nothing has changed then.
func (t *Telemetry) Prepare(c config.Log) (*LogChange, error) {
	next, err := t.access.prepare(c.Access)
	if err != nil {
		return nil, err
	}
	return &LogChange{t, c, next}, nil
}

// Commit makes the section current.
func (p *LogChange) Commit() {
	p.t.access.commit(p.c.Access, p.next)
	p.t.level.Set(Level(p.c.Level))
}

// Discard closes what was opened.
func (p *LogChange) Discard() {
	if p.next != nil {
		p.next.close()
	}
}

// Reconfigure is Prepare and Commit.
func (t *Telemetry) Reconfigure(c config.Log) error {
	p, err := t.Prepare(c)
	if err != nil {
		return err
	}
	p.Commit()
	return nil
}

// Reopen opens the access log's file again, for log rotation: what was renamed
// is let go of. Without a file there is nothing to do. After an error the old
// file stays in use.
func (t *Telemetry) Reopen() error { return t.access.reopen() }

// Close writes what was recorded and stops. It waits for the writers as long as
// ctx allows; a later Record counts, but is not logged.
func (t *Telemetry) Close(ctx context.Context) error {
	return errors.Join(t.access.close(ctx), t.errors.close(ctx))
}

func shard(x *exchange.Exchange) uint32 {
	if x.Conn == nil {
		return 0
	}
	return x.Conn.Shard
}

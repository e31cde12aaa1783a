package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// errorsPerSecond and errorQueue bound the log of errors: when an upstream dies
// under load every exchange fails in the same way, and a few of them say all
// there is to say. What is left out is counted, and the next line has the count.
const (
	errorsPerSecond = 20
	errorQueue      = 64
)

// errorLog writes failed exchanges, and refusals in shadow mode, to the log of
// operations, from a goroutine of
// its own, so that a log nobody reads holds up no request.
type errorLog struct {
	log        *slog.Logger
	second     atomic.Int64 // the one that budget is of
	budget     atomic.Int64 // lines left in it
	suppressed atomic.Uint64
	queue      chan failure
	stop       chan struct{}
	done       chan struct{}
	once       sync.Once
}

// failure is what a line says. It holds no memory of an exchange.
type failure struct {
	level              slog.Level
	message            string
	id, client, method string
	host, path         string
	api, route         string
	upstream, target   string
	status             int
	filter, code       string
	cause              string
	took               time.Duration
}

func newErrorLog(log *slog.Logger) *errorLog {
	l := &errorLog{
		log: log, queue: make(chan failure, errorQueue), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go l.run()
	return l
}

// severity says how loud a failure is: what the gateway did wrong is an error,
// what an upstream or a dependency did is a warning, what a client did is for
// debugging only.
func severity(x *exchange.Exchange) (slog.Level, string) {
	switch e := x.Err; {
	case e == nil:
	case e.Code == exchange.Internal:
		return slog.LevelError, "exchange failed"
	case e.HTTPStatus() >= 500 && e.Code != exchange.NotImplemented && e.Code != exchange.VersionNotSupported:
		return slog.LevelWarn, "exchange failed"
	default:
		return slog.LevelDebug, "exchange refused"
	}
	if e := exchange.AsError(x.Aborted); e.Side == exchange.Upstream {
		return slog.LevelWarn, "response aborted"
	}
	return slog.LevelDebug, "response aborted"
}

// note logs an exchange that has an error or was aborted, if there is room.
func (l *errorLog) note(x *exchange.Exchange, took time.Duration) {
	level, message := severity(x)
	if !l.takes(level, x, took) {
		return
	}
	f := newFailure(x, level, message, took)
	if x.Err != nil {
		f.code, f.cause = x.Err.Code.String(), x.Err.Error()
	} else {
		f.cause = x.Aborted.Error()
	}
	l.put(f)
}

// shadow logs a refusal that was not made, if there is room.
func (l *errorLog) shadow(x *exchange.Exchange, s *exchange.Shadow, took time.Duration) {
	if !l.takes(slog.LevelInfo, x, took) {
		return
	}
	f := newFailure(x, slog.LevelInfo, "would_refuse", took)
	f.filter, f.code, f.cause = s.Filter, s.Refusal.Code.String(), s.Refusal.Error()
	l.put(f)
}

// takes reports whether a line of that level is wanted and within the budget.
func (l *errorLog) takes(level slog.Level, x *exchange.Exchange, took time.Duration) bool {
	if !l.log.Enabled(context.Background(), level) {
		return false
	}
	if !l.admit(x.Start.Add(took).Unix()) {
		l.suppressed.Add(1)
		return false
	}
	return true
}

func (l *errorLog) put(f failure) {
	select {
	case l.queue <- f:
	default:
		l.suppressed.Add(1)
	}
}

// admit takes one line from the budget of a second. Of two seconds that overlap
// the later one wins; an exchange that comes late shares its budget.
func (l *errorLog) admit(second int64) bool {
	if now := l.second.Load(); second > now && l.second.CompareAndSwap(now, second) {
		l.budget.Store(errorsPerSecond)
	}
	return l.budget.Load() > 0 && l.budget.Add(-1) >= 0
}

func newFailure(x *exchange.Exchange, level slog.Level, message string, took time.Duration) failure {
	path := x.Request.Path
	if path == nil {
		path = x.Request.RawPath
	}
	f := failure{
		level: level, message: message,
		id: clip(x.ID, textID), method: x.Request.Method, host: clip(x.Request.Host, textHost), path: clip(path, textPath),
		upstream: x.Usage.Name, target: x.Usage.Target, status: x.Response.Status, took: took,
	}
	if x.Client.IsValid() {
		f.client = x.Client.String()
	}
	if x.Route != nil {
		f.api, f.route = x.Route.API, x.Route.Name
	}
	return f
}

func clip(b []byte, which int) string { return string(b[:min(len(b), textLimits[which])]) }

func (l *errorLog) close(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("error log: %w", ctx.Err())
	}
}

func (l *errorLog) run() {
	defer close(l.done)
	var told uint64
	for {
		select {
		case f := <-l.queue:
			told = l.write(f, told)
		case <-l.stop:
			for {
				select {
				case f := <-l.queue:
					told = l.write(f, told)
				default:
					return
				}
			}
		}
	}
}

// write logs f with the number of failures that were left out since told.
func (l *errorLog) write(f failure, told uint64) uint64 {
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs, slog.String("id", f.id), slog.String("client", f.client), slog.String("method", f.method),
		slog.String("host", f.host), slog.String("path", f.path), slog.Int("status", f.status),
		slog.Float64("duration_ms", float64(f.took.Microseconds())/1e3), slog.String("cause", f.cause))
	for _, a := range []slog.Attr{
		slog.String("filter", f.filter), slog.String("code", f.code), slog.String("api", f.api), slog.String("route", f.route),
		slog.String("upstream", f.upstream), slog.String("target", f.target),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	suppressed := l.suppressed.Load()
	if suppressed > told {
		attrs = append(attrs, slog.Uint64("suppressed", suppressed-told))
	}
	l.log.LogAttrs(context.Background(), f.level, f.message, attrs...)
	return suppressed
}

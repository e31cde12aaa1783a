package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/admin"
	"github.com/sluice-gateway/sluice/internal/audit"
	"github.com/sluice-gateway/sluice/internal/cache"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/server"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// node is one running gateway: the pieces that do not know each other, joined.
// It is what the admin API looks at and changes.
type node struct {
	file  string // the configuration file, absolute
	log   *slog.Logger
	spill *telemetry.Spill // what log writes to
	*gateway.Gateway
	telemetry *telemetry.Telemetry
	state     *state
	audit     *audit.Log
	server    *server.Server
	admin     *admin.Server
	draining  atomic.Bool
	unwatched bool // the configuration is in no file

	mu      sync.Mutex                  // one change of configuration at a time
	running atomic.Pointer[config.File] // what runs
	started atomic.Pointer[config.File] // as last read from the file
	changed chan struct{}               // told when running was replaced
}

var (
	_ admin.Gateway       = (*node)(nil)
	_ admin.Configuration = (*node)(nil)
)

// start brings a gateway up with a configuration. On an error nothing is left
// running.
func start(file string, f *config.File, stdout, stderr io.Writer) (_ *node, err error) {
	level := new(slog.LevelVar)
	level.Set(telemetry.Level(f.Log.Level))
	spill := telemetry.NewSpill(stderr)
	n := &node{file: file, spill: spill, log: telemetry.NewLogger(spill, level), changed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			n.lastWords()
		}
	}()
	b := buildVersion()
	n.telemetry, err = telemetry.New(telemetry.Options{
		Log: f.Log, Dir: filepath.Dir(file), Logger: n.log, Level: level,
		Stdout: stdout, Stderr: stderr, Version: b.version, Commit: b.commit,
	})
	if err != nil {
		return nil, err
	}
	if n.state, err = openState(f, filepath.Dir(file), n.log, n.telemetry); err != nil {
		return nil, errors.Join(err, n.telemetry.Close(context.Background()))
	}
	if n.audit, err = openAudit(f, filepath.Dir(file), n.log, n.telemetry); err != nil {
		return nil, errors.Join(err, n.state.close(context.Background()), n.telemetry.Close(context.Background()))
	}
	n.Gateway = gateway.New(gateway.Options{
		Log: n.log, Telemetry: n.telemetry, Dir: filepath.Dir(file),
		Specs: gateway.Builtins(slices.Concat(n.audit.Specs(), n.state.auth.Specs()), n.state.limits.Specs(), n.state.cache.Specs()), Note: n.note,
	})
	n.server = server.New(n.Gateway, server.Options{Log: n.log})
	defer func() {
		if err != nil {
			_ = n.close(context.Background()) // the first error is the one to report
		}
	}()
	n.started.Store(f)
	n.observe()
	// First the probes, which say that nothing is ready; then the routes; last the
	// listeners, so that no request finds a gateway without routes.
	n.admin, err = admin.New(admin.Options{
		Config: f.Admin, Gateway: n, Configuration: n, Limits: n.state.limits, Identities: n.state.auth.Directory(), Metrics: n.telemetry.Handler(), Audit: n.audit, Log: n.log,
		Cache: responses{n.state.cache},
	})
	if err != nil {
		return nil, err
	}
	if err := n.first(f); err != nil {
		return nil, err
	}
	return n, nil
}

// openAudit opens the audit log that f names. Without one there is a log that a later
// configuration may give a file.
func openAudit(f *config.File, dir string, log *slog.Logger, t *telemetry.Telemetry) (*audit.Log, error) {
	o := audit.Options{Dir: dir, Log: log, Telemetry: t}
	if f.Audit != nil {
		o.File, o.OnFault = f.Audit.File, f.Audit.OnFault
	}
	return audit.Open(o)
}

// responses is the response cache as the admin API asks it.
type responses struct{ e *cache.Engine }

// Purge implements admin.Cache.
func (r responses) Purge(ctx context.Context, p admin.Purge) error {
	err := r.e.Purge(ctx, cache.Purge(p))
	if errors.Is(err, cache.ErrPurge) {
		return errors.Join(admin.ErrBadPurge, err)
	}
	return err
}

// Hot implements admin.Cache.
func (r responses) Hot(n int) []admin.HotObject {
	hot := r.e.Hot(n)
	all := make([]admin.HotObject, len(hot))
	for i, u := range hot {
		all[i] = admin.HotObject{Key: u.URI, Count: u.Hits, Bytes: u.Bytes}
	}
	return all
}

// note is told of every exchange that ends.
func (n *node) note(x *exchange.Exchange) {
	n.state.limits.Note(x)
	n.audit.Note(x)
}

// swapped is the audit log's line about f replacing what runs.
func (n *node) swapped(f *config.File, source string) audit.Event {
	detail := map[string]any{"source": source, "to": admin.Version(f)}
	if was := n.running.Load(); was != nil {
		detail["from"] = admin.Version(was)
	}
	return audit.Event{Kind: "config.swap", Detail: detail}
}

// first puts the first configuration in force.
func (n *node) first(f *config.File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	plan, found := n.Prepare(f)
	if plan == nil {
		return found.Err()
	}
	n.state.cache.Configure(f)
	plan.Commit()
	if err := n.listen(f); err != nil {
		return err
	}
	n.audit.Write(n.swapped(f, "file"))
	n.inForce(f)
	return nil
}

// listen has the server listen as f says.
func (n *node) listen(f *config.File) error {
	return n.server.Apply(f.Listeners, f.Limits, f.TrustedProxies, filepath.Dir(n.file))
}

// inForce notes that f is what runs.
func (n *node) inForce(f *config.File) {
	n.running.Store(f)
	n.telemetry.ConfigApplied(admin.Version(f), time.Now())
	select {
	case n.changed <- struct{}{}:
	default: // it is told already
	}
}

// take makes f the running configuration, or changes nothing and says why.
func (n *node) take(f *config.File) config.Diagnostics {
	n.mu.Lock()
	defer n.mu.Unlock()
	found, _ := n.apply(f, "file", nil)
	return found
}

// apply does it, with write between everything that can fail and the swap. The
// caller holds mu.
func (n *node) apply(f *config.File, source string, write func() error) (config.Diagnostics, error) {
	if err := n.state.prepare(f); err != nil { // first: what is compiled finds its place in it
		return config.Diagnostics{f.Diagnose("state.dir", "config.state", "%v", err)}, nil
	}
	plan, found := n.Prepare(f)
	if plan == nil {
		return found, nil
	}
	logs, err := n.telemetry.Prepare(f.Log)
	if err != nil {
		plan.Discard()
		return append(found, f.Diagnose("log.access.output", "config.log", "%v", err)), nil
	}
	trail, err := n.audit.Prepare(f.Audit)
	if err != nil {
		plan.Discard()
		logs.Discard()
		return append(found, f.Diagnose("audit.file", "config.audit", "%v", err)), nil
	}
	if err := n.listen(f); err != nil {
		plan.Discard()
		logs.Discard()
		trail.Discard()
		return append(found, f.Diagnose("listeners", "config.listen", "%v", err)), nil
	}
	if write != nil {
		if err := write(); err != nil {
			plan.Discard()
			logs.Discard()
			trail.Discard()
			return found, errors.Join(err, n.listen(n.running.Load()))
		}
	}
	logs.Commit()
	trail.Commit(n.swapped(f, source))
	n.inForce(f)
	n.state.cache.Configure(f)
	plan.Commit()
	return found, nil
}

// Ready reports whether the gateway takes requests.
func (n *node) Ready() bool { return n.running.Load() != nil && !n.draining.Load() }

// Running is the configuration that runs now.
func (n *node) Running() *config.File { return n.running.Load() }

// Started is the configuration as it was last read from its file.
func (n *node) Started() *config.File { return n.started.Load() }

// Parse reads a document in the place of the file, as read does.
func (n *node) Parse(text []byte) (*config.File, config.Diagnostics) {
	f, found := config.Parse(n.file, text, config.Env{})
	return f, gateway.Check(f, found)
}

// Apply makes f the running configuration, or changes nothing.
func (n *node) Apply(f *config.File, c admin.Change) (config.Diagnostics, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.From != nil && c.From != n.running.Load() {
		return nil, admin.ErrChanged
	}
	if c.DryRun {
		plan, found := n.Prepare(f)
		if plan != nil {
			plan.Discard()
		}
		return found, nil
	}
	var write func() error
	if c.Persist {
		write = func() error { return replaceFile(n.file, f.Source()) }
	}
	found, err := n.apply(f, "PUT", write)
	if err == nil && found.Err() == nil && c.Persist {
		n.started.Store(f)
	}
	return found, err
}

// lastWords writes what waits in the log. Nothing is logged behind it.
func (n *node) lastWords() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = n.spill.Close(ctx) // where would one say that the log stands still?
}

// close stops everything. It waits for exchanges that are still at work; behind the
// last of them nothing is counted any more, and what was counted is put away.
func (n *node) close(ctx context.Context) error {
	var failed []error
	failed = append(failed, n.server.Close())
	n.Gateway.Close()
	failed = append(failed, n.state.close(ctx))
	if n.admin != nil {
		failed = append(failed, n.admin.Close(ctx))
	}
	failed = append(failed, n.audit.Close(ctx), n.telemetry.Close(ctx))
	return errors.Join(failed...)
}

// needsRestart names what a new configuration changes and only a new start can
// put in force; empty: nothing.
func needsRestart(was, is *config.File) string {
	switch {
	case !reflect.DeepEqual(was.Admin, is.Admin):
		return "admin"
	case !reflect.DeepEqual(was.State, is.State):
		return "state"
	}
	return ""
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/config"
)

func runCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the gateway",
		Long: `Run serves with a configuration until SIGTERM or SIGINT, and then drains:
readiness turns 503, listeners keep accepting for limits.drain_delay, and what was
accepted finishes within limits.drain_timeout. A second signal ends it at once.

The configuration is read again on SIGHUP and when one of its files changes. One
with an error changes nothing. SIGHUP also reopens the access log.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := filepath.Abs(file)
			if err != nil {
				return err
			}
			loaded := contents{}
			f, found := read(path, config.Env{ReadFile: loaded.read})
			report(cmd.ErrOrStderr(), found)
			if found.Err() != nil {
				return errReported
			}
			n, err := start(path, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return n.run(cmd.Context(), loaded)
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// run serves until ctx ends, reloads in between, and drains. The configuration
// that runs was read from loaded.
func (n *node) run(ctx context.Context, loaded contents) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	w := n.watch()
	changed := make(chan struct{})
	if w != nil {
		w.learn(loaded)
		n.cover(w)
		done, stopped := make(chan struct{}), make(chan struct{})
		go func() { defer close(stopped); w.run(done, changed) }()
		defer func() { close(done); <-stopped; _ = w.close() }()
	}
	n.announce()
	for {
		select {
		case <-ctx.Done():
			return n.stop()
		case <-hup:
			if err := n.telemetry.Reopen(); err != nil {
				n.log.Error("reopening the access log", "error", err)
			}
			n.audit.Reopen()
			if n.unwatched {
				continue
			}
			n.reload(w)
		case <-changed:
			if w.differs() {
				n.reload(w)
			}
		case <-n.changed: // by a PUT too, which may name other files
			n.cover(w)
		}
	}
}

// watch returns a watcher, nil where files cannot be watched or there are none.
func (n *node) watch() *watcher {
	if n.unwatched {
		return nil
	}
	w, err := newWatcher(n.log)
	if err != nil {
		n.log.Warn("files are not watched; use SIGHUP to reload", "error", err)
		return nil
	}
	return w
}

// announce says where the gateway listens.
func (n *node) announce() {
	for name, addr := range n.server.Addrs() {
		n.log.Info("listening", "listener", name, "address", addr.String())
	}
	for name, addr := range n.admin.Addrs() {
		n.log.Info("admin API", "listener", name, "address", addr.String())
	}
}

// cover has w watch the configuration's own file and all that is named by what
// was started with, by what runs, and by others.
func (n *node) cover(w *watcher, others ...*config.File) {
	if w == nil {
		return
	}
	files, patterns := []string{n.file}, []string(nil)
	for _, f := range append(others, n.started.Load(), n.running.Load()) {
		if f != nil {
			files, patterns = append(files, f.Files()...), append(patterns, f.Patterns()...)
		}
	}
	w.set(files, patterns)
}

// reload reads the file again. A bad one changes nothing but a metric.
func (n *node) reload(w *watcher) {
	loaded := contents{}
	if w != nil {
		w.reading()
	}
	f, found := read(n.file, config.Env{ReadFile: loaded.read})
	if found.Err() == nil {
		if why := needsRestart(n.running.Load(), f); why != "" {
			n.log.Warn("a change takes effect with the next start", "of", why)
		}
		found = append(found, n.take(f)...)
	}
	if w != nil {
		w.learn(loaded)
	}
	n.cover(w, f)
	if found.Err() != nil {
		n.telemetry.ConfigFailed()
		for _, d := range found {
			n.log.Error("the configuration stays as it was", "problem", d.String())
		}
		return
	}
	n.started.Store(f)
	for _, d := range found {
		n.log.Warn("configuration", "problem", d.String())
	}
	n.log.Info("configuration reloaded", "file", n.file)
}

// stop drains and closes. Its error is about what could not be finished in time.
func (n *node) stop() error {
	defer n.lastWords()
	again, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	limits := n.running.Load().Limits
	n.draining.Store(true)
	n.log.Info("draining", "delay", limits.DrainDelay.Duration, "timeout", limits.DrainTimeout.Duration)
	delay := time.NewTimer(limits.DrainDelay.Duration)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-again.Done():
	}
	ctx := again
	if d := limits.DrainTimeout.Duration; d > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(again, d)
		defer stop()
	}
	err := n.server.Drain(ctx)
	last, end := context.WithTimeout(context.Background(), 5*time.Second)
	defer end()
	if cerr := n.close(last); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	n.log.Info("drained")
	return nil
}

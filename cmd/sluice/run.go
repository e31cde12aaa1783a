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
			began := time.Now()
			f, found := read(path)
			report(cmd.ErrOrStderr(), found)
			if found.Err() != nil {
				return errReported
			}
			n, err := start(path, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return n.run(cmd.Context(), began)
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// run serves until ctx ends, reloads in between, and drains. The configuration
// that runs was read after loaded.
func (n *node) run(ctx context.Context, loaded time.Time) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	w := n.watch()
	changed := make(chan struct{})
	if w != nil {
		w.set(n.running.Load().Files(), loaded)
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
			if n.unwatched {
				continue
			}
			loaded = time.Now()
			n.reload(w)
		case <-changed:
			if w.differs() {
				loaded = time.Now()
				n.reload(w)
			}
		case <-n.changed: // by a PUT too, which may name other files
			if w != nil {
				w.set(append(append(n.started.Load().Files(), n.running.Load().Files()...), n.file), loaded)
			}
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

// reload reads the file again. A bad one changes nothing but a metric.
func (n *node) reload(w *watcher) {
	if w != nil {
		w.reading()
	}
	f, found := read(n.file)
	if found.Err() == nil {
		if why := needsRestart(n.running.Load(), f); why != "" {
			n.log.Warn("a change takes effect with the next start", "of", why)
		}
		found = append(found, n.take(f)...)
	}
	if found.Err() == nil {
		n.started.Store(f)
	}
	if found.Err() != nil {
		if w != nil && f != nil {
			w.set(f.Files(), time.Now()) // so that the same bad files are not read again
		}
		n.telemetry.ConfigFailed()
		for _, d := range found {
			n.log.Error("the configuration stays as it was", "problem", d.String())
		}
		return
	}
	for _, d := range found {
		n.log.Warn("configuration", "problem", d.String())
	}
	n.log.Info("configuration reloaded", "file", n.file)
}

// stop drains and closes. Its error is about what could not be finished in time.
func (n *node) stop() error {
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

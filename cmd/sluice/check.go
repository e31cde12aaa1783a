package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/cache"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/server"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func checkCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Find every problem of a configuration",
		Long: `Check reads a configuration as run would, with its includes, certificates and
references, and prints every problem in it, in the order of the file. It opens no
state and calls nobody. The exit status is 1 when there is an error; warnings
alone are 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(file)
			if err != nil {
				return err
			}
			defer c.close()
			report(cmd.ErrOrStderr(), c.found)
			if c.plan == nil {
				return errReported
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is fine\n", file)
			return err
		},
	}
	configFlag(cmd, &file)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "sluice.yaml", "the configuration `file`")
}

// report prints problems, one a line.
func report(w io.Writer, found config.Diagnostics) {
	for _, d := range found {
		fmt.Fprintln(w, d)
	}
}

// checked is a configuration that was compiled to be looked at.
type checked struct {
	found config.Diagnostics
	plan  *gateway.Plan // nil when there are errors
	stop  func()
}

// close gives back what the look took.
func (c *checked) close() {
	if c.plan != nil {
		c.plan.Discard()
	}
	if c.stop != nil {
		c.stop()
	}
}

// load reads and compiles a file in a gateway of its own, which opens no state
// and no socket. The result is the caller's to close.
func load(file string) (*checked, error) {
	f, found := read(file, config.Env{})
	if found.Err() != nil {
		return &checked{found: found}, nil
	}
	quiet := slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(telemetry.Options{Logger: quiet, Log: config.Log{Level: "error", Access: config.AccessLog{Output: "none"}}})
	if err != nil {
		return nil, err
	}
	limits := limit.New(limit.Options{Log: quiet, Telemetry: tel})
	who := auth.New(auth.Options{Log: quiet, Dir: filepath.Dir(file), Offline: true})
	responses := cache.New(cache.Options{Log: quiet})
	c := &checked{stop: func() { // nobody is left to tell what fails
		_ = responses.Close(context.Background())
		_ = who.Close(context.Background())
		_ = limits.Close(context.Background())
		_ = tel.Close(context.Background())
	}}
	g := gateway.New(gateway.Options{Log: quiet, Telemetry: tel, Specs: gateway.Builtins(who.Specs(), limits.Specs(), responses.Specs()), Dir: filepath.Dir(file)})
	plan, more := g.Prepare(f)
	found = append(append(found, more...), places(f, filepath.Dir(file))...)
	found.Sort()
	if plan != nil && found.Err() != nil {
		plan.Discard()
		plan = nil
	}
	c.found, c.plan = found, plan
	return c, nil
}

// places finds what the gateway could not open when it runs, without opening it.
// Relative paths start in dir.
func places(f *config.File, dir string) config.Diagnostics {
	if err := server.Check(f.Listeners, dir); err != nil {
		return config.Diagnostics{f.Diagnose("listeners", "config.listen", "%v", err)}
	}
	switch out := f.Log.Access.Output; out {
	case "", "stdout", "stderr", "none":
		return nil
	default:
		if !filepath.IsAbs(out) {
			out = filepath.Join(dir, out)
		}
		if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
			return config.Diagnostics{f.Diagnose("log.access.output", "config.log", "%q is in a folder that does not exist; make it, or name another", out)}
		}
		return nil
	}
}

// read loads a file. One with errors is looked through for all that can be found
// wrong in spite of them.
func read(file string, env config.Env) (*config.File, config.Diagnostics) {
	f, found := config.Load(file, env)
	return f, gateway.Check(f, found)
}

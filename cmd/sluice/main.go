// Command sluice is the gateway: it runs one, and answers questions about its
// configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker for releases.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errReported is an error whose text has been printed already.
var errReported = errors.New("failed")

// run executes a command line and returns the exit status: 0 done, 1 failed, 2
// not understood. It ends what it started when ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Sluice is an API gateway: one binary, one file",
		Long: `Sluice stands between clients and services. It runs from one file.

  sluice demo                  try it: a sample backend with a gateway in front
  sluice run -c sluice.yaml    run a gateway
  sluice check -c sluice.yaml  find every problem of a configuration`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(runCommand(), checkCommand(), explainCommand(), demoCommand(), fmtCommand(), schemaCommand(), keysCommand(), cacheCommand(), auditCommand(), versionCommand())
	understood := false // a command has begun to work
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	case !understood || errors.As(err, &usage):
		fmt.Fprintf(stderr, "sluice: %v; see `sluice --help`\n", err)
		return 2
	default:
		fmt.Fprintf(stderr, "sluice: %v\n", err)
		return 1
	}
}

// usageError is about the command line.
type usageError struct{ error }

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the Go version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := buildVersion()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sluice %s\ncommit %s\n%s %s/%s\n", v.version, v.commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

type build struct{ version, commit string }

// buildVersion reads what the linker and the toolchain recorded.
func buildVersion() build {
	b := build{version: version, commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.version == "dev" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.version = info.Main.Version
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	b.commit += dirty
	return b
}

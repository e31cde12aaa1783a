package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/config"
)

func fmtCommand() *cobra.Command {
	var write, check bool
	cmd := &cobra.Command{
		Use:   "fmt [-w | --check] [FILE]",
		Short: "Print a configuration in its canonical form",
		Long: `Fmt prints a configuration with its keys in the order of the reference and its
comments kept. Without a file it reads standard input.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if write || check {
					return usageError{fmt.Errorf("-w and --check need a file")}
				}
				return formatStream(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			return formatFile(cmd, args[0], write, check)
		},
	}
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the file instead of printing it")
	cmd.Flags().BoolVar(&check, "check", false, "only say whether the file is in canonical form; exit status 1 if not")
	return cmd
}

func formatStream(r io.Reader, w io.Writer) error {
	src, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	out, err := config.Format(src)
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}

func formatFile(cmd *cobra.Command, file string, write, check bool) error {
	src, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	out, err := config.Format(src)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	switch {
	case check && bytes.Equal(src, out):
		return nil
	case check:
		fmt.Fprintf(cmd.ErrOrStderr(), "%s is not in canonical form; `sluice fmt -w %s` writes it\n", file, file)
		return errReported
	case write && bytes.Equal(src, out):
		return nil
	case write:
		return replaceFile(file, out)
	}
	_, err = cmd.OutOrStdout().Write(out)
	return err
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}

// replaceFile writes a file so that a reader sees the old content or the new,
// and keeps its mode. Of a symbolic link it is the target that is replaced.
func replaceFile(file string, content []byte) error {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(file), ".sluice-*")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // after the rename there is nothing to remove
	_, err = next.Write(content)
	if err == nil {
		err = next.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = next.Sync()
	}
	if cerr := next.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(next.Name(), file)
}

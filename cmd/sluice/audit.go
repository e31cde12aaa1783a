package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/audit"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check audit logs",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditVerifyCommand())
	return cmd
}

func auditVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE...",
		Short: "Check the hash chain of an audit log",
		Long: `Verify checks that each line of an audit log is as it was written and follows the one
before it, and names the first that does not. Several files are read as one chain, in the
order in which they are given: the oldest first.

  sluice audit verify data/audit.0*.jsonl data/audit.jsonl

What it prints names the last line and its hash. Lines that are missing at the end, or a
chain that was made anew as a whole, show only beside a hash that was noted elsewhere: the
gateway logs the last line and its hash whenever it opens or closes a file. The exit status
is 1 when a line does not hold.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			var c audit.Chain
			for _, name := range names {
				if err := verify(&c, name); err != nil {
					return err
				}
			}
			if c.Lines == 0 {
				return errors.New("there is no line in it: give the file that the gateway writes, audit.file")
			}
			out := cmd.OutOrStdout()
			_, err := fmt.Fprintf(out, "%d lines, number %d to %d, and each follows the one before it\nlast hash %s\n", c.Lines, c.First, c.Last, c.Hash)
			if err == nil && c.First > 1 {
				_, err = fmt.Fprintf(out, "lines 1 to %d are in earlier files, which were not given\n", c.First-1)
			}
			return err
		},
	}
}

// verify reads the next file of a chain.
func verify(c *audit.Chain, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	err = c.Read(f)
	if broken, ok := errors.AsType[*audit.Broken](err); ok {
		return fmt.Errorf("%s:%d: this line %s", name, broken.Line, broken.Why)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/gateway"
)

func explainCommand() *cobra.Command {
	var file, body string
	var headers []string
	var q gateway.Question
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain -c FILE [-X METHOD] [-H 'Name: value'] [-d BODY] URL",
		Short: "Say what would become of a request, and why",
		Long: `Explain says which route a request matches and, phase by phase, what each policy
would decide and why. It calls nobody and charges nothing.`,
		Example: `  sluice explain -c sluice.yaml -X POST -H 'X-Version: 2' http://api.example.com/v1/users/7`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.URL = args[0]
			var err error
			if q.Headers, err = parseHeaders(headers); err != nil {
				return err
			}
			if q.Body, err = readBody(body); err != nil {
				return err
			}
			if q.Body != "" && q.Method == "" {
				q.Method = "POST"
			}
			c, err := load(file)
			if err != nil {
				return err
			}
			defer c.close()
			if c.plan == nil {
				report(cmd.ErrOrStderr(), c.found)
				return errReported
			}
			e, err := c.plan.Explain(q)
			if err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetEscapeHTML(false)
				out.SetIndent("", "  ")
				return out.Encode(e)
			}
			return explainText(cmd.OutOrStdout(), e)
		},
	}
	configFlag(cmd, &file)
	f := cmd.Flags()
	f.StringVarP(&q.Method, "request", "X", "", "the `method` (default GET, or POST with -d)")
	f.StringArrayVarP(&headers, "header", "H", nil, "a header `field`, may be repeated")
	f.StringVarP(&body, "data", "d", "", "the `body`; @FILE reads it from a file")
	f.StringVar(&q.Client, "client", "", "the `address` that asks (default 127.0.0.1)")
	f.StringVar(&q.Listener, "listener", "", "the `name` of the listener (default the first of the URL's scheme)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func parseHeaders(lines []string) ([][2]string, error) {
	var all [][2]string
	for _, l := range lines {
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, usageError{fmt.Errorf("%q is not a header, write -H 'Name: value'", l)}
		}
		all = append(all, [2]string{name, strings.TrimSpace(value)})
	}
	return all, nil
}

func readBody(arg string) (string, error) {
	file, ok := strings.CutPrefix(arg, "@")
	if !ok {
		return arg, nil
	}
	b, err := os.ReadFile(file)
	return string(b), err
}

// explainText prints an explanation for people.
func explainText(w io.Writer, e *gateway.Explanation) error {
	fmt.Fprintf(w, "%s\n", e.Request)
	fmt.Fprintf(w, "client %s", e.Client)
	if e.Trusted {
		fmt.Fprint(w, ", through a trusted proxy")
	}
	fmt.Fprintln(w)
	if c := e.Caller; c != nil {
		fmt.Fprintf(w, "caller %s", c.ID)
		if c.Plan != "" {
			fmt.Fprintf(w, ", plan %s", c.Plan)
		}
		fmt.Fprintln(w)
	}
	if e.Route != "" {
		fmt.Fprintf(w, "route  %s", e.Route)
		if e.API != "" {
			fmt.Fprintf(w, " of api %s", e.API)
		}
		fmt.Fprintf(w, " (%s)\n", e.At)
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range e.Phases {
		verdict := p.Verdict
		if p.Mode == "shadow" {
			verdict += " (shadow)"
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", p.Phase, p.Filter, verdict, p.Reason)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if e.Code != "" {
		fmt.Fprintf(w, "answer %d %s: %s\n", e.Status, e.Code, e.Detail)
	}
	if e.Unknown {
		fmt.Fprintln(w, "answer unknown: it depends on somebody who was not asked")
	}
	if e.Forward != "" {
		fmt.Fprintf(w, "forward %s\n", e.Forward)
		for _, d := range e.Upstream {
			fmt.Fprintf(w, "  %s to upstream %s %s\n", d.Share, d.Name, strings.Join(d.Targets, ", "))
		}
		if e.Timeout != "" {
			fmt.Fprintf(w, "  within %s\n", e.Timeout)
		}
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/admin"
)

func cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Purge the response cache",
		Long: `Cache works on the response cache of a running gateway through its admin API. What it
purges is purged in all gateways that share state.redis with this one.`,
		Example: `  sluice cache purge --url 'https://api.example.com/v1/users?page=2'
  sluice cache purge --prefix https://api.example.com/v1/users/
  sluice cache purge --tag user-7 --tag user-8
  sluice cache purge --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(cachePurge(adminFlags(cmd)))
	return cmd
}

func cachePurge(c *adminClient) *cobra.Command {
	var urls, prefixes, tags []string
	var all bool
	cmd := &cobra.Command{
		Use:   "purge [--url URL] [--prefix PREFIX] [--tag TAG] [--all]",
		Short: "Forget responses by URL, by the beginning of it, by tag, or all",
		Long: `Purge returns when no gateway serves what was named any more. Each flag may be repeated.
When one purge fails those before it have been made, and those behind it have not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []admin.Purge
			for _, u := range urls {
				list = append(list, admin.Purge{URL: u})
			}
			for _, p := range prefixes {
				list = append(list, admin.Purge{Prefix: p})
			}
			for _, t := range tags {
				list = append(list, admin.Purge{Tag: t})
			}
			switch {
			case all && list != nil:
				return usageError{errors.New("--all leaves nothing else to purge, write it alone")}
			case all:
				list = append(list, admin.Purge{All: true})
			case list == nil:
				return usageError{errors.New("say what to purge: --url, --prefix, --tag or --all")}
			}
			for _, p := range list {
				if err := c.purge(cmd, p); err != nil {
					return err
				}
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), admin.Purged{Purged: true})
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&urls, "url", nil, "one `URL` with its query, all variants and clients of it")
	f.StringArrayVar(&prefixes, "prefix", nil, "all URLs that begin with this `text`: scheme, host and some of the path")
	f.StringArrayVar(&tags, "tag", nil, "all responses with this `tag`")
	f.BoolVar(&all, "all", false, "everything")
	return cmd
}

func (c *adminClient) purge(cmd *cobra.Command, p admin.Purge) error {
	var answer admin.Purged
	if err := c.call(cmd.Context(), http.MethodPost, "/v1/cache/purge", p, &answer); err != nil {
		return err
	}
	if !answer.Purged {
		return errors.New("the admin API did not say that it was purged; is --admin a gateway's admin.address?")
	}
	if c.json {
		return nil
	}
	what := "everything"
	switch {
	case p.URL != "":
		what = p.URL
	case p.Prefix != "":
		what = "what begins with " + p.Prefix
	case p.Tag != "":
		what = "tag " + p.Tag
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "purged %s\n", what)
	return err
}

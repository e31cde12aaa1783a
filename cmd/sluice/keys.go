package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/admin"
	"github.com/sluice-gateway/sluice/internal/config"
)

// adminClient asks the admin API of a gateway.
type adminClient struct {
	url, token string
	json       bool
}

// adminTimeout is how long an answer may take: behind the store's own time.
const adminTimeout = 10 * time.Second

// adminFlags adds the flags that say where the admin API is.
func adminFlags(cmd *cobra.Command) *adminClient {
	c := new(adminClient)
	f := cmd.PersistentFlags()
	f.StringVar(&c.url, "admin", "", "the `URL` of the admin API (default $SLUICE_ADMIN_URL, or http://127.0.0.1:9901)")
	f.StringVar(&c.token, "token", "", "the admin `token` (default $SLUICE_ADMIN_TOKEN, which no list of processes shows)")
	f.BoolVar(&c.json, "json", false, "print JSON")
	return c
}

// call sends a request and reads the answer into out, when there is one. The error
// says what the API said.
func (c *adminClient) call(ctx context.Context, method, path string, body, out any) error {
	base := cmp.Or(c.url, os.Getenv("SLUICE_ADMIN_URL"), "http://127.0.0.1:9901")
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usageError{fmt.Errorf("%q is not the URL of an admin API, write --admin http://127.0.0.1:9901", base)}
	}
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, content)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token := cmp.Or(c.token, os.Getenv("SLUICE_ADMIN_TOKEN")); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{
		Transport:     &http.Transport{Proxy: nil}, // a token goes nowhere else
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("the admin API cannot be asked: %w; is the gateway running, and is --admin its admin.address?", errors.Unwrap(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	switch {
	case err != nil:
		return fmt.Errorf("the admin API's answer cannot be read: %w", err)
	case resp.StatusCode >= 300:
		return adminError(resp, answer)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("the answer of %s is not that of an admin API: %w", base, err)
	}
	return nil
}

// adminError is what the API said instead of what was asked for.
func adminError(resp *http.Response, body []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		return fmt.Errorf("the admin API answered %s", resp.Status)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%s Give it with --token or SLUICE_ADMIN_TOKEN", p.Detail)
	}
	return fmt.Errorf("%s (%d %s)", strings.TrimSuffix(p.Detail, "."), resp.StatusCode, p.Code)
}

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, list, rotate and revoke API keys",
		Long: `Keys works on the API keys of a running gateway through its admin API. Keys that the
configuration declares are listed too; they are changed there.`,
		Example: `  sluice keys create --client acme --name ci --expires 90d
  sluice keys list --client acme
  sluice keys rotate 3fGh81kLmN0p --overlap 24h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c := adminFlags(cmd)
	cmd.AddCommand(keysCreate(c), keysList(c), keysShow(c), keysRotate(c), keysRevoke(c))
	return cmd
}

func keysCreate(c *adminClient) *cobra.Command {
	var q admin.KeyRequest
	var expires string
	var permissions []string
	cmd := &cobra.Command{
		Use:   "create --client ID [--name NAME] [--expires 90d]",
		Short: "Make a key for a client, and show it this once",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && q.Client == "" {
				q.Client = args[0]
			} else if len(args) == 1 {
				return usageError{fmt.Errorf("%q: the client is given twice", args[0])}
			}
			if q.Client == "" {
				return usageError{errors.New("a key needs a client: --client ID")}
			}
			if cmd.Flags().Changed("permission") {
				q.Permissions = &permissions
			}
			if expires != "" {
				end, err := moment(expires, time.Now())
				if err != nil {
					return usageError{err}
				}
				q.ExpiresAt = &end
			}
			var made admin.NewKey
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/keys", q, &made); err != nil {
				return err
			}
			return c.printNew(cmd.OutOrStdout(), &made)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Client, "client", "", "the `id` of the client")
	f.StringVar(&q.Name, "name", "", "a `name` for the key, for people")
	f.StringVar(&expires, "expires", "", "from when on it is refused: a `time` such as 90d from now, or 2027-01-31T00:00:00Z")
	f.StringSliceVar(&permissions, "permission", nil, "a `permission` of the client that the key has, may be repeated (default all)")
	return cmd
}

// moment reads a time, or how long from now.
func moment(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time, write 90d or 2027-01-31T00:00:00Z", text)
	}
	return now.Add(d.Duration).UTC().Truncate(time.Second), nil
}

func keysList(c *adminClient) *cobra.Command {
	var client string
	var revoked bool
	cmd := &cobra.Command{
		Use:   "list [--client ID]",
		Short: "List keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if client != "" {
				q.Set("client", client)
			}
			if revoked {
				q.Set("revoked", "1")
			}
			path := "/v1/keys"
			if len(q) > 0 {
				path += "?" + q.Encode()
			}
			var list admin.KeyList
			if err := c.call(cmd.Context(), http.MethodGet, path, nil, &list); err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printKeys(cmd.OutOrStdout(), list.Keys)
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "the `id` of one client (default all)")
	cmd.Flags().BoolVar(&revoked, "revoked", false, "list keys that are revoked, too")
	return cmd
}

func keysShow(c *adminClient) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show what is known of a key, but for the key itself",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var k admin.Key
			if err := c.call(cmd.Context(), http.MethodGet, keyPath(args[0]), nil, &k); err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), k)
			}
			return printKey(cmd.OutOrStdout(), &k)
		},
	}
}

func keysRotate(c *adminClient) *cobra.Command {
	var q admin.Rotation
	cmd := &cobra.Command{
		Use:   "rotate ID [--overlap 24h]",
		Short: "Make a successor of a key, which ends after an overlap",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var made admin.NewKey
			if err := c.call(cmd.Context(), http.MethodPost, keyPath(args[0])+"/rotate", q, &made); err != nil {
				return err
			}
			return c.printNew(cmd.OutOrStdout(), &made)
		},
	}
	cmd.Flags().StringVar(&q.Overlap, "overlap", "24h", "how `long` the old key still holds; 0: not at all")
	return cmd
}

func keysRevoke(c *adminClient) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke a key for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.call(cmd.Context(), http.MethodDelete, keyPath(args[0]), nil, nil); err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"id": args[0], "revoked": true})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "revoked %s\n", args[0])
			return err
		},
	}
}

func keyPath(id string) string { return "/v1/keys/" + url.PathEscape(id) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printNew shows a key for the one time.
func (c *adminClient) printNew(w io.Writer, k *admin.NewKey) error {
	if c.json {
		return printJSON(w, k)
	}
	if _, err := fmt.Fprintf(w, "%s\n\nThis is the key. It cannot be shown again.\n\n", k.Key); err != nil {
		return err
	}
	err := printKey(w, &admin.Key{
		ID: k.ID, Client: k.Client, Owner: k.Owner, State: "live", Name: k.Name, Enabled: k.Enabled, Permissions: k.Permissions, CreatedAt: &k.CreatedAt, ExpiresAt: k.ExpiresAt,
	})
	if err == nil && k.Replaces != nil {
		_, err = fmt.Fprintf(w, "\nIt replaces %s, which is refused from %s on.\n", k.Replaces.ID, when(k.Replaces.ExpiresAt, ""))
	}
	return err
}

func printKeys(w io.Writer, keys []admin.Key) error {
	if len(keys) == 0 {
		_, err := fmt.Fprintln(w, "there are no keys")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tCLIENT\tNAME\tOWNER\tSTATE\tCREATED\tEXPIRES\tLAST USED")
	for i := range keys {
		k := &keys[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Client, cmp.Or(k.Name, "-"), k.Owner, k.State, when(k.CreatedAt, "-"), when(k.ExpiresAt, "never"), when(k.LastUsedAt, "-"))
	}
	return t.Flush()
}

func printKey(w io.Writer, k *admin.Key) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	permissions := "all of the client's"
	if k.Permissions != nil {
		permissions = cmp.Or(strings.Join(*k.Permissions, ", "), "none")
	}
	for _, line := range [][2]string{
		{"id", k.ID},
		{"client", k.Client},
		{"name", cmp.Or(k.Name, "-")},
		{"owner", k.Owner},
		{"state", k.State},
		{"permissions", permissions},
		{"created", when(k.CreatedAt, "-")},
		{"expires", when(k.ExpiresAt, "never")},
		{"last used", when(k.LastUsedAt, "-")},
	} {
		fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
	}
	return t.Flush()
}

func when(t *time.Time, never string) string {
	if t == nil {
		return never
	}
	return t.UTC().Format(time.RFC3339)
}

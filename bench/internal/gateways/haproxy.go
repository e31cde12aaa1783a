package gateways

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// haproxy is Debian's.
type haproxy struct{ path string }

func (g *haproxy) Name() string { return "haproxy" }

func (g *haproxy) Prepare(ctx context.Context, tools *Tools) (string, error) {
	path, err := tools.Need(ctx, "haproxy", "haproxy")
	if err != nil {
		return "", err
	}
	g.path = path
	out, err := output(ctx, path, "-v")
	_, version, _ := strings.Cut(out, "version ")
	version, _, _ = strings.Cut(version, " ")
	return version, err
}

func (g *haproxy) Lacks(*Setup) string { return "" }

func (g *haproxy) Write(s *Setup) (Command, error) {
	var routes strings.Builder
	for _, r := range s.Routes {
		routes.WriteString(r + " origin\n")
	}
	var keys strings.Builder
	if s.Limit != nil && s.Limit.Identity != nil {
		for i, key := range s.Limit.Identity.Keys {
			fmt.Fprintf(&keys, "%s client-%d\n", key, i)
		}
	}
	for name, text := range map[string]string{"routes.map": routes.String(), "keys.map": keys.String(), "answer.json": s.Answer} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o644); err != nil {
			return Command{}, err
		}
	}
	conf, err := render(s, "haproxy.cfg")
	if err != nil {
		return Command{}, err
	}
	if out, err := exec.Command(g.path, "-c", "-q", "-C", s.Dir, "-f", conf).CombinedOutput(); err != nil {
		return Command{}, &ConfigError{Gateway: g.Name(), Output: string(out)}
	}
	return Command{Path: g.path, Args: []string{"-db", "-C", s.Dir, "-f", conf}}, nil
}

func (g *haproxy) Notes() []string {
	return []string{"HAProxy: a thread a core, http-reuse always, no log, routes in a prefix map; limits by http_req_rate(1s) in a stick table that the threads share; its cache of 64 MiB is asked in the frontend, behind keys and limits."}
}

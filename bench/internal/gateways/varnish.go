package gateways

import (
	"context"
	"fmt"
	"strings"
)

// varnish is Debian's.
type varnish struct{ path string }

func (g *varnish) Name() string { return "varnish" }

func (g *varnish) Prepare(ctx context.Context, tools *Tools) (string, error) {
	path, err := tools.Need(ctx, "varnishd", "varnish")
	if err != nil {
		return "", err
	}
	g.path = path
	out, err := output(ctx, path, "-V")
	_, version, _ := strings.Cut(out, "varnish-")
	version, _, _ = strings.Cut(version, " ")
	return version, err
}

func (g *varnish) Lacks(s *Setup) string {
	if s.TLS != nil {
		return "does not terminate TLS"
	}
	if s.Limit != nil {
		return "has no rate limit without a module that is not part of it"
	}
	return ""
}

func (g *varnish) Write(s *Setup) (Command, error) {
	conf, err := render(s, "varnish.vcl")
	cmd := Command{Path: g.path, Args: []string{
		"-F", "-n", s.Dir + "/varnish", "-a", s.Listen, "-f", conf, "-s", "malloc,64M", "-T", "none", "-j", "none",
		"-p", fmt.Sprintf("thread_pools=%d", s.Cores), "-p", "thread_pool_min=100", "-p", "thread_pool_max=1000",
		"-p", "timeout_idle=300", "-p", "listen_depth=4096", "-p", "workspace_client=96k",
	}}
	if len(s.Routes) > 100 {
		// The tests themselves are library calls; what is left to optimise would take
		// the compiler a minute.
		cmd.Args = append(cmd.Args, "-p", "cc_command=exec gcc -std=gnu11 -g0 -O1 -pthread -fpic -shared -o %o %s")
	}
	return cmd, err
}

func (g *varnish) Notes() []string {
	return []string{"Varnish: a thread pool a core, every request passed (return (pass)) but where its cache is measured, routes as two levels of prefix tests; its log in shared memory stays on, as it does with its users. X-Forwarded-For is its own. It speaks no TLS, so it is left out of those scenarios."}
}

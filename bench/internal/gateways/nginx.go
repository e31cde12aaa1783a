package gateways

import (
	"context"
	"os/exec"
	"strings"
)

// nginx is Debian's.
type nginx struct{ path string }

func (g *nginx) Name() string { return "nginx" }

func (g *nginx) Prepare(ctx context.Context, tools *Tools) (string, error) {
	path, err := tools.Need(ctx, "nginx", "nginx")
	if err != nil {
		return "", err
	}
	g.path = path
	out, err := output(ctx, path, "-v")
	_, version, _ := strings.Cut(out, "nginx/")
	return version, err
}

func (g *nginx) Lacks(*Setup) string { return "" }

func (g *nginx) Write(s *Setup) (Command, error) {
	conf, err := render(s, "nginx.conf")
	if err != nil {
		return Command{}, err
	}
	cmd := Command{Path: g.path, Args: []string{"-p", s.Dir, "-e", "stderr", "-c", conf}}
	// nginx -t tells of every mistake with its line; a started nginx does not always.
	if out, err := exec.Command(g.path, append([]string{"-t", "-q"}, cmd.Args...)...).CombinedOutput(); err != nil {
		return Command{}, &ConfigError{Gateway: g.Name(), Output: string(out)}
	}
	return cmd, nil
}

func (g *nginx) Notes() []string {
	return []string{"nginx: a worker a core, upstream keepalive 512, keepalive_requests raised, reuseport, access_log off, request bodies streamed, one prefix location a route; limits by limit_req with nodelay and a burst of one second, in memory that the workers share; proxy_cache on disk, which is the page cache here, with open_file_cache so that a hit opens no file."}
}

// ConfigError is a configuration that its product does not accept.
type ConfigError struct {
	Gateway string
	Output  string // what the product said
}

func (e *ConfigError) Error() string {
	return e.Gateway + " does not accept its configuration:\n" + strings.TrimSpace(e.Output)
}

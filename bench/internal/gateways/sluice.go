package gateways

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// sluice is the product of this repository, built from the tree.
type sluice struct{ path string }

func (g *sluice) Name() string { return "sluice" }

func (g *sluice) Prepare(ctx context.Context, tools *Tools) (string, error) {
	path, err := tools.Build(ctx, "sluice", tools.Root, "./cmd/sluice")
	if err != nil {
		return "", err
	}
	g.path = path
	version, err := output(ctx, path, "version")
	return strings.ReplaceAll(version, "\n", ", "), err
}

func (g *sluice) Lacks(*Setup) string { return "" }

func (g *sluice) Write(s *Setup) (Command, error) {
	if s.Limit != nil && s.Limit.Identity != nil && s.Limit.Identity.Tokens {
		if err := os.WriteFile(filepath.Join(s.Dir, "callers.jwk"), []byte(s.Limit.Identity.JWK), 0o644); err != nil {
			return Command{}, err
		}
	}
	conf, err := render(s, "sluice.yaml")
	return Command{
		Path: g.path, Args: []string{"run", "-c", filepath.Base(conf)}, Metrics: s.Admin, Shares: s.Limit != nil && s.Limit.Redis != "",
	}, err
}

func (g *sluice) Notes() []string {
	return []string{
		"Besides X-Forwarded-*, Sluice sends Forwarded, Via, X-Request-Id and traceparent upstream and X-Request-Id to the client; the others do not.",
		"Sluice runs with its default limits (timeouts, sizes, minimum body rate) and its metrics on. state.redis.timeout is 1 s, so that no call is given up because the Redis has to share cores with the load.",
	}
}

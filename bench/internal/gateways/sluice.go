package gateways

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
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
	c := Command{
		Path: g.path, Args: []string{"run", "-c", filepath.Base(conf)}, Metrics: s.Admin, Shares: s.Limit != nil && s.Limit.Redis != "",
	}
	if s.Profile {
		c.Profile, c.Limiter = "http://"+s.Admin+"/debug/pprof/profile", limiter
	}
	return c, err
}

const module = "github.com/sluice-gateway/sluice/"

// limiter is what Sluice limits with where nothing else needs the chain of filters and
// Redis: no authenticator, and no cache that is shared.
var limiter = &attribution.Part{
	Packages: []string{module + "internal/policy", module + "internal/limit", module + "internal/store/redis", "github.com/redis/rueidis"},
	// Who asks most is noted of every request, whether or not it is limited. And where
	// there is a Redis, clients may be declared in it, so another filter looks for the key.
	Except:  []string{module + "internal/limit.(*Engine).Note", module + "internal/auth"},
	Request: []string{module + "internal/gateway"},
}

func (g *sluice) Notes() []string {
	return []string{
		"Besides X-Forwarded-*, Sluice sends Forwarded, Via, X-Request-Id and traceparent upstream and X-Request-Id to the client; the others do not.",
		"Sluice runs with its default limits (timeouts, sizes, minimum body rate) and its metrics on. state.redis.timeout is 1 s, so that no call is given up because the Redis has to share cores with the load.",
	}
}

package conformance

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/cache"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/server"
	"github.com/sluice-gateway/sluice/internal/store/redis"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// configuration is that of every gateway. The first segment of a case's path is
// the name of its route.
const configuration = `
listeners: [{name: plain, address: "127.0.0.1:0"}]
upstreams: {o: {targets: ["http://@origin@"]}}
authenticators: {keys: {api_key: {from: ["header:X-Api-Key"]}}}
clients:
  - {id: ann, keys: [{name: a, value: key-of-ann-written-out}]}
  - {id: ben, keys: [{name: b, value: key-of-ben-written-out}]}
routes:
  - {name: plain, path: "/plain/{r...}", auth: [], upstream: o, cache: {}}
  - {name: none, path: "/none/{r...}", auth: [], upstream: o}
  - {name: ttl, path: "/ttl/{r...}", auth: [], upstream: o, cache: {ttl: 1h}}
  - {name: capped, path: "/capped/{r...}", auth: [], upstream: o, cache: {max_ttl: 1h}}
  - {name: heuristic, path: "/heuristic/{r...}", auth: [], upstream: o, cache: {heuristic: 10%}}
  - {name: swr, path: "/swr/{r...}", auth: [], upstream: o, cache: {stale_while_revalidate: 1h}}
  - {name: sie, path: "/sie/{r...}", auth: [], upstream: o, cache: {stale_if_error: 1h}}
  - {name: page, path: "/page/{r...}", auth: [], upstream: o, cache: {key: {query: [page]}}}
  - {name: bare, path: "/bare/{r...}", auth: [], upstream: o, cache: {key: {query: []}}}
  - {name: tenant, path: "/tenant/{r...}", auth: [], upstream: o, cache: {key: {headers: [X-Tenant]}}}
  - {name: cookie, path: "/cookie/{r...}", auth: [], upstream: o, cache: {key: {headers: [Cookie]}}}
  - {name: anyone, path: "/anyone/{r...}", auth: [], upstream: o, cache: {key: {client: false}}}
  - {name: client, path: "/client/{r...}", auth: [keys], upstream: o, cache: {}}
  - {name: shared, path: "/shared/{r...}", auth: [keys], upstream: o, cache: {key: {client: false}}}
`

// node is a gateway in this process, joined as cmd/sluice joins it.
type node struct {
	addr      string
	telemetry *telemetry.Telemetry
	auth      *auth.Engine
	limits    *limit.Engine
	cache     *cache.Engine
	shared    *redis.Client // nil: memory alone
	gateway   *gateway.Gateway
	server    *server.Server
}

// startNode starts one in front of the origin. store is the address of Redis,
// empty for none.
func startNode(t *testing.T, name, origin, store, prefix string) *node {
	t.Helper()
	dir := t.TempDir()
	text := strings.ReplaceAll(configuration, "@origin@", origin)
	if store != "" {
		// The budget is not what these cases are about.
		text = "cache: {shared: true}\nstate: {redis: {addresses: [\"" + store + "\"], prefix: \"" + prefix + "\", timeout: 5s}}\n" + text
	}
	f, found := config.Parse(filepath.Join(dir, "sluice.yaml"), []byte(text), config.Env{})
	if err := found.Err(); err != nil {
		t.Fatalf("config: %v", err)
	}
	n := &node{}
	log := slog.New(slog.DiscardHandler)
	var err error
	if n.telemetry, err = telemetry.New(telemetry.Options{Log: f.Log, Dir: dir, Logger: log, Stdout: io.Discard}); err != nil {
		t.Fatal(err)
	}
	limits, caches := limit.Options{Log: log, Telemetry: n.telemetry}, cache.Options{Log: log, Telemetry: n.telemetry}
	if f.State.Redis != nil {
		if n.shared, err = redis.Dial(redis.Options{Config: f.State.Redis, Gateway: name, Log: log}); err != nil {
			t.Fatal(err)
		}
		limits.Shared = n.shared
		caches.Objects, caches.Purges = n.shared.Cache()
	}
	n.limits, n.cache = limit.New(limits), cache.New(caches)
	n.auth = auth.New(auth.Options{Log: log, Telemetry: n.telemetry, Dir: dir})
	n.gateway = gateway.New(gateway.Options{
		Log: log, Telemetry: n.telemetry, Specs: gateway.Builtins(n.auth.Specs(), n.limits.Specs(), n.cache.Specs()), Note: n.limits.Note, Dir: dir,
	})
	n.server = server.New(n.gateway, server.Options{Log: log})
	t.Cleanup(func() { n.close(t) })
	n.cache.Configure(f)
	if n.shared != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		n.cache.Await(ctx)
	}
	plan, found := n.gateway.Prepare(f)
	if plan == nil {
		t.Fatalf("config: %v", found)
	}
	if err := n.server.Apply(f.Listeners, f.Limits, f.TrustedProxies, dir); err != nil {
		plan.Discard()
		t.Fatal(err)
	}
	plan.Commit()
	n.addr = n.server.Addrs()["plain"].String()
	return n
}

func (n *node) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.server.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	n.gateway.Close()
	for what, end := range map[string]func(context.Context) error{"auth": n.auth.Close, "limits": n.limits.Close, "cache": n.cache.Close} {
		if err := end(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n.shared != nil {
		if err := n.shared.Close(ctx); err != nil {
			t.Errorf("redis: %v", err)
		}
	}
	if err := n.telemetry.Close(ctx); err != nil {
		t.Errorf("telemetry: %v", err)
	}
}

// puts is how often the gateway has written to the second level.
func (n *node) puts() float64 {
	w := httptest.NewRecorder()
	n.telemetry.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, `sluice_cache_shared_total{result="put"} `); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64) // what the handler wrote
			return v
		}
	}
	return 0
}

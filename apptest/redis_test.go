package apptest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// fleet starts n gateways with one config that share a Redis, and waits until
// each knows of all.
func fleet(t testing.TB, n int, s setup) []*gateway {
	t.Helper()
	var all []*gateway
	for range n {
		all = append(all, start(t, s))
	}
	for _, g := range all {
		g.awaitPeers(n)
	}
	return all
}

// awaitPeers waits until the gateway counts so many of them, itself included.
func (g *gateway) awaitPeers(n int) {
	g.t.Helper()
	eventually(g.t, 15*time.Second, func() error {
		if got := g.metric("sluice_limit_peers"); got != float64(n) {
			return fmt.Errorf("it knows of %v gateways, want %d", got, n)
		}
		return nil
	})
}

// storeUp tells whether the gateway asks its Redis: the breaker is closed.
func (g *gateway) storeUp() bool { return g.metric("sluice_limit_store_up") == 1 }

// awaitStore waits until the gateway's breaker is closed (up) or open, and
// returns when that was seen.
func (g *gateway) awaitStore(up bool) time.Time {
	g.t.Helper()
	eventually(g.t, 20*time.Second, func() error {
		if g.storeUp() != up {
			return fmt.Errorf("store up: %v, want %v", !up, up)
		}
		return nil
	})
	return time.Now()
}

// scripts is how many scripts a Redis has run: one for each decision and each
// settlement of a lease.
func scripts(t testing.TB, s *redistest.Server) int {
	t.Helper()
	stats, _ := s.Do("INFO", "commandstats").(string)
	n := 0
	for line := range strings.Lines(stats) {
		name, rest, _ := strings.Cut(line, ":calls=")
		switch name {
		case "cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall":
			calls, _, _ := strings.Cut(rest, ",")
			v, err := strconv.Atoi(calls)
			if err != nil {
				t.Fatalf("commandstats: %q", line)
			}
			n += v
		}
	}
	return n
}

// slowable is a proxy in front of a server whose answers can be delayed.
type slowable struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
}

func newSlowable(t testing.TB, upstream string) *slowable {
	t.Helper()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(api, "redis", freeAddress(t), upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &slowable{t: t, proxy: p}
}

func (s *slowable) addr() string { return s.proxy.Listen }

// slow delays every answer from now on.
func (s *slowable) slow(by time.Duration) {
	s.t.Helper()
	toxic := fmt.Sprintf(`{"name": "slow", "type": "latency", "stream": "downstream", "attributes": {"latency": %d}}`, by.Milliseconds())
	if _, err := s.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *slowable) quick() {
	s.t.Helper()
	if err := s.proxy.Toxics.RemoveToxic(context.Background(), "slow"); err != nil {
		s.t.Fatal(err)
	}
}

// TestSlowable checks the proxy itself.
func TestSlowable(t *testing.T) {
	t.Parallel()
	s := newSlowable(t, redistest.Start(t).Addr())
	ask := func() time.Duration {
		began := time.Now()
		if got, err := redistest.Do(s.addr(), "PING"); err != nil || got != "PONG" {
			t.Fatal(got, err)
		}
		return time.Since(began)
	}
	ask()
	s.slow(50 * time.Millisecond)
	if d := ask(); d < 50*time.Millisecond {
		t.Errorf("slowed by 50 ms, an answer came after %v", d)
	}
	s.quick()
	if d := ask(); d > 50*time.Millisecond {
		t.Errorf("no longer slowed, an answer took %v", d)
	}
}

// redisList is addresses as a config lists them.
func redisList(addrs ...string) string {
	for _, a := range addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			panic(err)
		}
	}
	return `["` + strings.Join(addrs, `", "`) + `"]`
}

package issuer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store/redis"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// fleet is gateways that share a Redis.
func fleet(t *testing.T, server *redistest.Server, n int) (all []*Server, clients []*redis.Client) {
	t.Helper()
	for at := range n {
		c, err := redis.Dial(redis.Options{Gateway: fmt.Sprintf("gateway-%d", at), Config: &config.Redis{
			Addresses: []string{server.Addr()}, Prefix: "sluice:", Timeout: config.Duration{Duration: 150 * time.Millisecond}, // tests share their cores
		}})
		if err != nil {
			t.Fatal(err)
		}
		i := New(Options{})
		c.Watch(i.Changed)
		i.Keep(c)
		s, err := i.Serve(settings(somePeople()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			s.Close()
			if err := i.Close(context.Background()); err != nil {
				t.Error(err)
			}
			ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
			defer stop()
			if err := c.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		all, clients = append(all, s), append(clients, c)
	}
	for _, s := range all {
		until(t, 5*time.Second, "there are keys", func() bool { return s.i.known() && s.i.ring.signing("ES256", time.Now()) != nil })
	}
	return all, clients
}

// until waits for something, and returns how long it took.
func until(t *testing.T, limit time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		if time.Since(start) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(start)
}

func TestFourGatewaysOnRedis(t *testing.T) {
	server := redistest.Start(t)
	gateways, clients := fleet(t, server, 4)
	keys := string(gateways[0].Keys().Body)
	for i, g := range gateways {
		if string(g.Keys().Body) != keys {
			t.Errorf("gateway %d has other keys", i)
		}
	}

	// A revocation is known everywhere within a second of its acknowledgement.
	var took []time.Duration
	for n := range 20 {
		tokens := first(t, gateways[n%4], "k1")
		if tokens.refresh == "" {
			t.Fatal("nothing was recorded")
		}
		if r := gateways[(n+1)%4].Revoke(t.Context(), ask("k1", "token="+tokens.access)); r.Status != 200 {
			t.Fatalf("%+v, %v", r, r.Cause)
		}
		took = append(took, until(t, time.Second, "revoked on four gateways", func() bool {
			return !slices.ContainsFunc(gateways, func(g *Server) bool { return usable(g, tokens.access, time.Now()) == nil })
		}))
		if a := refresh(t, gateways[n%4], "k1", tokens.refresh); a.code != "invalid_grant" {
			t.Errorf("%+v", a)
		}
	}
	slices.Sort(took)
	t.Logf("revocations are known everywhere after %v, at worst %v", took[10], took[19])

	// Of all that refresh with one token at once, on four gateways, one gets tokens.
	for range 20 {
		tokens := first(t, gateways[0], "k1")
		var won atomic.Int32
		var wait sync.WaitGroup
		for n := range 8 {
			wait.Go(func() {
				if a := refresh(t, gateways[n%4], "k1", tokens.refresh); a.status == 200 {
					won.Add(1)
				}
			})
		}
		wait.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d have got tokens", won.Load())
		}
	}

	// Without Redis nothing is acknowledged, and tokens go on. A Redis that has lost
	// everything is told again what was revoked, and which keys there are.
	good, dead, later := first(t, gateways[0], "k1"), first(t, gateways[0], "k1"), first(t, gateways[0], "k1")
	if r := gateways[0].Revoke(t.Context(), ask("k1", "token="+dead.access)); r.Status != 200 {
		t.Fatal(r)
	}
	server.Kill()
	if r := gateways[1].Revoke(t.Context(), ask("k1", "token="+later.access)); r.Status != 503 {
		t.Errorf("acknowledged without Redis: %+v", r)
	}
	if err := usable(gateways[1], good.access, time.Now()); err != nil {
		t.Errorf("without Redis a good token is refused: %v", err)
	}
	server.Restart()
	for _, c := range clients {
		until(t, 10*time.Second, "Redis is there again", c.Up)
	}
	until(t, 10*time.Second, "everything is told again", func() bool {
		i := New(Options{})
		i.Keep(clients[0])
		defer func() { _ = i.Close(context.Background()) }()
		if err := i.tend(t.Context(), nil); err != nil {
			return false
		}
		s := &Server{i: i, o: settings(somePeople())}
		a, err := s.Verify([]byte(dead.access), time.Now())
		return err == nil && s.Live(a) == errRevoked && usable(s, good.access, time.Now()) == nil
	})
	until(t, 10*time.Second, "a revocation is acknowledged again", func() bool {
		return gateways[1].Revoke(t.Context(), ask("k1", "token="+later.access)).Status == 200
	})
	if err := usable(gateways[1], later.access, time.Now()); err == nil {
		t.Error("and was not made")
	}
}

package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// names resolves from a map; a name without an address does not exist.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if len(n[host]) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return slices.Clone(n[host]), nil
}

// zone is names that change.
type zone struct {
	mu    sync.Mutex
	names names
	asked int
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	return z.names.LookupNetIP(ctx, network, host)
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[host] = nil
	for _, a := range addrs {
		z.names[host] = append(z.names[host], netip.MustParseAddr(a))
	}
}

// originAt listens on a given loopback address, which Linux has sixteen million of.
func originAt(t *testing.T, addr string, serve func(*peer)) *origin {
	t.Helper()
	o := &origin{serve: serve}
	o.listen(t, addr)
	t.Cleanup(o.stop)
	return o
}

func addresses(u *Upstream) string {
	var s string
	for _, t := range u.Status().Targets {
		s += t.Address + " "
	}
	return s
}

func TestNameIsResolvedBeforeTheFirstRequest(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	z := &zone{names: names{}}
	z.set("users.internal", "127.0.0.1")
	port := strconv.Itoa(int(o.addr.Port()))
	u := testUpstreamEnv(t, config.Upstream{}, Env{Resolver: z}, usualTimes(), "http://users.internal:"+port)
	check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
}

func TestNameWithoutAddress(t *testing.T) {
	z := &zone{names: names{}}
	o := newOrigin(t, answer(ok2))
	port := strconv.Itoa(int(o.addr.Port()))
	u := testUpstreamEnv(t, config.Upstream{}, Env{Resolver: z}, shortTimes(), "http://users.internal:"+port)
	check(t, "result", result(u, newExchange("GET", "/")), "upstream_unavailable Bad Gateway by upstream (dns_error)")
	z.set("users.internal", "127.0.0.1")
	eventually(t, "the name appears", func() bool { return result(u, newExchange("GET", "/")) == "OK ok" })
}

// Resolvers may answer late or never; a request waits as long as connecting may take.
func TestSlowResolver(t *testing.T) {
	u := testUpstreamEnv(t, config.Upstream{ConnectTimeout: duration(30 * time.Millisecond)}, Env{Resolver: silent{}}, usualTimes(), "http://users.internal:1")
	check(t, "result", result(u, newExchange("GET", "/")), "upstream_unavailable Bad Gateway by upstream (dns_timeout)")
}

type silent struct{}

func (silent) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// One address of a name is enough: the others are passed over within the same try,
// and then set aside.
func TestFallThroughToTheNextAddress(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	port := strconv.Itoa(int(o.addr.Port()))
	z := &zone{names: names{}}
	z.set("users.internal", "127.0.0.77", "127.0.0.78", "127.0.0.1") // nobody listens on the first two
	u := testUpstreamEnv(t, config.Upstream{}, Env{Resolver: z}, usualTimes(), "http://users.internal:"+port)
	for range 50 {
		x := newExchange("GET", "/")
		check(t, "result", result(u, x), "OK ok")
		check(t, "attempts", x.Usage.Attempts, 1)
		check(t, "target", x.Usage.Target, o.addr.String())
	}
	check(t, "connections", o.conns(), 1)
}

func TestAddressesComeAndGo(t *testing.T) {
	a := newOrigin(t, answer(ok2))
	port := strconv.Itoa(int(a.addr.Port()))
	b := originAt(t, "127.0.0.2:"+port, answer(ok2))
	z := &zone{names: names{}}
	z.set("users.internal", "127.0.0.1")
	u := testUpstreamEnv(t, config.Upstream{Balance: "round_robin"}, Env{Resolver: z}, shortTimes(), "http://users.internal:"+port)
	for range 10 {
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	}
	check(t, "set", addresses(u), a.addr.String()+" ")
	check(t, "connections to the first", a.conns(), 1)

	z.set("users.internal", "127.0.0.2", "127.0.0.1")
	eventually(t, "the second address is used", func() bool {
		check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
		return b.conns() > 0
	})
	check(t, "connections to the first are kept", a.conns(), 1)
	for _, s := range u.Status().Targets {
		check(t, "weight", s.Weight, 0.5)
	}

	z.set("users.internal", "127.0.0.2")
	eventually(t, "the first address is gone", func() bool { return addresses(u) == b.addr.String()+" " })
	eventually(t, "its connection closes", func() bool { open, _ := settled(t, u); return open == 1 })

	z.set("users.internal")
	before := func() int { z.mu.Lock(); defer z.mu.Unlock(); return z.asked }()
	eventually(t, "a failed look-up", func() bool { z.mu.Lock(); defer z.mu.Unlock(); return z.asked > before+1 })
	check(t, "addresses stay while look-ups fail", result(u, newExchange("GET", "/")), "OK ok")
}

func TestAddressIsNeverLookedUp(t *testing.T) {
	o := newOrigin(t, answer(ok2))
	z := &zone{names: names{}}
	u := testUpstreamEnv(t, config.Upstream{}, Env{Resolver: z}, shortTimes(), o.url)
	check(t, "result", result(u, newExchange("GET", "/")), "OK ok")
	check(t, "look-ups", z.asked, 0)
}

func TestCloseEndsLookUps(t *testing.T) {
	u, err := New("up", &config.Upstream{Targets: []config.Target{{URL: "http://users.internal", Weight: 1}}}, Env{Resolver: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(u.Close(), u.Close()); err != nil {
		t.Error(err)
	}
}

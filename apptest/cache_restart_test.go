package apptest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// patient is state.redis that is given time: what is tested is what it keeps.
func patient(addr string) string { return fmt.Sprintf("{addresses: %s, timeout: 1s}", redisList(addr)) }

// lasting is an origin whose bodies are fresh for an hour.
func lasting(t testing.TB, size int) *origin {
	return newOrigin(t, func(o *origin, w http.ResponseWriter, r *http.Request) {
		give(w, "max-age=3600", seal(r.RequestURI, "*", int64(o.hits.all()[r.RequestURI]), size))
	})
}

// want asks for a target and fails the test unless its body comes whole.
func (k *asker) want(t testing.TB, target, header string) (sealed, string) {
	t.Helper()
	r, err := k.get(target, header)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	got, err := unseal(r.body)
	if r.status != 200 || err != nil || got.url != target {
		t.Fatalf("%s: status %d, the body of %q, %v\n%s", target, r.status, got.url, err, r.head)
	}
	return got, r.cache()
}

// TestCacheOutlivesAKilledGateway kills a gateway and starts it again: what Redis has is
// there at once, and nobody asks the origin for it.
func TestCacheOutlivesAKilledGateway(t *testing.T) {
	o := lasting(t, 2000)
	g := start(t, caching(o, patient(redistest.Start(t).Addr()), ""))
	const n = 300
	k := &asker{addr: g.addr("PLAIN")}
	defer func() { k.hangUp() }()
	target := func(i int) string { return fmt.Sprintf("/object/%d?x=%d", i, i%7) }
	for i := range n {
		k.want(t, target(i), "")
	}
	g.awaitMetric(n, "sluice_cache_shared_total", `result="put"`)
	for kill := range 3 {
		g.signal(syscall.SIGKILL)
		<-g.ended
		k.hangUp()
		g.again()
		k = &asker{addr: g.addr("PLAIN")}
		for i := range n {
			if got, how := k.want(t, target(i), ""); how != "hit" || got.gen != 1 {
				t.Errorf("kill %d, %s: %s, state %d, want a hit of state 1", kill, target(i), how, got.gen)
			}
		}
		if got := o.total("/object/"); got != n {
			t.Fatalf("kill %d: the origin was asked %d times for %d objects", kill, got, n)
		}
	}
}

// TestCacheLeaderKilled kills the gateway that fetches for all. The others wait no
// longer than the wait limit, and one of them fetches.
func TestCacheLeaderKilled(t *testing.T) {
	o := newOrigin(t, func(o *origin, w http.ResponseWriter, r *http.Request) {
		if o.total("/led") == 1 {
			o.wait(r, "never")
			return
		}
		give(w, "max-age=3600", seal(r.RequestURI, "*", 1, 500))
	})
	all := gateways(t, 2, caching(o, patient(redistest.Start(t).Addr()), ""))
	k := &asker{addr: all[0].addr("PLAIN")}
	defer k.hangUp()
	if err := k.send(getting("/led", "")); err != nil {
		t.Fatal(err)
	}
	o.awaitTotal(t, "/led", 1)
	var wg sync.WaitGroup
	began := time.Now()
	for range 20 {
		wg.Go(func() {
			k := &asker{addr: all[1].addr("PLAIN")}
			defer k.hangUp()
			r, err := k.get("/led", "")
			if err != nil || r.status != 200 {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
	all[0].signal(syscall.SIGKILL)
	<-all[0].ended
	wg.Wait()
	took := time.Since(began)
	t.Logf("served %v after the kill; the origin was asked %d times", took, o.total("/led"))
	// The wait limit is 5 s, and a busy machine takes its own.
	if took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	// Whoever has waited in vain goes by himself, but then all is well.
	before := o.total("/led")
	k2 := &asker{addr: all[1].addr("PLAIN")}
	defer k2.hangUp()
	if _, how := k2.want(t, "/led", ""); how != "hit" || o.total("/led") != before {
		t.Errorf("afterwards: %s, want a hit", how)
	}
}

// TestCacheReload changes the config under load. A route that stays as it was keeps its
// objects, one that changed loses them, and less memory is less memory.
func TestCacheReload(t *testing.T) {
	o := lasting(t, 8000)
	const routes = `  - {name: kept, path: "/kept/{rest...}", cache: {}, upstream: o}
  - {name: changed, path: "/changed/{rest...}", cache: %s, upstream: %s}
`
	config := func(memory, cache, upstream, more string) string {
		c := strings.ReplaceAll(cacheConfig, "@CACHE@", "{memory: "+memory+"}")
		c = strings.ReplaceAll(c, "@STATE@", "{}")
		c = strings.ReplaceAll(c, "upstreams: {", `upstreams: {p: {targets: ["http://@ORIGIN@"]}, `)
		return strings.ReplaceAll(c, "@ROUTES@", fmt.Sprintf(routes, cache, upstream)) + more
	}
	put := func(g *gateway, config string) {
		t.Helper()
		if resp, body := g.putConfig(config); resp.StatusCode/100 != 2 {
			t.Fatalf("PUT: %d %s", resp.StatusCode, body)
		}
	}
	g := start(t, setup{config: config("64MiB", "{}", "o", ""), vars: map[string]string{"ORIGIN": o.addr()}})
	const n = 200
	ask := func(addr string, kind string) {
		k := &asker{addr: addr}
		defer k.hangUp()
		for i := range n {
			k.want(t, fmt.Sprintf("/%s/%d", kind, i), "")
		}
	}
	ask(g.addr("PLAIN"), "kept")
	ask(g.addr("PLAIN"), "changed")
	load := newCrowd(t)
	var next atomic.Int64
	load.askers(4, g.addr("PLAIN"), func(_ int, k *asker) error {
		i := next.Add(1)
		target := fmt.Sprintf("/%s/%d", []string{"kept", "changed"}[i%2], i/2%n)
		r, err := k.get(target, "")
		if err != nil {
			return err
		}
		if got, err := unseal(r.body); r.status != 200 || err != nil || got.url != target {
			return fmt.Errorf("status %d, %q for %q, %w", r.status, got.url, target, err)
		}
		return nil
	})
	load.reach(500)
	before := o.total("/")
	for i := range rounds(10, 200) {
		put(g, config("64MiB", "{}", "o", fmt.Sprintf("  - {name: more%d, path: /more%d, upstream: o}\n", i, i)))
	}
	load.reach(500)
	if got := o.total("/"); got != before {
		t.Errorf("the origin was asked %d times more, though no route changed", got-before)
	}
	put(g, config("64MiB", "{}", "p", ""))
	load.reach(4 * n)
	if got := o.total("/kept/"); got != n {
		t.Errorf("the origin was asked %d times for %d objects of a route that did not change", got, n)
	}
	ask(g.addr("PLAIN"), "changed")
	for target, hits := range o.hits.all() {
		if strings.HasPrefix(target, "/changed/") && hits != 2 {
			t.Errorf("%s: the origin was asked %d times, want once more after the change", target, hits)
		}
	}
	// How long something is kept does not say what it is.
	put(g, config("64MiB", "{stale_if_error: 1h}", "p", ""))
	asked := o.total("/")
	ask(g.addr("PLAIN"), "changed")
	if got := o.total("/"); got != asked {
		t.Errorf("the origin was asked %d times more, though only stale_if_error changed", got-asked)
	}
	full := g.metric("sluice_cache_bytes")
	if full < 2*n*8000 {
		t.Errorf("sluice_cache_bytes is %v with %d objects of 8,000 bytes", full, 2*n)
	}
	put(g, config("1MiB", "{}", "p", ""))
	if got := g.metric("sluice_cache_limit_bytes"); got != 1<<20 {
		t.Errorf("sluice_cache_limit_bytes is %v, want %d", got, 1<<20)
	}
	eventually(t, 5*time.Second, func() error {
		if got := g.metric("sluice_cache_bytes"); got > 1.1*(1<<20) {
			return fmt.Errorf("sluice_cache_bytes is %v, want 1 MiB at most (it was %v)", got, full)
		}
		return nil
	})
	load.end()
}

// TestCacheDrain stops a gateway while slow fills are under way and others wait for
// them. All get their whole bodies, and Redis has the objects afterwards.
func TestCacheDrain(t *testing.T) {
	const fills, each = 4, 6
	o := newOrigin(t, func(o *origin, w http.ResponseWriter, r *http.Request) {
		body := seal(r.RequestURI, "*", 1, 100_000)
		if o.total(r.RequestURI) > 1 {
			give(w, "max-age=3600", body)
			return
		}
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write([]byte(body[:30_000]))
		w.(http.Flusher).Flush()
		o.wait(r, "drain")
		_, _ = w.Write([]byte(body[30_000:]))
	})
	g := start(t, caching(o, patient(redistest.Start(t).Addr()), ""))
	var held sync.WaitGroup
	for i := range fills * each {
		held.Go(func() {
			target := fmt.Sprint("/slow/", i%fills)
			k := &asker{addr: g.addr("PLAIN")}
			defer k.hangUp()
			r, err := k.get(target, "")
			if err != nil {
				t.Errorf("%s: %v", target, err)
				return
			}
			if got, err := unseal(r.body); err != nil || got.url != target {
				t.Errorf("%s: %q, %v", target, got.url, err)
			}
		})
	}
	o.awaitTotal(t, "/slow/", fills)
	g.awaitMetric(fills*each, "sluice_requests_in_flight")
	g.signal(syscall.SIGTERM)
	eventually(t, 5*time.Second, func() error {
		if status, _, err := g.adminGet("/readyz"); err == nil && status == http.StatusOK {
			return errNotYet
		}
		return nil
	})
	close(o.gate("drain"))
	held.Wait()
	g.waitExit(15 * time.Second)
	asked := o.total("/slow/")
	if asked != fills {
		t.Errorf("the origin was asked %d times for %d objects", asked, fills)
	}
	g.again()
	k := &asker{addr: g.addr("PLAIN")}
	defer k.hangUp()
	for i := range fills {
		k.want(t, fmt.Sprint("/slow/", i), "")
	}
	if got := o.total("/slow/"); got != asked {
		t.Errorf("after a clean stop and a start the origin was asked for %d of %d objects again", got-asked, fills)
	}
}

package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// everywhere runs a test on a single server and on a cluster.
func everywhere(t *testing.T, f func(t *testing.T, addrs []string)) {
	t.Run("single", func(t *testing.T) { f(t, []string{redistest.Start(t).Addr()}) })
	t.Run("cluster", func(t *testing.T) { f(t, redistest.StartCluster(t).Addrs()) })
}

func TestObjectsAreKept(t *testing.T) {
	everywhere(t, func(t *testing.T, addrs []string) {
		a, b := open(t, Options{}, addrs...), open(t, Options{Gateway: "b"}, addrs...)
		if got := a.getAt(t, "https://a/1"); got != "" {
			t.Errorf("%q", got)
		}
		var tags []string
		for i := range store.MaxObjectTags {
			tags = append(tags, fmt.Sprint("t:", i))
		}
		a.keepAt(t, "https://a/1", "small\x00\r\n")
		a.keepAt(t, "https://a/2", "tagged", tags...)
		a.keepAt(t, "https://a/3", "", "t:3")
		other := store.ObjectKey{URI: "https://a/1", Variant: "another"}
		again(t, func() error {
			return a.objects.Put(t.Context(), other, store.Stored{Value: []byte("another"), TTL: time.Hour, Stamp: a.purges.Stamp()})
		})
		for name, want := range map[string]string{"https://a/1": "small\x00\r\n", "https://a/2": "tagged", "https://a/3": ""} {
			if got := b.getAt(t, name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
		if got, err := b.objects.Get(t.Context(), at("https://a/3")); err != nil || got == nil {
			t.Errorf("an empty value is %v, %v", got, err)
		}
		if got, err := b.objects.Get(t.Context(), other); string(got) != "another" {
			t.Errorf("the other variant is %q, %v", got, err)
		}
		a.keepAt(t, "https://a/1", "replaced")
		if got := b.getAt(t, "https://a/1"); got != "replaced" {
			t.Errorf("%q", got)
		}
		again(t, func() error {
			return a.objects.Put(t.Context(), at("https://a/1"), store.Stored{Value: []byte("brief"), TTL: time.Millisecond, Stamp: a.purges.Stamp()})
		})
		within(t, time.Second, "expired", func() bool { return b.getAt(t, "https://a/1") == "" })
		purge(t, b, store.Purge{Kind: store.PurgeTag, Name: tags[77]})
		if got := a.getAt(t, "https://a/2"); got != "" {
			t.Errorf("%q was purged", got)
		}
	})
}

func TestALargeObject(t *testing.T) {
	server := redistest.Start(t)
	o := Options{}
	g := open(t, o, server.Addr())
	g.budget = time.Second
	big := strings.Repeat("x", store.MaxObject)
	begun := time.Now()
	g.keepAt(t, "https://a/big", big)
	put := time.Since(begun)
	begun = time.Now()
	got := g.getAt(t, "https://a/big")
	if got != big {
		t.Errorf("%d bytes", len(got))
	}
	t.Logf("8 MiB: put %v, got %v", put, time.Since(begun))
	if n := len(server.Do("KEYS", "*:p:*").([]any)); n > 0 {
		t.Errorf("%d values were left on their way", n)
	}
	err := g.objects.Put(t.Context(), at("x"), store.Stored{Value: make([]byte, store.MaxObject+1), TTL: time.Hour, Stamp: g.purges.Stamp()})
	if err == nil || errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
}

func TestAPutThatAPurgeHasOvertaken(t *testing.T) {
	everywhere(t, func(t *testing.T, addrs []string) {
		all := four(t, Options{}, addrs...)
		for i, p := range []store.Purge{uri("https://a/1"), {Kind: store.PurgeTag, Name: "t"}, {Kind: store.PurgePrefix, Name: "https://"}, {Kind: store.PurgeAll}} {
			old := store.Stored{Value: []byte("old"), TTL: time.Hour, Stamp: all[0].purges.Stamp(), Tags: []string{"s", "t"}}
			purge(t, all[1], p)
			for _, g := range all {
				again(t, func() error { return g.objects.Put(t.Context(), at("https://a/1"), old) })
				if got := all[3].getAt(t, "https://a/1"); got != "" {
					t.Errorf("purge %d: %q", i, got)
				}
				// One that was given up, and is executed only now.
				tags := tagHashes(old.Tags)
				again(t, func() error {
					return g.objects.put(t.Context(), g.objects.keys(at("https://a/1")), old.TTL, "", value{life: g.life(), stamp: old.Stamp, tags: tags, body: old.Value})
				})
				if got := all[2].getAt(t, "https://a/1"); got != "" {
					t.Errorf("purge %d, late: %q", i, got)
				}
			}
		}
		all[0].keepAt(t, "https://a/1", "new", "s", "t")
		if got := all[1].getAt(t, "https://a/1"); got != "new" {
			t.Errorf("%q", got)
		}
	})
}

// TestAMarkThatWasEvictedForbidsNoLess has marks go while what they forbid stays, and a
// gateway that remembers nothing.
func TestAMarkThatWasEvictedForbidsNoLess(t *testing.T) {
	server := redistest.Start(t)
	a := open(t, Options{}, server.Addr())
	a.keepAt(t, "https://a/1", "old", "t")
	purge(t, a, uri("https://a/1"), store.Purge{Kind: store.PurgeTag, Name: "t"})
	keys := a.objects.keys(at("https://a/1"))
	b := open(t, Options{Gateway: "b"}, server.Addr())
	a.objects.known.mu.Lock()
	clear(a.objects.known.recent)
	a.objects.known.mu.Unlock()
	for _, evicted := range []string{keys.mark, a.tagKey(hashOf("t"))} {
		server.Do("DEL", evicted)
		for _, g := range []*gateway{a, b} {
			if got := g.getAt(t, "https://a/1"); got != "" {
				t.Errorf("%q", got)
			}
		}
	}
	again(t, func() error { // another variant makes the marks anew
		return a.objects.Put(t.Context(), store.ObjectKey{URI: "https://a/1", Variant: "another"}, store.Stored{Value: []byte("x"), TTL: time.Minute, Stamp: a.purges.Stamp(), Tags: []string{"t"}})
	})
	if server.Do("EXISTS", keys.value, keys.mark) != int64(2) || b.getAt(t, "https://a/1") != "" {
		t.Error("the old one is valid again")
	}
}

func TestOneLeads(t *testing.T) {
	everywhere(t, func(t *testing.T, addrs []string) {
		all := four(t, Options{}, addrs...)
		key := at("https://a/1")
		for round := range 5 {
			var wg sync.WaitGroup
			var mu sync.Mutex
			turns := map[store.Turn]int{}
			var leader *gateway
			for i := range 100 {
				wg.Go(func() {
					g := all[i%4]
					var turn store.Turn
					again(t, func() (err error) { turn, err = g.objects.Lead(t.Context(), key, 10*time.Second); return err })
					mu.Lock()
					defer mu.Unlock()
					if turns[turn]++; turn == store.Lead {
						leader = g
					}
				})
			}
			wg.Wait()
			if turns[store.Lead] != 1 || turns[store.Wait] != 99 {
				t.Fatalf("round %d: %v", round, turns)
			}
			for _, g := range all { // the others cannot end it
				if g != leader {
					again(t, func() error { return g.objects.Release(t.Context(), key, 0) })
				}
			}
			if turn := lead(t, all[0], key); turn != store.Wait {
				t.Fatalf("round %d: %v while somebody leads", round, turn)
			}
			again(t, func() error { return leader.objects.Release(t.Context(), key, 0) })
		}
	})
}

func lead(t *testing.T, g *gateway, key store.ObjectKey) (turn store.Turn) {
	t.Helper()
	again(t, func() (err error) { turn, err = g.objects.Lead(t.Context(), key, time.Minute); return err })
	return turn
}

func TestHowALeadEnds(t *testing.T) {
	server := redistest.Start(t)
	a, b := open(t, Options{}, server.Addr()), open(t, Options{Gateway: "b"}, server.Addr())
	key := at("https://a/1")
	put := func(stamp uint64) {
		t.Helper()
		again(t, func() error {
			return a.objects.Put(t.Context(), key, store.Stored{Value: []byte("v"), TTL: time.Minute, Stamp: stamp, Lead: true})
		})
	}
	within(t, time.Second, "led", func() bool {
		turn, err := a.objects.Lead(t.Context(), key, 30*time.Millisecond)
		return err == nil && turn == store.Lead
	})
	within(t, time.Second, "another's turn, though the leader is gone", func() bool { return lead(t, b, key) == store.Lead })
	again(t, func() error { return a.objects.Release(t.Context(), key, 0) })
	if turn := lead(t, a, key); turn != store.Wait {
		t.Errorf("%v: who led before ended the lead of another", turn)
	}
	again(t, func() error { return b.objects.Release(t.Context(), key, time.Minute) })
	if turn := lead(t, a, key); turn != store.Pass {
		t.Errorf("%v behind Release with pass", turn)
	}
	server.Do("DEL", a.objects.keys(key).lock)

	// One that is given up, and executed late, ends no other.
	lead(t, a, key)
	a.objects.later(release(a.objects.keys(key), "a-0", 0))
	if turn := lead(t, a, key); turn != store.Wait {
		t.Errorf("%v though it leads", turn)
	}
	again(t, func() error { return a.objects.Release(t.Context(), key, 0) })

	stamp := a.purges.Stamp()
	lead(t, a, key)
	put(stamp)
	if turn := lead(t, b, key); turn != store.Wait || b.getAt(t, "https://a/1") != "v" {
		t.Errorf("%v right behind a Put", turn)
	}
	purge(t, b, uri("https://a/1"))
	if turn := lead(t, b, key); turn != store.Lead {
		t.Errorf("%v though what was put is purged", turn)
	}
	again(t, func() error { return b.objects.Release(t.Context(), key, 0) })

	lead(t, a, key)
	put(stamp) // refused
	within(t, time.Second, "another's turn", func() bool { return lead(t, b, key) == store.Lead })
	again(t, func() error { return b.objects.Release(t.Context(), key, time.Millisecond) })
	within(t, time.Second, "no pass any more", func() bool { return lead(t, b, key) == store.Lead })
}

func TestWhatIsDamagedIsNotThere(t *testing.T) {
	server := redistest.Start(t)
	g := open(t, Options{}, server.Addr())
	keys := g.objects.keys(at("https://a/1"))
	g.keepAt(t, "https://a/1", "v", "t")
	whole := server.Do("GET", keys.value).(string)
	head := len(whole) - 1
	for i := range head {
		cut := []byte(whole)
		cut[i] ^= 1 << (i % 8)
		server.Do("SET", keys.value, string(cut))
		if got := g.getAt(t, "https://a/1"); got != "" {
			t.Fatalf("byte %d flipped: %q", i, got)
		}
		within(t, time.Second, "removed", func() bool { return server.Do("EXISTS", keys.value) == int64(0) })
		server.Do("SET", keys.value, whole[:i])
		if got := g.getAt(t, "https://a/1"); got != "" {
			t.Fatalf("cut at %d: %q", i, got)
		}
		within(t, time.Second, "removed", func() bool { return server.Do("EXISTS", keys.value) == int64(0) })
	}
	if n := g.Events()[Damaged]; n < uint64(2*head) {
		t.Errorf("%d were counted", n)
	}
	for i, key := range []string{keys.value, keys.mark, keys.lock, g.tagKey(hashOf("t"))} {
		for _, wreck := range [][]string{{"RPUSH", key, "x"}, {"HSET", key, "a", "b"}, {"SET", key, "NaN"}, {"SET", key, ""}} {
			g.keepAt(t, "https://a/1", "v", "t")
			server.Do("DEL", key)
			server.Do(wreck...)
			if got := g.getAt(t, "https://a/1"); got != "" && key != keys.lock {
				t.Errorf("key %d, %s: %q", i, wreck[0], got)
			}
			if turn := lead(t, g, at("https://a/1")); key == keys.lock && turn != store.Lead {
				t.Errorf("key %d, %s: %v", i, wreck[0], turn)
			}
			again(t, func() error { return g.objects.Release(t.Context(), at("https://a/1"), 0) })
			if wreck[0] == "SET" && (key == keys.mark || key == g.tagKey(hashOf("t"))) {
				purge(t, g, uri("https://a/1"), store.Purge{Kind: store.PurgeTag, Name: "t"}) // or it ends with its TTL
			}
			g.keepAt(t, "https://a/1", "new", "t")
			if got := g.getAt(t, "https://a/1"); got != "new" {
				t.Errorf("key %d, %s: %q behind a Put", i, wreck[0], got)
			}
		}
	}
	if g.Stats().Opened > 0 {
		t.Error("damaged keys opened the breaker")
	}
}

func TestAFullServerKeepsLimits(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "30mb", "--maxmemory-policy", "noeviction")
	g := open(t, Options{}, server.Addr())
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	fill := func() (err error) {
		for i := range 200 {
			g.objects.full.Store(0)
			if err = g.objects.Put(t.Context(), at(fmt.Sprint(i)), store.Stored{Value: make([]byte, 1<<20), TTL: time.Hour, Stamp: g.purges.Stamp()}); errors.Is(err, errRoom) {
				return err
			}
			mustTake(t, g.Client, fmt.Sprint("k", i), l)
		}
		return err
	}
	if err := fill(); !errors.Is(err, store.ErrNotDone) {
		t.Errorf("%v", err)
	}
	used, _ := strconv.Atoi(strings.TrimSpace(strings.Split(strings.Split(server.Do("INFO", "memory").(string), "used_memory:")[1], "\r")[0]))
	if used < 20<<20 || used > 30<<20 {
		t.Errorf("%d bytes are used", used)
	}
	if err := g.objects.Put(t.Context(), at("x"), store.Stored{Value: []byte("x"), TTL: time.Hour, Stamp: g.purges.Stamp(), Lead: true}); err != errRoom {
		t.Errorf("%v: asked again at once", err)
	}
	mustTake(t, g.Client, "k", l)
	if g.Events()[Full] == 0 || g.Stats().Opened > 0 {
		t.Errorf("%+v", g.Stats())
	}
	g.objects.full.Store(0)
	server.Do("CONFIG", "SET", "maxmemory", "1")
	if _, err := g.objects.Lead(t.Context(), at("0"), time.Minute); !errors.Is(err, store.ErrNotDone) {
		t.Errorf("%v", err)
	}
}

func TestALargePutDoesNotStopLimits(t *testing.T) {
	server := redistest.Start(t)
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(api, "redis", "127.0.0.1:0", server.Addr())
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer proxy.Stop()
	g := open(t, Options{Config: &config.Redis{Timeout: config.Duration{Duration: 300 * time.Millisecond}}}, proxy.Listen)
	if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "narrow", "type": "bandwidth", "stream": "upstream", "attributes": {"rate": 500}}`)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			begun := time.Now() // of 24 MiB at 500 KB/s
			err := g.objects.Put(t.Context(), at(fmt.Sprint(i)), store.Stored{Value: make([]byte, 2<<20), TTL: time.Hour, Stamp: g.purges.Stamp()})
			if took := time.Since(begun); !errors.Is(err, store.ErrUnavailable) || took > objectWait+2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	late := 0 // because of a loaded machine
	for i := range 300 {
		if _, err := take(g.Client, fmt.Sprint("k", i), l); err != nil {
			late++
		}
	}
	wg.Wait()
	if late > 15 {
		t.Errorf("%d of 300 takes were late", late)
	}
	if s := g.Stats(); s.Opened > 0 || s.Calls[OpPut][NotMade] < 12-maxPuts {
		t.Errorf("%+v", s)
	}
	if err := proxy.Toxics.RemoveToxic(t.Context(), "narrow"); err != nil {
		t.Fatal(err)
	}
	g.keepAt(t, "https://a/1", "v")
	within(t, 5*time.Second, "room again", func() bool { return len(g.objects.puts) == 0 })
}

func TestObjectsOfAFrozenServer(t *testing.T) {
	server := redistest.Start(t)
	o := faulty()
	g := open(t, o, server.Addr())
	g.keepAt(t, "https://a/1", "v")
	server.Stop()
	var late, open int
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		begun := time.Now()
		got, err := g.objects.Get(t.Context(), at("https://a/1"))
		_, err2 := g.objects.Lead(t.Context(), at("https://a/1"), time.Minute)
		if took := time.Since(begun); took > 2*budget+tolerance || got != nil || !errors.Is(err, store.ErrUnavailable) || !errors.Is(err2, store.ErrUnavailable) {
			t.Fatalf("%q, %v, %v after %v", got, err, err2, took)
		}
		if errors.Is(err, store.ErrNotDone) {
			open++
		} else {
			late++
		}
		if n := g.Stats().InFlight; n > maxLooks+maxPuts+10 {
			t.Fatalf("%d in flight", n)
		}
		time.Sleep(time.Millisecond)
	}
	if late > 100 || late == 0 || open < 100 {
		t.Errorf("%d were waited for, %d were not made", late, open)
	}
	if server.Cont(); g.getAt(t, "https://a/1") != "v" {
		t.Error("it is gone")
	}
	// The leads that were given up are ended behind themselves.
	within(t, 2*time.Second, "somebody leads", func() bool { return lead(t, g, at("https://a/1")) == store.Lead })
}

func TestObjectsOutliveRedis(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes")
	g := open(t, faulty(), server.Addr())
	g.keepAt(t, "https://a/1", "v", "t")
	purge(t, g, uri("https://a/2"))
	server.Kill()
	within(t, 5*time.Second, "an error", func() bool {
		_, err := g.objects.Get(t.Context(), at("https://a/1"))
		return errors.Is(err, store.ErrUnavailable)
	})
	server.Restart()
	within(t, recovery+time.Second, "working", func() bool {
		got, _ := g.objects.Get(t.Context(), at("https://a/1"))
		return string(got) == "v"
	})
	b := open(t, Options{Gateway: "b"}, server.Addr()) // which finds it warm
	if b.getAt(t, "https://a/1") != "v" || g.Events()[Regressed] != 0 {
		t.Error("not warm")
	}
}

func TestObjectsOverAFailoverAndAMove(t *testing.T) {
	t.Run("sentinel", func(t *testing.T) {
		s := redistest.StartSentinel(t)
		o := faulty()
		o.Config.Sentinel = redistest.MasterName
		g := open(t, o, s.Addrs()...)
		g.keepAt(t, "https://a/1", "v")
		s.Failover()
		within(t, 10*time.Second, "working", func() bool {
			err := g.objects.Put(t.Context(), at("https://a/2"), store.Stored{Value: []byte("v"), TTL: time.Hour, Stamp: g.purges.Stamp()})
			got, _ := g.objects.Get(t.Context(), at("https://a/2"))
			return err == nil && string(got) == "v"
		})
		purge(t, g, uri("https://a/2"))
		if g.getAt(t, "https://a/2") != "" {
			t.Error("not purged")
		}
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t)
		g := open(t, Options{}, cluster.Addrs()...)
		g.keepAt(t, "https://a/1", "v")
		from, to := cluster.BeginMove(g.objects.keys(at("https://a/1")).value)
		for i := range 5 {
			_ = g.objects.Put(t.Context(), at("https://a/1"), store.Stored{Value: fmt.Append(nil, i), TTL: time.Hour, Stamp: g.purges.Stamp()})
		}
		cluster.EndMove(g.objects.keys(at("https://a/1")).value, from, to)
		within(t, 5*time.Second, "working", func() bool { g.keepAt(t, "https://a/1", "w"); return g.getAt(t, "https://a/1") == "w" })
		cluster.MoveSlot(g.purges.keys()[0])
		within(t, 5*time.Second, "working", func() bool { return g.purges.Purge(t.Context(), []store.Purge{uri("https://a/1")}) == nil })
		if g.getAt(t, "https://a/1") != "" {
			t.Error("not purged")
		}
	})
}

// TestObjectsAgainstAModel has four gateways put, get, purge and invalidate at random, one
// step after the other, and fills that take long. What is got must be what the last
// Put that counts has put there, unless it was purged.
func TestObjectsAgainstAModel(t *testing.T) {
	server := redistest.Start(t)
	all := four(t, Options{}, server.Addr())
	r := rand.New(rand.NewPCG(1, 2))
	type entry struct {
		v    string
		tags []string
	}
	type fill struct {
		uri   string
		s     store.Stored
		purge []store.Purge // since it began
	}
	there := map[string]entry{}
	var fills []fill
	hits := func(p store.Purge, uri string, tags []string) bool {
		return p.Kind == store.PurgeAll || p.Kind == store.PurgeURI && p.Name == uri ||
			p.Kind == store.PurgePrefix && strings.HasPrefix(uri, p.Name) || p.Kind == store.PurgeTag && slices.Contains(tags, p.Name)
	}
	got := 0
	for n := range 4000 {
		g, u := all[r.IntN(4)], fmt.Sprintf("https://%d/%d", r.IntN(2), r.IntN(6))
		switch k := r.IntN(20); {
		case k < 4:
			tags := []string{fmt.Sprint("t", r.IntN(5)), fmt.Sprint("t", r.IntN(5))}
			fills = append(fills, fill{uri: u, s: store.Stored{Value: fmt.Append(nil, n), TTL: time.Hour, Stamp: g.purges.Stamp(), Tags: tags[:r.IntN(3)]}})
		case k < 8 && len(fills) > 0:
			i := r.IntN(len(fills))
			f := fills[i]
			fills = slices.Delete(fills, i, i+1)
			again(t, func() error { return g.objects.Put(t.Context(), at(f.uri), f.s) })
			overtaken := slices.ContainsFunc(f.purge, func(p store.Purge) bool { return hits(p, f.uri, f.s.Tags) })
			switch kept := g.getAt(t, f.uri) == string(f.s.Value); {
			case kept && overtaken:
				t.Fatalf("step %d: a fill of %s that was overtaken by %v is there", n, f.uri, f.purge)
			case kept:
				there[f.uri] = entry{string(f.s.Value), f.s.Tags}
			case !overtaken && len(f.purge) == 0:
				t.Fatalf("step %d: a fill of %s is not kept, and nothing was purged", n, f.uri)
			} // else a mark was made by a later fill, which forbids earlier ones
		case k == 8 && r.IntN(3) == 0:
			p := store.Purge{Kind: store.PurgeKind(r.IntN(4)), Name: u}
			switch p.Kind {
			case store.PurgeTag:
				p.Name = fmt.Sprint("t", r.IntN(5))
			case store.PurgePrefix:
				p.Name = u[:len(u)-r.IntN(2)]
			case store.PurgeAll:
				p.Name = ""
			}
			purge(t, g, p)
			for u, e := range there {
				if hits(p, u, e.tags) {
					delete(there, u)
				}
			}
			for i := range fills {
				fills[i].purge = append(fills[i].purge, p)
			}
		default:
			v := g.getAt(t, u)
			if want := there[u].v; v != want && v != "" {
				t.Fatalf("step %d: %s is %q, want %q", n, u, v, want)
			} else if v != "" {
				got++
			} else if want != "" {
				delete(there, u) // one that is older than a mark that was made since
			}
		}
	}
	if got < 500 {
		t.Errorf("only %d were found", got)
	}
	t.Logf("%d found; %v", got, all[0].Events())
}

func TestARightThatObjectsNeedStopsNothingElse(t *testing.T) {
	server := redistest.Start(t)
	g := open(t, Options{}, server.Addr())
	l := newLimit(t, meter.FixedWindow, 1000000, time.Hour)
	for _, right := range []string{"mget", "rename", "exists", "info", "pttl", "hgetall", "hlen"} {
		server.Do("ACL", "SETUSER", "default", "-"+right)
		for range 5 {
			_ = g.objects.Put(t.Context(), at("https://a/1"), store.Stored{Value: []byte("v"), TTL: time.Hour, Stamp: g.purges.Stamp()})
			_, _ = g.objects.Get(t.Context(), at("https://a/1"))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_ = g.purges.Purge(ctx, []store.Purge{uri("https://a/1")})
			cancel()
		}
		mustTake(t, g.Client, "k", l)
		server.Do("ACL", "SETUSER", "default", "+"+right)
	}
	if g.Stats().Opened > 0 {
		t.Error("the breaker opened")
	}
}

func FuzzReadValue(f *testing.F) {
	v := value{life: strings.Repeat("0", lifeSize), stamp: 7, tags: tagHashes([]string{"a", "b"}), body: []byte("body")}
	f.Add([]byte(v.text()))
	f.Add([]byte(valueMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, ok := readValue(b)
		if ok && !bytes.Equal([]byte(v.text()), b) {
			t.Fatalf("%q is read as %q", b, v.text())
		}
		n, err := readTold(string(b))
		if err == nil && (len(n.life) != lifeSize || n.version == 0 || n.version >= maxStamp) {
			t.Fatalf("%+v", n)
		}
	})
}

func BenchmarkObjects(b *testing.B) {
	g := open(b, Options{}, redistest.Start(b).Addr())
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		v := store.Stored{Value: make([]byte, size), TTL: time.Minute, Stamp: g.purges.Stamp()}
		b.Run(fmt.Sprintf("put=%d", size), func(b *testing.B) {
			for b.Loop() {
				_ = g.objects.Put(b.Context(), at("https://a/1"), v)
			}
		})
		b.Run(fmt.Sprintf("get=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = g.objects.Get(b.Context(), at("https://a/1"))
			}
		})
	}
}

// TestRightsThatAreEnoughForACache has all operations run with the rights that the docs
// name.
func TestRightsThatAreEnoughForACache(t *testing.T) {
	const rights = "+evalsha +eval +time +get +set +del +pexpire +pttl +exists +rename +mget +info +hget +hset +hdel +hlen +hgetall " +
		"+zadd +zrem +zcard +zcount +zrange +zremrangebyscore +publish +subscribe +unsubscribe +hello +ping +cluster|slots &sluice:*"
	server := redistest.Start(t)
	server.Do(append([]string{"ACL", "SETUSER", "gate", "on", ">secret", "~sluice:*"}, strings.Fields(rights)...)...)
	g := open(t, Options{Config: &config.Redis{Username: "gate", Password: config.NewSecret("secret")}}, server.Addr())
	within(t, 3*time.Second, "subscribed", func() bool { return server.Do("PUBSUB", "NUMSUB", g.purges.keys()[1]).([]any)[1] == int64(1) })
	for _, p := range []store.Purge{uri("https://a/1"), {Kind: store.PurgeTag, Name: "t"}, {Kind: store.PurgePrefix, Name: "https://"}, {Kind: store.PurgeAll}} {
		lead(t, g, at("https://a/1"))
		again(t, func() error { return g.objects.Release(t.Context(), at("https://a/1"), 0) })
		g.keepAt(t, "https://a/1", "v", "t")
		if got := g.getAt(t, "https://a/1"); got != "v" {
			t.Errorf("%q", got)
		}
		purge(t, g, p)
	}
	var list []store.Purge
	for i := range store.MaxPurges {
		list = append(list, store.Purge{Kind: store.PurgePrefix, Name: fmt.Sprint(i)}, uri(fmt.Sprint(i)))
	}
	for range 6 {
		again(t, func() error { _, err := g.purges.record(t.Context(), list); return err })
	}
	server.Do("DEL", g.purges.keys()[0])
	within(t, 3*time.Second, "begun anew", func() bool { return g.Events()[Regressed] == 1 })
	server.Do("SET", g.objects.keys(at("https://a/1")).value, "damaged")
	g.getAt(t, "https://a/1")
	for op, calls := range g.Stats().Calls {
		if calls[Failed] > 0 {
			t.Errorf("%s: %d failed", Op(op), calls[Failed])
		}
	}
}

func TestARightThatObjectsNeedIsTold(t *testing.T) {
	server := redistest.Start(t)
	var log bytes.Buffer
	g := open(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, server.Addr())
	server.Do("ACL", "SETUSER", "default", "-mget")
	for range 5 {
		if _, err := g.objects.Get(t.Context(), at("https://a/1")); !errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "a right that objects in redis need is missing"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

func TestLeadsThatNobodyEndsAreForgotten(t *testing.T) {
	var l leads
	now := time.Unix(0, 0)
	for i := range 100_000 {
		l.begin(fmt.Sprint(i), "x", now, time.Second)
		now = now.Add(time.Millisecond)
	}
	if len(l.held) > 3*leastSweep {
		t.Errorf("%d are held", len(l.held))
	}
	if l.end("99999") != "x" || l.end("99999") != "" || l.end("0") != "" {
		t.Error("the wrong ones are")
	}
}

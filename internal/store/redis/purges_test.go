package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// gateway is a client with a cache, whose watcher notes what it is told.
type gateway struct {
	*Client
	objects *Objects
	purges  *Purges
	mu      sync.Mutex
	told    []store.Purge
	any     int
	block   chan struct{} // the watcher waits for it; nil: it does not
}

// open dials one and waits until it knows what was purged.
func open(t testing.TB, o Options, addrs ...string) *gateway {
	t.Helper()
	g := &gateway{Client: dial(t, o, addrs...)}
	g.objects, g.purges = g.Cache()
	g.purges.Watch(g.hear)
	within(t, 5*time.Second, "ready", g.ready)
	return g
}

// four opens as many, of the same servers.
func four(t testing.TB, o Options, addrs ...string) (all []*gateway) {
	for i := range 4 {
		one := o
		if o.Config != nil {
			copied := *o.Config
			one.Config = &copied
		}
		one.Gateway = fmt.Sprintf("g%d", i)
		all = append(all, open(t, one, addrs...))
	}
	return all
}

func (g *gateway) ready() bool {
	return g.Up() && g.bulk.Load() != nil && g.purges.Stamp() > 0 && g.objects.known.current()
}

func (g *gateway) hear(p []store.Purge) {
	g.mu.Lock()
	block := g.block
	g.mu.Unlock()
	if block != nil {
		<-block
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p == nil {
		g.any++
	}
	g.told = append(g.told, p...)
}

func (g *gateway) hold() (letGo func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	block := make(chan struct{})
	g.block = block
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.block = nil
		close(block)
	})
}

func (g *gateway) heard(p store.Purge) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.told, p)
}

func (g *gateway) reset() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.any
}

func (g *gateway) life() string {
	g.objects.known.mu.RLock()
	defer g.objects.known.mu.RUnlock()
	return g.objects.known.life
}

func (g *gateway) forgotten() (number uint64, prefixes int) {
	g.objects.known.mu.RLock()
	defer g.objects.known.mu.RUnlock()
	return g.objects.known.forgotten, len(g.objects.known.prefixes)
}

func at(uri string) store.ObjectKey { return store.ObjectKey{URI: uri, Variant: "G " + uri} }

// keepAt puts a value; getAt tells what is there, "" for nothing. Both try again what a
// loaded machine was late for.
func (g *gateway) keepAt(t testing.TB, uri, v string, tags ...string) {
	t.Helper()
	again(t, func() error {
		return g.objects.Put(t.Context(), at(uri), store.Stored{Value: []byte(v), TTL: time.Minute, Stamp: g.purges.Stamp(), Tags: tags})
	})
}

func (g *gateway) getAt(t testing.TB, uri string) (v string) {
	t.Helper()
	again(t, func() error {
		b, err := g.objects.Get(t.Context(), at(uri))
		v = string(b)
		return err
	})
	return v
}

func again(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
		if !errors.Is(err, store.ErrUnavailable) {
			break
		}
	}
	t.Fatal(err)
}

func purge(t testing.TB, g *gateway, p ...store.Purge) {
	t.Helper()
	again(t, func() error { return g.purges.Purge(t.Context(), p) })
}

func uri(u string) store.Purge { return store.Purge{Kind: store.PurgeURI, Name: u} }

func TestAPurgeReturnsWhenAllFourHaveAppliedIt(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (Options, []string){
		"single":  func(t *testing.T) (Options, []string) { return Options{}, []string{redistest.Start(t).Addr()} },
		"cluster": func(t *testing.T) (Options, []string) { return Options{}, redistest.StartCluster(t).Addrs() },
		"sentinel": func(t *testing.T) (Options, []string) {
			return Options{Config: &config.Redis{Sentinel: redistest.MasterName}}, redistest.StartSentinel(t).Addrs()
		},
		"without messages": func(t *testing.T) (Options, []string) {
			s := redistest.Start(t)
			s.Do("ACL", "SETUSER", "default", "resetchannels", "-subscribe", "-publish")
			return Options{}, []string{s.Addr()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, addrs := start(t)
			all := four(t, o, addrs...)
			var took []time.Duration
			for i, p := range []store.Purge{
				uri("https://a/1"),
				{Kind: store.PurgeTag, Name: "t:1"},
				{Kind: store.PurgePrefix, Name: "https://a/"},
				{Kind: store.PurgeAll},
				uri("https://a/5"),
			} {
				all[0].keepAt(t, "https://a/1", "v", "t:1", "t:2")
				all[0].keepAt(t, "https://a/5", "v")
				for j, g := range all {
					if got := g.getAt(t, "https://a/1"); got != "v" {
						t.Fatalf("before purge %d gateway %d has %q", i, j, got)
					}
				}
				begun := time.Now()
				purge(t, all[i%4], p)
				took = append(took, time.Since(begun))
				for j, g := range all {
					if !g.heard(p) {
						t.Errorf("gateway %d has not applied %v %q", j, p.Kind, p.Name)
					}
					name := "https://a/1"
					if i == 4 {
						name = "https://a/5"
					}
					if got, err := g.objects.Get(t.Context(), at(name)); got != nil || err != nil && !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("behind %v gateway %d has %q (%v)", p.Kind, j, got, err)
					}
				}
			}
			t.Logf("took %v", took)
		})
	}
}

func TestAGatewayThatDoesNotApplyAPurge(t *testing.T) {
	server := redistest.Start(t)
	all := four(t, Options{}, server.Addr())
	letGo := all[2].hold()
	defer letGo()
	begun := time.Now()
	err := all[0].purges.Purge(t.Context(), []store.Purge{uri("https://a/1")})
	if took := time.Since(begun); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "g2") || took > purgeWait+time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if all[2].purges.Stamp() >= all[0].purges.Stamp() {
		t.Error("its stamp has gone on without it")
	}
	letGo()
	purge(t, all[1], uri("https://a/2"))
	if !all[2].heard(uri("https://a/1")) || !all[2].heard(uri("https://a/2")) {
		t.Error("it was not told later")
	}
}

func TestAGatewayThatIsGoneIsWaitedForTenSeconds(t *testing.T) {
	server := redistest.Start(t)
	g := open(t, Options{}, server.Addr())
	ghost := func(ago time.Duration) {
		b := binary.LittleEndian.AppendUint64(nil, math.Float64bits(1))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(time.Now().Add(-ago).UnixMilli())))
		server.Do("HSET", g.purges.keys()[3], "ghost", string(b))
	}
	ghost(7 * time.Second) // and two of waiting
	if err := g.purges.Purge(t.Context(), []store.Purge{uri("https://a/1")}); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "ghost") {
		t.Error(err)
	}
	ghost(11 * time.Second)
	purge(t, g, uri("https://a/1"))
	if server.Do("HEXISTS", g.purges.keys()[3], "ghost") != int64(0) {
		t.Error("it is remembered")
	}
	server.Do("HSET", g.purges.keys()[3], "ghost", "of another form")
	purge(t, g, uri("https://a/1"))
}

func TestWhoClosesIsNotWaitedFor(t *testing.T) {
	server := redistest.Start(t)
	all := four(t, Options{}, server.Addr())
	for _, g := range all[1:] {
		g.purges.Invalidate([]string{"https://a/" + g.Client.gateway})
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := all[1].purges.Purge(t.Context(), []store.Purge{uri("https://a/1")}); !errors.Is(err, store.ErrNotDone) {
		t.Error(err)
	}
	begun := time.Now()
	purge(t, all[0], uri("https://a/1"))
	if took := time.Since(begun); took > time.Second {
		t.Errorf("a purge took %v", took)
	}
	for i := 1; i < 4; i++ {
		if !all[0].heard(uri(fmt.Sprint("https://a/g", i))) {
			t.Errorf("what gateway %d invalidated last is not known", i)
		}
	}
}

func TestInvalidateHidesAtOnce(t *testing.T) {
	server := redistest.Start(t)
	a, b := open(t, Options{}, server.Addr()), open(t, Options{Gateway: "b"}, server.Addr())
	for range 20 {
		a.keepAt(t, "https://a/1", "old")
		a.purges.Invalidate([]string{"https://a/1", "https://a/2"})
		if got, err := a.objects.Get(t.Context(), at("https://a/1")); got != nil || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		within(t, 2*time.Second, "hidden elsewhere", func() bool { return b.getAt(t, "https://a/1") == "" })
		within(t, 2*time.Second, "recorded", func() bool { return !a.objects.hidden.has("https://a/1") })
	}
	within(t, 2*time.Second, "told", func() bool { return b.heard(uri("https://a/1")) && a.heard(uri("https://a/2")) })

	a.keepAt(t, "https://a/1", "old")
	server.Stop()
	a.purges.Invalidate([]string{"https://a/1"})
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		if got, _ := a.objects.Get(t.Context(), at("https://a/1")); got != nil {
			t.Fatalf("%q", got)
		}
	}
	server.Cont()
	within(t, 5*time.Second, "recorded", func() bool { return !a.objects.hidden.has("https://a/1") })
	if got := b.getAt(t, "https://a/1"); got != "" {
		t.Errorf("%q", got)
	}
	within(t, 5*time.Second, "kept again", func() bool {
		a.keepAt(t, "https://a/1", "new")
		return b.getAt(t, "https://a/1") == "new"
	})
}

func TestTooMuchToInvalidateBecomesWider(t *testing.T) {
	q := newQueue()
	for i := range maxWaiting {
		if q.put([]string{fmt.Sprintf("https://a/%d", i)}) {
			t.Fatal("too soon")
		}
	}
	if q.has("https://a/x") || !q.has("https://a/7") {
		t.Error("what is hidden is not what was put")
	}
	if !q.put([]string{"https://b/1"}) || !q.has("https://a/7") || !q.has("https://a/x") || !q.has("https://b/1") || q.has("https://c/1") {
		t.Error("not made wider")
	}
	p, turn := q.batch()
	if len(p) != 2 || p[0].Kind != store.PurgePrefix {
		t.Errorf("%v", p)
	}
	q.put([]string{"https://a/7"})
	if !q.done(p, turn) || !q.has("https://a/7") || q.has("https://a/8") {
		t.Error("what was put again meanwhile was lost, or more stayed")
	}
	for i := range maxOrigins + 1 {
		q.put([]string{fmt.Sprintf("https://%d/%s", i, strings.Repeat("x", store.MaxPurgeName))})
	}
	if !q.has("https://zzz/") {
		t.Error("not everything is hidden")
	}
	if p, turn := q.batch(); len(p) != 1 || p[0].Kind != store.PurgeAll || q.done(p, turn) {
		t.Errorf("%v", p)
	}
	for in, want := range map[string]string{"https://a/b/c": "https://a/", "https://a": "https://", "x": "", "": "", "http://" + strings.Repeat("a", store.MaxPurgeName) + "/": "http://"} {
		if got := origin(in); got != want {
			t.Errorf("the origin of %.20q is %q", in, got)
		}
	}
}

// dump copies all keys of the log of purges, and objects too if told, to be put back.
func dump(t *testing.T, server *redistest.Server, pattern string) (putBack func()) {
	t.Helper()
	kept := map[string]string{}
	for _, key := range server.Do("KEYS", pattern).([]any) {
		kept[key.(string)] = server.Do("DUMP", key.(string)).(string)
	}
	return func() {
		for key, text := range kept {
			server.Do("RESTORE", key, "0", text, "REPLACE")
		}
	}
}

func TestPurgesThatAreLost(t *testing.T) {
	server := redistest.Start(t)
	all := four(t, Options{}, server.Addr())
	regressed := func(what string, lose func()) {
		t.Helper()
		all[0].keepAt(t, "https://a/1", "old")
		before := make([]int, len(all))
		stamps := make([]uint64, len(all))
		for i, g := range all {
			before[i], stamps[i] = g.reset(), g.purges.Stamp()
		}
		lose()
		for i, g := range all {
			within(t, 5*time.Second, what+": told that anything may have been purged", func() bool { return g.reset() > before[i] })
			within(t, 5*time.Second, what+": a later stamp", func() bool { return g.purges.Stamp() > stamps[i] })
			if got := g.getAt(t, "https://a/1"); got != "" {
				t.Errorf("%s: gateway %d has %q", what, i, got)
			}
		}
		// A fill of the earlier life.
		again(t, func() error {
			return all[1].objects.Put(t.Context(), at("https://a/1"), store.Stored{Value: []byte("old"), TTL: time.Minute, Stamp: stamps[1]})
		})
		if got := all[2].getAt(t, "https://a/1"); got != "" {
			t.Errorf("%s: what was filled before is valid", what)
		}
		within(t, 5*time.Second, what+": working", func() bool {
			all[3].keepAt(t, "https://a/1", "new")
			return all[1].getAt(t, "https://a/1") == "new"
		})
		purge(t, all[2], uri("https://a/1"))
	}
	regressed("FLUSHALL", func() { server.Do("FLUSHALL") })
	regressed("the head is gone", func() { server.Do("DEL", all[0].purges.keys()[0]) })
	regressed("an older replica", func() {
		old := dump(t, server, "sluice:*")
		purge(t, all[0], uri("https://a/1"))
		server.Do("FLUSHALL") // atomic enough: who asks between sees a life that is none of either
		old()
	})
	regressed("an older log alone", func() {
		old := dump(t, server, "sluice:{cache}:*")
		purge(t, all[0], uri("https://a/2"))
		old()
	})
	for i, key := range all[0].purges.keys() {
		regressed(fmt.Sprintf("key %d of another type", i), func() { server.Do("DEL", key); server.Do("RPUSH", key, "x") })
	}
	if s := all[0].Stats(); s.Opened > 0 {
		t.Errorf("%+v", s)
	}
}

func TestMorePurgesThanAreKept(t *testing.T) {
	server := redistest.Start(t)
	a, b := open(t, Options{}, server.Addr()), open(t, Options{Gateway: "b"}, server.Addr())
	a.keepAt(t, "https://a/1", "old")
	a.keepAt(t, "https://b/1", "kept")
	stamp := a.purges.Stamp()
	letGo := b.hold()
	var list []store.Purge
	for i := range store.MaxPurges {
		list = append(list, uri(fmt.Sprintf("https://a/%d", i)))
	}
	for range 11 {
		again(t, func() error { _, err := a.purges.record(t.Context(), list); return err })
	}
	letGo()
	within(t, 10*time.Second, "told that anything may have been purged", func() bool { return b.reset() > 1 })
	if n := server.Do("ZCARD", a.purges.keys()[1]).(int64); n > 10_000 {
		t.Errorf("%d purges are kept", n)
	}
	for _, g := range []*gateway{a, b} {
		if g.getAt(t, "https://a/1") != "" || g.getAt(t, "https://b/1") != "kept" {
			t.Error("not what was purged is gone")
		}
		// The memory of single purges does not reach back so far.
		within(t, 5*time.Second, "applied", func() bool { n, _ := g.forgotten(); return n > stamp })
		again(t, func() error {
			return g.objects.Put(t.Context(), at("https://a/1"), store.Stored{Value: []byte("old"), TTL: time.Minute, Stamp: stamp})
		})
		if g.getAt(t, "https://a/1") != "" {
			t.Error("a fill from before all of them is valid")
		}
	}
	prefixes := make([]store.Purge, 800)
	for n := range 2 {
		for i := range prefixes {
			prefixes[i] = store.Purge{Kind: store.PurgePrefix, Name: fmt.Sprintf("https://p%d-%d/", n, i)}
		}
		purge(t, a, prefixes...)
	}
	if n := server.Do("ZCARD", a.purges.keys()[2]).(int64); n > maxPrefixes {
		t.Errorf("%d prefixes are kept", n)
	}
	if b.getAt(t, "https://b/1") != "" {
		t.Error("prefixes that were forgotten purge nothing")
	}
	c := open(t, Options{Gateway: "c"}, server.Addr()) // which has never heard of any
	_, got := c.forgotten()
	if _, want := b.forgotten(); got != want || got > maxPrefixes || got < 800 {
		t.Errorf("%d prefixes, %d elsewhere", got, want)
	}
}

func TestWhatNoPurgeMayBe(t *testing.T) {
	g := open(t, Options{}, redistest.Start(t).Addr())
	for _, list := range [][]store.Purge{
		make([]store.Purge, store.MaxPurges+1),
		{uri(strings.Repeat("x", store.MaxPurgeName+1))},
		{{Kind: store.PurgeAll + 1}},
	} {
		if err := g.purges.Purge(t.Context(), list); err == nil || errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
	}
	if err := g.purges.Purge(t.Context(), nil); err != nil {
		t.Error(err)
	}
	purge(t, g, uri(strings.Repeat("x", store.MaxPurgeName)), uri(""), uri("a\x00\r\n/b"))
	if !g.heard(uri("a\x00\r\n/b")) || !g.heard(uri("")) {
		t.Error("not told as it was")
	}
}

func TestPurgesWhileRedisIsAway(t *testing.T) {
	server := redistest.Start(t)
	g := open(t, Options{}, server.Addr())
	server.Stop()
	begun := time.Now()
	err := g.purges.Purge(t.Context(), []store.Purge{uri("https://a/1")})
	if took := time.Since(begun); !errors.Is(err, store.ErrUnavailable) || took > purgeWait+2*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	within(t, 5*time.Second, "out of date", func() bool { return !g.objects.known.current() })
	if _, err := g.objects.Get(t.Context(), at("https://a/1")); !errors.Is(err, store.ErrNotDone) {
		t.Error(err)
	}
	server.Cont()
	purge(t, g, uri("https://a/2"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	letGo := g.hold()
	server.Stop()
	defer server.Cont()
	letGo()
	if err := g.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestKnowledgeAgainstAList compares what is remembered with all purges there were: what is
// invalid must be so, and what is valid too as long as nothing had to be forgotten.
func TestKnowledgeAgainstAList(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		k := newKnowledge()
		k.learn(&told{version: 100, state: newsAny, life: "life", all: 100}, time.Now())
		var all []purged
		name := func() string { return fmt.Sprintf("https://%d/%d", r.IntN(3), r.IntN(200)) }
		n := uint64(100)
		for range 3000 {
			n += 1 + r.Uint64N(3)
			p := purged{number: n, Purge: store.Purge{Kind: store.PurgeKind(r.IntN(2)), Name: name()}}
			switch r.IntN(300) {
			case 0:
				p.Kind = store.PurgeAll
			case 1, 2, 3, 4, 5:
				p.Kind, p.Name = store.PurgePrefix, p.Name[:len(p.Name)-r.IntN(3)]
			}
			all = append(all, p)
			k.learn(&told{version: n, state: newsKeys, purges: []purged{p}}, time.Now())
			uri, tag, stamp := name(), name(), 100+r.Uint64N(n-99)
			want := true
			for _, p := range all {
				hit := p.Kind == store.PurgeAll || p.Kind == store.PurgeURI && p.Name == uri || p.Kind == store.PurgeTag && p.Name == tag ||
					p.Kind == store.PurgePrefix && strings.HasPrefix(uri, p.Name)
				want = want && !(hit && p.number > stamp)
			}
			if got := k.valid("life", stamp, uri, tagHashes([]string{tag})); got != want {
				t.Fatalf("seed %d, purge %d: %v, want %v", seed, n, got, want)
			}
		}
		if k.valid("another", n, "https://new/", nil) {
			t.Error("of another life")
		}
	}
}

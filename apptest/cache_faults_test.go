package apptest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// Objects of the tests of faults: few that are always in memory, many more than memory
// holds, and some that expire all the time.
const (
	faultHot    = 20
	faultWide   = 1200
	faultShort  = 40
	faultSize   = 2000
	faultMemory = 1 << 20
)

// faultBudget is state.redis.timeout, and faultSlack what a busy machine may add to it.
// A request that waits for two calls in a row is over.
const faultBudget = 400 * time.Millisecond

func faultSlack() time.Duration {
	if raceEnabled {
		return time.Second
	}
	return 300 * time.Millisecond
}

// cacheFault is something that happens to the Redis of a cache.
type cacheFault struct {
	budget     time.Duration
	begin, end func()
	// purged: the log of purges is lost, so what is in memory may have been purged.
	purged bool
}

// faultLoad is the clients' side.
type faultLoad struct {
	t    *testing.T
	o    *origin
	load *crowd

	mu     sync.Mutex
	phase  string
	times  map[string][]time.Duration // by phase and kind
	counts map[string]int             // by phase, kind and Cache-Status
}

func faultOrigin(_ *origin, w http.ResponseWriter, r *http.Request) {
	life := 3600
	if strings.HasPrefix(r.URL.Path, "/short/") {
		life = 1
	}
	give(w, fmt.Sprintf("max-age=%d", life), seal(r.RequestURI, fmt.Sprint(life), 1, faultSize))
}

// enter begins a phase of the test, and ends the one before.
func (f *faultLoad) enter(phase string) {
	f.mu.Lock()
	f.phase = phase
	f.mu.Unlock()
}

func (f *faultLoad) current() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.phase
}

// step makes a request and looks at the answer.
func (f *faultLoad) step(r *rand.Rand, k *asker) error {
	kind, n := "hot", faultHot
	switch d := r.IntN(10); {
	case d == 0:
		kind, n = "short", faultShort
	case d < 6:
		kind, n = "wide", faultWide
	}
	target := fmt.Sprintf("/%s/%d", kind, r.IntN(n))
	if err := k.open(); err != nil {
		return err
	}
	phase, began := f.current(), time.Now()
	reply, err := k.get(target, "")
	took := time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: /%s: %w", phase, kind, err)
	}
	f.mu.Lock()
	if phase == f.phase {
		f.times[phase+" "+kind] = append(f.times[phase+" "+kind], took)
		f.counts[phase+" "+kind+" "+reply.cache()]++
	}
	f.mu.Unlock()
	got, err := unseal(reply.body)
	if err != nil || reply.status != 200 {
		return fmt.Errorf("%s: /%s: status %d, %w", phase, kind, reply.status, err)
	}
	if got.url != target {
		return fmt.Errorf("%s: WRONG: the body of %s", phase, got.url)
	}
	// Nothing here may be served stale: fresh for a second, and as long on its way.
	if age := began.Sub(time.Unix(0, got.at)); kind == "short" && age > 2*time.Second {
		return fmt.Errorf("%s: OLD: fresh for 1 s and %v old", phase, age.Round(time.Second))
	}
	return nil
}

// most is the slowest of a phase's requests, and the one that a thousandth exceeds.
func (f *faultLoad) most(phase, kind string) (n int, p999, most time.Duration) {
	f.mu.Lock()
	all := slices.Clone(f.times[phase+" "+kind])
	f.mu.Unlock()
	if len(all) == 0 {
		return 0, 0, 0
	}
	slices.Sort(all)
	return len(all), all[len(all)*999/1000], all[len(all)-1]
}

// bear has two gateways share a Redis while something happens to it.
func bear(t *testing.T, prepare func(t *testing.T) (addr string, f cacheFault)) {
	t.Helper()
	addr, fault := prepare(t)
	if fault.budget == 0 {
		fault.budget = faultBudget
	}
	o := newOrigin(t, faultOrigin)
	redis := fmt.Sprintf("{addresses: %s, timeout: %s}", redisList(addr), fault.budget)
	set := caching(o, redis, fmt.Sprintf("memory: %dKiB", faultMemory>>10))
	all := []*gateway{start(t, set)}
	set.measured = true // the other one is faster under the race detector
	all = append(all, start(t, set))
	f := &faultLoad{t: t, o: o, load: newCrowd(t), phase: "before", times: map[string][]time.Duration{}, counts: map[string]int{}}
	random := seed(t)
	const workers = 4
	for _, g := range all {
		var rs [workers]*rand.Rand
		for i := range rs {
			rs[i] = rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		}
		f.load.askers(workers, g.addr("PLAIN"), func(worker int, k *asker) error { return f.step(rs[worker], k) })
	}
	hits := func() (n float64) {
		for _, g := range all {
			n += g.metric("sluice_cache_shared_total", `result="hit"`)
		}
		return n
	}
	moreHits := func(when string) {
		t.Helper()
		before := hits()
		eventually(t, 15*time.Second, func() error {
			if got := hits() - before; got < 20 {
				return fmt.Errorf("%s: %v answers came from Redis", when, got)
			}
			return nil
		})
	}
	f.load.reach(rounds(600, 5000))
	moreHits("before")
	hot := o.total("/hot/")
	f.enter("during")
	fault.begin()
	began := time.Now()
	f.load.reach(rounds(400, 10_000))
	pass(t, began.Add(time.Duration(rounds(500, 5000))*time.Millisecond))
	asked := o.total("/hot/") - hot
	f.enter("end")
	fault.end()
	f.load.reach(200)
	moreHits("afterwards")
	f.enter("after")
	f.load.reach(rounds(200, 3000))
	f.load.end()

	for _, phase := range []string{"before", "during", "end", "after"} {
		for _, kind := range []string{"hot", "wide", "short"} {
			n, p999, most := f.most(phase, kind)
			t.Logf("%-6s %-5s %6d requests, p99.9 %v, at most %v", phase, kind, n, p999.Round(time.Microsecond), most.Round(time.Microsecond))
			limit := fault.budget + faultSlack()
			if kind == "hot" {
				limit = faultSlack() // who has it in memory asks nobody
			}
			if p999 > limit && !(kind == "hot" && phase != "during") {
				t.Errorf("%s, /%s: %v for one of a thousand, want %v at most: the budget of %v and what this machine takes", phase, kind, p999, limit, fault.budget)
			}
		}
	}
	t.Logf("%v", f.counts)
	served := 0
	for kind, n := range f.counts {
		if strings.HasPrefix(kind, "during hot ") {
			served += n
		}
	}
	t.Logf("hot during the fault: %d requests, %d at the origin", served, asked)
	if !fault.purged && asked > served/100 {
		t.Errorf("the origin was asked %d times for %d requests of what is in memory", asked, served)
	}
}

// damage turns, cuts, swaps and replaces every value of an object in Redis. It keeps
// their lifetimes.
const damage = `
math.randomseed(tonumber(ARGV[1]))
local last
for _, k in ipairs(redis.call('KEYS', '*:o:*')) do
  if redis.call('TYPE', k).ok == 'string' then
    local v = redis.call('GET', k)
    local n, w = #v, v
    local how = math.random(8)
    if n < 64 then w = 'x'
    elseif how == 1 then
      local i = math.random(n)
      w = v:sub(1, i - 1) .. string.char((v:byte(i) + math.random(255)) % 256) .. v:sub(i + 1)
    elseif how == 2 then w = v:sub(1, math.random(n) - 1)
    elseif how == 3 then w = v .. 'x'
    elseif how == 4 then w = last or ''
    elseif how == 5 then w = ''
    elseif how == 6 then w = v:sub(1, 60) .. string.rep('\255', n - 60)
    elseif how == 7 then
      local i = math.random(n)
      w = v:sub(1, i - 1) .. v:sub(i + 1)
    else
      local i = math.random(64)
      w = v:sub(1, i - 1) .. string.char((v:byte(i) + 1) % 256) .. v:sub(i + 1)
    end
    last = v
    redis.call('SET', k, w, 'KEEPTTL')
  end
end
return 1`

// mistype gives keys another type than they have, those that match ARGV[1].
const mistype = `
for i, k in ipairs(redis.call('KEYS', ARGV[1])) do
  redis.call('DEL', k)
  if i % 3 == 0 then redis.call('RPUSH', k, 'a')
  elseif i % 3 == 1 then redis.call('SADD', k, 'a')
  else redis.call('ZADD', k, 1, 'a') end
  redis.call('PEXPIRE', k, 60000)
end
return 1`

// again and again does something until its end is called.
func againAndAgain(do func()) (begin, end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	begin = func() {
		go func() {
			defer close(ended)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				do()
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
		}()
	}
	end = func() {
		close(stop)
		<-ended
	}
	return begin, end
}

// TestCacheFaults lets things happen to the Redis of two gateways under load. What is
// in memory goes on being served, nothing wrong is, and nobody waits for Redis longer
// than its budget; afterwards it is used as before.
func TestCacheFaults(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			r := redistest.Start(t)
			return r.Addr(), cacheFault{begin: r.Kill, end: r.Restart}
		})
	})
	t.Run("frozen", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			r := redistest.Start(t)
			return r.Addr(), cacheFault{begin: r.Stop, end: r.Cont}
		})
	})
	t.Run("slow", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			s := newSlowable(t, redistest.Start(t).Addr())
			return s.addr(), cacheFault{begin: func() { s.slow(50 * time.Millisecond) }, end: s.quick}
		})
	})
	t.Run("slower than its budget", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			s := newSlowable(t, redistest.Start(t).Addr())
			return s.addr(), cacheFault{budget: 40 * time.Millisecond, begin: func() { s.slow(50 * time.Millisecond) }, end: s.quick}
		})
	})
	t.Run("full", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			r := redistest.Start(t)
			limit := func(to string) func() { return func() { r.Do("CONFIG", "SET", "maxmemory", to) } }
			return r.Addr(), cacheFault{begin: limit("1"), end: limit("0")}
		})
	})
	t.Run("evicting", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			r := redistest.Start(t, "--maxmemory-policy", "allkeys-random")
			limit := func(to string) func() { return func() { r.Do("CONFIG", "SET", "maxmemory", to) } }
			return r.Addr(), cacheFault{begin: limit("3mb"), end: limit("0"), purged: true}
		})
	})
	lua := func(script, arg string, purged bool) func(t *testing.T) {
		return func(t *testing.T) {
			bear(t, func(t *testing.T) (string, cacheFault) {
				r := redistest.Start(t)
				begin, end := againAndAgain(func() {
					a := arg
					if a == "" {
						a = fmt.Sprint(rand.Int32())
					}
					r.Do("EVAL", script, "0", a)
				})
				return r.Addr(), cacheFault{begin: begin, end: end, purged: purged}
			})
		}
	}
	t.Run("damaged", lua(damage, "", false))
	if *long { // the next one has them among others
		t.Run("objects of a wrong type", lua(mistype, "*:o:*", false))
	}
	t.Run("everything of a wrong type", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			r := redistest.Start(t)
			begin, end := againAndAgain(func() { r.Do("EVAL", mistype, "0", "*") })
			return r.Addr(), cacheFault{begin: begin, end: func() { end(); r.Do("FLUSHALL") }, purged: true}
		})
	})
	t.Run("emptied", func(t *testing.T) {
		bear(t, func(t *testing.T) (string, cacheFault) {
			r := redistest.Start(t)
			begin, end := againAndAgain(func() { r.Do("FLUSHALL") })
			return r.Addr(), cacheFault{begin: begin, end: end, purged: true}
		})
	})
}

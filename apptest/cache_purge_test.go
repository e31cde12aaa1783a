package apptest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// shelf is an origin whose objects change: /GROUP/NUMBER, each with a state that its
// bodies tell. Some of its answers take long, before or behind their heads, and show the
// state of the moment when they were asked for.
type shelf struct {
	*origin
	groups, each int
	states       []atomic.Int64
	least        []atomic.Int64 // what nobody may get less than: it was purged
	slow         atomic.Bool
}

func newShelf(t testing.TB, groups, each int) *shelf {
	s := &shelf{groups: groups, each: each, states: make([]atomic.Int64, groups*each), least: make([]atomic.Int64, groups*each)}
	s.origin = newOrigin(t, s.serve)
	return s
}

func (s *shelf) target(i int) string { return fmt.Sprintf("/g%d/%d", i/s.each, i%s.each) }

func (s *shelf) serve(_ *origin, w http.ResponseWriter, r *http.Request) {
	var group, number int
	if _, err := fmt.Sscanf(r.URL.Path, "/g%d/%d", &group, &number); err != nil {
		http.NotFound(w, r)
		return
	}
	i := group*s.each + number
	body := seal(r.RequestURI, "*", s.states[i].Load(), 3000)
	h := w.Header()
	h.Set("Cache-Control", "max-age=3600")
	h.Set("Surrogate-Key", fmt.Sprintf("every group-%d odd-%d", group, number%2))
	h.Set("Content-Length", fmt.Sprint(len(body)))
	first := len(body)
	if s.slow.Load() {
		switch rand.IntN(4) {
		case 0:
			linger(r, time.Duration(rand.IntN(150))*time.Millisecond)
		case 1:
			first = 1000
		}
	}
	_, _ = w.Write([]byte(body[:first]))
	if first < len(body) {
		w.(http.Flusher).Flush()
		linger(r, time.Duration(rand.IntN(150))*time.Millisecond)
		_, _ = w.Write([]byte(body[first:]))
	}
}

// change gives the objects a new state.
func (s *shelf) change(which func(i int) bool) (changed []int) {
	for i := range s.states {
		if which(i) {
			s.states[i].Add(1)
			changed = append(changed, i)
		}
	}
	return changed
}

// purged raises what may be served of the objects to the state that they have.
func (s *shelf) purged(changed []int) {
	for _, i := range changed {
		s.least[i].Store(s.states[i].Load())
	}
}

// check asks for an object and tells when it is older than it may be.
func (s *shelf) check(k *asker, i int) (how string, err error) {
	least := s.least[i].Load()
	r, err := k.get(s.target(i), "")
	if err != nil {
		return "", err
	}
	got, err := unseal(r.body)
	switch {
	case r.status != 200 || err != nil:
		return "", fmt.Errorf("status %d, %w", r.status, err)
	case got.url != s.target(i):
		return "", fmt.Errorf("%s: the body of %s", s.target(i), got.url)
	case got.gen < least:
		return "", fmt.Errorf("OLD: what was purged is served: %s", r.cache())
	}
	return r.cache(), nil
}

// change is a purge and what it concerns.
type change struct {
	kind, body string
	which      func(i int) bool
}

func (s *shelf) changes(r *rand.Rand) change {
	i, group := r.IntN(len(s.states)), r.IntN(s.groups)
	in := func(j int) bool { return j/s.each == group }
	switch r.IntN(10) {
	case 0:
		return change{"all", `{"all": true}`, func(int) bool { return true }}
	case 1, 2:
		return change{"prefix", fmt.Sprintf(`{"prefix": "http://a.test/g%d/"}`, group), in}
	case 3, 4:
		return change{"tag", fmt.Sprintf(`{"tag": "group-%d"}`, group), in}
	case 5:
		odd := r.IntN(2)
		return change{"tag", fmt.Sprintf(`{"tag": "odd-%d"}`, odd), func(j int) bool { return j%s.each%2 == odd }}
	}
	return change{"url", fmt.Sprintf(`{"url": "http://A.test:80%s"}`, s.target(i)), func(j int) bool { return j == i }}
}

// TestCachePurge purges at random gateways of four, under load and with slow fills on
// their way. From the acknowledgement on nobody gets what was purged, from any gateway.
func TestCachePurge(t *testing.T) {
	s := newShelf(t, 4, 10)
	all := gateways(t, 4, caching(s.origin, patient(redistest.Start(t).Addr()), ""))
	random := seed(t)
	load := newCrowd(t)
	kinds := newCounter()
	const workers = 4
	for _, g := range all {
		var rs [workers]*rand.Rand
		for i := range rs {
			rs[i] = rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		}
		load.askers(workers, g.addr("PLAIN"), func(worker int, k *asker) error {
			how, err := s.check(k, rs[worker].IntN(len(s.states)))
			kinds.add(how)
			return err
		})
	}
	load.reach(500)
	s.slow.Store(true)
	var times []time.Duration
	purges := newCounter()
	for range rounds(60, 1000) {
		c := s.changes(random)
		changed := s.change(c.which)
		began := time.Now()
		if status, answer := all[random.IntN(len(all))].purge(c.body); status != http.StatusOK || strings.Join(strings.Fields(answer), "") != `{"purged":true}` {
			t.Fatalf("purge %s: %d %s", c.body, status, answer)
		}
		s.purged(changed)
		times = append(times, time.Since(began))
		purges.add(c.kind)
		load.reach(50 + random.IntN(100))
	}
	load.end()
	slices.Sort(times)
	t.Logf("%v; a purge took %v, p99 %v, at most %v; %v; %d requests at the origin",
		purges.all(), times[len(times)/2], times[len(times)*99/100], times[len(times)-1], kinds.all(), s.total("/"))
	if n := kinds.all()["hit"]; n < load.done()/4 {
		t.Errorf("%d hits of %d calls", n, load.done())
	}
}

// TestCachePurgeOvertakesFills purges while a fill that began before is under way, in
// each stage of it and by each kind of purge. Who asked before may get the old body;
// who asks afterwards gets the new one at once, and the old one is not stored.
func TestCachePurgeOvertakesFills(t *testing.T) {
	var gen atomic.Int64
	gen.Store(1)
	o := newOrigin(t, func(o *origin, w http.ResponseWriter, r *http.Request) {
		n := gen.Load()
		body := seal(r.RequestURI, "*", n, 50_000)
		w.Header().Set("Surrogate-Key", "t"+strings.ReplaceAll(r.URL.Path, "/", "-"))
		if n > 1 {
			give(w, "max-age=3600", body)
			return
		}
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if strings.HasPrefix(r.URL.Path, "/head/") {
			o.wait(r, "go")
		}
		_, _ = w.Write([]byte(body[:20_000]))
		w.(http.Flusher).Flush()
		o.wait(r, "go")
		_, _ = w.Write([]byte(body[20_000:]))
	})
	all := gateways(t, 2, caching(o, patient(redistest.Start(t).Addr()), ""))
	purges := map[string]string{
		"url": `{"url": "http://a.test%s"}`, "prefix": `{"prefix": "http://a.test%s"}`, "tag": `{"tag": "t%s"}`,
	}
	var targets []string
	for kind := range purges {
		targets = append(targets, "/head/"+kind, "/body/"+kind)
	}
	var early sync.WaitGroup
	for _, target := range targets {
		for range 3 {
			early.Go(func() {
				k := &asker{addr: all[0].addr("PLAIN")}
				defer k.hangUp()
				k.want(t, target, "")
			})
		}
	}
	o.awaitTotal(t, "/", len(targets))
	gen.Store(2)
	for _, target := range targets {
		kind := target[len("/head/"):]
		name := target
		if kind == "tag" {
			name = strings.ReplaceAll(target, "/", "-")
		}
		if status, answer := all[1].purge(fmt.Sprintf(purges[kind], name)); status != http.StatusOK {
			t.Fatalf("%s: %d %s", kind, status, answer)
		}
	}
	ask := func(when string) {
		for i, g := range all {
			for _, target := range targets {
				k := &asker{addr: g.addr("PLAIN")}
				if got, how := k.want(t, target, ""); got.gen != 2 {
					t.Errorf("%s, gateway %d, %s: state %d (%s), want 2", when, i, target, got.gen, how)
				}
				k.hangUp()
			}
		}
	}
	ask("while the old fill goes on")
	close(o.gate("go"))
	early.Wait()
	ask("after the old fill has ended")
}

// refusedPurge checks an answer to a purge that could not reach every gateway.
func refusedPurge(t testing.TB, status int, answer string) {
	t.Helper()
	var doc struct{ Code, Title, Detail string }
	if err := json.Unmarshal([]byte(answer), &doc); err != nil || status != http.StatusServiceUnavailable || doc.Code != "dependency_unavailable" || doc.Detail == "" {
		t.Errorf("purge: %d %s, want 503 dependency_unavailable and what is the matter", status, answer)
	}
	t.Logf("%d: %s", status, doc.Detail)
}

// TestCachePurgeRefused purges when not every gateway can be told: 503, and in time.
func TestCachePurgeRefused(t *testing.T) {
	start := func(t *testing.T) (*shelf, *redistest.Server, []*gateway) {
		s := newShelf(t, 1, 4)
		r := redistest.Start(t)
		all := gateways(t, 2, caching(s.origin, patient(r.Addr()), ""))
		s.everywhere(t, all)
		return s, r, all
	}
	purge := func(t *testing.T, g *gateway) {
		t.Helper()
		began := time.Now()
		status, answer := g.purge(`{"all": true}`)
		refusedPurge(t, status, answer)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("the refusal took %v", d)
		}
	}
	again := func(t *testing.T, s *shelf, all []*gateway) {
		t.Helper()
		changed := s.change(func(int) bool { return true })
		eventually(t, 20*time.Second, func() error {
			if status, answer := all[0].purge(`{"all": true}`); status != http.StatusOK {
				return fmt.Errorf("purge: %d %s", status, answer)
			}
			return nil
		})
		s.purged(changed)
		s.everywhere(t, all)
	}
	t.Run("Redis is gone", func(t *testing.T) {
		t.Parallel()
		s, r, all := start(t)
		r.Kill()
		purge(t, all[0])
		s.everywhere(t, all)
		r.Restart()
		again(t, s, all)
	})
	t.Run("Redis is frozen", func(t *testing.T) {
		t.Parallel()
		s, r, all := start(t)
		r.Stop()
		purge(t, all[0])
		s.everywhere(t, all)
		r.Cont()
		again(t, s, all)
	})
	t.Run("a gateway is frozen", func(t *testing.T) {
		t.Parallel()
		s, _, all := start(t)
		all[1].signal(syscall.SIGSTOP)
		changed := s.change(func(int) bool { return true })
		purge(t, all[0])
		all[1].signal(syscall.SIGCONT)
		// What was refused may have been done all the same, at once or never; what is
		// repeated is done.
		eventually(t, 10*time.Second, func() error {
			if status, answer := all[0].purge(`{"all": true}`); status != http.StatusOK {
				return fmt.Errorf("purge: %d %s", status, answer)
			}
			return nil
		})
		s.purged(changed)
		s.everywhere(t, all)
	})
	t.Run("a gateway was killed", func(t *testing.T) {
		t.Parallel()
		s, _, all := start(t)
		all[1].signal(syscall.SIGKILL)
		<-all[1].ended
		again(t, s, all[:1]) // it is missed for a while only
		all[1].again()
		s.everywhere(t, all)
	})
	t.Run("a gateway was stopped", func(t *testing.T) {
		t.Parallel()
		s, _, all := start(t)
		all[1].stop()
		changed := s.change(func(int) bool { return true })
		if status, answer := all[0].purge(`{"all": true}`); status != http.StatusOK {
			t.Errorf("purge: %d %s, though who left said so", status, answer)
		}
		s.purged(changed)
		s.everywhere(t, all[:1])
	})
	t.Run("a gateway was stopped for long", func(t *testing.T) {
		t.Parallel()
		s, r, all := start(t)
		eventually(t, 10*time.Second, func() error {
			seen, _ := r.Do("KEYS", "*seen").([]any)
			for _, k := range seen {
				if r.Do("HLEN", k.(string)) == int64(len(all)) {
					return nil
				}
			}
			return errNotYet
		})
		all[1].signal(syscall.SIGSTOP)
		again(t, s, all[:1])
		// These wait for the gateway when it wakes, and were sent behind the
		// acknowledgement.
		var waiting []*asker
		for i := range 40 {
			k := &asker{addr: all[1].addr("PLAIN")}
			defer k.hangUp()
			if err := k.send(getting(s.target(i%len(s.states)), "")); err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, k)
		}
		all[1].signal(syscall.SIGCONT)
		old := 0
		for i, k := range waiting {
			reply, err := k.receive(false)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := unseal(reply.body); err != nil || got.gen < s.least[i%len(s.states)].Load() {
				old++
			}
		}
		if old > 0 {
			t.Errorf("a gateway that was frozen while something was purged served the old body %d times of %d when it woke", old, len(waiting))
		}
		s.everywhere(t, all)
	})
	t.Run("a gateway that has just started", func(t *testing.T) {
		t.Parallel()
		s, _, all := start(t)
		for range rounds(4, 40) {
			all[1].stop()
			all[1].again()
			s.everywhere(t, all)
			changed := s.change(func(int) bool { return true })
			if status, answer := all[0].purge(`{"all": true}`); status != http.StatusOK {
				t.Errorf("purge: %d %s", status, answer)
			}
			s.purged(changed)
			s.everywhere(t, all)
			if t.Failed() {
				return
			}
		}
	})
}

// everywhere asks every gateway for every object.
func (s *shelf) everywhere(t testing.TB, all []*gateway) {
	t.Helper()
	for n, g := range all {
		k := &asker{addr: g.addr("PLAIN")}
		for i := range s.states {
			if _, err := s.check(k, i); err != nil {
				t.Errorf("gateway %d, %s: %v", n, s.target(i), err)
			}
		}
		k.hangUp()
	}
}

// TestCachePurgeAlone purges without a Redis.
func TestCachePurgeAlone(t *testing.T) {
	s := newShelf(t, 4, 5)
	g := start(t, caching(s.origin, "", ""))
	random := seed(t)
	for range rounds(30, 300) {
		c := s.changes(random)
		s.everywhere(t, []*gateway{g})
		before := s.total("/")
		changed := s.change(c.which)
		if status, answer := g.purge(c.body); status != http.StatusOK {
			t.Fatalf("purge %s: %d %s", c.body, status, answer)
		}
		s.purged(changed)
		s.everywhere(t, []*gateway{g})
		if got := s.total("/") - before; got != len(changed) {
			t.Errorf("purge %s: the origin was asked %d times, want %d: what was not named stays", c.body, got, len(changed))
		}
	}
	for _, what := range []string{`{}`, `{"url": "http://a.test/", "all": true}`, `{"url": "/g0/1"}`, `{"prefix": "ftp://a.test/"}`, `{"tag": ""}`, `{"all": false}`, `{"key": "x"}`, `[]`, ``} {
		if status, answer := g.purge(what); status/100 != 4 {
			t.Errorf("purge %s: %d %s, want a refusal", what, status, answer)
		}
	}
}

// TestCachePurgeMarksLost purges, and then loses everything in Redis but the objects:
// what was purged does not come back. Nor does it when bits of a stored value turn.
func TestCachePurgeMarksLost(t *testing.T) {
	s := newShelf(t, 1, 96)
	r := redistest.Start(t)
	all := gateways(t, 2, caching(s.origin, patient(r.Addr()), ""))
	gone := func(body string) {
		changed := s.change(func(int) bool { return true })
		if status, answer := all[1].purge(body); status != http.StatusOK {
			t.Fatalf("purge %s: %d %s", body, status, answer)
		}
		s.purged(changed)
	}
	store := func() (values map[string]string) {
		gone(`{"all": true}`)
		s.everywhere(t, all[:1])
		state := fmt.Sprintf(" gen=%d ", s.states[0].Load())
		eventually(t, 10*time.Second, func() error {
			values = map[string]string{}
			keys, _ := r.Do("KEYS", "*:o:*").([]any)
			for _, k := range keys {
				if v, _ := r.Do("GET", k.(string)).(string); strings.Contains(v, state) {
					values[k.(string)] = v
				}
			}
			if len(values) != len(s.states) {
				return fmt.Errorf("%d values in Redis for %d objects", len(values), len(s.states))
			}
			return nil
		})
		return values
	}
	for _, what := range []string{`{"all": true}`, `{"prefix": "http://a.test/g0"}`, `{"tag": "every"}`} {
		values := store()
		gone(what)
		for k, v := range values {
			r.Do("SET", k, v, "EX", "3600")
		}
		s.everywhere(t, all)
		if t.Failed() {
			t.Fatalf("a value that was purged by %s came back", what)
		}
	}
	for _, what := range []string{`{"prefix": "http://a.test/g0"}`, `{"tag": "every"}`} {
		values := store()
		gone(what)
		marks, _ := r.Do("KEYS", "*}:m").([]any)
		for _, m := range marks {
			r.Do("DEL", m.(string))
		}
		for k, v := range values {
			r.Do("SET", k, v, "EX", "3600")
		}
		s.everywhere(t, all)
		if t.Failed() {
			t.Fatalf("with %d marks lost, a value that was purged by %s came back", len(marks), what)
		}
	}
	// One bit of each of the first bytes, of one value each.
	for _, bit := range seed(t).Perm(8)[:rounds(3, 8)] {
		values := store()
		gone(`{"tag": "every"}`)
		at := 0
		for k, v := range values {
			b := []byte(v)
			b[at%len(b)] ^= 1 << bit
			r.Do("SET", k, string(b), "EX", "3600")
			at++
		}
		s.everywhere(t, all)
		if t.Failed() {
			t.Fatalf("with a bit turned, bit %d of the first %d bytes, what was purged came back", bit, at)
		}
	}
}

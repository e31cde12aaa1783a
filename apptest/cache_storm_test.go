package apptest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// TestCacheStorm has thousands of clients ask for one expired object at once. The
// origin is asked once by each gateway, or once in all when the gateways share a
// Redis, and the last client has its answer within the fetch plus 1.5 times what as
// many hits take.
func TestCacheStorm(t *testing.T) {
	for _, c := range []struct {
		name     string
		gateways int
		shared   bool
		fetches  int
	}{
		{name: "one gateway", gateways: 1, fetches: 1},
		{name: "four gateways and a Redis", gateways: 4, shared: true, fetches: 1},
		{name: "four gateways on their own", gateways: 4, fetches: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			redis := ""
			if c.shared {
				redis = fmt.Sprintf("{addresses: %s, timeout: 1s}", redisList(redistest.Start(t).Addr()))
			}
			newStorm(t, c.gateways, redis).run(c.fetches)
		})
	}
}

// fetchTime is what the origin takes for an answer in a storm.
const fetchTime = 300 * time.Millisecond

// storm is clients of one or more gateways, each with its connection open.
type storm struct {
	t        *testing.T
	o        *origin
	gateways []*gateway
	clients  []asker
	raging   atomic.Bool  // the origin takes its time, and its answers last
	fetch    atomic.Int64 // how long the last fetch took, ns
}

func newStorm(t *testing.T, n int, redis string) *storm {
	s := &storm{t: t}
	s.o = newOrigin(t, s.serve)
	set := caching(s.o, redis, "")
	set.measured = true
	s.gateways = gateways(t, n, set)
	s.clients = make([]asker, rounds(2000, 10_000))
	var dials sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range s.clients {
		k := &s.clients[i]
		k.addr = s.gateways[i%n].addr("PLAIN")
		slots <- struct{}{}
		dials.Go(func() {
			defer func() { <-slots }()
			if err := k.open(); err != nil {
				t.Error(err)
			}
		})
	}
	dials.Wait()
	t.Cleanup(func() {
		for i := range s.clients {
			s.clients[i].hangUp()
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return s
}

// serve answers /warm for ever, and everything else for a second unless there is a
// storm. /etag/ has a validator.
func (s *storm) serve(o *origin, w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	life, gen := "max-age=1", int64(1)
	switch {
	case r.URL.Path == "/warm":
		life = "max-age=3600"
	case s.raging.Load():
		life, gen = "max-age=3600", 2
		linger(r, fetchTime)
		defer func() { s.fetch.Store(int64(time.Since(began))) }()
	}
	if strings.HasPrefix(r.URL.Path, "/etag/") {
		w.Header().Set("ETag", `"1"`)
		gen = 1
		if r.Header.Get("If-None-Match") == `"1"` {
			w.Header().Set("Cache-Control", life)
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	give(w, life, seal(r.RequestURI, "*", gen, 1024))
}

// rage has all clients ask for a target at once. It returns how long it took until
// the last answer was there.
func (s *storm) rage(target string, gen int64) time.Duration {
	s.t.Helper()
	ready := make(chan struct{})
	var wg sync.WaitGroup
	faults, kinds := newCounter(), newCounter()
	for i := range s.clients {
		k := &s.clients[i]
		wg.Go(func() {
			<-ready
			r, err := k.get(target, "")
			if err != nil {
				faults.add(err.Error())
				return
			}
			got, err := unseal(r.body)
			switch {
			case r.status != 200 || err != nil:
				faults.add(fmt.Sprintf("status %d, %v", r.status, err))
			case got.url != target || got.gen != gen:
				faults.add(fmt.Sprintf("the body of %s, state %d, want state %d", got.url, got.gen, gen))
			}
			kinds.add(r.cache())
		})
	}
	began := time.Now()
	close(ready)
	wg.Wait()
	took := time.Since(began)
	if n := faults.all(); len(n) > 0 {
		s.t.Fatalf("%s: %v", target, n)
	}
	s.t.Logf("%s: %v; %v", target, took.Round(time.Millisecond), kinds.all())
	return took
}

// once asks every gateway for a target.
func (s *storm) once(target string) {
	s.t.Helper()
	for i := range s.gateways {
		if r, err := s.clients[i].get(target, ""); err != nil || r.status != 200 {
			s.t.Fatalf("%s: %v, %v", target, r, err)
		}
	}
}

func (s *storm) run(fetches int) {
	t := s.t
	s.once("/warm")
	s.rage("/warm", 1)
	for attempt := 1; ; attempt++ {
		late := ""
		for _, target := range []string{fmt.Sprint("/plain/", attempt), fmt.Sprint("/etag/", attempt)} {
			s.raging.Store(false)
			s.once(target)
			pass(t, time.Now().Add(1100*time.Millisecond)) // it expires
			before := s.o.total(target)
			hits := s.rage("/warm", 1)
			s.raging.Store(true)
			gen := int64(2)
			if strings.HasPrefix(target, "/etag/") {
				gen = 1
			}
			took := s.rage(target, gen)
			hits = max(hits, s.rage("/warm", 1))
			if n := s.o.total(target) - before; n != fetches {
				t.Errorf("%s: the origin was asked %d times, want %d", target, n, fetches)
			}
			fetch := time.Duration(s.fetch.Load())
			t.Logf("%s: %d clients had their answers after %v; the fetch took %v, as many hits %v: the fetch and %.2f times the hits",
				target, len(s.clients), took.Round(time.Millisecond), fetch.Round(time.Millisecond), hits.Round(time.Millisecond), float64(took-fetch)/float64(hits))
			if took > fetch+hits*3/2 {
				late += fmt.Sprintf("%s: the last of %d answers came after %v, want the fetch of %v and 1.5 times the %v of hits\n", target, len(s.clients), took, fetch, hits)
			}
		}
		// Whatever else this machine does is in both figures, but not evenly.
		// With few clients the hits are too few to compare with.
		if late == "" || t.Failed() || raceEnabled || !*long {
			return
		}
		if attempt == 5 {
			t.Error(late)
			return
		}
		t.Log("once more: ", late)
	}
}

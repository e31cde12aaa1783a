package apptest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestCacheMemory pushes objects of all sizes through a cache that holds a small part
// of them. What it says it holds never exceeds cache.memory by more than a tenth, and is
// what the heap has grown by.
func TestCacheMemory(t *testing.T) {
	limit := float64(rounds(8, 256) << 20)
	o := newOrigin(t, func(_ *origin, w http.ResponseWriter, r *http.Request) {
		size, err := strconv.Atoi(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
		if err != nil {
			http.NotFound(w, r)
			return
		}
		give(w, "max-age=3600", plenty[:size])
	})
	s := caching(o, "", fmt.Sprintf("memory: %.0fMiB", limit/(1<<20)))
	s.measured = true
	g := start(t, s)
	random := seed(t)
	var next atomic.Int64
	churn := func(bytes float64, smallest, largest float64) {
		load := newCrowd(t)
		var sent atomic.Int64
		var rs [4]*rand.Rand
		for i := range rs {
			rs[i] = rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		}
		load.askers(len(rs), g.addr("PLAIN"), func(worker int, k *asker) error {
			size := int(math.Exp(math.Log(smallest) + rs[worker].Float64()*math.Log(largest/smallest)))
			r, err := k.get(fmt.Sprintf("/m/%d/%d", next.Add(1), size), "")
			if err != nil {
				return err
			}
			if r.status != 200 || len(r.body) != size {
				return fmt.Errorf("status %d, %d bytes, want %d", r.status, len(r.body), size)
			}
			// The key and the head take about as much as a small body.
			sent.Add(int64(size) + 400)
			return nil
		})
		eventually(t, time.Duration(rounds(1, 10))*time.Minute, func() error {
			if got := g.metric("sluice_cache_bytes"); got > 1.1*limit {
				t.Errorf("sluice_cache_bytes is %.1f MiB, with a memory of %.0f MiB", got/(1<<20), limit/(1<<20))
				return nil
			}
			if float64(sent.Load()) < bytes {
				return errNotYet
			}
			return nil
		})
		load.end()
	}
	churn(0.01*limit, 100, 1000) // connections and buffers are there
	g.resetPeak()
	base := float64(g.footprint().heap) - g.metric("sluice_cache_bytes")
	for _, c := range []struct {
		name              string
		smallest, largest float64
		times             float64
	}{
		{"mixed", 100, 1 << 20, 4},
		{"large", 500 << 10, 1 << 20, 3},
		{"small", 100, 1000, 1.2},
		{"mixed again", 100, 1 << 20, 3},
	} {
		churn(c.times*limit, c.smallest, c.largest)
		held := g.metric("sluice_cache_bytes")
		heap := float64(g.footprint().heap) - base
		t.Logf("%-11s %6.0f objects, sluice_cache_bytes %6.2f MiB, the heap has grown by %6.2f MiB, peak RSS %4d MiB",
			c.name, g.metric("sluice_cache_objects"), held/(1<<20), heap/(1<<20), g.memory("VmHWM")>>20)
		if held < 0.9*limit || held > 1.1*limit {
			t.Errorf("%s: sluice_cache_bytes is %.2f MiB, want %.0f ± 10 %%", c.name, held/(1<<20), limit/(1<<20))
		}
		// Connections, pools and the garbage collector's own are not the cache's.
		if more := heap - held; math.Abs(more) > 0.1*limit+(1<<20) {
			t.Errorf("%s: sluice_cache_bytes is %.2f MiB and the heap has grown by %.2f MiB", c.name, held/(1<<20), heap/(1<<20))
		}
	}
}

var plenty = strings.Repeat(filling, (1<<20)/len(filling))

// TestCacheOversized asks for objects larger than the cache takes: they are passed on
// whole, and none is kept.
func TestCacheOversized(t *testing.T) {
	o := newOrigin(t, func(_ *origin, w http.ResponseWriter, r *http.Request) {
		body := seal(r.RequestURI, "*", 1, 200_000)
		w.Header().Set("Cache-Control", "max-age=3600")
		if !strings.HasSuffix(r.URL.Path, "/chunked") {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		for len(body) > 0 {
			n := min(len(body), 30_000)
			_, _ = w.Write([]byte(body[:n]))
			w.(http.Flusher).Flush()
			body = body[n:]
		}
	})
	g := start(t, caching(o, "", "memory: 1MiB, max_object: 100KiB"))
	for _, target := range []string{"/large/length", "/large/chunked"} {
		load := newCrowd(t)
		load.askers(8, g.addr("PLAIN"), func(_ int, k *asker) error {
			r, err := k.get(target, "")
			if err != nil {
				return err
			}
			if got, err := unseal(r.body); r.status != 200 || err != nil || got.url != target {
				return fmt.Errorf("status %d, %w", r.status, err)
			}
			return nil
		})
		load.reach(100)
		load.end()
	}
	if n := g.metric("sluice_cache_bytes"); n > 100<<10 {
		t.Errorf("sluice_cache_bytes is %v", n)
	}
}

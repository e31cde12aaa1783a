//go:build !race

package cache

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Race builds are left out: they allocate where others do not.

func TestAHitAllocatesNothing(t *testing.T) {
	only := []string{"page"}
	for name, c := range map[string]config.RouteCache{
		"plain":            {},
		"chosen parts":     {Key: config.CacheKey{Query: &only, Headers: []string{"Accept", "X-Tenant"}}},
		"stale and tagged": {StaleWhileRevalidate: config.Duration{Duration: 1e9}, Tags: "Surrogate-Key"},
	} {
		r := newHitRig(t, c, 100)
		x := r.request(0)
		i := 0
		ask := func() {
			r.fill(x, i)
			r.answer(t, x)
			i++
		}
		for range 1000 { // scratch memory and the cache's own tables reach their size
			ask()
		}
		if n := testing.AllocsPerRun(1000, ask); n != 0 {
			t.Errorf("%s: %v allocations for each hit", name, n)
		}
	}
}

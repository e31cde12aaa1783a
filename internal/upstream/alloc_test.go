//go:build !race

package upstream

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Race builds are left out: their pools drop at random what is put into them.

func TestForwardingAllocatesNothing(t *testing.T) {
	for _, balance := range []string{"p2c", "round_robin", "least_requests", "hash"} {
		t.Run(balance, func(t *testing.T) {
			one, two := fastOrigin(t, reply1K()), fastOrigin(t, reply1K())
			u := testUpstream(t, config.Upstream{Balance: balance, HashOn: "header:Authorization", Retry: &config.Retry{Attempts: 1, On: []string{"502"}}}, one, two)
			b := newBrowser()
			for range 100 {
				forward(t, u, b)
			}
			if n := testing.AllocsPerRun(500, func() { forward(t, u, b) }); n >= 1 {
				t.Errorf("%v allocations for each request", n)
			}
		})
	}
}

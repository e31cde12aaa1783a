package limit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Many keys of little traffic want to be settled at many times. What lasts for a
// while waits for others.
func TestKeysOfLittleTrafficShareCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const keys = 500
		_, rigs, links := gateways(t, 1, &config.File{}, scoped("leased", tokens("1000000/s", 1000000)))
		random := rand.New(rand.NewPCG(1, 2))
		round := func(ms int) { // 20/s for each key, on average
			for range ms {
				time.Sleep(time.Millisecond)
				for range 10 {
					if rigs[0].admitted(1, fmt.Sprint("client-", random.IntN(keys))) != 1 {
						t.Fatal("a client is refused")
					}
				}
			}
		}
		round(2000) // two seconds in which they become warm
		calls, takes := links[0].settles.Load(), links[0].takes.Load()
		round(3000)
		calls, takes = links[0].settles.Load()-calls, links[0].takes.Load()-takes
		if takes > 1500 { // of 30,000; a pause of a second makes a key new
			t.Errorf("%d requests were decided by the store", takes)
		}
		if calls < 100 || calls > 700 {
			t.Errorf("%d calls in 3 s", calls)
		}
	})
}

package redis

import (
	"sync"
	"time"
)

// leads are the leads of this gateway, by lock. Each has a name of its own, so that what is
// executed late, of one that was given up or has run out, does not end another.
type leads struct {
	mu    sync.Mutex
	held  map[string]heldLead
	sweep int // how many there may be before those that have run out are looked for
}

type heldLead struct {
	name string
	ends time.Time
}

const leastSweep = 1024

func (l *leads) begin(lock, name string, now time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held, l.sweep = map[string]heldLead{}, leastSweep
	}
	if len(l.held) >= l.sweep {
		for lock, h := range l.held {
			if now.After(h.ends) {
				delete(l.held, lock)
			}
		}
		l.sweep = max(2*len(l.held), leastSweep)
	}
	l.held[lock] = heldLead{name, now.Add(d)}
}

// end returns the name of the lead; "" when there is none.
func (l *leads) end(lock string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[lock]
	delete(l.held, lock)
	return h.name
}

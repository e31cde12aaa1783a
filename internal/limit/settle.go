package limit

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// settler settles leases beside the requests: those that run low, as requests tell
// it, and those that nobody uses any more, which it finds by itself. Whatever has
// come together while one call was under way goes into the next.
type settler struct {
	e     *Engine
	stack *stack
	// active is the leases that may hold something. It belongs to run.
	active map[*extra]struct{}
	due    []*extra
	later  []*extra // wanted to be settled while another settlement of theirs was under way
	calm   []*extra // want to be settled, and can wait until more have come together
	in     []store.Settlement
	out    []store.Grant
}

const (
	settleEvery = 250 * time.Millisecond // to look for what is idle
	settleBatch = 512                    // settlements in one call
	settleRest  = 5 * time.Millisecond   // what a lease may wait that lasts for calmly, so
	calmly      = 50 * time.Millisecond  // that one call serves many keys of little traffic
)

func newSettler(e *Engine) *settler {
	return &settler{e: e, stack: newStack(), active: map[*extra]struct{}{}}
}

// push has x looked after, and settled when it wants to be. It never waits.
func (s *settler) push(x *extra) {
	s.stack.push(x)
	if x.wants.Load() {
		s.stack.rouse()
	}
}

func (s *settler) run() {
	t := time.NewTicker(settleEvery)
	defer t.Stop()
	rest := time.NewTimer(settleRest)
	defer rest.Stop()
	resting := true
	for {
		select {
		case <-s.e.stop:
			return
		case <-s.stack.wake:
			s.receive()
		case <-rest.C:
			resting = false
			s.receive()
			s.rouse()
		case <-t.C:
			s.receive()
			s.idle()
		}
		if len(s.calm) > 0 && !resting {
			rest.Reset(settleRest)
			resting = true
		}
		s.settle(background)
	}
}

// receive takes what requests have pushed.
func (s *settler) receive() {
	now := s.e.now()
	s.stack.take(func(x *extra) {
		s.active[x] = struct{}{}
		switch {
		case !x.wants.Load():
		case x.lease.Lasts(now) >= calmly: // wants stays set, so that nobody pushes it again
			if x.calm {
				return
			}
			x.calm = true
			s.calm = append(s.calm, x)
		default:
			x.wants.Store(false)
			x.again = true
			s.due = append(s.due, x)
		}
	})
}

// rouse has the calm ones settled.
func (s *settler) rouse() {
	for _, x := range s.calm {
		x.calm, x.again = false, true
		x.wants.Store(false)
		s.due = append(s.due, x)
	}
	clear(s.calm)
	s.calm = s.calm[:0]
}

// idle adds the leases that hold what nobody uses, and forgets those that hold
// nothing.
func (s *settler) idle() {
	now := s.e.now()
	s.due = append(s.due, s.later...)
	clear(s.later)
	s.later = s.later[:0]
	for x := range s.active {
		switch {
		case x.lease.Held() <= 0:
			if now > x.touched.Load()+int64(keep) {
				delete(s.active, x)
			}
		case x.lease.Idle(now):
			s.due = append(s.due, x)
		}
	}
}

// settle settles what is due, in as many calls as it takes. A failed call ends it:
// what is held stays good until it runs out, and who needs more asks himself.
func (s *settler) settle(ctx context.Context) error {
	var failed error
	for len(s.due) > 0 {
		n := min(len(s.due), settleBatch)
		if err := s.call(ctx, s.due[:n]); err != nil && failed == nil {
			failed = err
		}
		clear(s.due[:n])
		s.due = s.due[n:]
		if failed != nil {
			clear(s.due)
			break
		}
	}
	s.due = nil
	return failed
}

func (s *settler) call(ctx context.Context, due []*extra) error {
	s.in = s.in[:0]
	asking := due[:0]
	for _, x := range due {
		terms := x.c.terms.Load()
		if terms == nil {
			terms = &meter.LeaseParams{Limit: &x.c.limit, Peers: s.e.peers()}
		}
		if one, ok := x.lease.Begin(s.e.now(), 0, terms); ok {
			s.in = append(s.in, settlement(x, one, max(x.waiting.Load(), 0)))
			asking = append(asking, x)
		} else if x.again {
			s.later = append(s.later, x) // what was given back must not run out here
		}
		x.again = false
	}
	if len(asking) == 0 {
		return nil
	}
	if cap(s.out) < len(asking) {
		s.out = make([]store.Grant, len(asking), settleBatch)
	}
	s.out = s.out[:len(asking)]
	clear(s.out)
	err := s.e.shared.Settle(ctx, s.in, s.out)
	s.e.stats.call(opSettle, err)
	now := s.e.now()
	for i, x := range asking {
		failed := s.out[i].Err != nil
		x.lease.End(now, grantOf(&s.out[i]), failed)
		s.e.stats.settled(x.c, &s.in[i], &s.out[i], failed)
		x.touched.Store(now)
		x.settled.tell()
	}
	if errors.Is(err, store.ErrKey) { // of single leases alone
		return nil
	}
	return err
}

// giveUp has everything given back that is held of a counter which nobody uses any
// more.
func (s *settler) giveUp(c *counter) {
	c.table.all(func(e *entry) bool {
		if x := e.extra.Load(); x != nil && x.lease.Held() > 0 {
			x.lease.Drain()
			x.wants.Store(true)
			s.stack.push(x)
		}
		return true
	})
	s.stack.rouse()
}

// drain gives everything back, when run has ended.
func (s *settler) drain(ctx context.Context) {
	for _, c := range s.e.registry.all() {
		if c.place == leased {
			s.giveUp(c)
		}
	}
	s.receive()
	s.due = s.due[:0]
	for x := range s.active {
		if x.lease.Held() > 0 {
			x.lease.Drain()
			s.due = append(s.due, x)
		}
	}
	if err := s.settle(ctx); err != nil {
		s.e.log.Warn("leases could not be given back, they run out by themselves within 2 s", "cause", err)
	}
}

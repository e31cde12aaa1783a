package upstream

import (
	"context"
	"slices"
	"time"
)

// keep is the background work of an upstream: it closes connections that have been
// idle for too long, looks names up again, and sees whether endpoints that are set
// aside have come back, so that no request has to find out. It ends with Close.
func (u *Upstream) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var swept time.Time
	for {
		select {
		case <-u.ctx.Done():
			return
		case <-u.wake:
		case <-timer.C:
		}
		now := time.Now()
		if now.Sub(swept) >= u.times.sweep {
			swept = now
			for _, e := range u.set.Load().endpoints {
				e.sweep(now, 100*time.Millisecond)
			}
		}
		next := swept.Add(u.times.sweep)
		next = earlier(next, u.lookUp(now))
		next = earlier(next, u.probe(now))
		timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// earlier returns the earlier of two times; a zero b is never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// probe starts to look after the endpoints that are out and due. It returns when
// the next one is.
func (u *Upstream) probe(now time.Time) (next time.Time) {
	for _, e := range u.set.Load().endpoints {
		look, again := e.due(now)
		if look {
			u.work.Go(func() { u.probeOne(e) })
			continue
		}
		if !again.IsZero() && (next.IsZero() || again.Before(next)) {
			next = again
		}
	}
	return next
}

func (u *Upstream) probeOne(e *endpoint) {
	ctx, done := context.WithTimeout(u.ctx, u.connectTimeout)
	defer done()
	c, err := u.dial(ctx, e)
	if err == nil {
		c.close()
		u.reached(e)
	} else {
		e.setAside(time.Now(), true)
	}
	e.probed()
	u.nudge()
}

// lookUp starts the look-ups that are due and returns when the next one is.
func (u *Upstream) lookUp(now time.Time) (next time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.targets {
		if t.host == "" || t.looking {
			continue
		}
		at := t.nextLook(u.times)
		if !now.Before(at) {
			t.looking, t.lookAgain, t.lookedAt = true, false, now
			u.work.Go(func() { u.lookUpOne(t) })
			continue
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if !u.firstDone && !slices.ContainsFunc(u.targets, func(t *target) bool { return !t.looked }) {
		u.firstDone = true
		close(u.first)
	}
	return next
}

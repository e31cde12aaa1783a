package upstream

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Names are looked up when the upstream is made, then every half minute, and soon
// after a connection could not be made. The old addresses stay while a look-up fails.

// errNoAddress is a look-up that found nothing.
var errNoAddress = errors.New("the name has no address")

// nextLook is when to look a target's name up. The caller holds the upstream's lock.
func (t *target) nextLook(times times) time.Time {
	switch {
	case t.lookedAt.IsZero():
		return t.lookedAt
	case len(t.addrs) == 0 || t.lookAgain:
		return t.lookedAt.Add(times.hurry)
	}
	return t.lookedAt.Add(times.resolve)
}

func (u *Upstream) lookUpOne(t *target) {
	ctx, done := context.WithTimeout(u.ctx, u.times.lookup)
	addrs, err := u.resolver.LookupNetIP(ctx, "ip", t.host)
	done()
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	t.looking, t.looked = false, true
	switch {
	case u.closed:
	case err != nil:
		if t.err == nil {
			u.log.Warn("name not resolved", "upstream", u.name, "target", t.url, "error", err)
		}
	case !sameAddrs(t.addrs, addrs):
		if t.err != nil || len(t.addrs) > 0 {
			u.log.Info("name resolved", "upstream", u.name, "target", t.url, "addresses", addrs)
		}
		t.addrs = unique(addrs)
		u.rebuild()
	}
	t.err = err
	u.nudge()
}

// sameAddrs compares without regard to order, which resolvers rotate.
func sameAddrs(a, b []netip.Addr) bool {
	b = unique(b)
	return len(a) == len(b) && !slices.ContainsFunc(b, func(x netip.Addr) bool { return !slices.Contains(a, x) })
}

func unique(a []netip.Addr) []netip.Addr {
	var u []netip.Addr
	for _, x := range a {
		if !slices.Contains(u, x) {
			u = append(u, x)
		}
	}
	return u
}

// resolved waits, at most as long as connecting may take, until every name has been
// looked up once, and then says why there is no address.
func (k *call) resolved() *fault {
	ctx, stop := k.x.Context()
	defer stop()
	late := time.NewTimer(k.u.connectTimeout)
	defer late.Stop()
	select {
	case <-k.u.first:
	case <-late.C:
	case <-ctx.Done():
	}
	switch {
	case len(k.u.set.Load().endpoints) > 0:
		return nil
	case k.x.Canceled():
		return clientGone(context.Canceled)
	}
	k.u.mu.Lock()
	defer k.u.mu.Unlock()
	cause := error(context.DeadlineExceeded)
	for _, t := range k.u.targets {
		if t.err != nil {
			cause = t.err
		}
	}
	return noTarget(cause)
}

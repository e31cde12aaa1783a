package cache

import (
	"context"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/store"
)

// Level 2. Under a primary key stands an object, or, when responses there have a Vary, a
// directory: an object without status that has the names of the fields in Spec, a list on
// each line. A variant stands under its own key. What fails is as if nothing was there, and
// is not tried again for this request: all calls before it goes to the upstream have one
// budget together, state.redis.timeout.

const (
	// leadFor is how long other gateways wait at most for the one that fetches.
	leadFor = 5 * time.Second
	// pollFirst and pollMost are the pauses of one that waits.
	pollFirst = 2 * time.Millisecond
	pollMost  = 25 * time.Millisecond
	// staleFor is how long an object is kept behind its freshness because it can be renewed.
	staleFor = int64(time.Hour / time.Second)
)

// seen is what level 2 has for a request.
type seen struct {
	fit    fitness // of the object that is there; unfit: none, or not for this request
	object *object.Object
	why    string // the request is forwarded in spite of it; empty: nothing is there
	key    string // where the response is expected; empty: at the primary key
	failed bool
}

// peek looks into level 2 for a request that waits for nobody. What is found there is in
// level 1 from then on.
func (n *rule) peek(x *exchange.Exchange, t *task) seen {
	ctx, stop := x.Context()
	defer stop()
	brief, cancel := context.WithTimeout(ctx, n.budget)
	defer cancel()
	return n.load(brief, x, t)
}

// second asks level 2, for the request that leads. Behind fresh the fill is settled with
// the object, behind renewed there is one that may be used stale. Otherwise the upstream is
// to be asked, with t.old as the best that is stored.
func (n *rule) second(x *exchange.Exchange, t *task) fitness {
	ctx, stop := x.Context()
	defer stop()
	brief, cancel := context.WithTimeout(ctx, n.budget)
	defer cancel()
	s := n.load(brief, x, t)
	switch {
	case s.fit == fresh || s.fit == renewed && !t.background:
		return n.take(t, &s)
	case s.failed || s.object != nil && s.fit == unfit || t.want.ask.NoCache || brief.Err() != nil:
		return unfit // it is fetched for this request alone, or without Redis
	}
	fill := t.fill
	fill.second = store.ObjectKey{URI: t.uri, Variant: t.primary}
	if s.key != "" {
		fill.second.Variant = s.key
	}
	turn, err := n.e.objects.Lead(brief, fill.second, leadFor)
	if err != nil {
		n.e.stats.second[secondError].Add(1)
		return unfit
	}
	if turn == store.Wait {
		return n.await(ctx, x, t)
	}
	fill.locked = turn == store.Lead
	return unfit
}

// take makes what was found in level 2 the fill's.
func (n *rule) take(t *task, s *seen) fitness {
	t.old = s.object
	if s.fit == fresh {
		t.fill.settle(kept, s.object, nil)
	}
	return s.fit
}

// await waits for what another gateway fetches.
func (n *rule) await(ctx context.Context, x *exchange.Exchange, t *task) fitness {
	fill := t.fill
	limit := time.Now().Add(leadFor)
	if !x.Deadline.IsZero() && x.Deadline.Before(limit) {
		limit = x.Deadline
	}
	timer := time.NewTimer(pollFirst)
	defer timer.Stop()
	for pause := pollFirst; time.Now().Before(limit); pause = min(2*pause, pollMost) {
		select {
		case <-ctx.Done():
			return unfit
		case <-timer.C:
		}
		s := n.load(ctx, x, t)
		if s.fit == fresh || s.fit == renewed && !t.background {
			return n.take(t, &s)
		}
		if s.failed {
			return unfit
		}
		turn, err := n.e.objects.Lead(ctx, fill.second, leadFor)
		if err != nil || turn != store.Wait {
			fill.locked = err == nil && turn == store.Lead
			return unfit
		}
		timer.Reset(pause)
	}
	return unfit
}

// load looks for the object of a request. One that is of use goes to level 1.
func (n *rule) load(ctx context.Context, x *exchange.Exchange, t *task) (s seen) {
	o := n.get(ctx, t, t.primary, &s)
	if o != nil && o.Status == 0 {
		s.why = byVary
		var best *object.Object
		for spec := range strings.SplitSeq(o.Spec, "\n") {
			key := string(variantKey(x, []byte(t.primary), spec))
			if s.key == "" {
				s.key = key
			}
			v := n.get(ctx, t, key, &s)
			if v != nil && v.Status != 0 && v.Spec == spec && (best == nil || v.Newer(best)) {
				best, s.key = v, key
			}
		}
		o = best
	}
	if o == nil {
		n.e.stats.second[secondMiss].Add(1)
		if s.why != "" && t.old == nil {
			t.why = s.why
		}
		return s
	}
	n.e.stats.second[secondHit].Add(1)
	if t.old != nil && !o.Newer(t.old) || !n.e.memory.Put(o) {
		return s
	}
	now := time.Now().UnixNano()
	s.object, s.fit = o, t.want.fit(o, now)
	switch s.fit {
	case unfit:
		t.why = byBypass
	case doubted:
		t.old, t.why = o, t.want.because(o, now)
	}
	return s
}

// get reads one object. What is damaged or of another key is as if it was not there.
func (n *rule) get(ctx context.Context, t *task, key string, s *seen) *object.Object {
	if s.failed {
		return nil
	}
	b, err := n.e.objects.Get(ctx, store.ObjectKey{URI: t.uri, Variant: key})
	if err != nil {
		s.failed = true
		n.e.stats.second[secondError].Add(1)
		return nil
	}
	if b == nil {
		return nil
	}
	o, err := object.Decode(b)
	if err != nil || o.Key != key || o.Primary != t.primary || o.URI != t.uri {
		n.e.stats.second[secondError].Add(1)
		return nil
	}
	if n.e.groups.hides(o.Tags) {
		return nil
	}
	o.Stamp = t.fill.stamp
	return o
}

// share gives an object to level 2, in the background, and ends the lead there.
func (t *task) share(o *object.Object) {
	if !t.shared {
		return
	}
	left := o.Lifetime - semantics.Age(o.Born, o.Stored)
	if o.NoCache || left <= 0 {
		t.fill.unlock(passFor)
		return
	}
	more := max(o.StaleWhileRevalidate, o.StaleIfError)
	if o.ETag != nil || o.LastModified != 0 {
		more = max(more, min(left, staleFor))
	}
	j := job{object: o, ttl: time.Duration(left+more) * time.Second, stamp: t.fill.number, tags: o.Tags}
	if t.fill.locked {
		j.lock, t.fill.locked = t.fill.second, false
	}
	t.e.writer.put(j)
}

// directory is what stands under the primary key of an object that has a Vary.
func (e *Engine) directory(o *object.Object) *object.Object {
	specs := []string{o.Spec}
	if entry := e.memory.Get([]byte(o.Primary)); entry != nil && len(entry.Specs) > 0 {
		specs = entry.Specs
	}
	return &object.Object{Key: o.Primary, Primary: o.Primary, URI: o.URI, Spec: strings.Join(specs, "\n"), Stored: o.Stored}
}

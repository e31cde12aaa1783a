package cache

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// lookup is the filter on the way in.
type lookup struct{ *rule }

// Request answers from the cache, waits for what another request fetches, or lets the
// request go on.
func (f *lookup) Request(x *exchange.Exchange) error {
	if !cacheable(x.Request.Method) {
		f.pass(x, byMethod)
		return nil
	}
	var w want
	if !w.read(f.rule, x) {
		f.pass(x, byBypass)
		return nil
	}
	k, err := f.key(x)
	if err != nil {
		return err
	}
	now := x.Start.UnixNano()
	p := f.find(x, &k, now)
	switch w.fit(p.object, now) {
	case fresh:
		f.ahead(x, p.object, &w, now)
		return f.serveHit(x, p.object, &w, now, exchange.CacheHit)
	case renewed:
		f.refresh(x, p.object, &w)
		fallthrough
	case stale:
		return f.serveHit(x, p.object, &w, now, exchange.CacheStale)
	case doubted:
		p.why = w.because(p.object, now)
	case unfit:
		if p.object != nil {
			p.object, p.why, p.alone = nil, byBypass, true
		}
	}
	return f.fetch(x, &w, &k, p)
}

// cacheable reports whether a method is answered from the cache.
func cacheable(method string) bool {
	return method == "GET" || method == "HEAD" || method == methodQuery
}

// pass lets a request by that is not for the cache.
func (f *lookup) pass(x *exchange.Exchange, why string) {
	x.Cached.Status = forwarded(x, why)
	x.Cached.Result = exchange.CacheBypass
	f.e.stats.count(x, exchange.CacheBypass)
}

// onlyIfCached is the answer to a request that nothing is stored for (RFC 9111 §5.2.1.7).
var onlyIfCached = &exchange.Error{
	Code: exchange.UpstreamTimeout, Side: exchange.Client,
	Detail: "Nothing that may be used is stored, and the request says only-if-cached.",
}

var notStoredStatus = []byte("sluice; detail=only-if-cached")

// place is what was found under a key.
type place struct {
	object *object.Object
	why    string // the request would be forwarded
	alone  bool   // nobody is to wait for what it fetches
	passed bool   // because responses here are not stored
	// variant is the key under which the response is expected, nil when the primary one.
	variant []byte
}

// find looks in level 1.
func (n *rule) find(x *exchange.Exchange, k *key, now int64) place {
	p := place{why: byURI}
	e := n.e.memory.Get(k.b)
	switch {
	case e == nil || !n.e.sure(x.Start):
	case e.Object != nil:
		if n.e.memory.Valid(e.Object) {
			p.object = e.Object
		}
	case e.Specs != nil:
		p.why = byVary
		for _, spec := range e.Specs {
			b := variantKey(x, k.b, spec)
			if p.variant == nil {
				p.variant = b
			}
			v := n.e.memory.Get(b)
			if v == nil || v.Object == nil || !n.e.memory.Valid(v.Object) {
				p.passed = p.passed || v != nil && now < v.Pass
				continue
			}
			if p.object == nil || v.Object.Newer(p.object) {
				p.object, p.variant = v.Object, b
			}
		}
	default:
		p.passed = now < e.Pass
	}
	p.alone = p.passed && p.object == nil
	return p
}

// variantKey is the key of the variant that x asks for.
func variantKey(x *exchange.Exchange, primary []byte, spec string) []byte {
	b := append(x.Scratch(len(primary) + len(spec) + 256)[:0], primary...)
	b = append(append(append(b, 0), spec...), 0)
	return semantics.AppendVariant(b, spec, &x.Request.Header)
}

// Explain says what the key is made of. What is stored is not looked at: it says nothing
// about the next request.
func (f *lookup) Explain(x *exchange.Exchange) policy.Opinion {
	var w want
	switch {
	case !cacheable(x.Request.Method):
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: x.Request.Method + " is not answered from the cache"}
	case !w.read(f.rule, x):
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: "not for the cache: the request has a body, an Upgrade, If-Match or If-Unmodified-Since"}
	}
	reason := "may be answered from the cache; " + f.describe()
	if w.personal() {
		reason += "; the request has Authorization or Cookie, so only responses that say public or s-maxage are stored"
	}
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: reason}
}

// fetch has the response fetched: by this request, or by another that asks for the same.
func (f *lookup) fetch(x *exchange.Exchange, w *want, k *key, p place) error {
	t := &task{rule: f.rule, want: *w, why: p.why, old: p.object, primary: string(k.b), uriAt: k.uri}
	t.uri = t.primary[k.uri:k.end]
	t.expect(&p)
	part := w.conds && w.cond.HasRange() && p.object == nil
	if w.personal() && p.object == nil {
		// What comes may be for this client alone: nobody waits for it, and it says nothing
		// about what others get.
		p.alone, p.passed = true, false
	}
	if p.alone || w.head || w.ask.NoStore || w.ask.OnlyIfCached || part {
		if !p.passed {
			t.mark = ""
		}
		return f.alone(x, t, !p.passed)
	}
	for turn := 0; turn < maxTurns && !validatedEachTime(p.object); turn++ {
		fl, leads := f.e.flights.join(f.e, t.at, t.uri)
		if !leads {
			settled, late := fl.wait(x)
			if late != nil {
				return f.instead(x, t, late)
			}
			if !settled {
				break
			}
		}
		now := time.Now().UnixNano()
		if leads {
			t.lead(fl)
			x.Held = append(x.Held, fl)
		} else if w.ask.NoCache && fl.began.Before(x.Start) {
			continue // what was asked for before is not what it wants
		} else if done, err := f.follow(x, t, fl, now); done {
			return err
		}
		// What was stored between the last look and now is what others may be led to.
		p = f.find(x, k, now)
		fit := w.fit(p.object, now)
		switch {
		case fit == fresh && p.object != t.old:
			if leads {
				fl.settle(kept, p.object, nil)
			}
			return f.serveHit(x, p.object, w, now, exchange.CacheHit)
		case leads:
			return f.lead(x, t)
		case fit != unfit:
			t.old = p.object
		default:
			t.old = nil
		}
		if fl.outcome == notStored {
			break
		}
		t.expect(&p)
	}
	t.mark = ""
	if t.old == nil {
		return f.alone(x, t, false)
	}
	t.lead(newFill(f.e, "", nil))
	f.begin(x, t)
	return nil
}

// lead gives the request a fill. What is stored may have been purged before that: then the
// fill must not renew it.
func (t *task) lead(fl *fill) {
	t.fill = fl
	if t.old != nil && !t.e.memory.Valid(t.old) {
		t.old = nil
	}
}

// validatedEachTime reports whether an object is of no use to those who wait: each of them
// has to ask the upstream anyway.
func validatedEachTime(o *object.Object) bool { return o != nil && (o.NoCache || o.Lifetime <= 0) }

// expect notes where the response is expected.
func (t *task) expect(p *place) {
	t.at = t.primary
	if p.variant != nil {
		t.at = string(p.variant)
	}
	t.mark = t.at
}

// alone has a request go to the upstream by itself, as the client sent it. look: level 2 is
// asked before.
func (f *lookup) alone(x *exchange.Exchange, t *task, look bool) error {
	t.asIs = true
	t.lead(newFill(f.e, "", nil))
	if look && f.shared && !t.want.ask.NoStore {
		s := f.peek(x, t)
		now := time.Now().UnixNano()
		switch s.fit {
		case fresh:
			return f.serveHit(x, s.object, &t.want, now, exchange.CacheHit)
		case renewed:
			f.refresh(x, s.object, &t.want)
			return f.serveHit(x, s.object, &t.want, now, exchange.CacheStale)
		}
	}
	if t.want.ask.OnlyIfCached {
		x.Cached.Status = notStoredStatus
		x.Cached.Result = exchange.CacheMiss
		f.e.stats.count(x, exchange.CacheMiss)
		return onlyIfCached
	}
	f.begin(x, t)
	return nil
}

// maxTurns is how often a request waits for another one before it goes by itself.
const maxTurns = 3

// follow uses what another request has fetched. done says that x has its answer, or that
// the error is it.
func (f *lookup) follow(x *exchange.Exchange, t *task, fl *fill, now int64) (done bool, err error) {
	switch fl.outcome {
	case kept, flowing:
		o := fl.object
		if !f.suits(x, t, o, now) || fl.outcome == flowing && t.want.conds && t.want.cond.HasRange() {
			return false, nil
		}
		if fl.outcome == flowing && !fl.stream.enter() {
			return false, nil
		}
		f.serve(x, o, &t.want, now)
		switch {
		case fl.outcome == kept:
		case x.Response.Status == o.Status:
			x.Response.ContentLength, x.Response.Body = fl.stream.length, fl.stream.open(x, false)
		default:
			fl.stream.leave()
		}
		say(x, append(forwarded(x, t.why), joinedMark...))
		x.Cached.Result = exchange.CacheCollapsed
		f.e.stats.count(x, exchange.CacheCollapsed)
		return true, exchange.Done
	case failed:
		return true, f.instead(x, t, fl.err)
	}
	return false, nil
}

// instead answers a request whose response could not be fetched by another: with a stale
// one if that is allowed, or with the error.
func (f *lookup) instead(x *exchange.Exchange, t *task, err error) error {
	if now := time.Now().UnixNano(); t.mayFallBack(now) {
		return f.serveHit(x, t.old, &t.want, now, exchange.CacheStale)
	}
	x.Cached.Status = append(forwarded(x, t.why), joinedMark...)
	x.Cached.Result = exchange.CacheCollapsed
	f.e.stats.count(x, exchange.CacheCollapsed)
	return err
}

// Response says what the cache has done of answers that say nothing themselves.
func (f *lookup) Response(x *exchange.Exchange) error {
	say(x, x.Cached.Status)
	x.Cached.Status = nil
	return nil
}

// suits reports whether a response that another request has fetched is one for x.
func (f *lookup) suits(x *exchange.Exchange, t *task, o *object.Object, now int64) bool {
	w := t.want
	w.ask.NoCache = false // it was fetched behind the request
	if w.fit(o, now) != fresh || !f.e.memory.Valid(o) || o.Primary != t.primary {
		return false
	}
	return o.Spec == "" || string(variantKey(x, []byte(t.primary), o.Spec)) == o.Key
}

// lead goes to level 2, and to the upstream.
func (f *lookup) lead(x *exchange.Exchange, t *task) error {
	if f.shared {
		switch f.second(x, t) {
		case fresh:
			return f.serveHit(x, t.old, &t.want, time.Now().UnixNano(), exchange.CacheHit)
		case renewed:
			t.fill.settle(handedOver, nil, nil) // the refresh leads
			f.refresh(x, t.old, &t.want)
			return f.serveHit(x, t.old, &t.want, time.Now().UnixNano(), exchange.CacheStale)
		}
	}
	f.begin(x, t)
	return nil
}

// begin makes the request one for the upstream: with the validators of what is stored, or
// without the client's, so that the whole response comes.
func (n *rule) begin(x *exchange.Exchange, t *task) {
	x.Cached.Task = t
	n.disarm(x)
	if t.asIs {
		return
	}
	h := &x.Request.Header
	if t.want.conds {
		semantics.StripConditions(h)
	}
	if o := t.old; o != nil {
		if o.ETag != nil {
			h.SetID(exchange.IfNoneMatch, o.ETag)
		}
		if o.LastModified != 0 {
			h.SetID(exchange.IfModifiedSince, semantics.AppendDate(x.Scratch(32)[:0], o.LastModified))
		}
	}
}

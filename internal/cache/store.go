package cache

import (
	"io"
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// keeper is the filter on the way back.
type keeper struct{ *rule }

// Request does nothing: the work is Response's.
func (f *keeper) Request(*exchange.Exchange) error { return nil }

// Explain implements policy.Filter.
func (f *keeper) Explain(*exchange.Exchange) policy.Opinion {
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: "stores the response when RFC 9111 and the route's `cache` allow"}
}

// Response keeps the response, renews what was kept, or answers with what was kept
// because nothing better is to be had.
func (f *keeper) Response(x *exchange.Exchange) error {
	t, _ := x.Cached.Task.(*task)
	if t == nil {
		f.e.changed(x)
		say(x, x.Cached.Status)
		f.tell(x, nil)
		return nil
	}
	x.Cached.Task = nil
	r := &x.Response
	switch {
	case x.Err != nil:
		t.failed(x)
	case r.Status == 304 && t.old != nil && !t.asIs:
		t.renew(x)
	case r.Status >= 500 && r.Status <= 504 && r.Status != 501 && t.fallBack(x):
	case t.want.head:
		t.headOnly(x)
	default:
		t.keep(x)
	}
	return nil
}

// task methods from here on run once for each request that was forwarded.

// failed is for a request that the upstream has not answered.
func (t *task) failed(x *exchange.Exchange) {
	if x.Err.Side == exchange.Upstream && t.fallBack(x) {
		return
	}
	if x.Err.Side == exchange.Upstream && x.Err.Code != exchange.ClientGone {
		t.fill.settle(failed, nil, x.Err)
	} else {
		t.fill.settle(handedOver, nil, nil)
	}
	t.fill.unlock(0)
	t.forwarded(x, exchange.CacheMiss, "")
}

// fallBack answers with what was kept when the upstream fails (RFC 5861 §4).
func (t *task) fallBack(x *exchange.Exchange) bool {
	now := time.Now().UnixNano()
	if !t.want.mayFallBack(t.old, now) {
		return false
	}
	err := x.Err
	if err == nil {
		err = &exchange.Error{Code: exchange.UpstreamUnavailable, Status: x.Response.Status, Side: exchange.Upstream}
	}
	t.fill.settle(failed, nil, err)
	t.fill.unlock(0)
	x.Err = nil
	x.Response.Close = false
	t.serve(x, t.old, &t.want, now)
	hit(x, t.old, now, exchange.CacheStale)
	t.e.stats.count(x, exchange.CacheStale)
	return true
}

// forwarded says what became of a request that was forwarded.
func (t *task) forwarded(x *exchange.Exchange, result exchange.CacheResult, more string) {
	b := forwarded(x, t.why)
	say(x, append(b, more...))
	x.Cached.Result = result
	t.e.stats.count(x, result)
}

// judge asks RFC 9111 about a response.
func (t *task) judge(x *exchange.Exchange, status int, h *exchange.Header) semantics.Verdict {
	v := semantics.Judge(&t.rules, &semantics.Answer{
		Method: t.method(x), Ask: t.want.ask, Authorization: t.want.authorization, Cookie: t.want.cookie,
		Status: status, Header: h, Requested: x.Start, Received: time.Now(),
	})
	if v.Store && !v.Explicit && v.Lifetime >= 60 {
		// What the configuration alone keeps fresh does not all become stale at once.
		v.Lifetime -= rand.Int64N(v.Lifetime/20 + 1)
	}
	return v
}

// method is what the response is stored for: a HEAD tells the header of a GET.
func (t *task) method(x *exchange.Exchange) string {
	if x.Request.Method == "HEAD" {
		return "GET"
	}
	return x.Request.Method
}

// keep stores the response, if it may be.
func (t *task) keep(x *exchange.Exchange) {
	r := &x.Response
	v := t.judge(x, r.Status, &r.Header)
	spec, ok := semantics.VaryOf(&r.Header)
	if !v.Store || !ok || unkeyed(spec) || r.ContentLength > t.maxObject || r.Tunnel != nil || t.want.head {
		t.refuse(x)
		return
	}
	o := t.object(x, &v, spec)
	o.Fields = object.CopyFields(&r.Header, func(f *exchange.Field) bool { return semantics.Kept(f, v.Drop) })
	date(o)
	body, whole, err := gather(r, t.maxObject)
	switch {
	case err != nil || int64(len(body)) > t.maxObject:
		// What was read is the beginning of what the client gets.
		r.Body = &resumed{first: body, err: err, rest: r.Body}
		t.refuse(x)
		return
	case whole:
		o = o.With(fitted(body))
		t.publish(o)
		t.answer(x, o)
		return
	}
	t.flow(x, o, body)
}

// refuse is for a response that is not stored.
func (t *task) refuse(x *exchange.Exchange) {
	switch {
	case t.old == nil:
		t.pass()
	case !t.asIs && replaces(x.Response.Status):
		t.e.memory.Drop(t.old.Key)
		t.pass()
	}
	t.fill.settle(notStored, nil, nil)
	t.fill.unlock(passFor)
	t.tell(x, nil)
	t.forwarded(x, exchange.CachePass, "")
}

// replaces reports whether a response that is not stored says that what was stored is not
// right any more. A refusal, of a request that one client has made so, or a failure does
// not.
func replaces(status int) bool { return status < 400 || status == 404 || status == 410 }

// pass notes that responses here are not stored.
func (t *task) pass() {
	if t.mark != "" {
		t.e.memory.Pass(t.mark, time.Now().Add(passFor).UnixNano())
	}
}

// passFor is how long requests do not wait for each other where a response was not one
// to keep.
const passFor = 10 * time.Second

// object begins the object of a response.
func (t *task) object(x *exchange.Exchange, v *semantics.Verdict, spec string) *object.Object {
	o := &object.Object{
		Key: t.primary, Primary: t.primary, URI: t.uri, Spec: spec, Status: x.Response.Status,
		Born: v.Born, Stored: time.Now().UnixNano(), Lifetime: v.Lifetime,
		StaleWhileRevalidate: v.StaleWhileRevalidate, StaleIfError: v.StaleIfError,
		NoCache: v.NoCache, MustRevalidate: v.MustRevalidate, Open: v.Open, Stamp: t.fill.stamp,
	}
	if spec != "" {
		// One string for all of them.
		o.Key = string(variantKey(x, []byte(t.primary), spec))
		o.Primary, o.URI = o.Key[:len(t.primary)], o.Key[t.uriAt:t.uriAt+len(t.uri)]
	}
	if t.rule.tags != nil {
		for _, tag := range semantics.Tags(&x.Response.Header, t.rule.tags) {
			o.Tags = append(o.Tags, "t:"+tag)
		}
	}
	for _, g := range semantics.Groups(&x.Response.Header, cacheGroups) {
		o.Tags = append(o.Tags, groupTag(originOf(t.uri), g))
	}
	return o
}

// date completes the header of an object, and reads from it what later questions need.
func date(o *object.Object) {
	var h exchange.Header
	for _, f := range o.Fields {
		h.Append(f)
	}
	if !h.Has(exchange.Date) {
		// RFC 9110 §6.6.1: a recipient that caches adds it.
		f := exchange.Field{Name: exchange.Date.Name(), ID: exchange.Date, Value: semantics.AppendDate(nil, time.Now().Unix())}
		o.Fields = append(o.Fields, f)
		h.Append(f)
	}
	v := semantics.ReadValidators(&h)
	o.ETag, o.LastModified, o.Date = v.ETag, v.LastModified, v.Date
}

// gather reads what is there of a body without waiting, at most a piece more than most.
func gather(r *exchange.Response, most int64) (body []byte, whole bool, err error) {
	if r.Body == nil {
		return nil, true, nil
	}
	if r.ContentLength > 0 {
		body = make([]byte, 0, r.ContentLength)
	}
	for r.Body.Ready() && int64(len(body)) <= most {
		piece, err := r.Body.Next()
		body = append(body, piece...)
		if err == io.EOF {
			short := r.ContentLength >= 0 && int64(len(body)) != r.ContentLength
			if short {
				return body, false, errShort
			}
			return body, true, nil
		}
		if err != nil {
			return body, false, err
		}
	}
	return body, false, nil
}

// resumed is a body whose beginning was read.
type resumed struct {
	first []byte
	err   error // behind first; nil: rest goes on
	rest  exchange.Body
}

// Next implements exchange.Body.
func (r *resumed) Next() ([]byte, error) {
	if first := r.first; len(first) > 0 {
		r.first = nil
		return first, r.err
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.rest.Next()
}

// Ready implements exchange.Body.
func (r *resumed) Ready() bool { return len(r.first) > 0 || r.err != nil || r.rest.Ready() }

// Close implements exchange.Body.
func (r *resumed) Close() error { return r.rest.Close() }

// fitted is a body without the memory that it does not need.
func fitted(body []byte) []byte {
	if cap(body)-len(body) > len(body)/8 {
		return append(make([]byte, 0, len(body)), body...)
	}
	return body
}

// publish makes a whole object known: here, to those who wait, and in level 2.
func (t *task) publish(o *object.Object) {
	t.e.memory.Put(o)
	if o.NoCache || o.Lifetime <= semantics.Age(o.Born, o.Stored) {
		t.fill.settle(notStored, nil, nil) // it is no answer to others
	} else {
		t.fill.settle(kept, o, nil)
	}
	t.fill.end()
	t.share(o)
}

// answer makes the response of the request that led out of the object, so that it is the
// one that all others get.
func (t *task) answer(x *exchange.Exchange, o *object.Object) {
	switch r := &x.Response; {
	case t.want.conds && !t.asIs:
		t.serve(x, o, &t.want, time.Now().UnixNano())
	case r.Body != nil:
		_ = r.Body.Close() // it was read to its end
		r.Body, r.ContentLength = exchange.NewBytes(o.Body), int64(len(o.Body))
		fallthrough
	default:
		t.tell(x, o)
	}
	t.forwarded(x, exchange.CacheMiss, storedMark)
}

// flow stores a body while it goes to the client.
func (t *task) flow(x *exchange.Exchange, o *object.Object, begun []byte) {
	r := &x.Response
	s := &stream{src: r.Body, length: r.ContentLength, most: t.maxObject, b: begun, room: &t.e.room, held: int64(cap(begun))}
	if !s.room.take(s.held) {
		r.Body = &resumed{first: begun, rest: r.Body}
		t.refuse(x)
		return
	}
	fill := t.fill
	s.done = func(body []byte, err error) {
		if err == io.EOF {
			t.publish(o.With(fitted(body)))
			return
		}
		if err == errTooLarge {
			t.pass()
		}
		if err == errGone {
			fill.settle(handedOver, nil, nil)
		}
		fill.settle(notStored, nil, nil)
		fill.unlock(0)
	}
	l := s.lead(x)
	if !o.NoCache && o.Lifetime > semantics.Age(o.Born, o.Stored) {
		fill.flow(s, o)
	}
	r.Body = l
	if t.want.conds && !t.asIs && r.Status == 200 && t.want.cond.Conditional() &&
		t.want.cond.NotModified(validators(o)) {
		l.whole = true // its Close reads what the client does not need
		r.Status, r.ContentLength = 304, 0
		r.Header.DelFunc(describes)
	}
	t.tell(x, o)
	t.forwarded(x, exchange.CacheMiss, storedMark)
}

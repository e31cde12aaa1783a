package cache

import (
	"bytes"
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
	if x.Err.Side == exchange.Upstream && x.Err.Retry && x.Err.Code == exchange.UpstreamUnavailable {
		t.fill.settle(failed, nil, x.Err) // nothing of the request has reached it: it is nobody's fault who asks
	} else {
		t.fill.settle(handedOver, nil, nil)
	}
	t.fill.unlock(0)
	t.forwarded(x, exchange.CacheMiss, "")
}

// mayFallBack reports whether what is stored may be used because the upstream fails.
func (t *task) mayFallBack(now int64) bool {
	return t.want.mayFallBack(t.old, now) && t.e.memory.Valid(t.old)
}

// fallBack answers with what was kept when the upstream fails (RFC 5861 §4).
func (t *task) fallBack(x *exchange.Exchange) bool {
	now := time.Now().UnixNano()
	if !t.mayFallBack(now) {
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
		Status: status, Header: h, Requested: x.Start.Add(x.Usage.Sent), Received: time.Now(),
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
	if !v.Store || !ok || unkeyed(spec) || endless(&r.Header) || r.ContentLength > t.maxObject || r.Tunnel != nil || t.want.head {
		t.refuse(x)
		return
	}
	o := t.object(x, &v, spec)
	o.Fields = object.CopyFields(&r.Header, func(f *exchange.Field) bool { return semantics.Kept(f, v.Drop) })
	date(o)
	body, whole, err := gather(r, t.maxObject, false)
	if err == nil && !whole && int64(len(body)) <= t.maxObject {
		if t.flow(x, o, body) {
			return
		}
		// It cannot be parted from the exchange: it is read here.
		var rest []byte
		rest, whole, err = gather(r, t.maxObject-int64(len(body)), true)
		body = append(body, rest...)
	}
	if !whole || int64(len(body)) > t.maxObject {
		// What was read is the beginning of what the client gets.
		r.Body = &resumed{first: body, err: err, rest: r.Body}
		t.refuse(x)
		return
	}
	if r.ContentLength >= 0 && int64(len(body)) != r.ContentLength {
		r.Body = &resumed{first: body, err: errShort, rest: r.Body}
		t.refuse(x)
		return
	}
	o = o.With(fitted(body))
	t.answer(x, o, t.publish(o))
}

// endless reports whether a body is a stream of events, which has no end to wait for.
func endless(h *exchange.Header) bool {
	t, _, _ := bytes.Cut(h.GetID(exchange.ContentType), []byte(";"))
	return exchange.EqualFold(bytes.TrimSpace(t), eventStream)
}

var eventStream = []byte("text/event-stream")

// refuse is for a response that is not stored.
func (t *task) refuse(x *exchange.Exchange) {
	switch {
	case t.old == nil:
		t.pass()
	case !t.asIs && replaces(x.Response.Status):
		t.drop(t.old)
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

// drop forgets an object that has turned out to be wrong, in both levels.
func (t *task) drop(o *object.Object) {
	if t.shared {
		t.e.purges.Invalidate([]string{o.URI})
	}
	t.e.memory.Drop(o.Key)
}

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

// gather reads what is there of a body, and with wait what is still to come, at most a piece
// more than most.
func gather(r *exchange.Response, most int64, wait bool) (body []byte, whole bool, err error) {
	if r.Body == nil {
		return nil, true, nil
	}
	if n := r.ContentLength; n > 0 && !wait {
		body = make([]byte, 0, n)
	}
	for (wait || r.Body.Ready()) && int64(len(body)) <= most {
		piece, err := r.Body.Next()
		body = append(body, piece...)
		if err == io.EOF {
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

// publish makes a whole object known: here, to those who wait, and in level 2. It reports
// whether it is stored.
func (t *task) publish(o *object.Object) bool {
	stored := t.e.memory.Put(o)
	if !stored || o.NoCache || o.Lifetime <= semantics.Age(o.Born, o.Stored) {
		t.fill.settle(notStored, nil, nil) // it is no answer to others
	} else {
		t.fill.settle(kept, o, nil)
	}
	t.share(o)
	return stored
}

// answer makes the response of the request that led out of the object, so that it is the
// one that all others get.
func (t *task) answer(x *exchange.Exchange, o *object.Object, stored bool) {
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
	t.forwarded(x, exchange.CacheMiss, mark(stored))
}

// mark is what Cache-Status says of a response that is stored.
func mark(stored bool) string {
	if stored {
		return storedMark
	}
	return ""
}

// flow stores a body while it goes to the client. It is false, and nothing has changed, when
// the body cannot be parted from the exchange.
func (t *task) flow(x *exchange.Exchange, o *object.Object, begun []byte) bool {
	r := &x.Response
	s := &stream{e: t.e, most: t.maxObject, held: int64(cap(begun)), users: 1}
	if !t.e.room.take(s.held) {
		s.held = 0
		s.passing = true
	}
	if !s.detach(x, begun) {
		t.e.room.give(s.held)
		return false
	}
	fill := t.fill
	fill.flows = true
	s.done = func(body []byte, err error) {
		switch {
		case err == io.EOF:
			t.publish(o.With(fitted(body)))
			return
		case err == errTooLarge:
			t.pass()
			fill.settle(notStored, nil, nil)
		case err == errNoRoom:
			fill.settle(notStored, nil, nil)
		default:
			fill.settle(handedOver, nil, nil)
		}
		fill.unlock(0)
	}
	if s.passing {
		s.finish(errNoRoom)
	}
	passing, known := s.passing, s.length >= 0
	fresh := !passing && !o.NoCache && o.Lifetime > semantics.Age(o.Born, o.Stored)
	r.Body = s.open(x, true)
	if t.want.conds && !t.asIs && r.Status == 200 && t.want.cond.Conditional() && t.want.cond.NotModified(validators(o)) {
		s.whole = true // it is read to its end, though the client does not need it
		_ = r.Body.Close()
		r.Status, r.ContentLength, r.Body = 304, 0, nil
		r.Header.DelFunc(describes)
	}
	t.tell(x, o)
	t.forwarded(x, exchange.CacheMiss, mark(known && !passing))
	t.e.work.Go(s.run)
	if fresh {
		fill.flow(s, o)
	}
	return true
}

package cache

import (
	"strconv"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Answers from stored responses.

var (
	statusName         = []byte("Cache-Status")
	contentRange       = []byte("Content-Range")
	contentDisposition = []byte("Content-Disposition")
	contentLanguage    = []byte("Content-Language")
	hitPrefix          = "sluice; hit; ttl="
	cacheStatusMax     = 96
)

// serve makes the response out of a stored one, as the request wants it: whole, a part of
// it, or the news that the client has it already. now is Unix ns. The fields that filters
// before the cache add come later.
func (n *rule) serve(x *exchange.Exchange, o *object.Object, w *want, now int64) {
	status, body := o.Status, o.Body
	var part []byte
	if w.conds && o.Status == 200 {
		switch v := validators(o); {
		case w.cond.Conditional() && w.cond.NotModified(v):
			status, body = 304, nil
		case w.cond.HasRange() && !w.head:
			status, body, part = cut(x, w, v, body)
		}
	}
	x.Answer(status, "", body)
	h := &x.Response.Header
	for i := range o.Fields {
		h.Append(o.Fields[i])
	}
	switch status {
	case 304:
		h.DelFunc(describes)
	case 416:
		h.DelFunc(beyond)
		h.AddID(exchange.CacheControl, noStore)
	}
	if part != nil {
		h.Set(contentRange, part)
	}
	if status != 416 {
		h.SetID(exchange.Age, strconv.AppendInt(x.Scratch(20)[:0], semantics.Age(o.Born, now), 10))
		n.tell(x, o)
	}
}

// cut takes the part of a body that is asked for (RFC 9110 §14.2).
func cut(x *exchange.Exchange, w *want, v *semantics.Validators, body []byte) (status int, piece, field []byte) {
	size := int64(len(body))
	from, to, p := w.cond.Part(v, size)
	switch p {
	case semantics.Partial:
		b := append(x.Scratch(72)[:0], "bytes "...)
		b = append(strconv.AppendInt(b, from, 10), '-')
		b = append(strconv.AppendInt(b, to-1, 10), '/')
		return 206, body[from:to], strconv.AppendInt(b, size, 10)
	case semantics.Unsatisfiable:
		return 416, nil, strconv.AppendInt(append(x.Scratch(40)[:0], "bytes */"...), size, 10)
	}
	return 200, body, nil
}

// describes reports whether a field describes a representation, and is left out of a 304
// (RFC 9110 §15.4.5).
func describes(f *exchange.Field) bool {
	switch f.ID {
	case exchange.ContentType, exchange.ContentEncoding:
		return true
	case exchange.Other:
		return exchange.EqualFold(f.Name, contentLanguage) || exchange.EqualFold(f.Name, contentRange) || exchange.EqualFold(f.Name, contentDisposition)
	}
	return false
}

// beyond reports whether a field has no place in a 416: it is about this one request, and
// not for others.
func beyond(f *exchange.Field) bool {
	return f.ID != exchange.Date && f.ID != exchange.Vary && f.ID != exchange.Server
}

// hit adds what is said of an answer that came from the cache.
func hit(x *exchange.Exchange, o *object.Object, now int64, result exchange.CacheResult) {
	b := append(x.Scratch(len(hitPrefix) + 20)[:0], hitPrefix...)
	b = strconv.AppendInt(b, o.Lifetime-semantics.Age(o.Born, now), 10)
	x.Response.Header.Append(exchange.Field{Name: statusName, Value: b})
	x.Cached.Result = result
}

// forwarded is the beginning of what is said of a request that went to the upstream
// (RFC 9211 §2.2).
func forwarded(x *exchange.Exchange, why string) []byte {
	return append(append(x.Scratch(cacheStatusMax)[:0], "sluice; fwd="...), why...)
}

// Why a request is forwarded.
const (
	byMethod   = "method"
	byBypass   = "bypass"
	byRequest  = "request"
	byStale    = "stale"
	byURI      = "uri-miss"
	byVary     = "vary-miss"
	storedMark = "; stored"
	joinedMark = "; collapsed"
)

// say adds the gateway's member of Cache-Status behind those of caches before it.
func say(x *exchange.Exchange, status []byte) {
	if status != nil {
		x.Response.Header.Append(exchange.Field{Name: statusName, Value: status})
	}
}

// tell adds the field for caches in front of the gateway (RFC 9213), unless the upstream
// has sent it. o is nil for a response that is not stored.
func (n *rule) tell(x *exchange.Exchange, o *object.Object) {
	h := &x.Response.Header
	if n.cdn == nil || h.Get(n.cdn) != nil {
		return
	}
	if o == nil || n.client || o.NoCache || x.Response.Status >= 500 {
		h.Add(n.cdn, noStore)
		return
	}
	b := strconv.AppendInt(append(x.Scratch(80)[:0], "max-age="...), o.Lifetime, 10)
	if o.StaleWhileRevalidate > 0 {
		b = strconv.AppendInt(append(b, ", stale-while-revalidate="...), o.StaleWhileRevalidate, 10)
	}
	h.Add(n.cdn, b)
}

var noStore = []byte("no-store")

// serveHit answers with a stored response, and says so.
func (n *rule) serveHit(x *exchange.Exchange, o *object.Object, w *want, now int64, result exchange.CacheResult) error {
	if uint64(now)/1000%object.HitSample == 0 {
		o.Hits.Add(1)
	}
	n.serve(x, o, w, now)
	hit(x, o, now, result)
	n.e.stats.count(x, result)
	return exchange.Done
}

package cache

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// renew is for a 304 to the gateway's own question: what is stored is still right, and gets
// the new header fields (RFC 9111 §4.3.4).
func (t *task) renew(x *exchange.Exchange) {
	o := t.old
	if !semantics.Freshens(validators(o), &x.Response.Header) {
		// It speaks of another response than the one that was asked about: this once it is
		// believed, and the next request fetches the whole.
		t.drop(o)
		t.fill.settle(handedOver, nil, nil)
		t.fill.unlock(0)
		t.answerRenewed(x, o, false)
		return
	}
	n, stored := t.freshen(x, o)
	if !stored {
		t.drop(o)
		t.fill.settle(notStored, nil, nil)
		t.fill.unlock(0)
		t.answerRenewed(x, n, false)
		return
	}
	t.answerRenewed(x, n, t.publish(n))
}

// answerRenewed answers with what was asked about.
func (t *task) answerRenewed(x *exchange.Exchange, o *object.Object, stored bool) {
	now := time.Now().UnixNano()
	t.serve(x, o, &t.want, now)
	if semantics.Age(o.Born, now) == 0 {
		x.Response.Header.DelID(exchange.Age) // the origin has validated it just now (RFC 9111 §5.1)
	}
	b := append(forwarded(x, t.why), "; fwd-status=304"...)
	b = append(b, mark(stored)...)
	say(x, b)
	x.Cached.Result = exchange.CacheRevalidated
	t.e.stats.count(x, exchange.CacheRevalidated)
}

func validators(o *object.Object) *semantics.Validators {
	return &semantics.Validators{ETag: o.ETag, LastModified: o.LastModified, Date: o.Date}
}

// freshen makes a new object of a stored one and the header of a 304 or of the answer to a
// HEAD. stored says that it may be kept.
func (t *task) freshen(x *exchange.Exchange, o *object.Object) (n *object.Object, stored bool) {
	n = o.With(o.Body)
	n.Fields = semantics.Update(o.Fields, &x.Response.Header, nil)
	var h exchange.Header
	for _, f := range n.Fields {
		h.Append(f)
	}
	for v := range x.Response.Header.ValuesID(exchange.Age) {
		h.AddID(exchange.Age, v) // of the new response, whose age it is; it is not stored
	}
	if !x.Response.Header.Has(exchange.Date) {
		// RFC 9110 §6.6.1: who caches adds it. The old one says when the old answer was made.
		h.SetID(exchange.Date, semantics.AppendDate(nil, time.Now().Unix()))
	}
	v := t.judge(x, o.Status, &h)
	n.Fields = object.CopyFields(&h, func(f *exchange.Field) bool { return semantics.Kept(f, v.Drop) })
	n.Born, n.Lifetime, n.Stored = v.Born, v.Lifetime, time.Now().UnixNano()
	n.StaleWhileRevalidate, n.StaleIfError = v.StaleWhileRevalidate, v.StaleIfError
	n.NoCache, n.MustRevalidate = v.NoCache, v.MustRevalidate
	n.Open = v.Open || o.Open && !t.want.personal()
	n.Stamp = t.fill.stamp
	date(n)
	spec, ok := semantics.VaryOf(&h)
	return n, v.Store && ok && spec == o.Spec // another Vary is another place
}

// headOnly is for the response to a HEAD: it is not stored, but says whether what is
// stored is still right (RFC 9111 §4.3.5).
func (t *task) headOnly(x *exchange.Exchange) {
	r := &x.Response
	if o := t.old; o != nil && r.Status == 200 && o.Status == 200 {
		if semantics.Agrees(validators(o), int64(len(o.Body)), &r.Header) {
			if n, stored := t.freshen(x, o); stored {
				t.e.memory.Put(n)
				t.share(n)
			}
		} else {
			t.drop(o)
		}
	}
	t.fill.settle(notStored, nil, nil)
	t.tell(x, nil)
	t.forwarded(x, exchange.CacheMiss, "")
}

package cache

import (
	"strings"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// want is what a request wants of the cache.
type want struct {
	ask   semantics.Ask
	cond  semantics.Conditions
	conds bool // the request has any
	head  bool
	// authorization and cookie say that the request has what the key does not tell: the
	// response may be for this client alone.
	authorization, cookie bool
}

// read reads a request. It reports whether the request is for a cache at all.
func (w *want) read(n *rule, x *exchange.Exchange) bool {
	q := &x.Request
	h := &q.Header
	if q.Upgrade != nil || q.Body != nil && q.Method != methodQuery {
		return false
	}
	w.ask = semantics.ReadAsk(h)
	if w.cond, w.conds = semantics.ReadConditions(h); w.conds && w.cond.ForOrigin() {
		return false
	}
	w.head = q.Method == "HEAD"
	w.authorization = h.Has(exchange.Authorization)
	w.cookie = !n.cookie && !n.stated && h.Has(exchange.Cookie)
	return true
}

// personal reports whether only responses that say so are for this request.
func (w *want) personal() bool { return w.authorization || w.cookie }

// admits reports whether a stored response may answer this request as far as credentials
// go (RFC 9111 §3.5; for cookies Sluice asks the same, unless they choose the variant).
func (w *want) admits(o *object.Object) bool {
	return o.Open || !w.authorization && (!w.cookie || names(o.Spec, "cookie"))
}

// names reports whether a vary spec has a name.
func names(spec, name string) bool {
	for spec != "" {
		first, rest, _ := strings.Cut(spec, ",")
		if first == name {
			return true
		}
		spec = rest
	}
	return false
}

// fitness is whether a stored response may be used for a request.
type fitness uint8

const (
	unfit   fitness = iota // there is none, or not for this request
	fresh                  // as it is
	stale                  // as it is, though it is stale
	renewed                // as it is, and a fresh one is fetched in the background
	doubted                // when the upstream says that it is still right
)

// fit judges a stored response (RFC 9111 §4) at a time, Unix ns.
func (w *want) fit(o *object.Object, now int64) fitness {
	if o == nil || !w.admits(o) {
		return unfit
	}
	if o.NoCache || w.ask.NoCache {
		return doubted
	}
	age := semantics.Age(o.Born, now)
	if w.ask.MaxAge != semantics.Absent && age > w.ask.MaxAge {
		return doubted
	}
	left := o.Lifetime - age
	if left > 0 {
		if w.ask.MinFresh != semantics.Absent && left < w.ask.MinFresh {
			return doubted
		}
		return fresh
	}
	switch {
	case w.ask.MinFresh > 0:
		return doubted
	case o.StaleWhileRevalidate > 0 && -left <= o.StaleWhileRevalidate && w.ask.MaxAge == semantics.Absent:
		return renewed
	case !o.MustRevalidate && w.ask.MaxStale != semantics.Absent && -left <= w.ask.MaxStale:
		return stale
	}
	return doubted
}

// because says why a request is forwarded though o is stored.
func (w *want) because(o *object.Object, now int64) string {
	if w.ask.NoCache || !o.NoCache && semantics.Age(o.Born, now) < o.Lifetime {
		return byRequest
	}
	return byStale
}

// mayFallBack reports whether a stored response may be used because a fresh one cannot
// be had (RFC 5861 §4).
func (w *want) mayFallBack(o *object.Object, now int64) bool {
	if o == nil || o.NoCache || w.ask.NoCache || !w.admits(o) {
		return false
	}
	over := semantics.Age(o.Born, now) - o.Lifetime
	return o.StaleIfError > 0 && over <= o.StaleIfError ||
		!o.MustRevalidate && w.ask.StaleIfError > 0 && over <= w.ask.StaleIfError
}

package semantics

import "github.com/sluice-gateway/sluice/internal/exchange"

// Ask is what a request wants of caches (RFC 9111 §5.2.1, RFC 5861 §4).
type Ask struct {
	NoCache, NoStore, OnlyIfCached bool
	// Seconds or Absent. MaxStale without a value is Forever.
	MaxAge, MinFresh, MaxStale, StaleIfError int64
}

// ReadAsk reads Cache-Control of a request. Of several values the strictest
// counts; a max-age that is no number is 0, other numbers that are none are
// passed over, since they ask for nothing. Pragma: no-cache counts as the
// directive when there is no Cache-Control (RFC 9111 §5.4).
func ReadAsk(h *exchange.Header) Ask {
	a := Ask{MaxAge: Absent, MinFresh: Absent, MaxStale: Absent, StaleIfError: Absent}
	if !h.Has(exchange.CacheControl) {
		a.NoCache = pragma(h)
		return a
	}
	for i := find(h, exchange.CacheControl, nil, 0); i >= 0; i = find(h, exchange.CacheControl, nil, i+1) {
		d := directives{rest: h.At(i).Value}
		for one := (directive{}); d.next(&one); {
			a.take(&one)
		}
	}
	return a
}

func (a *Ask) take(one *directive) {
	n, number := one.seconds()
	switch len(one.name) {
	case len("max-age"):
		if is(one.name, "max-age") {
			a.MaxAge = least(a.MaxAge, n) // n is 0 without a number
		}
	case len("no-cache"): // and no-store
		a.NoCache = a.NoCache || is(one.name, "no-cache")
		a.NoStore = a.NoStore || is(one.name, "no-store")
	case len("min-fresh"): // and max-stale
		switch {
		case is(one.name, "min-fresh") && number:
			a.MinFresh = max(a.MinFresh, n)
		case is(one.name, "max-stale") && one.form == bare:
			a.MaxStale = least(a.MaxStale, Forever)
		case is(one.name, "max-stale") && number:
			a.MaxStale = least(a.MaxStale, n)
		}
	case len("only-if-cached"): // and stale-if-error
		a.OnlyIfCached = a.OnlyIfCached || is(one.name, "only-if-cached")
		if number && is(one.name, "stale-if-error") {
			a.StaleIfError = least(a.StaleIfError, n)
		}
	}
}

// least is the smaller of two numbers of which the first may be Absent.
func least(have, n int64) int64 {
	if have == Absent {
		return n
	}
	return min(have, n)
}

var pragmaName = []byte("Pragma")

func pragma(h *exchange.Header) bool {
	for i := find(h, exchange.Other, pragmaName, 0); i >= 0; i = find(h, exchange.Other, pragmaName, i+1) {
		d := directives{rest: h.At(i).Value}
		for one := (directive{}); d.next(&one); {
			if is(one.name, "no-cache") {
				return true
			}
		}
	}
	return false
}

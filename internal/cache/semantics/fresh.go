package semantics

import (
	"math"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

const second = int64(time.Second)

// Age is the current age of a stored response in whole seconds (RFC 9111
// §4.2.3), from Verdict.Born and the time, both in Unix ns. It is never below 0
// nor above Forever.
func Age(born, now int64) int64 {
	d := now - born
	switch {
	case d < 0 && now >= born: // more than an int64 holds
		return Forever
	case now <= born:
		return 0
	}
	return min(d/second, Forever)
}

// born sets Born (RFC 9111 §4.2.3), and returns the corrected initial age in
// seconds. The apparent age is counted in whole seconds, as Date is; the delay
// of the response exactly.
func (v *Verdict) born(a *Answer) int64 {
	received := a.Received.UnixNano()
	corrected := ageValue(a.Header)*second + max(a.Received.Sub(a.Requested).Nanoseconds(), 0)
	if date, ok := dateOf(a); ok {
		apparent := max(a.Received.Unix()-date, 0)
		corrected = max(corrected, min(apparent, Forever)*second)
	}
	corrected = min(corrected, Forever*second)
	v.Born = received - corrected
	if v.Born > received { // below what an int64 holds
		v.Born = math.MinInt64
	}
	return corrected / second
}

// ageValue reads Age (RFC 9111 §5.1): the first member of what may be a list; one
// that is no number of seconds is ignored.
func ageValue(h *exchange.Header) int64 {
	for i := find(h, exchange.Age, nil, 0); i >= 0; i = find(h, exchange.Age, nil, i+1) {
		if first, _ := cutMember(h.At(i).Value); len(first) > 0 {
			n, _ := seconds(first, false)
			return n
		}
	}
	return 0
}

// dateOf reads Date. One that is no date counts as absent: the time of the
// response's arrival stands for it (RFC 9110 §6.6.1).
func dateOf(a *Answer) (int64, bool) {
	return parseDate(a.Header.GetID(exchange.Date), a.Received.Unix())
}

// lifetime sets Lifetime and Explicit (RFC 9111 §4.2.1, the first that applies).
func (v *Verdict) lifetime(r *Rules, a *Answer, s *said) {
	v.Explicit = true
	date, dated := dateOf(a)
	if !dated {
		date = a.Received.Unix()
	}
	switch {
	case s.unreadable:
		v.Lifetime = 0
	case s.sMaxAge != Absent:
		v.Lifetime = s.sMaxAge
	case s.maxAge != Absent:
		v.Lifetime = s.maxAge
	case !s.targeted && a.Header.Has(exchange.Expires):
		v.Lifetime = max(min(expires(a)-date, Forever), 0)
	default:
		v.Explicit = false
		v.Lifetime = unsaid(r, a, s, date)
	}
	if r.MaxTTL > 0 {
		v.Lifetime = min(v.Lifetime, r.MaxTTL)
	}
}

// expires reads Expires. What is no date, as "0", is in the past (RFC 9111
// §5.3); of several the earliest counts, as said.number has it.
func expires(a *Answer) int64 {
	at := int64(math.MaxInt64)
	h := a.Header
	for i := find(h, exchange.Expires, nil, 0); i >= 0; i = find(h, exchange.Expires, nil, i+1) {
		t, ok := parseDate(h.At(i).Value, a.Received.Unix())
		if !ok {
			return math.MinInt64 / 2
		}
		at = min(at, t)
	}
	return at
}

// unsaid is the lifetime of a response that states none: the configured one for
// the statuses that it is for, else a part of the time since Last-Modified, at
// most a day (RFC 9111 §4.2.2).
func unsaid(r *Rules, a *Answer, s *said, date int64) int64 {
	switch {
	case s.noCache:
		return 0
	case r.TTL > 0 && defaulted(a.Status):
		return r.TTL
	case r.Heuristic > 0 && (heuristic(a.Status) || s.public):
		modified, ok := parseDate(a.Header.GetID(exchange.LastModified), a.Received.Unix())
		if ok && modified < date {
			return min((date-modified)*min(r.Heuristic, 100)/100, dayInSeconds)
		}
	}
	return 0
}

// stale sets for how long a response may be used stale (RFC 5861). RFC 9111
// §4.2.4 forbids it after no-cache, must-revalidate, proxy-revalidate and
// s-maxage; but who sends s-maxage together with stale-while-revalidate or
// stale-if-error means both, so these count there. The configuration's count when
// nothing is said.
func (v *Verdict) stale(r *Rules, s *said) {
	if s.noCache || s.mustRevalidate || s.proxyRevalidate || s.unreadable {
		return
	}
	v.StaleWhileRevalidate = allowance(s.whileRevalidate, r.StaleWhileRevalidate, s)
	v.StaleIfError = allowance(s.ifError, r.StaleIfError, s)
}

func allowance(said, rule int64, s *said) int64 {
	switch {
	case said != Absent:
		return said
	case s.sMaxAge != Absent:
		return -1
	}
	return max(rule, 0)
}

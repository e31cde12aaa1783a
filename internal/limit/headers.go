package limit

import (
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// The RateLimit fields of responses (draft-ietf-httpapi-ratelimit-headers, in the
// form that the contract fixes):
//
//	RateLimit-Policy: "per-client";q=200;w=2, "standard.day";q=1000000;w=86400
//	RateLimit:        "per-client";r=150;t=1, "standard.day";r=999850;t=43200
//
// q is the capacity and w the seconds in which all of it comes back (none for
// slots); r is what is left and t the seconds until all is back or the window ends.
// The tightest limit stands first in both: the one with the least left, and of
// equals the one that takes longest.

var (
	policyName = []byte("RateLimit-Policy")
	stateName  = []byte("RateLimit")
	retryAfter = exchange.RetryAfter.Name()
)

// noReset is the LimitState.Reset of a limit that has no t, and notKnown the
// Remaining of one that nobody could be asked about: it stands behind all others in
// RateLimit-Policy, and not in RateLimit.
const (
	noReset  = -1
	notKnown = -1
)

// seconds is d in seconds, rounded up.
func seconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/time.Second) + 1
}

// quote is a name as a structured-field string (RFC 9651 §3.3.3), which has only
// visible ASCII: what else names hold becomes an underscore.
func quote(name string) []byte {
	b := append(make([]byte, 0, len(name)+2), '"')
	for _, c := range []byte(name) {
		switch {
		case c < 0x20 || c > 0x7e:
			c = '_'
		case c == '"' || c == '\\':
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return append(b, '"')
}

// appendPolicy appends the item of a rule.
func appendPolicy(b []byte, r *rule) []byte {
	b = append(append(b, r.quoted...), ";q="...)
	b = strconv.AppendInt(b, r.limit.Capacity/max(r.limit.Scale, 1), 10)
	if w := r.limit.Spread(); w > 0 {
		b = strconv.AppendInt(append(b, ";w="...), seconds(w), 10)
	}
	return b
}

// tighter reports whether a stands before b.
func tighter(a, b *exchange.LimitState) bool {
	if a.Remaining != b.Remaining {
		return a.Remaining != notKnown && (b.Remaining == notKnown || a.Remaining < b.Remaining)
	}
	return a.Reset > b.Reset
}

// fields sets the RateLimit fields of a response. The upstream's own go: they
// would be read as the gateway's.
func fields(x *exchange.Exchange) {
	limits := x.Limits
	if len(limits) == 0 {
		return
	}
	room := 0
	for i := range limits {
		for j := i; j > 0 && tighter(&limits[j], &limits[j-1]); j-- {
			limits[j], limits[j-1] = limits[j-1], limits[j]
		}
		room += len(limits[i].Policy) + len(", ")
	}
	value := limits[0].Policy
	if len(limits) > 1 {
		value = x.Scratch(room)[:0]
		for i := range limits {
			if i > 0 {
				value = append(value, ", "...)
			}
			value = append(value, limits[i].Policy...)
		}
	}
	x.Response.Header.Set(policyName, value)
	const numbers = 2*20 + len(", ;r=;t=")
	room = 0
	for i := range limits {
		room += len(limits[i].Name) + numbers
	}
	value = x.Scratch(room)[:0]
	for i := range limits {
		l := &limits[i]
		if l.Remaining == notKnown {
			break
		}
		if i > 0 {
			value = append(value, ", "...)
		}
		value = append(append(value, l.Name...), ";r="...)
		value = strconv.AppendInt(value, l.Remaining, 10)
		if l.Reset != noReset {
			value = strconv.AppendInt(append(value, ";t="...), l.Reset, 10)
		}
	}
	if len(value) > 0 {
		x.Response.Header.Set(stateName, value)
	} else {
		x.Response.Header.Del(stateName)
	}
}

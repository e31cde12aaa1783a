package semantics

import "github.com/sluice-gateway/sluice/internal/exchange"

// said is what a response's directives say, wherever they stand.
type said struct {
	targeted        bool // Sluice-Cache-Control counts, not Cache-Control and Expires
	noStore         bool
	noCache         bool // without a list of fields
	private         bool // likewise
	public          bool
	mustRevalidate  bool
	proxyRevalidate bool
	mustUnderstand  bool
	overrides       bool // must-understand as it is defined: it may override no-store
	unreadable      bool // something that says how long it is fresh could not be read
	shared          bool // s-maxage with a number

	// Seconds or Absent; of several the least, and 0 when one is no number.
	maxAge, sMaxAge, whileRevalidate, ifError int64

	drop []string // fields named by private="…" and no-cache="…"
}

func readSaid(h *exchange.Header) said {
	s := said{maxAge: Absent, sMaxAge: Absent, whileRevalidate: Absent, ifError: Absent}
	if s.readTargeted(h) {
		return s
	}
	for i := find(h, exchange.CacheControl, nil, 0); i >= 0; i = find(h, exchange.CacheControl, nil, i+1) {
		d := directives{rest: h.At(i).Value}
		for one := (directive{}); d.next(&one); {
			s.take(&one)
		}
		s.unreadable = s.unreadable || d.open
	}
	if s.unreadable {
		// A quote that is open may hide anything: nothing is permitted.
		s.public, s.overrides, s.shared = false, false, false
	}
	return s
}

// take adds one directive (RFC 9111 §5.2.2). Those that forbid count with any
// argument, those that permit only as they are defined.
func (s *said) take(one *directive) {
	switch name := one.name; len(name) {
	case len("public"):
		s.public = s.public || one.form == bare && is(name, "public")
	case len("max-age"): // and private
		switch {
		case is(name, "max-age"):
			s.number(&s.maxAge, one)
		case is(name, "private"):
			s.private = !s.fields(one) || s.private
		}
	case len("no-store"): // and no-cache, s-maxage
		switch {
		case is(name, "no-store"):
			s.noStore = true
		case is(name, "no-cache"):
			s.noCache = !s.fields(one) || s.noCache
		case is(name, "s-maxage"):
			_, ok := one.seconds()
			s.shared = ok && (s.shared || s.sMaxAge == Absent)
			s.number(&s.sMaxAge, one)
		}
	case len("stale-if-error"):
		if is(name, "stale-if-error") {
			s.number(&s.ifError, one)
		}
	case len("must-revalidate"): // and must-understand
		s.mustRevalidate = s.mustRevalidate || is(name, "must-revalidate")
		if is(name, "must-understand") {
			s.mustUnderstand = true
			s.overrides = s.overrides || one.form == bare
		}
	case len("proxy-revalidate"):
		s.proxyRevalidate = s.proxyRevalidate || is(name, "proxy-revalidate")
	case len("stale-while-revalidate"):
		if is(name, "stale-while-revalidate") {
			s.number(&s.whileRevalidate, one)
		}
	}
}

// number takes a directive's seconds. RFC 9111 §4.2.1 wants of several values
// the first, or the response to be stale; the least of them is at every moment
// the one or the other. A number that is none is stale.
func (s *said) number(n *int64, one *directive) {
	v, _ := one.seconds()
	*n = least(*n, v)
}

// fields adds the names in the argument of private and no-cache (RFC 9111
// §5.2.2.4, §5.2.2.7). It is false when there is no list of names, so that the
// directive is about the whole response.
func (s *said) fields(one *directive) bool {
	if one.form != token && one.form != quoted {
		return false
	}
	before := len(s.drop)
	for name, rest := cutMember(one.arg); len(name) > 0; name, rest = cutMember(rest) {
		if !isToken(name) {
			s.drop = s.drop[:before]
			return false
		}
		s.drop = append(s.drop, lowerString(name))
	}
	return len(s.drop) > before
}

// names reports whether a field is among those that are not stored.
func (s *said) names(field string) bool {
	for _, d := range s.drop {
		if d == field {
			return true
		}
	}
	return false
}

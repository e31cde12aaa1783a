package semantics

import (
	"bytes"
	"math"
)

// Part is what of a stored response a Range asks for.
type Part uint8

// The parts. Unsatisfiable is answered with 416 (RFC 9110 §15.5.17).
const (
	Whole Part = iota
	Partial
	Unsatisfiable
)

// span is a range of bytes as asked for: first to last, or the last n when
// first is -1. The zero value is none.
type span struct {
	first, last int64
	ok          bool
}

// readRange reads a Range of bytes with one range in it (RFC 9110 §14.1.2,
// §14.2). Everything else is no span: other units, several ranges, which a cache
// need not honour, and what is not well-formed, which makes the whole field
// invalid.
func readRange(v []byte) (s span) {
	unit, set, ok := bytes.Cut(v, equals)
	if !ok || !is(trim(unit), "bytes") {
		return s
	}
	one, rest := cutMember(set)
	if more, _ := cutMember(rest); len(more) > 0 || len(one) == 0 {
		return s
	}
	dash := bytes.IndexByte(one, '-')
	if dash < 0 {
		return s
	}
	first, last := one[:dash], one[dash+1:]
	switch {
	case len(first) == 0:
		s.first = -1
		s.last, s.ok = position(last)
	case len(last) == 0:
		s.last = math.MaxInt64
		s.first, s.ok = position(first)
	default:
		var ok bool
		s.first, s.ok = position(first)
		s.last, ok = position(last)
		s.ok = s.ok && ok && s.first <= s.last
	}
	return s
}

// position reads a position or length of any size; beyond int64 it is the
// greatest.
func position(b []byte) (n int64, ok bool) {
	for _, c := range b {
		switch {
		case !isDigit(c):
			return 0, false
		case n > (math.MaxInt64-9)/10:
			n = math.MaxInt64
		default:
			n = n*10 + int64(c-'0')
		}
		ok = true
	}
	return n, ok
}

// Part says what of a stored 200 of that size a GET with the Range gets: from,
// to (exclusive) for Partial. With an If-Range that does not hold it is the
// whole (RFC 9110 §13.1.5). v is of the stored response.
func (c *Conditions) Part(v *Validators, size int64) (from, to int64, p Part) {
	if !c.asked.ok || !c.rangeHolds(v) {
		return 0, size, Whole
	}
	s := c.asked
	switch {
	case s.first < 0 && s.last == 0, s.first >= 0 && s.first >= size:
		return 0, 0, Unsatisfiable
	case s.first < 0 && size == 0:
		return 0, 0, Whole // satisfiable (§14.1.2), but Content-Range has no form for it
	case s.first < 0:
		return max(size-s.last, 0), size, Partial
	}
	return s.first, min(s.last, size-1) + 1, Partial
}

// rangeHolds evaluates If-Range by strong comparison. A date must be that of
// Last-Modified, and that a strong validator: at least a second older than the
// response (RFC 9110 §8.8.2.2).
func (c *Conditions) rangeHolds(v *Validators) bool {
	switch {
	case c.ifRanges == 0:
		return true
	case c.ifRanges > 1:
		return false
	case bytes.IndexByte(c.ifRange, '"') >= 0:
		return sameStrong(v.ETag, c.ifRange)
	}
	t, ok := ParseDate(c.ifRange)
	return ok && t == v.LastModified && v.LastModified != 0 && v.Date > v.LastModified
}

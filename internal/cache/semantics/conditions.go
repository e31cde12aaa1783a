package semantics

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Conditions are the preconditions and the Range of a request (RFC 9110 §13,
// §14). Spans are those of its header, and hold as long.
type Conditions struct {
	noneMatch     [2][]byte // lines of If-None-Match
	lines         uint8     // how many there are
	origin        bool
	modified      bool // If-Modified-Since is a date
	modifiedSince int64
	ranges        bool // there is a Range
	asked         span
	ifRange       []byte
	ifRanges      uint8
}

// ReadConditions reads them; any is whether the request has a field of them.
func ReadConditions(h *exchange.Header) (c Conditions, any bool) {
	since, ranges := 0, 0
	for i := range h.Len() {
		f := h.At(i)
		switch f.ID {
		case exchange.IfNoneMatch:
			if int(c.lines) < len(c.noneMatch) {
				c.noneMatch[c.lines] = f.Value
				c.lines++
			} else {
				c.origin = true // more lines than anybody sends
			}
		case exchange.IfMatch:
			c.origin = true
		case exchange.IfModifiedSince:
			// Ignored when it is no date or there are several (§13.1.3).
			since++
			c.modifiedSince, c.modified = ParseDate(f.Value)
			c.modified = c.modified && since == 1
		case exchange.Range:
			ranges++
			c.asked = readRange(f.Value)
		case exchange.Other:
			switch {
			case is(f.Name, "if-unmodified-since"):
				c.origin = true
			case is(f.Name, "if-range"):
				c.ifRange = f.Value
				c.ifRanges = min(c.ifRanges+1, 2)
			}
		}
	}
	c.ranges = ranges > 0
	if ranges > 1 {
		c.asked = span{}
	}
	return c, c.origin || c.ranges || c.lines > 0 || since > 0 || c.ifRanges > 0
}

// StripConditions takes off what a cache answers itself: If-None-Match,
// If-Modified-Since, Range and If-Range. The fetch is then of the whole response.
func StripConditions(h *exchange.Header) {
	h.DelID(exchange.IfNoneMatch)
	h.DelID(exchange.IfModifiedSince)
	h.DelID(exchange.Range)
	h.Del(ifRangeName)
}

var ifRangeName = []byte("If-Range")

// ForOrigin reports whether only the origin can decide: If-Match and
// If-Unmodified-Since are about its current state (RFC 9111 §4.3.2, RFC 9110
// §13.1.1, §13.1.4).
func (c *Conditions) ForOrigin() bool { return c.origin }

// Conditional reports whether there is an If-None-Match or an If-Modified-Since
// that counts.
func (c *Conditions) Conditional() bool { return c.lines > 0 || c.modified }

// HasRange reports whether there is a Range, of whatever unit and form.
func (c *Conditions) HasRange() bool { return c.ranges }

// Validators are what a response is told apart by (RFC 9110 §8.8).
type Validators struct {
	ETag         []byte // as received, with W/ and quotes; empty: none
	LastModified int64  // Unix s, 0: none
	Date         int64  // Unix s, 0: none
}

// ReadValidators reads those of a response. ETag is a span of its header.
func ReadValidators(h *exchange.Header) Validators {
	v := Validators{ETag: h.GetID(exchange.ETag)}
	v.LastModified, _ = ParseDate(h.GetID(exchange.LastModified))
	v.Date, _ = ParseDate(h.GetID(exchange.Date))
	return v
}

// NotModified reports whether a stored 200 with these validators answers the
// request with 304 (RFC 9111 §4.3.2): If-None-Match by weak comparison (RFC 9110
// §13.1.2); only without it If-Modified-Since, against Last-Modified, or the Date
// of a response that has none. Where that has no Date either, the caller puts the
// time of its arrival there.
func (c *Conditions) NotModified(v *Validators) bool {
	if c.lines > 0 {
		if c.lines == 1 && len(c.noneMatch[0]) == 1 && c.noneMatch[0][0] == '*' {
			return true
		}
		for i := range c.lines {
			if len(v.ETag) > 0 && listed(c.noneMatch[i], opaque(v.ETag)) {
				return true
			}
		}
		return false
	}
	if !c.modified {
		return false
	}
	at := v.LastModified
	if at == 0 {
		at = v.Date
	}
	return at != 0 && at <= c.modifiedSince
}

// listed reports whether an opaque tag is in a list of entity tags.
func listed(list, tag []byte) bool {
	for i := 0; i < len(list); {
		if list[i] == ',' || isSpace(list[i]) {
			i++
			continue
		}
		if list[i] == 'W' && i+2 < len(list) && list[i+1] == '/' {
			i += 2
		}
		end := i
		if list[i] == '"' {
			// No escapes: a backslash is an ordinary byte (RFC 9110 §8.8.3).
			if n := bytes.IndexByte(list[i+1:], '"'); n >= 0 {
				end = i + n + 2
			}
		}
		for end < len(list) && list[end] != ',' {
			end++ // what is not quoted, or stands behind the quotes
		}
		if bytes.Equal(trim(list[i:end]), tag) {
			return true
		}
		i = end
	}
	return false
}

// opaque is an entity tag without the mark of a weak one.
func opaque(tag []byte) []byte {
	if weak(tag) {
		return tag[2:]
	}
	return tag
}

// weak reports whether a tag has the mark; "w/" is none (RFC 9110 §8.8.3).
func weak(tag []byte) bool { return len(tag) >= 2 && tag[0] == 'W' && tag[1] == '/' }

// sameStrong is the strong comparison (RFC 9110 §8.8.3.2).
func sameStrong(a, b []byte) bool { return len(a) > 0 && !weak(a) && bytes.Equal(a, b) }

// sameWeak is the weak one.
func sameWeak(a, b []byte) bool { return len(a) > 0 && bytes.Equal(opaque(a), opaque(b)) }

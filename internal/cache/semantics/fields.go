package semantics

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Structured fields (RFC 9651), as far as caches need them: a dictionary of
// directives (RFC 9213 §2.1) and a list of strings (RFC 9875 §2). Reading is all
// or nothing: one mistake, and the field counts as absent. Parameters are read
// and passed over; an inner list is skipped.

type kind uint8

const (
	kindNone kind = iota
	kindBoolean
	kindInteger
	kindDecimal
	kindString
	kindToken
	kindOther // bytes, dates, display strings, inner lists
)

// item is one bare item. text holds the characters of a string, or the span of
// any other.
type item struct {
	kind kind
	text []byte
	yes  bool // of a boolean
}

// reader walks over a field value, its lines joined with commas.
type reader struct {
	b []byte
	i int
}

func (r *reader) more() bool { return r.i < len(r.b) }

func (r *reader) peek() byte {
	if r.i < len(r.b) {
		return r.b[r.i]
	}
	return 0
}

func (r *reader) spaces() {
	for r.peek() == ' ' {
		r.i++
	}
}

// comma goes over the comma between two members (§4.2.1, §4.2.2). last is at
// the end of the field.
func (r *reader) comma() (last, ok bool) {
	for isSpace(r.peek()) {
		r.i++
	}
	if !r.more() {
		return true, true
	}
	if r.peek() != ',' {
		return false, false
	}
	r.i++
	for isSpace(r.peek()) {
		r.i++
	}
	return false, r.more() // no comma at the end
}

// key reads the name of a member or a parameter (§4.2.3.3).
func (r *reader) key() []byte {
	start := r.i
	if c := r.peek(); c != '*' && (c < 'a' || c > 'z') {
		return nil
	}
	for r.more() {
		c := r.peek()
		if (c < 'a' || c > 'z') && !isDigit(c) && c != '_' && c != '-' && c != '.' && c != '*' {
			break
		}
		r.i++
	}
	return r.b[start:r.i]
}

// parameters goes over them (§4.2.3.2).
func (r *reader) parameters() bool {
	for r.peek() == ';' {
		r.i++
		r.spaces()
		if r.key() == nil {
			return false
		}
		if r.peek() == '=' {
			r.i++
			if _, ok := r.bare(); !ok {
				return false
			}
		}
	}
	return true
}

// value reads an item or an inner list (§4.2.1.2) with its parameters.
func (r *reader) value() (it item, ok bool) {
	if r.peek() != '(' {
		it, ok = r.bare()
		return it, ok && r.parameters()
	}
	r.i++
	for r.more() {
		r.spaces()
		if r.peek() == ')' {
			r.i++
			return item{kind: kindOther}, r.parameters()
		}
		if _, ok := r.bare(); !ok || !r.parameters() {
			return it, false
		}
		if c := r.peek(); c != ' ' && c != ')' {
			return it, false
		}
	}
	return it, false
}

// bare reads a bare item (§4.2.3.1).
func (r *reader) bare() (item, bool) {
	switch c := r.peek(); {
	case c == '"':
		return r.text()
	case c == '-' || isDigit(c):
		return r.number()
	case c == '?':
		if r.i+1 < len(r.b) && (r.b[r.i+1] == '0' || r.b[r.i+1] == '1') {
			r.i += 2
			return item{kind: kindBoolean, yes: r.b[r.i-1] == '1'}, true
		}
	case c == ':':
		end := bytes.IndexByte(r.b[r.i+1:], ':')
		if end >= 0 && isBase64(r.b[r.i+1:r.i+1+end]) {
			r.i += end + 2
			return item{kind: kindOther}, true
		}
	case c == '@':
		r.i++
		it, ok := r.number()
		return item{kind: kindOther}, ok && it.kind == kindInteger
	case c == '%':
		return r.display()
	case c == '*' || 'a' <= c|0x20 && c|0x20 <= 'z':
		start := r.i
		for r.more() && (tokenTable[r.peek()] || r.peek() == ':' || r.peek() == '/') {
			r.i++
		}
		return item{kind: kindToken, text: r.b[start:r.i]}, true
	}
	return item{}, false
}

// number reads an integer of at most 15 digits or a decimal of at most 12 and 3
// (§4.2.4).
func (r *reader) number() (item, bool) {
	start := r.i
	if r.peek() == '-' {
		r.i++
	}
	whole := r.run()
	if r.peek() != '.' {
		return item{kind: kindInteger, text: r.b[start:r.i]}, whole >= 1 && whole <= 15
	}
	r.i++
	part := r.run()
	return item{kind: kindDecimal, text: r.b[start:r.i]}, whole >= 1 && whole <= 12 && part >= 1 && part <= 3
}

// run goes over digits and counts them.
func (r *reader) run() (n int) {
	for isDigit(r.peek()) {
		r.i++
		n++
	}
	return n
}

// text reads a string (§4.2.5): printable ASCII, of which " and \ are escaped.
func (r *reader) text() (item, bool) {
	var out []byte
	for r.i++; r.more(); r.i++ {
		c := r.peek()
		switch {
		case c == '"':
			r.i++
			if out == nil {
				out = []byte{}
			}
			return item{kind: kindString, text: out}, true
		case c == '\\':
			r.i++
			if c = r.peek(); c != '"' && c != '\\' {
				return item{}, false
			}
		case c < 0x20 || c > 0x7E:
			return item{}, false
		}
		out = append(out, c)
	}
	return item{}, false
}

// display goes over a display string (§4.2.10), without decoding it.
func (r *reader) display() (item, bool) {
	r.i++
	if r.peek() != '"' {
		return item{}, false
	}
	for r.i++; r.more(); r.i++ {
		switch c := r.peek(); {
		case c == '"':
			r.i++
			return item{kind: kindOther}, true
		case c == '%':
			if r.i+2 >= len(r.b) || !isLowerHex(r.b[r.i+1]) || !isLowerHex(r.b[r.i+2]) {
				return item{}, false
			}
		case c < 0x20 || c > 0x7E:
			return item{}, false
		}
	}
	return item{}, false
}

func isLowerHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' }

func isBase64(b []byte) bool {
	b = bytes.TrimRight(b, "=")
	for _, c := range b {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// joined returns the lines of a field as one value (RFC 9110 §5.3), nil when
// there is none.
func joined(h *exchange.Header, name []byte) []byte {
	i := h.Get(name)
	if i == nil {
		return nil
	}
	var all []byte
	lines := 0
	for v := range h.Values(name) {
		if lines++; lines > 1 {
			all = append(all, ", "...)
		}
		all = append(all, v...)
	}
	if lines == 1 {
		return i
	}
	return all
}

var targetedName = []byte("Sluice-Cache-Control")

// readTargeted reads Sluice-Cache-Control. It is false when the field is
// absent, empty or no dictionary: then it counts for nothing (RFC 9213 §2.1).
func (s *said) readTargeted(h *exchange.Header) bool {
	v := joined(h, targetedName)
	if v == nil {
		return false
	}
	members, ok := dictionary(v)
	if !ok || len(members) == 0 {
		return false
	}
	s.targeted = true
	for i := range members {
		m := &members[i]
		one := directive{name: m.key, arg: m.text, form: bad}
		switch m.kind {
		case kindBoolean:
			if !m.yes {
				continue // "no-store=?0" does not say it
			}
			one.form = bare
		case kindInteger:
			one.form = token
		case kindString:
			// A string is a list of names; as a number it would be of the wrong type,
			// and is not to be used (§2.1).
			if is(m.key, "private") || is(m.key, "no-cache") {
				one.form = quoted
			}
		}
		s.take(&one)
	}
	return true
}

type member struct {
	key []byte
	item
}

// dictionary reads a dictionary (RFC 9651 §4.2.2). Of members with one key the
// last counts, in the place of the first.
func dictionary(v []byte) (members []member, ok bool) {
	r := reader{b: v}
	r.spaces()
	for r.more() {
		m := member{key: r.key()}
		if m.key == nil {
			return nil, false
		}
		if r.peek() == '=' {
			r.i++
			m.item, ok = r.value()
		} else {
			m.item = item{kind: kindBoolean, yes: true}
			ok = r.parameters()
		}
		if !ok {
			return nil, false
		}
		members = replace(members, m)
		last, ok := r.comma()
		if !ok {
			return nil, false
		}
		if last {
			break
		}
	}
	return members, true
}

func replace(members []member, m member) []member {
	for i := range members {
		if bytes.Equal(members[i].key, m.key) {
			members[i] = m
			return members
		}
	}
	return append(members, m)
}

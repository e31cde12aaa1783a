package semantics

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// maxVary bounds the names of a Vary, each of which is looked for at every
// request. A response with more is not stored.
const maxVary = 32

// VaryOf returns the names in Vary (RFC 9110 §12.5.5) in lower case, sorted,
// each once, with commas between; "" without Vary. ok is false when no later
// request can match (RFC 9111 §4.1): "*" is among them, or something that is no
// name, or more than 32 are.
func VaryOf(h *exchange.Header) (spec string, ok bool) {
	if !h.Has(exchange.Vary) {
		return "", true
	}
	var names []string
	for i := find(h, exchange.Vary, nil, 0); i >= 0; i = find(h, exchange.Vary, nil, i+1) {
		for name, rest := cutMember(h.At(i).Value); len(name) > 0; name, rest = cutMember(rest) {
			if !isToken(name) || name[0] == '*' && len(name) == 1 || len(names) > 4*maxVary {
				return "", false
			}
			names = append(names, lowerString(name))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return strings.Join(names, ","), len(names) <= maxVary
}

// specHas reports whether a name is in a spec.
func specHas(spec, name string) bool {
	for one := range strings.SplitSeq(spec, ",") {
		if one == name {
			return true
		}
	}
	return false
}

// What stands before the length of each value of a variant.
const (
	absent   = 0
	asIs     = 1 // joined, with usual white space
	weighted = 2 // as normalised by appendWeighted
)

// AppendVariant appends what tells the variants of a spec apart in a request's
// header: for each name, whether the field is there, and its value with a
// length in front, so that no two lists of values look alike. Requests match
// when these bytes do (RFC 9111 §4.1). Values are normalised as far as their
// meaning stays: several lines are joined, white space around commas is made one
// space behind each, and negotiation fields are put in order (appendWeighted).
func AppendVariant(b []byte, spec string, h *exchange.Header) []byte {
	for len(spec) > 0 {
		name := spec
		if i := strings.IndexByte(spec, ','); i >= 0 {
			name, spec = spec[:i], spec[i+1:]
		} else {
			spec = ""
		}
		b = appendValue(b, name, h)
	}
	return b
}

func appendValue(b []byte, name string, h *exchange.Header) []byte {
	first := named(h, name, 0)
	if first < 0 {
		return append(b, absent)
	}
	start := len(b)
	b = append(b, asIs, 0, 0, 0, 0)
	out, ok := b, false
	if n := negotiationOf(name); n != none {
		out, ok = appendWeighted(b, n, name, h, first)
	}
	if ok {
		out[start] = weighted
	} else {
		out = appendJoined(b, name, h, first)
	}
	binary.BigEndian.PutUint32(out[start+1:], uint32(len(out)-start-5))
	return out
}

// named returns the index of a field of that name, in lower case, from from on.
func named(h *exchange.Header, name string, from int) int {
	for i := from; i < h.Len(); i++ {
		if is(h.At(i).Name, name) {
			return i
		}
	}
	return -1
}

// appendJoined appends all lines of a field (RFC 9110 §5.3). The lines of Cookie
// are joined as RFC 9113 §8.2.3 has it.
func appendJoined(b []byte, name string, h *exchange.Header, first int) []byte {
	separator, single := ", ", singleton(name)
	if name == "cookie" {
		separator = "; "
	}
	for i := first; i >= 0; i = named(h, name, i+1) {
		if i != first {
			b = append(b, separator...)
		}
		if single {
			b = append(b, h.At(i).Value...)
		} else {
			b = appendSpaced(b, h.At(i).Value)
		}
	}
	return b
}

// singleton reports whether a field is no list, so that a comma in it, and the
// white space around it, is part of the value.
func singleton(name string) bool {
	switch name {
	case "authorization", "content-location", "content-type", "cookie", "date", "from", "host", "if-modified-since",
		"if-unmodified-since", "origin", "proxy-authorization", "referer", "user-agent":
		return true
	}
	return false
}

// appendSpaced appends a list with one space behind each comma and none in
// front, but not inside of quotes.
func appendSpaced(b, v []byte) []byte {
	start := len(b)
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			end := quoteEnd(v, i)
			if end < 0 {
				end = len(v) - 1
			}
			b = append(b, v[i:end+1]...)
			i = end
		case ',':
			for len(b) > start && isSpace(b[len(b)-1]) {
				b = b[:len(b)-1]
			}
			for i+1 < len(v) && isSpace(v[i+1]) {
				i++
			}
			b = append(b, ", "...)
		default:
			b = append(b, v[i])
		}
	}
	for len(b) > start && isSpace(b[len(b)-1]) { // as no value has
		b = b[:len(b)-1]
	}
	return b
}

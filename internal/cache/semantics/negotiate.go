package semantics

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Negotiation fields (RFC 9110 §12.5). What they mean does not depend on the
// order of members, nor on the case of names or the white space between them:
// preference is in the weights. So members are put in order by weight and then
// by name, in lower case, each once, with weights written one way. A member with
// the weight 0 is left out where that means the same: in Accept-Encoding and
// Accept-Charset without "*", where what is not listed is not acceptable either.
//
// A value that is not of the form is left as it is, and one with more than 32
// members, or with a name that has two weights, too.

type negotiation uint8

const (
	none negotiation = iota
	media
	coding
	charset
	language
)

func negotiationOf(name string) negotiation {
	switch name {
	case "accept":
		return media
	case "accept-encoding":
		return coding
	case "accept-charset":
		return charset
	case "accept-language":
		return language
	}
	return none
}

const maxMembers = 32

// preference is one member: its name with parameters but without the weight, in
// thousandths.
type preference struct {
	name   []byte
	weight int16
}

// appendWeighted appends the normal form of a field. ok is false when it is none
// of the form; b is then as it was.
func appendWeighted(b []byte, n negotiation, name string, h *exchange.Header, first int) (out []byte, ok bool) {
	var list [maxMembers]preference
	count := 0
	for i := first; i >= 0; i = named(h, name, i+1) {
		v := h.At(i).Value
		if bytes.IndexByte(v, '"') >= 0 {
			return b, false
		}
		for m, rest := cutMember(v); len(m) > 0; m, rest = cutMember(rest) {
			p, ok := readPreference(m, n)
			if !ok || count == maxMembers {
				return b, false
			}
			count = insert(list[:], count, p)
		}
	}
	ordered := list[:count]
	if !unique(ordered) {
		return b, false
	}
	keep := n == media || n == language || wildcard(ordered)
	start := len(b)
	for i := range ordered {
		p := &ordered[i]
		if p.weight == 0 && !keep && !is(p.name, "identity") {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		for _, c := range p.name {
			if !isSpace(c) {
				b = append(b, lower(c))
			}
		}
		if p.weight != 1000 {
			b = append(b, ";q=0."...)
			b = append(b, '0'+byte(p.weight/100), '0'+byte(p.weight/10%10), '0'+byte(p.weight%10))
		}
	}
	return b, true
}

// readPreference reads name *( ";" parameter ) [ ";q=" weight ]. Only media
// ranges have parameters.
func readPreference(m []byte, n negotiation) (p preference, ok bool) {
	p.weight = 1000
	p.name = m
	if at := bytes.LastIndexByte(m, ';'); at >= 0 {
		last := trim(m[at+1:])
		if len(last) > 2 && last[0]|0x20 == 'q' && last[1] == '=' {
			if p.weight, ok = readWeight(last[2:]); !ok {
				return p, false
			}
			p.name = trim(m[:at])
		}
	}
	main, rest, more := bytes.Cut(p.name, semicolon)
	if n != media {
		return p, !more && isToken(p.name)
	}
	kind, sub, ok := bytes.Cut(trim(main), slash)
	if !ok || !isToken(kind) || !isToken(sub) {
		return p, false
	}
	for more {
		var one []byte
		one, rest, more = bytes.Cut(rest, semicolon)
		key, value, ok := bytes.Cut(trim(one), equals)
		// A parameter's value may depend on case, so one with capitals is left alone;
		// q in the middle begins what older texts call accept-ext.
		if !ok || !isToken(key) || !isToken(value) || hasUpper(value) || is(key, "q") {
			return p, false
		}
	}
	return p, true
}

var (
	semicolon = []byte(";")
	slash     = []byte("/")
	equals    = []byte("=")
)

func hasUpper(b []byte) bool {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
}

// readWeight reads a qvalue (RFC 9110 §12.4.2) in thousandths.
func readWeight(b []byte) (int16, bool) {
	if len(b) == 0 || len(b) > 5 || b[0] != '0' && b[0] != '1' || len(b) > 1 && b[1] != '.' {
		return 0, false
	}
	w, unit := int16(b[0]-'0')*1000, int16(100)
	for _, c := range b[min(2, len(b)):] {
		if !isDigit(c) {
			return 0, false
		}
		w += int16(c-'0') * unit
		unit /= 10
	}
	return w, w <= 1000
}

// insert puts p in its place among the first n of list, unless it is there
// already, and returns how many there are then.
func insert(list []preference, n int, p preference) int {
	i := n
	for ; i > 0; i-- {
		switch c := compare(&list[i-1], &p); {
		case c == 0:
			return n
		case c < 0:
			copy(list[i+1:n+1], list[i:n])
			list[i] = p
			return n + 1
		}
	}
	copy(list[1:n+1], list[:n])
	list[0] = p
	return n + 1
}

// compare orders by weight, the greatest first, and then by name.
func compare(a, b *preference) int {
	if a.weight != b.weight {
		return int(b.weight) - int(a.weight)
	}
	return compareNames(a.name, b.name)
}

// compareNames compares without regard to case and white space.
func compareNames(a, b []byte) int {
	i, j := 0, 0
	for {
		for i < len(a) && isSpace(a[i]) {
			i++
		}
		for j < len(b) && isSpace(b[j]) {
			j++
		}
		if i == len(a) || j == len(b) {
			return (len(a) - i) - (len(b) - j)
		}
		if c, d := lower(a[i]), lower(b[j]); c != d {
			return int(c) - int(d)
		}
		i, j = i+1, j+1
	}
}

// unique reports whether no name is there twice.
func unique(list []preference) bool {
	for i := range list {
		for j := range i {
			if list[i].weight != list[j].weight && compareNames(list[i].name, list[j].name) == 0 {
				return false
			}
		}
	}
	return true
}

func wildcard(list []preference) bool {
	for i := range list {
		if bytes.IndexByte(list[i].name, '*') >= 0 {
			return true
		}
	}
	return false
}

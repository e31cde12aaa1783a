package semantics

import (
	"bytes"
	"slices"
)

// The canonical query of a cache key. Parameters are what stands between "&"; an
// empty one is left out. They are sorted by name, those of one name stay in their
// order, and percent-encodings have one form: upper-case digits, and none for an
// unreserved byte (RFC 3986 §6.2.2). "+" stays, since not everybody takes it for
// a space, and so do "a" and "a=".
//
// Two queries have one form only when RFC 3986 or the sorting makes them equal:
// a parameter with a "%" that begins no encoding is not touched, so that it
// cannot become one, and a query of more than 256 parameters is taken as
// received.

const maxParameters = 256

// parameter is one of them, in b or the query.
type parameter struct{ start, name, end int32 } // name is where its name ends

// AppendQuery appends the canonical form of a query without its "?". With only,
// it holds just those parameters, and those that the upstream might take for one
// of them: of a name in other letters, with brackets, dots or spaces as PHP reads
// them, or with a ";", behind which some read a further parameter. A key without
// these could be given a wrong answer on purpose. Names in only are decoded.
func AppendQuery(b, query []byte, only []string) []byte {
	if only == nil && canonical(query) {
		return append(b, query...)
	}
	if bytes.Count(query, ampersand) < fewParameters {
		var list [fewParameters]parameter
		return appendCanonical(b, query, only, list[:])
	}
	var list [maxParameters]parameter
	return appendCanonical(b, query, only, list[:])
}

// fewParameters are as many as most queries have; a longer list costs the time to
// clear it.
const fewParameters = 16

var ampersand = []byte("&")

// canonical reports whether a query is surely in its form already: short, no
// encodings, no empty parameters, and names in order. It is what most clients
// send.
func canonical(query []byte) bool {
	var last []byte
	for rest, n := query, 0; len(rest) > 0; n++ {
		end, name := 0, -1
		for ; end < len(rest) && rest[end] != '&'; end++ {
			switch rest[end] {
			case '%':
				return false
			case '=':
				if name < 0 {
					name = end
				}
			}
		}
		if name < 0 {
			name = end
		}
		if end == 0 || end == len(rest)-1 || n == maxParameters || bytes.Compare(last, rest[:name]) > 0 {
			return false
		}
		last, rest = rest[:name], rest[min(end+1, len(rest)):]
	}
	return true
}

// appendCanonical is AppendQuery by way of a list, which has room for all
// parameters or for maxParameters.
func appendCanonical(b, query []byte, only []string, list []parameter) []byte {
	start, n := len(b), 0
	for rest := query; len(rest) > 0; {
		part := rest
		if i := bytes.IndexByte(rest, '&'); i >= 0 {
			part, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		if len(part) == 0 {
			continue
		}
		if n == maxParameters {
			return append(b[:start], query...)
		}
		var p parameter
		p.start = int32(len(b))
		b, p.name = appendParameter(b, part)
		p.end = int32(len(b))
		if only != nil && !wanted(part, only) {
			b, p.end = b[:p.start], p.start // counts, so that the bound does not depend on only
		} else {
			b = append(b, '&')
		}
		list[n] = p
		n++
	}
	kept := keep(list[:n])
	if len(kept) == 0 {
		return b[:start]
	}
	for i := 1; i < len(kept); i++ {
		if bytes.Compare(kept[i-1].in(b), kept[i].in(b)) > 0 {
			return arrange(b, start, kept)
		}
	}
	return b[:len(b)-1]
}

func (p *parameter) in(b []byte) []byte { return b[p.start:p.name] }

// keep removes those that were not wanted.
func keep(list []parameter) []parameter {
	n := 0
	for i := range list {
		if list[i].end > list[i].start {
			list[n] = list[i]
			n++
		}
	}
	return list[:n]
}

// arrange puts the parameters in order: it sorts their places, appends a copy in
// that order, and moves it over them.
func arrange(b []byte, start int, list []parameter) []byte {
	slices.SortFunc(list, func(x, y parameter) int {
		if c := bytes.Compare(x.in(b), y.in(b)); c != 0 {
			return c
		}
		return int(x.start - y.start)
	})
	end := len(b)
	for i := range list {
		b = append(b, b[list[i].start:list[i].end]...)
		b = append(b, '&')
	}
	n := copy(b[start:], b[end:])
	return b[:start+n-1]
}

// appendParameter appends one parameter in its normal form, and tells where its
// name ends there.
func appendParameter(b, part []byte) (out []byte, name int32) {
	start := len(b)
	if !encoded(part) {
		b = append(b, part...)
	} else {
		for i := 0; i < len(part); i++ {
			c := part[i]
			if c != '%' {
				b = append(b, c)
				continue
			}
			c, _ = unhex(part, i)
			i += 2
			if unreserved(c) {
				b = append(b, c)
			} else {
				b = append(b, '%', upperHex[c>>4], upperHex[c&0xF])
			}
		}
	}
	if i := bytes.IndexByte(b[start:], '='); i >= 0 {
		return b, int32(start + i)
	}
	return b, int32(len(b))
}

// encoded reports whether every "%" of a parameter begins an encoding, and there
// is one.
func encoded(part []byte) bool {
	any := false
	for i, c := range part {
		if c == '%' {
			if _, ok := unhex(part, i); !ok {
				return false
			}
			any = true
		}
	}
	return any
}

const upperHex = "0123456789ABCDEF"

func unhex(s []byte, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := hexDigit(s[i+1])
	lo, ok2 := hexDigit(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func unreserved(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == '~'
}

// wanted reports whether a parameter, as received, is one of those, or might be
// read as one.
func wanted(part []byte, only []string) bool {
	if bytes.IndexByte(part, ';') >= 0 {
		return true
	}
	name, _, _ := bytes.Cut(part, equals)
	if bytes.IndexByte(name, '%') >= 0 && !encoded(name) {
		return true
	}
	for _, want := range only {
		if resembles(name, want) {
			return true
		}
	}
	return false
}

// resembles compares a name as received with a decoded one, as the loosest
// readers do: without regard to case and to spaces in front, with "." and space
// read as "_", up to a "[" or a NUL.
func resembles(name []byte, want string) bool {
	i := 0
	for i < len(name) {
		c, next := decoded(name, i)
		if c != ' ' {
			break
		}
		i = next
	}
	for j := 0; ; j++ {
		var c, d byte
		if i < len(name) {
			c, i = decoded(name, i)
			c = loose(c)
		}
		if j < len(want) {
			d = loose(want[j])
		}
		if c == 0 || d == 0 || c != d {
			return c == d
		}
	}
}

// decoded is the character at name[i], and where the one behind it begins.
func decoded(name []byte, i int) (c byte, next int) {
	switch c = name[i]; c {
	case '%':
		c, _ = unhex(name, i)
		return c, i + 3
	case '+':
		c = ' '
	}
	return c, i + 1
}

// loose is 0 for what ends a name.
func loose(c byte) byte {
	switch c {
	case 0, '[':
		return 0
	case ' ', '.':
		return '_'
	}
	return lower(c)
}

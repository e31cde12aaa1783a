package auth

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// sources are the places where a credential may stand, in the order in which they
// are looked at: `header:X-Api-Key`, `query:api_key`, `cookie:session`.
type sources []source

type source struct {
	kind sourceKind
	name []byte
	id   exchange.HeaderID // of a header that has one
}

type sourceKind uint8

const (
	inHeader sourceKind = iota
	inQuery
	inCookie
)

// parseSources reads the `from` of an authenticator.
func parseSources(from []string) (sources, error) {
	var all sources
	for _, word := range from {
		kind, name, _ := strings.Cut(word, ":")
		s := source{name: []byte(name)}
		switch kind {
		case "header":
			s.id = exchange.Lookup(s.name)
		case "query":
			s.kind = inQuery
		case "cookie":
			s.kind = inCookie
		default:
			return nil, fmt.Errorf("%q is no place of a credential, write header:NAME, query:NAME or cookie:NAME", word)
		}
		if name == "" {
			return nil, fmt.Errorf("%q names nothing, write %s:NAME", word, kind)
		}
		all = append(all, s)
	}
	return all, nil
}

// find returns what stands in the first place that is there, nil when none is.
// What is there twice in one place is the credential of nobody (several). An empty value is there too, and not nil.
// scheme reports whether it stands in the Authorization field, scheme included.
func (s sources) find(x *exchange.Exchange) (value []byte, authorization bool) {
	for i := range s {
		if v := s[i].value(x); v != nil {
			return v, s[i].kind == inHeader && s[i].id == exchange.Authorization
		}
	}
	return nil, false
}

func (s *source) value(x *exchange.Exchange) []byte {
	switch s.kind {
	case inHeader:
		return s.inHeader(x)
	case inQuery:
		return s.inQuery(x)
	default:
		return s.inCookie(x)
	}
}

func (s *source) inHeader(x *exchange.Exchange) []byte {
	var found []byte
	n := 0
	h := &x.Request.Header
	for i := range h.Len() {
		f := h.At(i)
		if f.ID == s.id && (s.id != exchange.Other || exchange.EqualFold(f.Name, s.name)) {
			found = join(found, f.Value, n)
			n++
		}
	}
	return present(found, n)
}

func (s *source) inQuery(x *exchange.Exchange) []byte {
	var found []byte
	n := 0
	for rest := x.Request.Query; len(rest) > 0; {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		name, v, _ := bytes.Cut(pair, equals)
		if decoded, ok := unescape(x, name); ok && bytes.Equal(decoded, s.name) {
			if v, ok = unescape(x, v); !ok {
				v = percent // no credential can be this
			}
			found = join(found, v, n)
			n++
		}
	}
	return present(found, n)
}

func (s *source) inCookie(x *exchange.Exchange) []byte {
	var found []byte
	n := 0
	h := &x.Request.Header
	for i := range h.Len() {
		if h.At(i).ID != exchange.Cookie {
			continue
		}
		for rest := h.At(i).Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			name, v, ok := bytes.Cut(bytes.TrimSpace(pair), equals)
			if ok && bytes.Equal(name, s.name) {
				found = join(found, v, n)
				n++
			}
		}
	}
	return present(found, n)
}

// present is what was found: nil for nothing, and not nil for something empty.
func present(found []byte, n int) []byte {
	if n > 0 && found == nil {
		return empty
	}
	return found
}

var (
	ampersand, equals, semicolon, percent = []byte("&"), []byte("="), []byte(";"), []byte("%")
	empty                                 = []byte{}
)

// several is what stands for values of which there is more than one: the credential
// of nobody.
var several = []byte(", ")

// join is what stands for all values found so far and one more.
func join(found, v []byte, n int) []byte {
	if n == 0 {
		return v
	}
	return several
}

// unescape decodes a name or value of a query; ok is false for what is no encoding.
func unescape(x *exchange.Exchange, v []byte) (decoded []byte, ok bool) {
	if bytes.IndexByte(v, '%') < 0 && bytes.IndexByte(v, '+') < 0 {
		return v, true
	}
	out := x.Scratch(len(v))[:0]
	for i := 0; i < len(v); i++ {
		switch c := v[i]; c {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(v) || !isHex(v[i+1]) || !isHex(v[i+2]) {
				return nil, false
			}
			out = append(out, hexValue(v[i+1])<<4|hexValue(v[i+2]))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return out, true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// strip takes the credential out of every one of the places.
func (s sources) strip(x *exchange.Exchange) {
	for i := range s {
		switch p := &s[i]; {
		case p.kind == inQuery:
			p.stripQuery(x)
		case p.kind == inCookie:
			p.stripCookie(x)
		case p.id != exchange.Other:
			x.Request.Header.DelID(p.id)
		default:
			x.Request.Header.Del(p.name)
		}
	}
}

// stripQuery rewrites the query without the parameter.
func (s *source) stripQuery(x *exchange.Exchange) {
	if s.value(x) == nil {
		return
	}
	out := x.Scratch(len(x.Request.Query))[:0]
	for pair := range bytes.SplitSeq(x.Request.Query, ampersand) {
		name, _, _ := bytes.Cut(pair, equals)
		if decoded, ok := unescape(x, name); ok && bytes.Equal(decoded, s.name) {
			continue
		}
		if len(out) > 0 {
			out = append(out, '&')
		}
		out = append(out, pair...)
	}
	x.Request.Query = out
	x.Request.HasQuery = len(out) > 0
}

// stripCookie rewrites the Cookie fields without the cookie.
func (s *source) stripCookie(x *exchange.Exchange) {
	if s.value(x) == nil {
		return
	}
	n := 0
	for line := range x.Request.Header.ValuesID(exchange.Cookie) {
		n += len(line) + 2
	}
	out := x.Scratch(n)[:0]
	for line := range x.Request.Header.ValuesID(exchange.Cookie) {
		for pair := range bytes.SplitSeq(line, semicolon) {
			pair = bytes.TrimSpace(pair)
			if name, _, ok := bytes.Cut(pair, equals); len(pair) == 0 || ok && bytes.Equal(name, s.name) {
				continue
			}
			if len(out) > 0 {
				out = append(out, "; "...)
			}
			out = append(out, pair...)
		}
	}
	x.Request.Header.DelID(exchange.Cookie)
	if len(out) > 0 {
		x.Request.Header.AddID(exchange.Cookie, out)
	}
}

// bearer returns the token of an Authorization field with the scheme Bearer, or of
// another place as it stands; nil: there is none.
func bearer(value []byte, authorization bool) []byte {
	if !authorization || bytes.Equal(value, several) { // no field can end with a space
		return value
	}
	return credentialsOf(value, bearerScheme)
}

var (
	bearerScheme = []byte("Bearer")
	basicScheme  = []byte("Basic")
)

// credentialsOf returns what stands behind a scheme in an Authorization field (RFC
// 9110 §11.4); nil: it has another scheme.
func credentialsOf(value, scheme []byte) []byte {
	if len(value) <= len(scheme) || value[len(scheme)] != ' ' || !exchange.EqualFold(value[:len(scheme)], scheme) {
		return nil
	}
	return present(bytes.TrimLeft(value[len(scheme):], " "), 1)
}

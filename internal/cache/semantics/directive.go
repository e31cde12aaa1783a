package semantics

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Directives. Cache-Control is a list of name[=argument], where the argument is
// a token or a quoted string (RFC 9111 §5.2); both forms count for every
// directive. Commas inside a quoted string separate nothing. Each field line is
// read by itself, so that a quote left open in one hides nothing in another.
//
// What is no directive is skipped to the next comma, and the name in front of it
// is yielded with a form of bad: "max-age= 60" is max-age with an argument that
// nobody can read, and "no-store!" is no-store.

// form says how the argument of a directive is written.
type form uint8

const (
	bare   form = iota // none
	token              // name=value
	quoted             // name="value"; arg may hold quoted pairs
	bad                // name and then rubbish
)

type directive struct {
	name []byte // as received; empty for rubbish without a name
	arg  []byte
	form form
}

// directives walks over one field line.
type directives struct {
	rest []byte
	open bool // a quoted string without an end was met
}

func (d *directives) next(one *directive) bool {
	b, i := d.rest, 0
	for i < len(b) && (b[i] == ',' || isSpace(b[i])) {
		i++
	}
	if i == len(b) {
		d.rest = nil
		return false
	}
	start := i
	i = tokenEnd(b, i)
	*one = directive{name: b[start:i]}
	if i < len(b) && b[i] == '=' {
		i = d.argument(b, i+1, one)
	}
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i < len(b) && b[i] != ',' || i == start {
		one.form, one.arg = bad, nil
		i = d.toComma(b, i)
	}
	d.rest = b[i:]
	return true
}

// argument reads what follows the "=" in front of b[i].
func (d *directives) argument(b []byte, i int, one *directive) int {
	if i < len(b) && b[i] == '"' {
		end := quoteEnd(b, i)
		if end < 0 {
			d.open = true
			one.form = bad
			return d.toComma(b, i+1)
		}
		one.form, one.arg = quoted, b[i+1:end]
		return end + 1
	}
	end := tokenEnd(b, i)
	one.form, one.arg = token, b[i:end]
	if end == i {
		one.form = bad
	}
	return end
}

// toComma returns where the next comma outside of quotes is.
func (d *directives) toComma(b []byte, i int) int {
	for i < len(b) && b[i] != ',' {
		if b[i] == '"' {
			if end := quoteEnd(b, i); end >= 0 {
				i = end
			} else {
				d.open = true
			}
		}
		i++
	}
	return i
}

// quoteEnd returns where the quoted string that begins at b[i] ends, -1 when it
// does not.
func quoteEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func tokenEnd(b []byte, i int) int {
	for i < len(b) && tokenTable[b[i]] {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// seconds reads delta-seconds (RFC 9111 §1.2.2): digits only, and what is more
// than Forever is Forever.
func (one *directive) seconds() (n int64, ok bool) {
	if one.form == bare || one.form == bad {
		return 0, false
	}
	return seconds(one.arg, one.form == quoted)
}

func seconds(b []byte, pairs bool) (n int64, ok bool) {
	for i, c := range b {
		if c == '\\' && pairs && i+1 < len(b) && isDigit(b[i+1]) {
			continue
		}
		if !isDigit(c) {
			return 0, false
		}
		n, ok = min(n*10+int64(c-'0'), Forever), true
	}
	return n, ok
}

// is compares a name with one in lower case.
func is(name []byte, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i, c := range name {
		if lower(c) != want[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// tokenTable holds true for the bytes of a token (RFC 9110 §5.6.2).
var tokenTable = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

func isToken(b []byte) bool { return len(b) > 0 && tokenEnd(b, 0) == len(b) }

func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// cutMember splits the first member off a list without quoted strings. Empty
// members are skipped (RFC 9110 §5.6.1.2); the member is empty at the end.
func cutMember(list []byte) (member, rest []byte) {
	for len(list) > 0 {
		member, list, _ = bytes.Cut(list, comma)
		if member = trim(member); len(member) > 0 {
			return member, list
		}
	}
	return nil, nil
}

var comma = []byte(",")

// lowerString returns b in lower case.
func lowerString(b []byte) string {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = lower(c)
	}
	return string(out)
}

// find returns the index of a field of that name behind from, -1 when there is
// none.
func find(h *exchange.Header, id exchange.HeaderID, name []byte, from int) int {
	for i := from; i < h.Len(); i++ {
		if f := h.At(i); f.ID == id && (id != exchange.Other || exchange.EqualFold(f.Name, name)) {
			return i
		}
	}
	return -1
}

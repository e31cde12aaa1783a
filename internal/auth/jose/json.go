package jose

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The bounds of what is read as JSON.
const (
	maxDepth  = 16 // of objects and arrays within each other
	maxNumber = 64 // bytes of a number
)

var (
	errEnd       = errors.New("JSON ends too early")
	errText      = errors.New("JSON is not valid UTF-8")
	errDeep      = fmt.Errorf("JSON is nested deeper than %d", maxDepth)
	errNumber    = errors.New("JSON has a bad number")
	errString    = errors.New("JSON has a bad string")
	errSyntax    = errors.New("JSON has a syntax error")
	errObject    = errors.New("JSON is no object")
	errBehind    = errors.New("JSON has something behind its end")
	errSurrogate = errors.New("JSON has half a surrogate pair")
)

// parseObject reads one JSON object (RFC 8259) and nothing behind it. What encoding/json
// would let pass is refused: a member twice in one object, at any depth, text that is
// not UTF-8, half a surrogate pair, and a number that a float64 cannot hold at all.
// Numbers are float64, or json.Number when a float64 would round an integer.
func parseObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errText
	}
	return read(parser{data: data})
}

// ParseObject is as strict, for JSON that is not of a token. All numbers are json.Number.
func ParseObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errText
	}
	return read(parser{data: data, verbatim: true})
}

func read(p parser) (map[string]any, error) {
	p.space()
	if p.peek() != '{' {
		return nil, errObject
	}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at != len(p.data) {
		return nil, errBehind
	}
	return v.(map[string]any), nil
}

// parser reads JSON from text that is valid UTF-8.
type parser struct {
	data     []byte
	at       int
	verbatim bool // numbers are not converted
}

// peek returns the next byte, 0 at the end: a zero byte is no JSON either.
func (p *parser) peek() byte {
	if p.at < len(p.data) {
		return p.data[p.at]
	}
	return 0
}

func (p *parser) space() {
	for p.at < len(p.data) {
		switch p.data[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// take reads a byte that must come next.
func (p *parser) take(c byte) error {
	switch {
	case p.at == len(p.data):
		return errEnd
	case p.data[p.at] != c:
		return errSyntax
	}
	p.at++
	return nil
}

// value reads a value within depth others.
func (p *parser) value(depth int) (any, error) {
	switch c := p.peek(); c {
	case '{', '[':
		if depth == maxDepth {
			return nil, errDeep
		}
		p.at++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case '"':
		return p.text()
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	case 'n':
		return nil, p.word("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return p.number()
	}
	if p.at == len(p.data) {
		return nil, errEnd
	}
	return nil, errSyntax
}

func (p *parser) word(w string) error {
	if len(p.data)-p.at < len(w) || string(p.data[p.at:p.at+len(w)]) != w {
		return errSyntax
	}
	p.at += len(w)
	return nil
}

// object reads the members of an object, behind its brace.
func (p *parser) object(depth int) (any, error) {
	members := map[string]any{}
	p.space()
	if p.peek() == '}' {
		p.at++
		return members, nil
	}
	for {
		p.space()
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("JSON has the member %.64q twice", name)
		}
		p.space()
		if err := p.take(':'); err != nil {
			return nil, err
		}
		p.space()
		if members[name], err = p.value(depth); err != nil {
			return nil, err
		}
		if done, err := p.next('}'); done || err != nil {
			return members, err
		}
	}
}

// array reads the elements of an array, behind its bracket.
func (p *parser) array(depth int) (any, error) {
	elements := []any{}
	p.space()
	if p.peek() == ']' {
		p.at++
		return elements, nil
	}
	for {
		p.space()
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
		if done, err := p.next(']'); done || err != nil {
			return elements, err
		}
	}
}

// next reads a comma, or the end.
func (p *parser) next(end byte) (done bool, err error) {
	p.space()
	switch p.peek() {
	case ',':
		p.at++
		return false, nil
	case end:
		p.at++
		return true, nil
	}
	if p.at == len(p.data) {
		return false, errEnd
	}
	return false, errSyntax
}

// number reads a number.
func (p *parser) number() (any, error) {
	start := p.at
	p.accept('-')
	switch first := p.peek(); {
	case first == '0':
		p.at++
	case p.digits() == 0:
		return nil, errNumber
	}
	whole := true
	if p.accept('.') {
		whole = false
		if p.digits() == 0 {
			return nil, errNumber
		}
	}
	if p.accept('e') || p.accept('E') {
		whole = false
		if !p.accept('-') {
			p.accept('+')
		}
		if p.digits() == 0 {
			return nil, errNumber
		}
	}
	text := string(p.data[start:p.at])
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || len(text) > maxNumber {
		return nil, errNumber
	}
	const exact = 1 << 53 // from here on integers are rounded
	if p.verbatim || whole && (f <= -exact || f >= exact) {
		return json.Number(text), nil
	}
	return f, nil
}

func (p *parser) accept(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.at++
	return true
}

func (p *parser) digits() (n int) {
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.at++
		n++
	}
	return n
}

// text reads a string with its quotes.
func (p *parser) text() (string, error) {
	if err := p.take('"'); err != nil {
		return "", err
	}
	start := p.at
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case c == '"':
			p.at++
			return string(p.data[start : p.at-1]), nil
		case c == '\\':
			return p.escaped(append(make([]byte, 0, 64), p.data[start:p.at]...))
		case c < ' ':
			return "", errString
		default:
			p.at++
		}
	}
	return "", errEnd
}

// escaped reads on from the first escape of a string. out is what stands before.
func (p *parser) escaped(out []byte) (string, error) {
	for p.at < len(p.data) {
		c := p.data[p.at]
		p.at++
		switch {
		case c == '"':
			return string(out), nil
		case c < ' ':
			return "", errString
		case c != '\\':
			out = append(out, c)
			continue
		}
		c = p.peek()
		p.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, err := p.rune()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", errString
		}
	}
	return "", errEnd
}

// rune reads what stands behind \u, and the second half of a pair.
func (p *parser) rune() (rune, error) {
	r, err := p.hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.word(`\u`) != nil {
		return 0, errSurrogate
	}
	low, err := p.hex()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, errSurrogate
	}
	return r, nil
}

// hex reads four hexadecimal digits.
func (p *parser) hex() (r rune, err error) {
	if len(p.data)-p.at < 4 {
		return 0, errEnd
	}
	for range 4 {
		c := p.data[p.at]
		p.at++
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, errString
		}
	}
	return r, nil
}

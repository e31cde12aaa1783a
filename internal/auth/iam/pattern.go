package iam

import (
	"errors"
	"fmt"
	"strings"
)

// pattern is a text of a policy with wildcards, * for any characters and ? for one,
// and with variables such as ${aws:username}, whose values come from the request.
//
// A value of a request is compared as it is: an asterisk in it, or in the value of a
// variable, is an asterisk. A variable that the request has no value for equals
// nothing (AWS: "Policy variables with no value").
type pattern struct {
	parts []part
	fold  bool // letters of ASCII are the same in both cases
}

type part struct {
	kind     partKind
	text     string // of literal; of variable: what stands for it when there is no value
	fallback bool   // of variable: there is such a text
	key      key    // of variable
}

type partKind uint8

const (
	literal partKind = iota
	many             // *
	one              // ?
	variable
)

// syntax is what is more than text in a pattern.
type syntax uint8

const (
	wildcards syntax = 1 << iota
	variables
)

// compile reads a pattern.
func compile(text string, with syntax) (pattern, error) {
	var p pattern
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '*' && with&wildcards != 0:
			if n := len(p.parts); n == 0 || p.parts[n-1].kind != many {
				p.parts = append(p.parts, part{kind: many})
			}
			i++
		case c == '?' && with&wildcards != 0:
			p.parts = append(p.parts, part{kind: one})
			i++
		case with&variables != 0 && strings.HasPrefix(text[i:], "${"):
			v, n, err := readVariable(text[i:])
			if err != nil {
				return pattern{}, err
			}
			p.add(v)
			i += n
		default:
			end := i + 1
			for end < len(text) && !strings.ContainsRune("*?$", rune(text[end])) {
				end++
			}
			p.add(part{text: text[i:end]})
			i = end
		}
	}
	return p, nil
}

// add appends a part, and joins literals.
func (p *pattern) add(v part) {
	if n := len(p.parts); n > 0 && v.kind == literal && p.parts[n-1].kind == literal {
		p.parts[n-1].text += v.text
		return
	}
	p.parts = append(p.parts, v)
}

var errUnclosed = errors.New("${ has no }; write ${$}{ for these characters themselves")

// readVariable reads what begins with ${ and returns its length too. ${*}, ${?} and
// ${$} are these characters.
func readVariable(text string) (part, int, error) {
	body := text[2:]
	for _, special := range []string{"*}", "?}", "$}"} {
		if strings.HasPrefix(body, special) {
			return part{text: special[:1]}, 4, nil
		}
	}
	end := strings.IndexByte(body, '}')
	if end < 0 {
		return part{}, 0, errUnclosed
	}
	name, _, defaulted := strings.Cut(body[:end], ",")
	v := part{kind: variable, fallback: defaulted}
	if defaulted {
		// The default may have a } in it: it ends with its quote.
		rest := strings.TrimLeft(body[len(name)+1:], " ")
		quoted, after, ok := strings.Cut(strings.TrimPrefix(rest, "'"), "'")
		if !strings.HasPrefix(rest, "'") || !ok || !strings.HasPrefix(strings.TrimLeft(after, " "), "}") {
			return part{}, 0, fmt.Errorf("the default of ${%s} has to be in single quotes, as in ${aws:username, 'nobody'}", strings.TrimSpace(name))
		}
		v.text = quoted
		end = len(body) - len(strings.TrimLeft(after, " "))
	}
	var err error
	if v.key, err = parseKey(strings.TrimSpace(name)); err != nil {
		return part{}, 0, err
	}
	if v.key.several() {
		return part{}, 0, fmt.Errorf("%s has several values and cannot be a variable", v.key.name)
	}
	return v, 2 + end + 1, nil
}

// texts are what patterns are compared with.
type texts interface{ ~string | ~[]byte }

// match reports whether s is one of the pattern's texts. It walks with one point of
// return, the last * passed: a later * can do whatever an earlier one could. So it
// takes at most length of s times length of the pattern steps.
func match[T texts](p *pattern, q *Request, s T) bool {
	i, at := 0, 0
	back, from := -1, 0 // part behind the last *, and where in s it was tried
	for {
		if i < len(p.parts) {
			if p.parts[i].kind == many {
				i++
				back, from = i, at
				if i == len(p.parts) {
					return true
				}
				continue
			}
			if n, ok := step(&p.parts[i], p.fold, q, s[at:]); ok {
				i, at = i+1, at+n
				continue
			}
		} else if at == len(s) {
			return true
		}
		if back < 0 || from >= len(s) {
			return false
		}
		from += character(s[from:])
		i, at = back, from
	}
}

// step matches one part at the beginning of s and returns its length there.
func step[T texts](p *part, fold bool, q *Request, s T) (int, bool) {
	text := p.text
	switch p.kind {
	case one:
		return character(s), len(s) > 0
	case variable:
		value, ok := p.key.single(q)
		if !ok && !p.fallback {
			return 0, false
		}
		if ok {
			text = value
		}
	}
	if len(s) < len(text) {
		return 0, false
	}
	for i := range len(text) {
		a, b := text[i], s[i]
		if a != b && (!fold || lower(a) != lower(b)) {
			return 0, false
		}
	}
	return len(text), true
}

// character is the length of the first character of s in UTF-8; 0 of nothing.
func character[T texts](s T) int {
	n := min(len(s), 1)
	for n > 0 && n < len(s) && n < 4 && s[0] >= 0xC0 && s[n]&0xC0 == 0x80 {
		n++
	}
	return n
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

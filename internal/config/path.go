package config

import (
	"strconv"
	"strings"
)

// path leads from the root of a document to a value: apis[0].routes[3].path.
type path []step

// step is a key, or an index when key is empty and isIndex is set.
type step struct {
	key     string
	at      int
	isIndex bool
}

// key, index and up share the array of the path they extend: a path is good until
// its parent is extended again.
func (p path) key(k string) path  { return append(p, step{key: k}) }
func (p path) index(i int) path   { return append(p, step{at: i, isIndex: true}) }
func (p path) up() path           { return p[:len(p)-1] }
func (p path) clone() path        { return append(path(nil), p...) }
func (p path) last() (step, bool) { return p.from(len(p) - 1) }

func (p path) from(i int) (step, bool) {
	if i < 0 || i >= len(p) {
		return step{}, false
	}
	return p[i], true
}

// String writes keys that are not plain words as ["key"].
func (p path) String() string {
	var b strings.Builder
	for _, s := range p {
		switch {
		case s.isIndex:
			b.WriteByte('[')
			b.WriteString(strconv.Itoa(s.at))
			b.WriteByte(']')
		case plainWord(s.key):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.key)
		default:
			b.WriteByte('[')
			b.WriteString(strconv.Quote(s.key))
			b.WriteByte(']')
		}
	}
	return b.String()
}

func plainWord(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '<') {
			return false
		}
	}
	return true
}

// parsePath reads what String writes. What cannot be read ends the path.
func parsePath(s string) path {
	var p path
	for s != "" {
		switch s[0] {
		case '.':
			s = s[1:]
		case '[':
			if strings.HasPrefix(s, `["`) {
				quoted, err := strconv.QuotedPrefix(s[1:])
				if err != nil {
					return p
				}
				key, _ := strconv.Unquote(quoted)
				p, s = p.key(key), strings.TrimPrefix(s[1+len(quoted):], "]")
				continue
			}
			digits := leadingDigits(s[1:])
			i, err := strconv.Atoi(digits)
			if err != nil {
				return p
			}
			p, s = p.index(i), strings.TrimPrefix(s[1+len(digits):], "]")
		default:
			end := strings.IndexAny(s, ".[")
			if end < 0 {
				end = len(s)
			}
			p, s = p.key(s[:end]), s[end:]
		}
	}
	return p
}

package expr

import (
	"bytes"
	"iter"
)

// queryValue returns the decoded value of the first parameter with that decoded
// name. Parts are separated by "&" only, empty ones are skipped, "+" is a space, and
// a "%" that begins no encoding stands for itself; as the router reads them.
func (v *view) queryValue(name string) (string, bool) {
	for n, value := range pairs(v.x.Request.Query) {
		if string(n) == name && bytes.IndexByte(n, '%') < 0 && bytes.IndexByte(n, '+') < 0 || decode(n) == name {
			return decode(value), true
		}
	}
	return "", false
}

func (v *view) allQuery(m map[string]string) {
	for n, value := range pairs(v.x.Request.Query) {
		name := decode(n)
		if _, ok := m[name]; !ok {
			m[name] = decode(value)
		}
	}
}

// pairs yields names and values as received.
func pairs(query []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(query) > 0 {
			part, rest, _ := bytes.Cut(query, []byte("&"))
			query = rest
			if len(part) == 0 {
				continue
			}
			name, value, _ := bytes.Cut(part, []byte("="))
			if !yield(name, value) {
				return
			}
		}
	}
}

func decode(raw []byte) string {
	if bytes.IndexByte(raw, '%') < 0 && bytes.IndexByte(raw, '+') < 0 {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(raw):
			high, ok1 := unhex(raw[i+1])
			low, ok2 := unhex(raw[i+2])
			if ok1 && ok2 {
				c, i = high<<4|low, i+2
			}
		}
		out = append(out, c)
	}
	return string(out)
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

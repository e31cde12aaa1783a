package router

import "bytes"

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isUnreserved reports whether a byte means the same encoded or not (RFC 3986
// §2.3).
func isUnreserved(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

// unhex returns the byte that the percent-encoding at s[i] stands for.
func unhex[T string | []byte](s T, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, lo := hexDigits[s[i+1]], hexDigits[s[i+2]]
	return hi<<4 | lo&0xF, hi|lo < 16
}

// unhexUpper is unhex for upper-case digits only.
func unhexUpper(s []byte, i int) (byte, bool) {
	c, ok := unhex(s, i)
	return c, ok && s[i+1] < 'a' && s[i+2] < 'a'
}

// hexDigits has the value of each hexadecimal digit, 0xFF for other bytes.
var hexDigits = func() (d [256]byte) {
	for c := range d {
		switch c := byte(c); {
		case isDigit(c):
			d[c] = c - '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			d[c] = c | 0x20 - 'a' + 10
		default:
			d[c] = 0xFF
		}
	}
	return d
}()

func appendPercent(dst []byte, c byte) []byte {
	const upper = "0123456789ABCDEF"
	return append(dst, '%', upper[c>>4], upper[c&0xF])
}

// Decode returns raw with its percent-encodings decoded: raw itself when there
// is none, else memory of dst, overwritten from its start. What is no
// percent-encoding stays; "+" is a plus.
func Decode(dst, raw []byte) []byte {
	at := bytes.IndexByte(raw, '%')
	if at < 0 {
		return raw
	}
	dst = append(dst[:0], raw[:at]...)
	for i := at; i < len(raw); i++ {
		if c, ok := unhex(raw, i); ok && raw[i] == '%' {
			dst = append(dst, c)
			i += 2
			continue
		}
		dst = append(dst, raw[i])
	}
	return dst
}

// AppendSegment appends value, which is decoded, as one path segment or a part
// of one: a slash in it is encoded, and so is everything else that would be
// read as something other than data. No encoding keeps a segment that is "." or
// ".." from being resolved (RFC 3986 §6.2.2.3), so whoever puts a path together
// asks HasDotSegment about the whole.
func AppendSegment(dst, value []byte) []byte {
	for _, c := range value {
		if classes[c] == plain {
			dst = append(dst, c)
		} else {
			dst = appendPercent(dst, c)
		}
	}
	return dst
}

// AppendSegments is AppendSegment for the value of a {name...}: slashes stay,
// each segment between them is encoded.
func AppendSegments(dst, value []byte) []byte {
	for _, c := range value {
		if classes[c] == plain || c == '/' {
			dst = append(dst, c)
		} else {
			dst = appendPercent(dst, c)
		}
	}
	return dst
}

// CutQuery splits the first parameter off a query string: its name and value
// as received, and what follows. hasValue is whether there was a "=". ok is
// false at the end. Empty parts ("a&&b") are skipped; only "&" separates.
func CutQuery(query []byte) (name, value, rest []byte, hasValue, ok bool) {
	for len(query) > 0 {
		part := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			part, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		if len(part) == 0 {
			continue
		}
		if i := bytes.IndexByte(part, '='); i >= 0 {
			return part[:i], part[i+1:], query, true, true
		}
		return part, nil, query, false, true
	}
	return nil, nil, nil, false, false
}

// QueryValue returns the value, as received, of the first parameter with that
// decoded name. It does not allocate; DecodeQuery decodes the value.
func QueryValue(query []byte, name string) (raw []byte, ok bool) {
	for len(query) > 0 {
		n, v, rest, _, ok := CutQuery(query)
		if ok && decodesTo(n, name) {
			return v, true
		}
		query = rest
	}
	return nil, false
}

// DecodeQuery is Decode for names and values of a query, where "+" is a space.
func DecodeQuery(dst, raw []byte) []byte {
	if bytes.IndexByte(raw, '+') < 0 {
		return Decode(dst, raw)
	}
	dst = dst[:0]
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if d, ok := unhex(raw, i); ok && c == '%' {
			c, i = d, i+2
		} else if c == '+' {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

// queryHas reports whether any parameter has that decoded name and value.
func queryHas(query []byte, name, value string) bool {
	for len(query) > 0 {
		n, v, rest, _, ok := CutQuery(query)
		if ok && decodesTo(n, name) && decodesTo(v, value) {
			return true
		}
		query = rest
	}
	return false
}

// decodesTo reports whether DecodeQuery of raw is want.
func decodesTo(raw []byte, want string) bool {
	if string(raw) == want {
		// Equal bytes are equal text unless something in them is an encoding.
		if bytes.IndexByte(raw, '%') < 0 && bytes.IndexByte(raw, '+') < 0 {
			return true
		}
	} else if len(raw) < len(want) {
		return false
	}
	at := 0
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if d, ok := unhex(raw, i); ok && c == '%' {
			c, i = d, i+2
		} else if c == '+' {
			c = ' '
		}
		if at == len(want) || want[at] != c {
			return false
		}
		at++
	}
	return at == len(want)
}

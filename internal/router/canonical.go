package router

import "encoding/binary"

// Canonical paths. One form of a path serves the router, the policies and the
// upstream, so that no two of them can read the same bytes differently (RFC
// 3986 §6.2.2 and §6.2.3). A canonical path
//
//   - begins with "/" and holds only unreserved and sub-delim bytes, ":", "@",
//     "/" and percent-encodings;
//   - has upper-case hexadecimal digits, and no encoding of an unreserved byte;
//   - has no segment "." or "..": they are resolved, also when written with
//     %2E, and ".." at the root stays there (RFC 3986 §5.2.4);
//   - has no empty segment but perhaps the last: slashes are merged, before
//     dot segments are resolved, so /a//../b is /b;
//   - has no encoded slash, backslash or NUL, and no ";", unless the options
//     admit it. Where ";" or "%2F" is admitted, the pieces between them are no
//     dot segments either, and no segment begins with ";": a server behind that
//     cuts parameters off or decodes slashes must not find a ".." there.
//
// Bytes that are illegal in a path but that browsers send as they are (|, [, ],
// ^, ", <, >, `, {, }) are encoded. Control bytes, spaces, bytes above 0x7F,
// "\", "?" and "#" are refused. Reserved bytes keep the form they were sent in,
// since %40 and @ may differ.
//
// Canonicalize is idempotent: a canonical path is returned as it is, the same
// slice. The pass over the bytes that finds out, canonicalAlready, stops at the
// first thing to change; the second, rewrite, starts over and builds the path
// segment by segment.

// PathError is why a path was refused; the request is a bad one (400). It is
// its own sentinel: compare with errors.Is.
type PathError uint8

// The reasons.
const (
	NotAbsolute PathError = iota
	BadPercent
	BadByte
	Backslash
	EncodedBackslash
	EncodedNUL
	EncodedSlash   // PathOptions.KeepEncodedSlash admits it
	PathParameters // PathOptions.KeepParameters admits it
	HiddenDots
)

var pathErrors = [...]string{
	NotAbsolute:      `the path does not begin with "/"`,
	BadPercent:       "the path has a % without two hexadecimal digits behind it",
	BadByte:          "the path has a byte that must be percent-encoded",
	Backslash:        "the path has a backslash",
	EncodedBackslash: "the path has an encoded backslash (%5C)",
	EncodedNUL:       "the path has an encoded NUL (%00)",
	EncodedSlash:     "the path has an encoded slash (%2F)",
	PathParameters:   `the path has a parameter in a segment (";")`,
	HiddenDots:       `the path has a dot segment or nothing in front of ";", or a dot segment beside "%2F"`,
}

func (e PathError) Error() string { return pathErrors[e] }

// PathOptions admit what is refused otherwise.
type PathOptions struct {
	KeepEncodedSlash bool // %2F stays as it is, as part of a segment
	KeepParameters   bool // ";" stays as it is, as part of a segment
}

// Check applies o to a path that is canonical under wider options: routes
// differ in what they admit, and the route is known only after a canonical
// path. The error is EncodedSlash or PathParameters.
func (o PathOptions) Check(path []byte) error {
	for i, c := range path {
		switch {
		case c == ';' && !o.KeepParameters:
			return PathParameters
		case c == '%' && !o.KeepEncodedSlash && i+2 < len(path) && path[i+1] == '2' && path[i+2] == 'F':
			return EncodedSlash
		}
	}
	return nil
}

// HasDotSegment reports whether a path that was put together from a template
// and parameters has a segment "." or "..": values without one can join to one
// ("/a{x}" for /a.., put into "/b/{x}"), and whoever resolves it then leaves the
// place that the template meant. The parts are taken to be canonical.
func HasDotSegment(path []byte) bool {
	for i := 0; i+1 < len(path); i++ {
		if path[i] == '/' && path[i+1] == '.' && dotSegment(path, i+1) {
			return true
		}
	}
	return false
}

// Canonicalize returns the canonical form of raw, the path of a request as
// received, without a query: raw itself when that is canonical already, else
// memory of dst (overwritten from its start, grown when its capacity is too
// small; 3*len(raw)+1 bytes always suffice). dst must not overlap raw. An empty
// raw is "/" (RFC 3986 §6.2.3). The error is a PathError.
func Canonicalize(dst, raw []byte, o PathOptions) ([]byte, error) {
	if len(raw) == 0 {
		return append(dst[:0], '/'), nil
	}
	if raw[0] != '/' {
		return nil, NotAbsolute
	}
	if canonicalAlready(raw, o) {
		return raw, nil
	}
	return rewrite(dst[:0], raw, o)
}

// class says what becomes of a raw byte of a path.
type class uint8

const (
	refused class = iota
	plain         // stays
	encoded       // is percent-encoded
	slash
	percent
	semicolon
)

var classes = func() (c [256]class) {
	for b := range c {
		if isUnreserved(byte(b)) {
			c[b] = plain
		}
	}
	for _, b := range []byte("!$&'()*+,=:@") {
		c[b] = plain
	}
	for _, b := range []byte("|[]^\"<>`{}") {
		c[b] = encoded
	}
	c['/'], c['%'], c[';'] = slash, percent, semicolon
	return c
}()

// special is 1 for the bytes that are neither plain nor a slash.
var special = func() (s [256]byte) {
	for b, c := range classes {
		if c != plain && c != slash {
			s[b] = 1
		}
	}
	return s
}()

func classError(c byte) PathError {
	if c == '\\' {
		return Backslash
	}
	return BadByte
}

// canonicalAlready reports whether raw, which begins with "/", is canonical. It
// says false for what is refused, too.
func canonicalAlready(raw []byte, o PathOptions) bool {
	closer := false // whether there is something that hidesDots looks at
	for i := plainPrefix(raw); i < len(raw); i++ {
		switch classes[raw[i]] {
		case plain:
		case slash:
			if i+1 < len(raw) && (raw[i+1] == '/' || raw[i+1] == '.' && dotSegment(raw, i+1)) {
				return false
			}
		case percent:
			c, ok := unhexUpper(raw, i)
			if !ok || isUnreserved(c) || c == '\\' || c == 0 || c == '/' && !o.KeepEncodedSlash {
				return false
			}
			closer = closer || c == '/'
			i += 2
		case semicolon:
			if !o.KeepParameters {
				return false
			}
			closer = true
		default:
			return false
		}
	}
	if closer {
		for i := 1; i <= len(raw); {
			end := segmentEnd(raw, i)
			if hidesDots(raw[i:end]) {
				return false
			}
			i = end + 1
		}
	}
	return true
}

// plainPrefix returns how far raw is surely canonical, looking at eight bytes at
// a time: no byte but plain ones and slashes, and no slash with a slash or a dot
// behind it.
func plainPrefix(raw []byte) int {
	before := uint64(0) // 0x80 when the byte in front of the word is a slash
	i := 0
	for ; len(raw)-i >= 8; i += 8 {
		b := raw[i : i+8 : i+8]
		if special[b[0]]|special[b[1]]|special[b[2]]|special[b[3]]|special[b[4]]|special[b[5]]|special[b[6]]|special[b[7]] != 0 {
			break
		}
		w := binary.LittleEndian.Uint64(b)
		slash := zeroBytes(w ^ slashes)
		if (slash<<8|before)&(slash|zeroBytes(w^dots)) != 0 {
			break
		}
		before = slash >> 56
	}
	if before != 0 {
		i-- // what follows that slash has not been looked at
	}
	return i
}

// zeroBytes marks the bytes of w that are 0 with 0x80, exactly.
func zeroBytes(w uint64) uint64 {
	return ^((w&^highs + ^uint64(highs)) | w) & highs
}

// dotSegment reports whether the segment that begins at raw[i], a dot, is "."
// or "..".
func dotSegment(raw []byte, i int) bool {
	i++
	if i < len(raw) && raw[i] == '.' {
		i++
	}
	return i == len(raw) || raw[i] == '/'
}

func rewrite(out, raw []byte, o PathOptions) ([]byte, error) {
	for i := 0; i < len(raw); {
		// Here raw[i] is "/", and out is empty or canonical without a slash at its
		// end, so the previous segment is what stands behind its last slash.
		start := len(out)
		out = append(out, '/')
		next, seg, err := rewriteSegment(out, raw, i+1, o)
		if err != nil {
			return nil, err
		}
		i, out = next, seg
		last := i == len(raw)
		switch string(out[start+1:]) {
		case "", ".":
			out = out[:start]
		case "..":
			out = out[:start]
			for start > 0 && out[start-1] != '/' {
				start--
			}
			out = out[:max(start-1, 0)]
		default:
			continue
		}
		if last {
			out = append(out, '/')
		}
	}
	return out, nil
}

// rewriteSegment appends the canonical form of the segment that begins at
// raw[i], and returns where it ends.
func rewriteSegment(out, raw []byte, i int, o PathOptions) (int, []byte, error) {
	start, closer := len(out), false
	for ; i < len(raw) && raw[i] != '/'; i++ {
		c := raw[i]
		switch classes[c] {
		case plain:
			out = append(out, c)
		case encoded:
			out = appendPercent(out, c)
		case semicolon:
			if !o.KeepParameters {
				return i, nil, PathParameters
			}
			closer = true
			out = append(out, c)
		case percent:
			d, ok := unhex(raw, i)
			switch {
			case !ok:
				return i, nil, BadPercent
			case d == 0:
				return i, nil, EncodedNUL
			case d == '\\':
				return i, nil, EncodedBackslash
			case d == '/' && !o.KeepEncodedSlash:
				return i, nil, EncodedSlash
			case isUnreserved(d):
				out = append(out, d)
			default:
				closer = closer || d == '/'
				out = appendPercent(out, d)
			}
			i += 2
		default:
			return i, nil, classError(c)
		}
	}
	if closer && hidesDots(out[start:]) {
		return i, nil, HiddenDots
	}
	return i, out, nil
}

// hidesDots reports whether a server that cuts ";" and what follows from a
// segment, or that takes %2F for a slash, would find a dot segment in seg, or
// nothing in front of ";". Empty pieces beside %2F are no danger: they climb
// nowhere. seg has no encoding in it but canonical ones.
func hidesDots(seg []byte) bool {
	if len(seg) > 0 && seg[0] == ';' {
		return true
	}
	for piece := 0; piece <= len(seg); {
		end, next := len(seg), len(seg)+1
		for i := piece; i < len(seg); i++ {
			if seg[i] == '%' && seg[i+1] == '2' && seg[i+2] == 'F' {
				end, next = i, i+3
				break
			}
		}
		name := seg[piece:end]
		for i, c := range name {
			if c == ';' {
				name = name[:i]
				break
			}
		}
		if string(name) == "." || string(name) == ".." {
			return true
		}
		piece = next
	}
	return false
}

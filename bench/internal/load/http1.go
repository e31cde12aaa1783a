//go:build linux

package load

import (
	"bytes"
	"errors"
)

// Why an answer could not be read.
var (
	errHead   = errors.New("response head cannot be read")
	errFrames = errors.New("response body has no length and is not chunked")
	errChunk  = errors.New("bad chunk in the response")
	errExtra  = errors.New("bytes that belong to no response")
	errLong   = errors.New("response head is longer than 64 KiB")
)

// Longest response head, bytes.
const maxHead = 64 << 10

// reader reads HTTP/1.1 responses from pieces as they come. Of a body it keeps
// nothing but its length.
type reader struct {
	partial []byte // beginning of a head whose end has not come
	in      readState
	left    int64 // bytes of the body or the chunk that are to come
	line    int   // bytes seen of the current trailer line

	status  int
	length  int64
	closing bool // the server will close after this response
}

type readState uint8

const (
	inHead readState = iota
	inBody
	inChunkSize // partial holds the size line so far
	inChunk
	inChunkEnd // the CRLF after a chunk; left counts its bytes
	inTrailer
)

// next consumes bytes of p. done tells that a whole response has been read; its
// facts are in status, length and closing until the next call.
func (r *reader) next(p []byte, noBody bool) (n int, done bool, err error) {
	for n < len(p) {
		q := p[n:]
		switch r.in {
		case inHead:
			used, whole, err := r.head(q)
			n += used
			if err != nil || !whole {
				return n, false, err
			}
			switch {
			case r.status < 200: // an interim response
				r.in = inHead
			case noBody || r.status == 204 || r.status == 304:
				r.in = inHead
				return n, true, nil
			case r.in == inBody && r.left == 0:
				r.in = inHead
				return n, true, nil
			}
		case inBody:
			used := min(int64(len(q)), r.left)
			n += int(used)
			r.length += used
			if r.left -= used; r.left == 0 {
				r.in = inHead
				return n, true, nil
			}
		default:
			used, done, err := r.chunked(q)
			n += used
			if done || err != nil {
				return n, done, err
			}
		}
	}
	return n, false, nil
}

var headEnd = []byte("\r\n\r\n")

// head reads to the end of a head, which may have begun in an earlier piece.
func (r *reader) head(p []byte) (used int, whole bool, err error) {
	if len(r.partial) == 0 {
		end := bytes.Index(p, headEnd)
		if end >= 0 {
			return end + 4, true, r.parse(p[:end+2])
		}
		r.partial = append(r.partial, p...)
		return len(p), false, nil
	}
	before := len(r.partial)
	if before+len(p) > maxHead {
		p = p[:max(0, maxHead-before)]
	}
	r.partial = append(r.partial, p...)
	end := bytes.Index(r.partial[max(0, before-3):], headEnd)
	if end < 0 {
		if len(r.partial) >= maxHead {
			return len(p), false, errLong
		}
		return len(p), false, nil
	}
	end += max(0, before-3)
	err = r.parse(r.partial[:end+2])
	r.partial = r.partial[:0]
	return end + 4 - before, true, err
}

// parse takes the facts out of a head that ends with CRLF.
func (r *reader) parse(head []byte) error {
	r.length, r.closing, r.left = 0, false, -1
	if len(head) < 15 || string(head[:7]) != "HTTP/1." {
		return errHead
	}
	status, ok := number(head[9:12])
	if !ok || head[8] != ' ' {
		return errHead
	}
	r.status = int(status)
	r.closing = head[7] == '0'
	chunked := false
	rest := head[bytes.IndexByte(head, '\n')+1:]
	for len(rest) > 0 {
		end := bytes.IndexByte(rest, '\n')
		line := rest[:end]
		rest = rest[end+1:]
		// Only names of 10, 14 and 17 letters matter, and few fields have one.
		switch {
		case len(line) > 15 && line[14] == ':' && foldEqual(line[:14], "content-length"):
			n, ok := number(bytes.TrimSpace(line[15:]))
			if !ok {
				return errHead
			}
			r.left = n
		case len(line) > 18 && line[17] == ':' && foldEqual(line[:17], "transfer-encoding"):
			chunked = foldEqual(bytes.TrimSpace(line[18:]), "chunked")
		case len(line) > 11 && line[10] == ':' && foldEqual(line[:10], "connection"):
			r.closing = r.closing || foldEqual(bytes.TrimSpace(line[11:]), "close")
		}
	}
	switch {
	case chunked:
		r.in, r.partial = inChunkSize, r.partial[:0]
	case r.left >= 0:
		r.in = inBody
	case r.status >= 200 && r.status != 204 && r.status != 304:
		return errFrames
	}
	return nil
}

// chunked reads a piece of a chunked body.
func (r *reader) chunked(p []byte) (used int, done bool, err error) {
	switch r.in {
	case inChunkSize:
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			r.partial = append(r.partial, p...)
			if len(r.partial) > 256 {
				return len(p), false, errChunk
			}
			return len(p), false, nil
		}
		r.partial = append(r.partial, p[:end]...)
		size, ok := hexadecimal(r.partial)
		r.partial = r.partial[:0]
		if !ok {
			return end + 1, false, errChunk
		}
		r.in, r.left = inChunk, size
		if size == 0 {
			r.in, r.line = inTrailer, 0
		}
		return end + 1, false, nil
	case inChunk:
		n := min(int64(len(p)), r.left)
		r.length += n
		if r.left -= n; r.left == 0 {
			r.in, r.left = inChunkEnd, 2
		}
		return int(n), false, nil
	case inChunkEnd:
		if p[0] != "\n\r"[r.left-1] {
			return 1, false, errChunk
		}
		if r.left--; r.left == 0 {
			r.in = inChunkSize
		}
		return 1, false, nil
	}
	// inTrailer: up to an empty line.
	switch p[0] {
	case '\n':
		if r.line == 0 {
			r.in = inHead
			return 1, true, nil
		}
		r.line = 0
	case '\r':
	default:
		r.line++
	}
	return 1, false, nil
}

// foldEqual compares with a lower-case ASCII word.
func foldEqual(p []byte, word string) bool {
	if len(p) != len(word) {
		return false
	}
	for i := range p {
		if p[i]|0x20 != word[i] {
			return false
		}
	}
	return true
}

func number(p []byte) (int64, bool) {
	if len(p) == 0 || len(p) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// hexadecimal reads a chunk size, which an extension or a CR may follow.
func hexadecimal(p []byte) (int64, bool) {
	var n int64
	for i, c := range p {
		var d byte
		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = (c | 0x20) - 'a' + 10
		default:
			return n, i > 0 && (c == '\r' || c == ';' || c == ' ')
		}
		if n > 1<<50 {
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	return n, len(p) > 0
}

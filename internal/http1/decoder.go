package http1

import (
	"bytes"
	"io"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Decoder takes the framing off a body. The zero value has no body. It keeps no
// bytes: what it cannot use yet stays with the caller, who comes again with more
// behind it.
type Decoder struct {
	kind    FrameKind
	state   chunkState
	side    exchange.Side
	left    int64 // bytes of the body, or of the chunk, still to come
	excess  int64 // bytes of framing beyond what a body of small chunks has
	scanned int   // bytes at the front that were searched for the end of a line, or of the trailer
	lim     Limits
	trailer *exchange.Header
	ended   bool
}

// chunkState is what comes next in a chunked body.
type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CR LF behind the data
	chunkTrailer
)

// maxChunkLine bounds a line with a chunk's size: 16 hexadecimal digits, and
// extensions, which nobody needs and which are not passed on.
const maxChunkLine = 256

// A body of tiny chunks with long extensions would cost hundreds of bytes on the
// wire for one that a limit counts. Each chunk may have chunkOverhead bytes of
// framing, and as many again as twice its data; what goes beyond adds up to at
// most maxExcess.
const (
	chunkOverhead = 16
	maxExcess     = 16 << 10
)

// maxTrailer bounds a trailer section, whatever the limit of a head.
const maxTrailer = 8 << 10

// Reset begins a body. side says whose message it is; the fields of a trailer go
// to trailer, as spans of the bytes fed last; nil drops them.
func (d *Decoder) Reset(f Framing, side exchange.Side, lim Limits, trailer *exchange.Header) {
	*d = Decoder{kind: f.Kind, side: side, lim: lim, trailer: trailer, left: f.Length}
	d.ended = f.Kind == ByLength && f.Length == 0
}

// Next takes n bytes from the front of b and returns the body bytes among them,
// a span of b. err is io.EOF when the body has ended (piece may hold its last
// bytes), ErrIncomplete when nothing more can be done without more bytes (n bytes
// are taken all the same), an *exchange.Error when the framing is broken.
func (d *Decoder) Next(b []byte) (piece []byte, n int, err error) {
	switch {
	case d.Ended():
		return nil, 0, io.EOF
	case d.kind == ByLength:
		return d.byLength(b)
	case d.kind == Chunked:
		return d.chunked(b)
	case len(b) == 0:
		return nil, 0, ErrIncomplete
	}
	return b, len(b), nil
}

// Ended reports whether the body has ended.
func (d *Decoder) Ended() bool { return d.ended || d.kind == NoBody }

// Finish tells that the connection has ended: nil when that ends the body too,
// otherwise an *exchange.Error with io.ErrUnexpectedEOF as its cause.
func (d *Decoder) Finish() error {
	if d.Ended() || d.kind == UntilClose || d.kind == Upgraded {
		d.ended = true
		return nil
	}
	e := d.broken("The connection ended before the body did.")
	e.Cause = io.ErrUnexpectedEOF
	if d.side == exchange.Upstream {
		e.ProxyError = "http_response_incomplete"
	}
	return e
}

func (d *Decoder) byLength(b []byte) ([]byte, int, error) {
	if len(b) == 0 {
		return nil, 0, ErrIncomplete
	}
	if int64(len(b)) < d.left {
		d.left -= int64(len(b))
		return b, len(b), nil
	}
	n := int(d.left)
	d.left, d.ended = 0, true
	return b[:n], n, io.EOF
}

// chunked yields one chunk, or a part of one, at a time. When the last chunk
// follows at once, the end comes with the data.
func (d *Decoder) chunked(b []byte) (piece []byte, n int, err error) {
	for {
		switch d.state {
		case chunkSize:
			took, err := d.size(b[n:])
			n += took
			if err != nil {
				return piece, n, pieceFirst(piece, err)
			}
		case chunkData:
			if piece != nil || n == len(b) {
				return piece, n, incompleteUnless(piece)
			}
			take := min(int64(len(b)-n), d.left)
			piece = b[n : n+int(take)]
			n += int(take)
			d.left -= take
			if d.left > 0 {
				return piece, n, nil
			}
			d.state = chunkEnd
		case chunkEnd:
			if len(b)-n < 2 {
				if len(b)-n == 1 && b[n] != '\r' {
					return piece, n, d.broken("A chunk does not end in CR LF.")
				}
				return piece, n, incompleteUnless(piece)
			}
			if b[n] != '\r' || b[n+1] != '\n' {
				return piece, n, d.broken("A chunk does not end in CR LF.")
			}
			n += 2
			d.state = chunkSize
		case chunkTrailer:
			took, err := d.readTrailer(b[n:])
			n += took
			if err == nil {
				d.ended = true
				return piece, n, io.EOF
			}
			return piece, n, pieceFirst(piece, err)
		}
	}
}

// incompleteUnless is nil when there is a piece to give first.
func incompleteUnless(piece []byte) error {
	if piece != nil {
		return nil
	}
	return ErrIncomplete
}

func pieceFirst(piece []byte, err error) error {
	if piece != nil && err == ErrIncomplete {
		return nil
	}
	return err
}

// size reads a chunk's size line: 1*HEXDIG, extensions, CR LF.
func (d *Decoder) size(b []byte) (int, error) {
	nl := bytes.IndexByte(b[min(d.scanned, len(b)):], '\n')
	if nl < 0 {
		if len(b) > maxChunkLine {
			return 0, d.broken("The size line of a chunk is too long.")
		}
		if len(b) > 0 && !isHex(b[0]) {
			return 0, d.broken("The size of a chunk is not hexadecimal.")
		}
		d.scanned = len(b)
		return 0, ErrIncomplete
	}
	nl += d.scanned
	d.scanned = 0
	if nl < 1 || nl > maxChunkLine || b[nl-1] != '\r' {
		return 0, d.broken("The size line of a chunk is too long, or does not end in CR LF.")
	}
	line := b[:nl-1]
	digits := 0
	var size int64
	for digits < len(line) && isHex(line[digits]) {
		size = size<<4 | int64(hexValue(line[digits]))
		digits++
	}
	if digits == 0 || digits > 15 {
		return 0, d.broken("The size of a chunk is not a hexadecimal number, or too large.")
	}
	if !extensions(line[digits:]) {
		return 0, d.broken("A chunk has something behind its size that is no extension.")
	}
	d.left, d.state = size, chunkData
	if size == 0 {
		d.state = chunkTrailer
	}
	d.excess = max(0, d.excess+int64(nl+3)-chunkOverhead-2*size)
	if d.excess > maxExcess {
		return nl + 1, d.broken("The body is made of more framing than data.")
	}
	return nl + 1, nil
}

// extensions checks *( ";" token [ "=" ( token / quoted-string ) ] ), without
// the white space that RFC 9112 §7.1.1 calls bad. They are read only to be sure
// where the line ends, and dropped.
func extensions(b []byte) bool {
	for len(b) > 0 {
		if b[0] != ';' {
			return false
		}
		n := token(b[1:])
		if n == 0 {
			return false
		}
		b = b[1+n:]
		if len(b) == 0 || b[0] != '=' {
			continue
		}
		b = b[1:]
		if n = token(b); n == 0 {
			n = quoted(b)
		}
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// token returns how many bytes at the front are of a token.
func token(b []byte) int {
	n := 0
	for n < len(b) && tokenTable[b[n]] {
		n++
	}
	return n
}

// quoted returns the length of the quoted-string at the front, 0 without one
// (RFC 9110 §5.6.4).
func quoted(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '"':
			return i + 1
		case b[i] == '\\':
			i++
		}
		if i >= len(b) || !valueTable[b[i]] {
			return 0
		}
	}
	return 0
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func hexValue(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// SetTrailer has the fields of a trailer that is still to come go to trailer.
func (d *Decoder) SetTrailer(trailer *exchange.Header) { d.trailer = trailer }

// readTrailer reads the trailer section when it is there whole. Fields that
// frame, route, authenticate or control are not taken from a trailer (RFC 9110
// §6.5.1).
func (d *Decoder) readTrailer(b []byte) (int, error) {
	if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		return 2, nil
	}
	end, resume := HeadEnd(b, d.scanned)
	limit := min(maxTrailer, max(d.lim.Head, 256))
	if end == 0 && len(b) <= limit {
		d.scanned = resume
		return 0, ErrIncomplete
	}
	if end == 0 || end > limit {
		e := d.broken("The trailer is too large.")
		if d.side == exchange.Client {
			e.Code = exchange.HeadersTooLarge
		}
		return 0, e
	}
	h := head{side: d.side}
	to := d.trailer
	if to == nil {
		to = new(exchange.Header)
	}
	n, err := h.readFields(b[:end], d.lim.Fields, to)
	if err != nil {
		return 0, err
	}
	if n != end {
		return 0, d.broken("The trailer has an empty line that does not end in CR LF.")
	}
	to.DelFunc(func(f *exchange.Field) bool { return f.Hop || headOnly[f.ID] })
	return end, nil
}

// headOnly are fields that a trailer may not set, beside the hop-by-hop ones.
var headOnly = [256]bool{
	exchange.Trailer: true,
	exchange.Host:    true, exchange.Authorization: true, exchange.Cookie: true, exchange.SetCookie: true,
	exchange.CacheControl: true, exchange.Age: true, exchange.Expires: true, exchange.Date: true, exchange.Location: true,
	exchange.RetryAfter: true, exchange.Vary: true, exchange.Range: true, exchange.ContentType: true,
	exchange.ContentEncoding: true, exchange.IfMatch: true, exchange.IfNoneMatch: true, exchange.IfModifiedSince: true,
	exchange.XAPIKey: true, exchange.XForwardedFor: true, exchange.XForwardedHost: true, exchange.XForwardedProto: true,
	exchange.XForwardedPort: true, exchange.XForwardedPrefix: true, exchange.Forwarded: true, exchange.XRealIP: true,
	exchange.ClientCert: true, exchange.XRequestID: true, exchange.Via: true, exchange.Origin: true,
	exchange.Traceparent: true, exchange.Tracestate: true,
}

func (d *Decoder) broken(detail string) *exchange.Error { return malformed(d.side, detail) }

package http1

import (
	"errors"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// ErrIncomplete says that more bytes are needed.
var ErrIncomplete = errors.New("http1: incomplete")

// Limits bound a message head.
type Limits struct {
	Head   int // bytes of start line and fields together
	Fields int // number of fields
}

// FrameKind is how the end of a message's body is found.
type FrameKind uint8

// The kinds.
const (
	NoBody     FrameKind = iota
	ByLength             // Content-Length
	Chunked              // Transfer-Encoding: chunked
	UntilClose           // a response that ends with the connection
	Upgraded             // 101: the connection is no longer HTTP
)

// Framing is the decision on a message's body and connection (RFC 9112 §6, §9.3).
type Framing struct {
	Kind      FrameKind
	Length    int64 // of ByLength
	KeepAlive bool  // the connection may carry another message behind this one
}

// HeadEnd looks for the empty line that ends a head in b. from is where an
// earlier call stopped, 0 at first. It returns the length of the head, or 0 and
// where to go on when more bytes have come.
func HeadEnd(b []byte, from int) (end, resume int) { panic("to be written") }

// ParseRequest reads the request head that b begins with. It returns the bytes
// it took, or ErrIncomplete, or an *exchange.Error with the reply. Spans in r
// alias b.
func ParseRequest(b []byte, lim Limits, r *exchange.Request) (n int, f Framing, err error) {
	panic("to be written")
}

// ParseResponse reads a response head; method is the request's.
func ParseResponse(b []byte, lim Limits, method string, r *exchange.Response) (n int, f Framing, err error) {
	panic("to be written")
}

// Decoder takes the framing off a body. The zero value has no body.
type Decoder struct{}

// Reset begins a body. The fields of a trailer go to trailer.
func (d *Decoder) Reset(f Framing, lim Limits, trailer *exchange.Header) { panic("to be written") }

// Next takes n bytes from the front of b and returns the body bytes among them,
// a span of b. err is io.EOF when the body has ended (piece may hold its last
// bytes), ErrIncomplete when nothing can be done without more bytes (n bytes
// are taken all the same), an *exchange.Error when the framing is broken.
func (d *Decoder) Next(b []byte) (piece []byte, n int, err error) { panic("to be written") }

// Finish tells that the connection has ended: nil when that ends the body.
func (d *Decoder) Finish() error { panic("to be written") }

// AppendRequestHead, AppendField and so on write messages: see below.

// AppendRequestLine writes "METHOD target HTTP/1.1\r\n".
func AppendRequestLine(dst []byte, method string, target []byte) []byte { panic("to be written") }

// AppendField writes one field line.
func AppendField(dst, name, value []byte) []byte { panic("to be written") }

// AppendHeader writes the fields of h that are not hop-by-hop.
func AppendHeader(dst []byte, h *exchange.Header) []byte { panic("to be written") }

// AppendStatusLine writes "HTTP/1.1 200 OK\r\n".
func AppendStatusLine(dst []byte, status int) []byte { panic("to be written") }

// AppendChunkHead writes the size line of a chunk of n bytes; the data and CRLF follow.
func AppendChunkHead(dst []byte, n int) []byte { panic("to be written") }

// AppendLastChunk writes the last chunk and the trailer.
func AppendLastChunk(dst []byte, trailer *exchange.Header) []byte { panic("to be written") }

// ResponseFraming decides how r goes to a client that asked with method over
// proto: NoBody, ByLength, Chunked, or UntilClose (HTTP/1.0).
func ResponseFraming(proto exchange.Proto, method string, r *exchange.Response) Framing {
	panic("to be written")
}

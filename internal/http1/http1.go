// Package http1 is the HTTP/1.1 wire format (RFC 9112), sans-IO: it is fed bytes
// and yields heads, body pieces and ends, and it writes the same. It knows no
// socket, so one machine serves the client side, the upstream side and every
// driver, and can be fuzzed without a network.
//
// # Strictness
//
// Two parsers that read one message in two ways are a hole. Whatever could be
// read in two ways is refused, though the RFC would allow to repair it: a message
// with both Content-Length and Transfer-Encoding, a repeated or listed length,
// a bare CR or LF, a folded line, white space around a name, a control byte, a
// second Host. A request error closes the connection, since nobody knows where
// the next message begins.
//
// # Memory
//
// Names and values are spans of the bytes that were fed, never copied. Nothing
// here allocates for a message that is in order, but for a method that nobody
// knows and for a host in capitals or in brackets, which is rare.
package http1

import (
	"bytes"
	"errors"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// ErrIncomplete says that more bytes are needed.
var ErrIncomplete = errors.New("http1: incomplete")

// Limits bound a message head, and a trailer or the overhead of one chunk.
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

func (k FrameKind) String() string {
	return [...]string{"none", "length", "chunked", "until close", "upgraded"}[k]
}

// Framing is the decision on a message's body and connection (RFC 9112 §6, §9.3).
type Framing struct {
	Kind      FrameKind
	Length    int64 // of ByLength
	KeepAlive bool  // the connection may carry another message behind this one
}

// HeadEnd looks for the empty line that ends a head in b. from is where an
// earlier call stopped, 0 at first. It returns the length of the head with the
// empty line, or 0 and where to go on when more bytes have come. A line that ends
// in a bare LF counts: the parser will refuse it, rather than wait for ever.
func HeadEnd(b []byte, from int) (end, resume int) {
	for at := from; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, max(from, len(b)-2)
		}
		at += i + 1
		rest := b[at:]
		switch {
		case len(rest) >= 1 && rest[0] == '\n':
			return at + 1, 0
		case len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n':
			return at + 2, 0
		case len(rest) < 2:
			return 0, max(from, at-1)
		}
	}
}

// tokenTable holds 1 for the bytes of a token (RFC 9110 §5.6.2).
var tokenTable = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// IsToken reports whether b is a token: one byte or more, all of them tchar.
func IsToken(b []byte) bool {
	for _, c := range b {
		if !tokenTable[c] {
			return false
		}
	}
	return len(b) > 0
}

// valueTable holds true for the bytes of a field value: visible characters,
// space, tab, and obs-text (RFC 9110 §5.5).
var valueTable = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != 0x7f || c == '\t'
	}
	return t
}()

// IsValue reports whether b can be written as a field value.
func IsValue(b []byte) bool {
	for _, c := range b {
		if !valueTable[c] {
			return false
		}
	}
	return true
}

// malformed is a message that is refused. side says whose.
func malformed(side exchange.Side, detail string) *exchange.Error {
	if side == exchange.Upstream {
		return &exchange.Error{
			Code: exchange.BadUpstreamResponse, Side: side, Close: true, ProxyError: "http_protocol_error",
			Cause: errors.New("http1: " + detail),
		}
	}
	return &exchange.Error{Code: exchange.BadRequest, Side: side, Detail: detail, Close: true}
}

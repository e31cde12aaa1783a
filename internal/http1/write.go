package http1

import (
	"net/http"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// AppendRequestLine writes "METHOD target HTTP/1.1\r\n". target is written as it
// is; it comes from ParseRequest or from a canonical path.
func AppendRequestLine(dst []byte, method string, target []byte) []byte {
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, target...)
	return append(dst, " HTTP/1.1\r\n"...)
}

// statusLines are written whole for the statuses with a registered reason.
var statusLines = func() (t [600][]byte) {
	for s := range t {
		if reason := http.StatusText(s); reason != "" {
			t[s] = []byte("HTTP/1.1 " + strconv.Itoa(s) + " " + reason + "\r\n")
		}
	}
	return t
}()

// AppendStatusLine writes "HTTP/1.1 200 OK\r\n". A status without a registered
// reason has none, but keeps the space (RFC 9112 §4). status is 100 to 999.
func AppendStatusLine(dst []byte, status int) []byte {
	if status < len(statusLines) && statusLines[status] != nil {
		return append(dst, statusLines[status]...)
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	return append(dst, " \r\n"...)
}

// AppendField writes one field line. The parsers let no byte through that could
// end a line, and neither does this: a value that has one is left out with its
// name, since a missing field is safer than a forged one.
func AppendField(dst, name, value []byte) []byte {
	if skipValue(value, 0) != len(value) {
		return dst
	}
	return appendField(dst, name, value)
}

func appendField(dst, name, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}

// AppendHeader writes the fields of h that are not hop-by-hop.
func AppendHeader(dst []byte, h *exchange.Header) []byte {
	for i := range h.Len() {
		if f := h.At(i); !f.Hop {
			dst = AppendField(dst, f.Name, f.Value)
		}
	}
	return dst
}

// Skip is a set of known names.
type Skip uint64

// SkipOf makes a set. Other cannot be in it.
func SkipOf(ids ...exchange.HeaderID) Skip {
	var s Skip
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// AppendHeaderExcept writes the fields of h that are not hop-by-hop and not in
// skip.
func AppendHeaderExcept(dst []byte, h *exchange.Header, skip Skip) []byte {
	for i := range h.Len() {
		if f := h.At(i); !f.Hop && (f.ID == exchange.Other || skip&(1<<f.ID) == 0) {
			dst = AppendField(dst, f.Name, f.Value)
		}
	}
	return dst
}

// AppendFraming writes the field that says how the body ends: Content-Length,
// Transfer-Encoding, or none.
func AppendFraming(dst []byte, f Framing) []byte {
	switch f.Kind {
	case ByLength:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, f.Length, 10)
		dst = append(dst, '\r', '\n')
	case Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	return dst
}

// AppendChunkHead writes the size line of a chunk of n > 0 bytes; the data and
// CR LF follow.
func AppendChunkHead(dst []byte, n int) []byte {
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, '\r', '\n')
}

// AppendLastChunk writes the last chunk and the trailer, which may be nil.
func AppendLastChunk(dst []byte, trailer *exchange.Header) []byte {
	dst = append(dst, "0\r\n"...)
	if trailer != nil {
		dst = AppendHeader(dst, trailer)
	}
	return append(dst, '\r', '\n')
}

// RequestFraming decides how the body of r goes to an upstream: by its length
// when that is known, chunked otherwise. A request without a body has no length
// but for methods that usually have one (RFC 9110 §8.6).
func RequestFraming(r *exchange.Request) Framing {
	switch {
	case r.Body == nil || r.ContentLength == 0:
		switch r.Method {
		case "POST", "PUT", "PATCH":
			return Framing{Kind: ByLength, KeepAlive: true}
		}
		return Framing{KeepAlive: true}
	case r.ContentLength > 0:
		return Framing{Kind: ByLength, Length: r.ContentLength, KeepAlive: true}
	}
	return Framing{Kind: Chunked, KeepAlive: true}
}

// ResponseFraming decides how r goes to a client that asked with method over
// proto. NoBody means that nothing follows the head: a length that the head may
// carry all the same (HEAD, 304) is in Length, Unknown without one.
func ResponseFraming(proto exchange.Proto, method string, r *exchange.Response) Framing {
	switch {
	case r.Status == 101:
		return Framing{Kind: Upgraded}
	case r.Status < 200 || r.Status == 204:
		return Framing{Kind: NoBody, Length: exchange.Unknown, KeepAlive: true}
	case method == "HEAD" || r.Status == 304:
		return Framing{Kind: NoBody, Length: r.ContentLength, KeepAlive: true}
	case r.ContentLength >= 0:
		return Framing{Kind: ByLength, Length: r.ContentLength, KeepAlive: true}
	case proto == exchange.HTTP10:
		return Framing{Kind: UntilClose}
	}
	return Framing{Kind: Chunked, KeepAlive: true}
}

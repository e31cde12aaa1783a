package gateway

import (
	"strconv"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Every refusal and failure of the gateway's own leaves as a problem document
// (RFC 9457). It is written here and nowhere else, without reflection, since a
// flood of refusals must cost less than what it refuses.

const problemType = "application/problem+json"

// problemBase is followed by the code; that page describes each one.
const problemBase = "https://github.com/sluice-gateway/sluice/blob/main/docs/problems.md#"

// refuse makes the response out of an error.
func refuse(x *exchange.Exchange, e *exchange.Error) {
	x.Err = e
	status := e.HTTPStatus()
	x.Answer(status, problemType, appendProblem(x.Scratch(problemRoom(e))[:0], e, status, x.ID))
	h := &x.Response.Header
	for _, f := range e.Header {
		h.Append(f)
	}
	h.AddID(exchange.CacheControl, noStore)
	if e.ProxyError != "" {
		h.Append(exchange.Field{Name: proxyStatus, Value: x.CopyString("sluice; error=" + e.ProxyError)})
	}
	x.Response.Close = x.Response.Close || e.Close
}

var (
	noStore     = []byte("no-store")
	proxyStatus = []byte("Proxy-Status")
)

// problemRoom is a guess at the size of the document, to grow at most once.
func problemRoom(e *exchange.Error) int {
	n := 320 + len(e.Detail)
	for i := range e.Fields {
		f := &e.Fields[i]
		n += 64 + len(f.Pointer) + len(f.Message)
	}
	return n
}

func appendProblem(b []byte, e *exchange.Error, status int, id []byte) []byte {
	code := e.Code.String()
	b = append(b, `{"type":"`...)
	b = append(b, problemBase...)
	b = append(b, code...)
	b = append(b, `","title":`...)
	b = appendJSONString(b, e.Code.Title())
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, `,"detail":`...)
	b = appendJSONString(b, detail(e))
	b = append(b, `,"instance":`...)
	b = appendJSONString(b, string(id))
	b = append(b, `,"code":"`...)
	b = append(b, code...)
	b = append(b, '"')
	if len(e.Fields) > 0 {
		b = append(b, `,"errors":[`...)
		for i, f := range e.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"in":`...)
			b = appendJSONString(b, f.In)
			b = append(b, `,"pointer":`...)
			b = appendJSONString(b, f.Pointer)
			b = append(b, `,"message":`...)
			b = appendJSONString(b, f.Message)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, "}\n"...)
}

// detail is what the client reads; an error without one of its own says no
// more than its title, so that nothing inside leaks.
func detail(e *exchange.Error) string {
	if e.Detail != "" {
		return e.Detail
	}
	return e.Code.Title() + "."
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string (RFC 8259 §7). What is not UTF-8
// becomes U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < 0x20 || c == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}

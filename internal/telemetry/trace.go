package telemetry

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// TraceparentLen is the length of a traceparent value of version 00.
const TraceparentLen = 55

// sampled is the only trace flag of version 00; others are not passed on
// (Trace Context §3.2.2.5).
const sampled = 0x01

// ParseTrace reads the value of traceparent (W3C Trace Context §3.2.2): lower
// case hexadecimal only, no zero ids, version ff refused. A version above 00 may
// say more behind another dash, which is ignored. The returned Trace continues
// the caller's: its Parent is the caller's span, its SpanID is new.
func ParseTrace(v []byte) (exchange.Trace, bool) {
	var t exchange.Trace
	if len(v) < TraceparentLen || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return t, false
	}
	var version, flags [1]byte
	ok := decodeHex(version[:], v[0:2]) && decodeHex(t.TraceID[:], v[3:35]) &&
		decodeHex(t.Parent[:], v[36:52]) && decodeHex(flags[:], v[53:55])
	switch {
	case !ok, version[0] == 0xff, t.TraceID == [16]byte{}, t.Parent == [8]byte{}:
		return exchange.Trace{}, false
	case len(v) > TraceparentLen && (version[0] == 0 || v[TraceparentLen] != '-'):
		return exchange.Trace{}, false
	}
	t.Flags = flags[0] & sampled
	t.SpanID = newSpan()
	return t, true
}

// StartTrace begins a trace that is not sampled. Its ids are random; see
// AppendRequestID for where the randomness comes from.
func StartTrace() exchange.Trace {
	var t exchange.Trace
	for t.TraceID == [16]byte{} {
		binary.NativeEndian.PutUint64(t.TraceID[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(t.TraceID[8:], rand.Uint64())
	}
	t.SpanID = newSpan()
	return t
}

// ContinueTrace takes x.Trace from the request's traceparent, or starts one when
// there is none, several, or a bad one; then tracestate, which belongs to the
// trace that was lost, is removed too (Trace Context §4.3).
func ContinueTrace(x *exchange.Exchange) {
	h := &x.Request.Header
	if h.Has(exchange.Traceparent) {
		var value []byte
		n := 0
		for i := range h.Len() {
			if f := h.At(i); f.ID == exchange.Traceparent {
				value = f.Value
				n++
			}
		}
		t, ok := ParseTrace(value)
		if ok && n == 1 {
			x.Trace = t
			return
		}
	}
	h.DelID(exchange.Tracestate)
	x.Trace = StartTrace()
}

// AppendTraceparent appends the value to send on: the trace with the gateway's
// own span as the parent of what follows.
func AppendTraceparent(dst []byte, t exchange.Trace) []byte {
	var text [TraceparentLen]byte
	text[0], text[1], text[2], text[35], text[52] = '0', '0', '-', '-', '-'
	putHex(text[3:35], t.TraceID[:])
	putHex(text[36:52], t.SpanID[:])
	text[53], text[54] = hexDigits[t.Flags>>4], hexDigits[t.Flags&15]
	return append(dst, text[:]...)
}

func newSpan() (id [8]byte) {
	for id == [8]byte{} {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// decodeHex fills dst from twice as many lower case hexadecimal digits.
func decodeHex(dst, src []byte) bool {
	var bad byte
	for i := range dst {
		hi, lo := hexValue[src[2*i]], hexValue[src[2*i+1]]
		bad |= hi | lo
		dst[i] = hi<<4 | lo&15
	}
	return bad < 16
}

// hexValue is the value of a lower case hexadecimal digit, 0xf0 for any other
// byte.
var hexValue = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xf0
	}
	for i := range len(hexDigits) {
		v[hexDigits[i]] = byte(i)
	}
	return v
}()

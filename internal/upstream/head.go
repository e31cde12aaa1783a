package upstream

import (
	"encoding/base64"
	"net/netip"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// The head of a request as the target sees it. The client's fields are copied as
// they are, but for those that belong to one hop and those below, which say who
// asked, over which way, and where the body ends: they are always written afresh.
// What a trusted proxy in front had said of them is kept at the front of the lists.

var managed = http1.SkipOf(
	exchange.Host, exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection, exchange.TE,
	exchange.TransferEncoding, exchange.ContentLength, exchange.Upgrade, exchange.Expect,
	exchange.XForwardedFor, exchange.XForwardedProto, exchange.XForwardedHost, exchange.XForwardedPort,
	exchange.XForwardedPrefix, exchange.Forwarded, exchange.Via, exchange.XRequestID, exchange.Traceparent,
)

// inlineBody is the largest part of a body that is copied behind the head, to go
// out in the same write.
const inlineBody = 32 << 10

// message returns the head and, when it is small, what is in hand of the body. It
// is in k.out.
func (k *call) message() []byte {
	n := len(k.hand) + len(k.rest)
	k.inline = n <= inlineBody
	if !k.inline {
		n = 0
	}
	k.out = k.u.buffers.get(n + smallBuffer/2)
	b := k.appendHead(k.out.b[:0])
	if k.inline {
		b = k.appendHand(b)
	}
	k.out.b = b
	return b
}

func (k *call) appendHead(b []byte) []byte {
	q, t := &k.x.Request, k.ep.target
	b = append(b, q.Method...)
	b = append(b, ' ')
	b = appendTarget(b, t.base, q)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	switch {
	case t.hostOf != nil:
		b = append(b, t.hostOf...)
	case len(q.Authority) > 0:
		b = append(b, q.Authority...)
	default:
		b = append(b, t.authority...)
	}
	b = append(b, '\r', '\n')
	b = http1.AppendHeaderExcept(b, &q.Header, managed)
	b = appendWay(b, k.x, k.u.via)
	b = appendCertificate(b, k.x)
	if len(q.Upgrade) > 0 {
		b = append(b, "Connection: Upgrade\r\n"...)
		b = http1.AppendField(b, exchange.Upgrade.Name(), q.Upgrade)
	} else if wantsTrailers(&q.Header) {
		b = append(b, "TE: trailers\r\nConnection: TE\r\n"...)
	}
	if k.expecting {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	b = http1.AppendFraming(b, k.framing)
	return append(b, '\r', '\n')
}

// appendCertificate writes the certificate that the client proved to have, as a
// byte sequence (RFC 9440 §2.2). What a trusted proxy says of it is copied as it
// is, like all it says; from others the gateway has removed it.
func appendCertificate(b []byte, x *exchange.Exchange) []byte {
	if x.Trusted || x.Conn.TLS == nil || x.Conn.TLS.Client == nil {
		return b
	}
	b = append(b, "Client-Cert: :"...)
	b = base64.StdEncoding.AppendEncode(b, x.Conn.TLS.Client)
	return append(b, ":\r\n"...)
}

// appendHand appends what is in hand of the body, framed.
// trailer is what of the request's trailer goes to the upstream.
func (k *call) trailer() *exchange.Header {
	if k.x.Request.NoTrailer {
		return &noFields
	}
	return &k.x.Request.Trailer
}

// noFields is read by all and never changed.
var noFields exchange.Header

func (k *call) appendHand(b []byte) []byte {
	if k.framing.Kind != http1.Chunked {
		b = append(b, k.hand...)
		return append(b, k.rest...)
	}
	b = appendChunk(b, k.hand)
	b = appendChunk(b, k.rest)
	if k.whole {
		b = http1.AppendLastChunk(b, k.trailer())
	}
	return b
}

func appendChunk(b, data []byte) []byte {
	if len(data) == 0 { // an empty chunk would be the last
		return b
	}
	b = http1.AppendChunkHead(b, len(data))
	b = append(b, data...)
	return append(b, '\r', '\n')
}

// appendTarget writes the request-target: the target's own path, the request's, and
// the query.
func appendTarget(b, base []byte, q *exchange.Request) []byte {
	if len(q.ForwardPath) == 1 && q.ForwardPath[0] == '*' {
		return append(b, '*') // OPTIONS for the server as a whole (RFC 9112 §3.2.4)
	}
	b = append(b, base...)
	if len(base) == 0 && len(q.ForwardPath) == 0 {
		b = append(b, '/')
	}
	b = appendVisible(b, q.ForwardPath)
	if q.HasQuery {
		b = append(b, '?')
		b = appendVisible(b, q.Query)
	}
	return b
}

// appendVisible percent-encodes what could end the request-target or the line.
// Parsers let nothing of the kind through; what a filter made was never parsed.
func appendVisible(b, s []byte) []byte {
	at := len(b)
	b = append(b, s...)
	for _, c := range b[at:] {
		if c <= ' ' || c >= 0x7f {
			return encodeVisible(b[:at], s)
		}
	}
	return b
}

func encodeVisible(b, s []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range s {
		if c <= ' ' || c >= 0x7f {
			b = append(b, '%', hex[c>>4], hex[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}

// appendWay writes the fields about the way that the request came: X-Forwarded-*,
// Forwarded (RFC 7239), Via (RFC 9110 §7.6.3), the request id and the trace.
func appendWay(b []byte, x *exchange.Exchange, via string) []byte {
	q := &x.Request
	h := &q.Header
	peer := x.Conn.Peer.Addr().Unmap().WithZone("")

	b = append(b, "X-Forwarded-For: "...)
	if x.Trusted {
		b = appendList(b, h, exchange.XForwardedFor)
	}
	from := len(b)
	b = peer.AppendTo(b)
	to := len(b)
	scheme := "http"
	if q.TLS {
		scheme = "https"
	}
	b = append(b, "\r\nX-Forwarded-Proto: "...)
	if told := told(x, exchange.XForwardedProto); len(told) > 0 {
		b = append(b, told...)
	} else {
		b = append(b, scheme...)
	}
	b = append(b, "\r\nX-Forwarded-Host: "...)
	if told := told(x, exchange.XForwardedHost); len(told) > 0 {
		b = append(b, told...)
	} else {
		b = append(b, q.Authority...)
	}
	b = append(b, "\r\nX-Forwarded-Port: "...)
	if told := told(x, exchange.XForwardedPort); len(told) > 0 {
		b = append(b, told...)
	} else {
		b = strconv.AppendUint(b, uint64(x.Conn.Local.Port()), 10)
	}
	b = append(b, '\r', '\n')
	b = appendPrefix(b, x)

	b = append(b, "Forwarded: "...)
	if x.Trusted {
		b = appendList(b, h, exchange.Forwarded)
	}
	b = append(b, "for="...)
	b = appendNode(b, peer, from, to)
	if len(q.Authority) > 0 {
		b = append(b, `;host="`...)
		b = appendQuoted(b, q.Authority)
		b = append(b, '"')
	}
	b = append(b, ";proto="...)
	b = append(b, scheme...)

	b = append(b, "\r\nVia: "...)
	b = appendList(b, h, exchange.Via)
	b = append(b, protocols[q.Proto]...)
	b = append(b, via...)
	b = append(b, '\r', '\n')
	if len(x.ID) > 0 {
		b = http1.AppendField(b, exchange.XRequestID.Name(), x.ID)
	}
	if x.Trace.TraceID != [16]byte{} {
		b = append(b, "traceparent: "...)
		b = telemetry.AppendTraceparent(b, x.Trace)
		b = append(b, '\r', '\n')
	}
	return b
}

// protocols are the received-protocol of Via.
var protocols = [...]string{exchange.HTTP10: "1.0", exchange.HTTP11: "1.1", exchange.HTTP2: "2.0", exchange.HTTP3: "3.0"}

// told is what a trusted proxy said in a field of its own, nil for nothing.
func told(x *exchange.Exchange, id exchange.HeaderID) []byte {
	if !x.Trusted {
		return nil
	}
	v := x.Request.Header.GetID(id)
	if !http1.IsValue(v) {
		return nil
	}
	return v
}

// appendPrefix writes X-Forwarded-Prefix: what was stripped from the path on the
// way, by a trusted proxy and then here.
func appendPrefix(b []byte, x *exchange.Exchange) []byte {
	before := told(x, exchange.XForwardedPrefix)
	if len(before) == 0 && len(x.Request.ForwardPrefix) == 0 {
		return b
	}
	b = append(b, "X-Forwarded-Prefix: "...)
	b = append(b, before...)
	b = appendVisible(b, x.Request.ForwardPrefix)
	return append(b, '\r', '\n')
}

// appendList appends all values of a field as one list, with a comma behind.
func appendList(b []byte, h *exchange.Header, id exchange.HeaderID) []byte {
	if !h.Has(id) {
		return b
	}
	for i := range h.Len() {
		if f := h.At(i); f.ID == id && len(f.Value) > 0 && http1.IsValue(f.Value) {
			b = append(b, f.Value...)
			b = append(b, ", "...)
		}
	}
	return b
}

// appendNode appends an address as a node of RFC 7239 §6; its text stands at
// b[from:to].
func appendNode(b []byte, a netip.Addr, from, to int) []byte {
	if a.Is4() {
		return append(b, b[from:to]...)
	}
	if !a.IsValid() {
		return append(b, "unknown"...)
	}
	b = append(b, `"[`...)
	b = append(b, b[from:to]...)
	return append(b, `]"`...)
}

// appendQuoted appends the inside of a quoted string.
func appendQuoted(b, s []byte) []byte {
	for _, c := range s {
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return b
}

// wantsTrailers reports whether the client's TE names trailers, which is all of it
// that is passed on (RFC 9110 §10.1.4).
func wantsTrailers(h *exchange.Header) bool {
	if !h.Has(exchange.TE) {
		return false
	}
	for i := range h.Len() {
		if f := h.At(i); f.ID == exchange.TE && exchange.EqualFold(f.Value, trailers) {
			return true
		}
	}
	return false
}

var trailers = []byte("trailers")

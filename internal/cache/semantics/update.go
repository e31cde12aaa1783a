package semantics

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Kept reports whether a field of a response is stored (RFC 9111 §3.1). Not
// those that belong to the connection (RFC 9110 §7.6.1, and whatever Connection
// names, which the parser marks) or to a proxy; not what frames the message, or
// is computed afresh for each response (Age); not what belongs to one exchange
// only: Set-Cookie, request ids, rate limits, the answers to CORS, traces. drop
// are further names in lower case, as in Verdict.Drop.
func Kept(f *exchange.Field, drop []string) bool {
	if f.Hop {
		return false
	}
	switch f.ID {
	case exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection, exchange.TE, exchange.Trailer,
		exchange.TransferEncoding, exchange.Upgrade, exchange.HTTP2Settings, exchange.ContentLength,
		exchange.ProxyAuthenticate, exchange.ProxyAuthorization, exchange.Age, exchange.SetCookie,
		exchange.XRequestID, exchange.Traceparent, exchange.Tracestate:
		return false
	case exchange.Other:
		if passing(f.Name) {
			return false
		}
	}
	for _, d := range drop {
		if is(f.Name, d) {
			return false
		}
	}
	return true
}

// passing are names without a number of their own that are not stored.
func passing(name []byte) bool {
	switch len(name) {
	case len("set-cookie2"):
		return is(name, "set-cookie2")
	case len("proxy-authentication-info"):
		if is(name, "proxy-authentication-info") {
			return true
		}
	}
	return begins(name, "ratelimit") || begins(name, "access-control-")
}

func begins(name []byte, prefix string) bool {
	return len(name) >= len(prefix) && is(name[:len(prefix)], prefix)
}

// Update puts the header of a 304, or of a HEAD, over the stored one (RFC 9111
// §3.2, §4.3.4): each of its fields replaces all stored ones of that name. It
// returns a new slice, whose spans are those of both.
//
// Fields that are not stored are not taken. Content-Encoding and Content-Range
// stay as they are, too: they say how the stored bytes are to be read. drop are
// the fields that the updated response may not have.
func Update(stored []exchange.Field, h *exchange.Header, drop []string) []exchange.Field {
	out := make([]exchange.Field, 0, len(stored)+h.Len())
	for i := range stored {
		if f := &stored[i]; Kept(f, drop) && !replaced(f, h, drop) {
			out = append(out, *f)
		}
	}
	for i := range h.Len() {
		if f := h.At(i); updates(f, drop) {
			out = append(out, *f)
		}
	}
	return out
}

func updates(f *exchange.Field, drop []string) bool {
	return Kept(f, drop) && f.ID != exchange.ContentEncoding && !is(f.Name, "content-range")
}

// replaced reports whether h has fields that take the place of f.
func replaced(f *exchange.Field, h *exchange.Header, drop []string) bool {
	for i := find(h, f.ID, f.Name, 0); i >= 0; i = find(h, f.ID, f.Name, i+1) {
		if updates(h.At(i), drop) {
			return true
		}
	}
	return false
}

// Freshens reports whether a 304 with header h is about the stored response with
// the validators v, so that it may be updated (RFC 9111 §4.3.4). Where it is not,
// the 304 says nothing, and the request is to be sent again without conditions. A
// 304 without validators answers the one that was sent, though RFC 9110 §15.4.5
// would have it repeat them.
func Freshens(v *Validators, h *exchange.Header) bool {
	got := ReadValidators(h)
	switch {
	case len(got.ETag) > 0 && len(v.ETag) > 0 && weak(got.ETag):
		return sameWeak(got.ETag, v.ETag)
	case len(got.ETag) > 0 && len(v.ETag) > 0:
		return sameStrong(got.ETag, v.ETag)
	case got.LastModified != 0 && v.LastModified != 0:
		return got.LastModified == v.LastModified
	}
	return len(got.ETag) == 0
}

// Agrees reports whether the 200 to a HEAD is about the same representation as
// the stored response with the validators v and that size; its header then
// updates the stored one, else that is stale (RFC 9111 §4.3.5).
func Agrees(v *Validators, size int64, h *exchange.Header) bool {
	if tag := h.GetID(exchange.ETag); tag != nil && !bytes.Equal(tag, v.ETag) {
		return false
	}
	if v.LastModified != 0 || h.Has(exchange.LastModified) {
		if t, ok := ParseDate(h.GetID(exchange.LastModified)); ok && t != v.LastModified {
			return false
		}
	}
	if l := h.GetID(exchange.ContentLength); l != nil {
		n, ok := position(l)
		return ok && n == size
	}
	return true
}

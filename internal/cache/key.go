package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// The primary key is written out, not hashed, so that no two requests can be made to
// have the same one:
//
//	fingerprint of the route (8 bytes) · 'G', or 'Q' and the SHA-256 of the body ·
//	https://host:port/path?query · NUL · fields of the request, each 0x01 and its
//	values, or 0x02 when it is absent · 'C' and the client, its parts with their lengths
//
// The variant key goes on with NUL, the names of Vary, NUL, and the request's values.
// No part before can hold a NUL: not the path, which is canonical, nor a field's value
// (RFC 9110 §5.5), nor a query as semantics.AppendQuery writes it.

// key is a primary key in scratch memory.
type key struct {
	b        []byte
	uri, end int // b[uri:end] is the URI
}

// name is the URI that purges know.
func (k *key) name() []byte { return k.b[k.uri:k.end] }

// key makes the primary key of x. The error is that of reading a body.
func (n *rule) key(x *exchange.Exchange) (key, error) {
	q := &x.Request
	room := 160 + len(q.Authority) + len(q.Path) + len(q.Query) + len(q.Query)/2
	for i := range n.named {
		room += n.named[i].size(&q.Header)
	}
	if c := x.Caller; n.client && c != nil {
		room += len(c.Authenticator) + len(c.ID) + 9
	}
	b := append(x.Scratch(room)[:0], n.print[:]...)
	if q.Method == methodQuery {
		sum, err := n.bodyHash(x)
		if err != nil {
			return key{}, err
		}
		b = append(append(b, 'Q'), sum[:]...)
	} else {
		b = append(b, 'G')
	}
	k := key{uri: len(b)}
	b = appendURI(b, x, n.query)
	k.end = len(b)
	b = append(b, 0)
	for i := range n.named {
		b = n.named[i].append(b, &q.Header)
	}
	if n.client {
		b = append(b, 'C')
		if c := x.Caller; c != nil {
			b = binary.BigEndian.AppendUint32(append(b, 'K'), uint32(len(c.Authenticator)))
			b = append(b, c.Authenticator...)
			b = binary.BigEndian.AppendUint32(b, uint32(len(c.ID)))
			b = append(b, c.ID...) // a token's subject may hold any byte
		}
	}
	k.b = b
	return k, nil
}

// append appends the field's values. (Header.Values would allocate its loop.)
func (h *keyHeader) append(b []byte, from *exchange.Header) []byte {
	absent := true
	for i := range from.Len() {
		if f := from.At(i); h.names(f) {
			b = append(append(b, 1), f.Value...)
			absent = false
		}
	}
	if absent {
		b = append(b, 2)
	}
	return append(b, 0)
}

// size is what append appends, at most.
func (h *keyHeader) size(from *exchange.Header) int {
	n := 2
	for i := range from.Len() {
		if f := from.At(i); h.names(f) {
			n += len(f.Value) + 1
		}
	}
	return n
}

// names reports whether f is a field of the name.
func (h *keyHeader) names(f *exchange.Field) bool {
	return f.ID == h.id && (h.id != exchange.Other || exchange.EqualFold(f.Name, h.name))
}

const methodQuery = "QUERY"

// bodyHash reads the body of a QUERY (RFC 10008 §2.7), which is part of what is asked
// for, and so are its type and coding.
func (n *rule) bodyHash(x *exchange.Exchange) (sum [sha256.Size]byte, err error) {
	if x.Request.Body != nil {
		if err := n.buffer(x); err != nil {
			return sum, err
		}
	}
	h := sha256.New()
	for _, id := range [...]exchange.HeaderID{exchange.ContentType, exchange.ContentEncoding} {
		for v := range x.Request.Header.ValuesID(id) { // an origin may read any of several lines
			h.Write(v)
			h.Write([]byte{1})
		}
		h.Write([]byte{0})
	}
	if b, ok := x.Request.Body.(interface{ Whole() []byte }); ok {
		h.Write(b.Whole())
	}
	h.Sum(sum[:0])
	return sum, nil
}

// appendURI appends the URI of a request: scheme, host, canonical path, and the query in
// order, of which only counts when it is not nil.
func appendURI(b []byte, x *exchange.Exchange, only []string) []byte {
	b = appendOrigin(b, x)
	b = append(b, x.Request.Path...)
	if x.Request.HasQuery {
		b = appendQuery(b, x.Request.Query, only)
	}
	return b
}

func appendQuery(b, query []byte, only []string) []byte {
	at := len(b)
	b = semantics.AppendQuery(append(b, '?'), query, only)
	if len(b) == at+1 && only != nil {
		return b[:at]
	}
	return b
}

// appendOrigin appends the scheme and the host as the client sees them.
func appendOrigin(b []byte, x *exchange.Exchange) []byte {
	q := &x.Request
	scheme, usual := "http://", "80"
	if q.TLS || x.Trusted && bytes.Equal(q.Header.GetID(exchange.XForwardedProto), []byte("https")) {
		scheme, usual = "https://", "443"
	}
	b = append(append(b, scheme...), q.Host...)
	if port := portOf(q.Authority, q.Host); len(port) > 0 && string(port) != usual {
		b = append(append(b, ':'), port...)
	}
	return b
}

// portOf is what stands behind the host, without the colon.
func portOf(authority, host []byte) []byte {
	if len(authority) <= len(host)+1 || authority[len(host)] != ':' {
		return nil
	}
	return authority[len(host)+1:]
}

// overrides are fields with which some frameworks let a client change what its request is,
// behind the back of the key.
var overrides = [...][]byte{
	[]byte("X-Http-Method-Override"), []byte("X-Http-Method"), []byte("X-Method-Override"), []byte("X-Original-Url"),
	[]byte("X-Rewrite-Url"), []byte("X-Original-Host"), []byte("X-Host"), []byte("X-Http-Host-Override"), []byte("X-Forwarded-Server"),
}

// disarm takes the overrides that the key does not have off a request whose response may
// be stored: what one client says there would be answered to others.
func (n *rule) disarm(x *exchange.Exchange) {
	h := &x.Request.Header
	for _, name := range overrides {
		if h.Get(name) == nil {
			continue
		}
		keyed := false
		for i := range n.named {
			keyed = keyed || exchange.EqualFold(n.named[i].name, name)
		}
		if !keyed {
			h.Del(name)
		}
	}
}

// written are fields that the gateway writes into the requests it forwards, in the form of
// a vary spec. What a client sends there chooses no variant, and what the upstream gets is
// not known before.
var written = [...]string{
	"client-cert", "client-cert-chain", "forwarded", "traceparent", "tracestate", "via", "x-forwarded-for", "x-forwarded-port", "x-forwarded-prefix",
	"x-real-ip", "x-request-id",
}

// unkeyed reports whether a response differs by something that the key cannot have.
func unkeyed(spec string) bool {
	for _, name := range written {
		if names(spec, name) {
			return true
		}
	}
	return false
}

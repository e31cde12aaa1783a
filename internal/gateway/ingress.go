package gateway

import (
	"bytes"
	"net/netip"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Who asks. The address of the connection is the truth; a header about the
// client's address is believed only from a trusted proxy, and then only as far
// as the chain of trusted proxies reaches, read from the right, where the last
// proxy wrote. What an untrusted peer claims is removed before anything sees it.

// proxies are the ranges whose headers are believed.
type proxies []netip.Prefix

func (p proxies) contain(a netip.Addr) bool {
	for i := range p {
		if p[i].Contains(a) {
			return true
		}
	}
	return false
}

// identify sets x.Client and x.Trusted, and removes what an untrusted peer has
// no business to say.
func (p proxies) identify(x *exchange.Exchange) {
	peer := x.Conn.Peer.Addr().Unmap()
	x.Client = peer
	x.Trusted = len(p) > 0 && p.contain(peer)
	if !x.Trusted {
		stripClaims(&x.Request.Header)
		return
	}
	if x.Request.Header.Has(exchange.XForwardedFor) {
		x.Client = p.walk(peer, forwardedFor(&x.Request.Header))
		return
	}
	if x.Request.Header.Has(exchange.Forwarded) {
		x.Client = p.walk(peer, forwarded(&x.Request.Header))
	}
}

// walk follows hops from the nearest to the farthest, and stops at the first
// that is no trusted proxy: that is the client. A hop that cannot be read ends
// the walk at the last one that could.
func (p proxies) walk(peer netip.Addr, hops [][]byte) netip.Addr {
	client := peer
	for i := len(hops) - 1; i >= 0; i-- {
		a, ok := parseNode(hops[i])
		if !ok {
			return client
		}
		client = a
		if !p.contain(a) {
			return client
		}
	}
	return client
}

// forwardedFor lists the elements of X-Forwarded-For, farthest first.
func forwardedFor(h *exchange.Header) [][]byte {
	var hops [][]byte
	for v := range h.ValuesID(exchange.XForwardedFor) {
		for e := range bytes.SplitSeq(v, []byte(",")) {
			hops = append(hops, bytes.TrimSpace(e))
		}
	}
	return hops
}

// forwarded lists the for= parameters of Forwarded (RFC 7239 §4), farthest
// first; an element without one is a hop that cannot be read. Commas and
// semicolons inside quoted strings are not looked for: no address has them.
func forwarded(h *exchange.Header) [][]byte {
	var hops [][]byte
	for v := range h.ValuesID(exchange.Forwarded) {
		for e := range bytes.SplitSeq(v, []byte(",")) {
			hops = append(hops, forParam(e))
		}
	}
	return hops
}

func forParam(element []byte) []byte {
	for pair := range bytes.SplitSeq(element, []byte(";")) {
		name, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("="))
		if ok && exchange.EqualFold(name, []byte("for")) {
			return bytes.Trim(value, `"`)
		}
	}
	return nil
}

// parseNode reads an address with or without a port: 192.0.2.1, 192.0.2.1:80,
// 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func parseNode(b []byte) (netip.Addr, bool) {
	if len(b) == 0 || len(b) > 64 {
		return netip.Addr{}, false
	}
	s := string(b)
	if a, err := netip.ParseAddr(s); err == nil {
		return a.WithZone("").Unmap(), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().WithZone("").Unmap(), true
	}
	if s[0] == '[' && s[len(s)-1] == ']' {
		if a, err := netip.ParseAddr(s[1 : len(s)-1]); err == nil {
			return a.WithZone("").Unmap(), true
		}
	}
	return netip.Addr{}, false
}

var forwardedPrefix = []byte("x-forwarded-")

// stripClaims removes what only a trusted proxy may say: Forwarded, every
// X-Forwarded-*, X-Real-IP, Client-Cert, and a request id.
func stripClaims(h *exchange.Header) {
	for i := range h.Len() {
		if claims(h.At(i)) {
			h.DelFunc(claims)
			return
		}
	}
}

func claims(f *exchange.Field) bool {
	switch f.ID {
	case exchange.Forwarded, exchange.XForwardedFor, exchange.XForwardedHost, exchange.XForwardedPort,
		exchange.XForwardedPrefix, exchange.XForwardedProto, exchange.XRealIP, exchange.ClientCert, exchange.XRequestID:
		return true
	case exchange.Other:
		switch len(f.Name) {
		case len("client-cert-chain"):
			return exchange.EqualFold(f.Name, []byte("client-cert-chain"))
		default:
			return len(f.Name) > len(forwardedPrefix) && f.Name[0]|0x20 == 'x' &&
				exchange.EqualFold(f.Name[:len(forwardedPrefix)], forwardedPrefix)
		}
	}
	return false
}

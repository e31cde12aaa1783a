package http1

import (
	"bytes"
	"net/netip"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// ParseRequest reads the request head that b begins with. It returns the bytes
// it took, or ErrIncomplete, or an *exchange.Error that is the refusal. Spans in
// r alias b. An empty line in front of the request line is skipped, one at most
// (RFC 9112 §2.2).
//
// On an error r holds what was read until then, for the record.
func ParseRequest(b []byte, lim Limits, r *exchange.Request) (n int, f Framing, err error) {
	end, _ := HeadEnd(b, 0)
	if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		if end, _ = HeadEnd(b[2:], 0); end > 0 {
			end += 2
		}
		n = 2
	}
	if end == 0 {
		return 0, f, tooLong(b, lim)
	}
	if end > lim.Head {
		return 0, f, tooLong(b[:end], lim)
	}
	b = b[:end]
	n, minor, err := requestLine(b, n, r)
	if err != nil {
		return 0, f, err
	}
	h := head{side: exchange.Client}
	took, err := h.readFields(b[n:], lim.Fields, &r.Header)
	if err != nil {
		return 0, f, err
	}
	if n+took != len(b) {
		return 0, f, malformed(exchange.Client, "The head has an empty line that does not end in CR LF.")
	}
	h.markNominated(&r.Header)
	if err := h.settleHost(minor, r); err != nil {
		return 0, f, err
	}
	f, err = h.requestFraming(minor, r)
	return end, f, err
}

// tooLong is the refusal of a head over the limit, ErrIncomplete under it.
func tooLong(b []byte, lim Limits) error {
	if len(b) <= lim.Head {
		return ErrIncomplete
	}
	b = bytes.TrimPrefix(b, []byte("\r\n"))
	e := malformed(exchange.Client, "The head of the request is larger than this gateway takes.")
	e.Code = exchange.HeadersTooLarge
	if i := bytes.IndexByte(b, '\n'); i < 0 || i > lim.Head {
		e.Code, e.Detail = exchange.URITooLong, "The request line is longer than this gateway takes."
	}
	return e
}

// requestLine reads "METHOD target HTTP/1.x" at b[at:] and returns what follows.
func requestLine(b []byte, at int, r *exchange.Request) (next, minor int, err error) {
	line := b[at:]
	nl := bytes.IndexByte(line, '\n')
	if nl < 1 || line[nl-1] != '\r' {
		return 0, 0, malformed(exchange.Client, "The request line does not end in CR LF.")
	}
	line, next = line[:nl-1], at+nl+1
	sp := bytes.IndexByte(line, ' ')
	if sp <= 0 || !IsToken(line[:sp]) {
		return 0, 0, malformed(exchange.Client, "The request line does not begin with a method and a space.")
	}
	r.Method = method(line[:sp])
	line = line[sp+1:]
	sp = bytes.IndexByte(line, ' ')
	if sp < 0 {
		return 0, 0, malformed(exchange.Client, "The request line has no version; HTTP/0.9 is not spoken here.")
	}
	r.Target = line[:sp]
	if minor, err = version(line[sp+1:]); err != nil {
		return 0, 0, err
	}
	r.Proto = exchange.HTTP11
	if minor == 0 {
		r.Proto = exchange.HTTP10
	}
	return next, minor, splitTarget(r)
}

// version reads HTTP/1.x. A later minor version is spoken to as 1.1 (RFC 9110
// §2.5).
func version(v []byte) (minor int, err error) {
	const prefix = "HTTP/"
	if len(v) != len("HTTP/1.1") || string(v[:len(prefix)]) != prefix || v[6] != '.' ||
		v[5] < '0' || v[5] > '9' || v[7] < '0' || v[7] > '9' {
		return 0, malformed(exchange.Client, "The request line does not end in a version such as HTTP/1.1.")
	}
	if v[5] != '1' {
		e := malformed(exchange.Client, "Only HTTP/1.0 and HTTP/1.1 are spoken on this connection.")
		e.Code = exchange.VersionNotSupported
		return 0, e
	}
	return min(int(v[7]-'0'), 1), nil
}

// method returns the name without allocating for those anybody sends.
func method(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "POST":
		return "POST"
	case "HEAD":
		return "HEAD"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "PATCH":
		return "PATCH"
	case "OPTIONS":
		return "OPTIONS"
	case "CONNECT":
		return "CONNECT"
	case "TRACE":
		return "TRACE"
	case "QUERY":
		return "QUERY"
	}
	return string(b)
}

// splitTarget reads the four forms of a request target (RFC 9112 §3.2) into
// RawPath, Query and, for the absolute and authority forms, Authority.
func splitTarget(r *exchange.Request) error {
	t := r.Target
	if len(t) == 0 {
		return malformed(exchange.Client, "The request line has no target, or two spaces in front of it.")
	}
	if at := badTargetByte(t); at >= 0 {
		if t[at] == '#' {
			return malformed(exchange.Client, "The target has a fragment; clients keep it to themselves.")
		}
		return malformed(exchange.Client, "The target has a byte that must be percent-encoded.")
	}
	switch {
	case r.Method == "CONNECT":
		r.Authority = t
		return nil
	case t[0] == '/':
		splitQuery(r, t)
		return nil
	case len(t) == 1 && t[0] == '*':
		if r.Method != "OPTIONS" {
			return malformed(exchange.Client, "Only OPTIONS may have the target *.")
		}
		r.RawPath = t
		return nil
	}
	return absolute(r, t)
}

// absolute reads http://authority/path?query. Its authority wins over Host
// (RFC 9112 §3.2.2).
func absolute(r *exchange.Request, t []byte) error {
	colon := bytes.Index(t, []byte("://"))
	if colon < 0 {
		return malformed(exchange.Client, "The target must begin with / or http://.")
	}
	if scheme := t[:colon]; !exchange.EqualFold(scheme, []byte("http")) && !exchange.EqualFold(scheme, []byte("https")) {
		return malformed(exchange.Client, "The target has a scheme other than http and https.")
	}
	rest := t[colon+3:]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	r.Authority = rest[:end]
	if len(r.Authority) == 0 {
		return malformed(exchange.Client, "The target has no host.")
	}
	rest = rest[end:]
	splitQuery(r, rest)
	if len(r.RawPath) == 0 { // "http://host" and "http://host?q" mean the path "/"
		r.RawPath = slash
		if r.Method == "OPTIONS" && !r.HasQuery {
			r.RawPath = asterisk // RFC 9112 §3.2.4
		}
	}
	return nil
}

var (
	slash    = []byte("/")
	asterisk = []byte("*")
)

func splitQuery(r *exchange.Request, t []byte) {
	r.RawPath, r.Query, r.HasQuery = bytes.Cut(t, []byte("?"))
	if !r.HasQuery {
		r.Query = nil
	}
}

// targetTable holds true for the bytes of a target that cannot be misread: the
// visible ASCII characters but #, and what RFC 3986 leaves out of URIs and
// some parsers take for delimiters. [ ] { } | ^ ` are let through in queries
// by every server and are harmless here; they are encoded in the canonical path.
var targetTable = func() (t [256]bool) {
	for c := byte(0x21); c < 0x7f; c++ {
		t[c] = true
	}
	for _, c := range []byte(`#"<>\`) {
		t[c] = false
	}
	return t
}()

func badTargetByte(t []byte) int {
	for i, c := range t {
		if !targetTable[c] {
			return i
		}
	}
	return -1
}

// settleHost settles who is asked: the authority of an absolute target, or
// Host, of which there is exactly one in HTTP/1.1 (RFC 9112 §3.2).
func (h *head) settleHost(minor int, r *exchange.Request) error {
	switch {
	case h.hosts > 1:
		return malformed(exchange.Client, "There is more than one Host.")
	case h.hosts == 0 && minor >= 1:
		return malformed(exchange.Client, "There is no Host.")
	}
	if h.hosts == 1 && (r.Authority == nil || len(h.host) > 0) {
		if _, ok := SplitAuthority(h.host); !ok {
			return malformed(exchange.Client, "Host is not a host and port.")
		}
	}
	if r.Authority == nil {
		r.Authority = h.host
	}
	if len(r.Authority) == 0 {
		r.Authority, r.Host = nil, nil
		return nil
	}
	host, ok := SplitAuthority(r.Authority)
	if !ok {
		return malformed(exchange.Client, "The target's authority is not a host and port.")
	}
	r.Host = lower(host)
	return nil
}

// lower returns b in lower case: b itself when it is already.
func lower(b []byte) []byte {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			return bytes.ToLower(b)
		}
	}
	return b
}

// hostTable holds true for the bytes of a registered name or IPv4 address. What
// else RFC 3986 §3.2.2 allows, sub-delims and percent-encodings, no real host
// has, and parsers disagree about it.
var hostTable = func() (t [256]bool) {
	for _, c := range []byte("-._0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// SplitAuthority checks host[:port] and returns the host; an IPv6 address keeps
// its brackets.
func SplitAuthority(a []byte) (host []byte, ok bool) {
	if len(a) == 0 || len(a) > 260 {
		return nil, false
	}
	end := 0
	if a[0] == '[' {
		end = bytes.IndexByte(a, ']') + 1
		if end < 4 || !ipv6(a[1:end-1]) {
			return nil, false
		}
	} else {
		for end < len(a) && hostTable[a[end]] {
			end++
		}
		if end == 0 || a[0] == '.' {
			return nil, false
		}
	}
	host, port := a[:end], a[end:]
	if len(port) == 0 {
		return host, true
	}
	if port[0] != ':' || len(port) > 6 {
		return nil, false
	}
	n := 0
	for _, c := range port[1:] {
		if c < '0' || c > '9' {
			return nil, false
		}
		n = n*10 + int(c-'0')
	}
	return host, n <= 65535
}

// ipv6 reports whether b is an IPv6 address without a zone.
func ipv6(b []byte) bool {
	if len(b) > len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255") || bytes.IndexByte(b, '%') >= 0 {
		return false
	}
	a, err := netip.ParseAddr(string(b))
	return err == nil && a.Is6()
}

// requestFraming decides how the body ends (RFC 9112 §6.3), and fills what
// depends on it.
func (h *head) requestFraming(minor int, r *exchange.Request) (Framing, error) {
	f := Framing{KeepAlive: h.persistent(minor)}
	switch {
	case h.lengths > 1:
		return f, malformed(exchange.Client, "There is more than one Content-Length.")
	case h.codings > 0 && h.lengths > 0:
		return f, malformed(exchange.Client, "There are both Content-Length and Transfer-Encoding.")
	case h.codings > 0 && minor == 0:
		return f, malformed(exchange.Client, "HTTP/1.0 has no Transfer-Encoding.")
	case h.codings > 1:
		return f, malformed(exchange.Client, "There is more than one Transfer-Encoding.")
	case h.codings == 1:
		chunked, known := h.chunked()
		if !known {
			e := malformed(exchange.Client, "The only transfer coding is chunked.")
			e.Code = exchange.NotImplemented
			return f, e
		}
		if !chunked {
			return f, malformed(exchange.Client, "Transfer-Encoding does not end in chunked, or is no list of codings.")
		}
		f.Kind = Chunked
		r.ContentLength = exchange.Unknown
	case h.length > 0:
		f.Kind, f.Length = ByLength, h.length
		r.ContentLength = h.length
	}
	if h.expect != nil {
		if !exchange.EqualFold(h.expect, continueToken) {
			e := malformed(exchange.Client, "The only expectation is 100-continue.")
			e.Code = exchange.ExpectationFailed
			return f, e
		}
		r.Expect = minor >= 1 && f.Kind != NoBody // RFC 9110 §10.1.1: ignored in 1.0
	}
	if h.upgrades && h.upgradeFields == 1 && len(h.upgrade) > 0 && minor >= 1 && f.Kind == NoBody && !h2c(h.upgrade) {
		r.Upgrade = h.upgrade
	}
	return f, nil
}

// h2c reports whether an upgrade to HTTP/2 is asked for. It is never passed on:
// behind it, requests would reach the upstream unseen.
func h2c(v []byte) bool {
	for len(v) > 0 {
		token, rest, _ := bytes.Cut(v, comma)
		if exchange.EqualFold(bytes.Trim(token, " \t"), []byte("h2c")) {
			return true
		}
		v = rest
	}
	return false
}

package http1

import (
	"bytes"
	"encoding/binary"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// head is a header section being read, and what it says about the message's end
// and the connection. The same scan serves requests, responses and trailers.
type head struct {
	side          exchange.Side
	lengths       int    // number of Content-Length fields
	length        int64  // of the last one
	codings       int    // number of Transfer-Encoding fields
	coding        []byte // the last of them
	hosts         int
	host          []byte
	expect        []byte
	upgrade       []byte
	upgradeFields int
	close         bool // Connection: close
	keep          bool // Connection: keep-alive
	upgrades      bool // Connection: upgrade
	nominated     int  // names of other fields in Connection
}

// readFields reads field lines up to and including the empty line. It returns
// the bytes taken. b holds the whole section.
func (h *head) readFields(b []byte, max int, to *exchange.Header) (int, error) {
	at := 0
	for n := 0; ; n++ {
		if at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' {
			return at + 2, nil
		}
		if n >= max {
			return 0, h.tooMany()
		}
		f, next, err := h.readField(b, at)
		if err != nil {
			return 0, err
		}
		at = next
		if h.side == exchange.Client && bytes.IndexByte(f.Name, '_') >= 0 {
			continue // "X_Api_Key" and "X-Api-Key" are one name to many upstreams
		}
		if f.ID != exchange.Other {
			if err := h.note(&f); err != nil {
				return 0, err
			}
		}
		to.Append(f)
	}
}

// readField reads the field line at b[at:], and returns where the next begins.
func (h *head) readField(b []byte, at int) (f exchange.Field, next int, err error) {
	start := at
	for at < len(b) && tokenTable[b[at]] {
		at++
	}
	if at == start || at >= len(b) || b[at] != ':' {
		return f, 0, h.badName(b, start, at)
	}
	f.Name = b[start:at]
	at++
	for at < len(b) && (b[at] == ' ' || b[at] == '\t') {
		at++
	}
	start = at
	at = skipValue(b, at)
	if at+1 >= len(b) || b[at] != '\r' || b[at+1] != '\n' {
		return f, 0, h.badValue(b, at)
	}
	end := at
	for end > start && (b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	f.Value = b[start:end]
	f.ID = exchange.Lookup(f.Name)
	return f, at + 2, nil
}

// skipValue returns where the bytes of a value end. Eight at a time: a byte is
// wrong when it is below 0x20 or is 0x7F, which two subtractions show in the top
// bits (Warren, Hacker's Delight, §6-1). A tab stops the fast walk and goes on
// singly.
func skipValue(b []byte, at int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for {
		for at+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[at:])
			del := x ^ 0x7f*ones
			if ((x-0x20*ones)&^x|(del-ones)&^del)&tops != 0 {
				break
			}
			at += 8
		}
		for n := 0; ; n++ {
			if at >= len(b) || !valueTable[b[at]] {
				return at
			}
			at++
			if n == 7 {
				break
			}
		}
	}
}

func (h *head) badName(b []byte, start, at int) error {
	switch {
	case start < len(b) && (b[start] == ' ' || b[start] == '\t'):
		return malformed(h.side, "A header line begins with white space (RFC 9112 section 5.2).")
	case at < len(b) && (b[at] == ' ' || b[at] == '\t') && at > start:
		return malformed(h.side, "There is white space before the colon of a header (RFC 9112 section 5.1).")
	case at < len(b) && (b[at] == '\n' || b[at] == '\r'):
		return malformed(h.side, "A header line has no colon, or does not end in CR LF.")
	}
	return malformed(h.side, "A header name is empty or has a byte that is not allowed.")
}

func (h *head) badValue(b []byte, at int) error {
	if at < len(b) && (b[at] == '\n' || b[at] == '\r') {
		return malformed(h.side, "A header line does not end in CR LF.")
	}
	return malformed(h.side, "A header value has a control byte.")
}

func (h *head) tooMany() error {
	e := malformed(h.side, "There are too many header fields.")
	if h.side == exchange.Client {
		e.Code = exchange.HeadersTooLarge
	}
	return e
}

// note takes in a field that says something about framing or the connection,
// and marks the hop-by-hop ones (RFC 9110 §7.6.1).
func (h *head) note(f *exchange.Field) error {
	switch f.ID {
	case exchange.ContentLength:
		h.lengths++
		n, ok := parseLength(f.Value)
		if !ok {
			return malformed(h.side, "Content-Length is not a plain number.")
		}
		h.length = n
		f.Hop = true // written afresh from the framing that was decided
	case exchange.TransferEncoding:
		h.codings++
		h.coding = f.Value
		f.Hop = true
	case exchange.Host:
		h.hosts++
		h.host = f.Value
	case exchange.Expect:
		if h.expect == nil || exchange.EqualFold(h.expect, continueToken) {
			h.expect = f.Value // one that cannot be met is not forgotten for another
		}
		f.Hop = true // the gateway decides whether the upstream is asked
	case exchange.Connection:
		f.Hop = true
		return h.connection(f.Value)
	case exchange.Upgrade:
		h.upgrade, h.upgradeFields = f.Value, h.upgradeFields+1
		f.Hop = true
	case exchange.KeepAlive, exchange.ProxyConnection, exchange.TE, exchange.HTTP2Settings,
		exchange.ProxyAuthenticate, exchange.ProxyAuthorization:
		f.Hop = true
	}
	return nil
}

var (
	chunkedToken   = []byte("chunked")
	continueToken  = []byte("100-continue")
	closeToken     = []byte("close")
	keepAliveToken = []byte("keep-alive")
	upgradeToken   = []byte("upgrade")
)

// connection reads one value of Connection.
func (h *head) connection(v []byte) error {
	for len(v) > 0 {
		token, rest, _ := bytes.Cut(v, comma)
		v = rest
		token = bytes.Trim(token, " \t")
		switch {
		case len(token) == 0:
		case exchange.EqualFold(token, closeToken):
			h.close = true
		case exchange.EqualFold(token, keepAliveToken):
			h.keep = true
		case exchange.EqualFold(token, upgradeToken):
			h.upgrades = true
		case !IsToken(token):
			return malformed(h.side, "Connection has something that is no name of a field.")
		default:
			if h.side == exchange.Client && untouchable[exchange.Lookup(token)] {
				return malformed(h.side, "Connection names a field that belongs to the whole way: "+string(token)+".")
			}
			h.nominated++
			if h.nominated > maxNominated {
				return malformed(h.side, "Connection names too many fields.")
			}
		}
	}
	return nil
}

// maxNominated bounds the names in Connection, each of which is looked for among
// all fields. Real messages have one or two.
const maxNominated = 32

var comma = []byte(",")

// untouchable are fields that a sender could remove from a message by naming
// them in Connection, to the harm of those who decide by them. A request that
// does is refused; in a response the naming has no effect.
var untouchable = [256]bool{
	exchange.Host: true, exchange.ContentLength: true, exchange.TransferEncoding: true,
	exchange.Authorization: true, exchange.Cookie: true, exchange.SetCookie: true, exchange.XAPIKey: true,
	exchange.ContentType: true, exchange.ContentEncoding: true, exchange.CacheControl: true,
	exchange.XForwardedFor: true, exchange.XForwardedHost: true, exchange.XForwardedProto: true,
	exchange.XForwardedPort: true, exchange.XForwardedPrefix: true, exchange.Forwarded: true, exchange.XRealIP: true,
	exchange.Via: true, exchange.XRequestID: true, exchange.ClientCert: true,
}

// markNominated marks the fields that Connection names. It is a second pass,
// for messages that name any.
func (h *head) markNominated(to *exchange.Header) {
	if h.nominated == 0 {
		return
	}
	for v := range to.ValuesID(exchange.Connection) {
		for token := range bytes.SplitSeq(v, comma) {
			token = bytes.Trim(token, " \t")
			for i := range to.Len() {
				if f := to.At(i); !untouchable[f.ID] && exchange.EqualFold(f.Name, token) {
					f.Hop = true
				}
			}
		}
	}
}

// parseLength reads 1*DIGIT without sign, list or overflow (RFC 9110 §8.6).
func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// chunked reports whether the one transfer coding is chunked. known is false for
// a list that ends in chunked behind codings that are spoken nowhere here.
func (h *head) chunked() (is, known bool) {
	if h.codings != 1 {
		return false, true
	}
	if exchange.EqualFold(h.coding, chunkedToken) {
		return true, true
	}
	i := bytes.LastIndexByte(h.coding, ',')
	if i < 0 || !exchange.EqualFold(bytes.Trim(h.coding[i+1:], " \t"), chunkedToken) {
		return false, true
	}
	for c := range bytes.SplitSeq(h.coding[:i], comma) {
		c = bytes.Trim(c, " \t")
		if !IsToken(c) || exchange.EqualFold(c, chunkedToken) {
			return false, true
		}
	}
	return false, false
}

// persistent decides RFC 9112 §9.3.
func (h *head) persistent(minor int) bool {
	if h.close {
		return false
	}
	return minor >= 1 || h.keep
}

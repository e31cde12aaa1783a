package limit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/router"
)

// A key says whose requests are counted together. It has one part for each word
// of `per`, in their order, joined by ":":
//
//	client          c:<authenticator>/<id>; for an anonymous one as ip
//	ip              a:203.0.113.9, a:2001:db8:0:1::/64, a:- when there is no address
//	route           r:<api>/<name>
//	global          g
//	header:NAME     =<value>, or - without such a field
//	query:NAME      =<value>, or - without such a parameter
//	attribute:NAME  =<value>, or - without such an attribute
//	claim:NAME      =<value>, or - without such a claim; what is no text as JSON writes it
//
// In what stands in <> every byte other than A-Z a-z 0-9 . _ ~ - is %XX, so that
// no value can end its part, close the braces of a Redis key, or break a line of a
// log. Only addresses have colons, and those end with /64; so two requests have
// one key only if they have the same parts, or if both keys were too long.
//
// IPv6 addresses count by their /64, the least that one customer gets; an IPv4
// address that is written as IPv6 is IPv4. A header's fields are joined by "," as
// RFC 9110 §5.3 reads them, so that one more field makes another value rather than
// being overlooked. Of several parameters with one name the first counts, percent
// encoding is decoded and "+" is a space, as the router does it.
//
// A key longer than maxKey bytes is h: and the first 16 bytes of its SHA-256. So is
// every key of a limit that counts by a header or parameter whose name says that
// credentials are in it (see secretName): keys are shown by the admin API and stand
// in the store, and a secret must not.

// maxKey is the length of the longest key, bytes.
const maxKey = 120

// keyRoom is the capacity that dst needs beyond its length so that neither append
// nor appendClient lets it grow: a whole key and one step, see spill.
const keyRoom = maxKey + 3*keyStep

// keyStep is how many bytes are escaped before it is looked whether the key has
// become too long. An address with its /64 is shorter than three times that.
const keyStep = 24

// keyMaker makes the keys of one limit. It does not change.
type keyMaker struct {
	parts  []keyPart
	secret bool // it counts by credentials: keys are hashed
}

type keyPart struct {
	kind keyKind
	name string // of the parameter or attribute
	// field and id are the header's name.
	field []byte
	id    exchange.HeaderID
}

type keyKind uint8

const (
	keyGlobal keyKind = iota
	keyClient
	keyAddress
	keyRoute
	keyHeader
	keyQuery
	keyAttribute
	keyClaim
)

var plainKinds = map[string]keyKind{"global": keyGlobal, "client": keyClient, "ip": keyAddress, "route": keyRoute}

// credentials are the parts of names, in lower case, that say so; sig is also that of
// sign and signature.
var credentials = []string{"auth", "token", "key", "secret", "pass", "session", "cookie", "sig", "credential", "jwt"}

// secretName reports whether the name of a header or parameter says that credentials
// are in it. It says so of too many rather than too few: what is hashed needlessly is
// only harder to read.
func secretName(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(credentials, func(part string) bool { return strings.Contains(name, part) })
}

var namedKinds = map[string]keyKind{"header": keyHeader, "query": keyQuery, "attribute": keyAttribute, "claim": keyClaim}

// newKeyMaker compiles the words of `per`; none at all are [client]. The error
// says what to write instead.
func newKeyMaker(per []string) (*keyMaker, error) {
	if len(per) == 0 {
		per = []string{"client"}
	}
	k := &keyMaker{parts: make([]keyPart, 0, len(per))}
	for _, word := range per {
		p, err := newKeyPart(word)
		if err != nil {
			return nil, err
		}
		k.parts = append(k.parts, p)
		k.secret = k.secret || (p.kind == keyHeader || p.kind == keyQuery) && secretName(p.name)
	}
	return k, nil
}

func newKeyPart(word string) (keyPart, error) {
	if kind, ok := plainKinds[word]; ok {
		return keyPart{kind: kind}, nil
	}
	kind, name, _ := strings.Cut(word, ":")
	named, ok := namedKinds[kind]
	switch {
	case !ok:
		return keyPart{}, fmt.Errorf("%q is nothing to count by, use client, ip, route, global, header:NAME, query:NAME, attribute:NAME or claim:NAME", word)
	case name == "":
		return keyPart{}, fmt.Errorf("%q: name the %s, as in %s:NAME", word, kind, kind)
	}
	return keyPart{kind: named, name: name, field: []byte(name), id: exchange.Lookup([]byte(name))}, nil
}

// append appends the key of a request to dst, 1 to maxKey bytes, without
// allocating as long as dst has keyRoom.
func (k *keyMaker) append(dst []byte, x *exchange.Exchange) []byte {
	w := keyWriter{b: dst, start: len(dst)}
	if k.secret {
		w.long = hashes.Get().(hash.Hash)
	}
	for i := range k.parts {
		if i > 0 {
			w.raw(":")
		}
		w.part(&k.parts[i], x)
	}
	return w.end()
}

// appendClient appends the part of a key that says who asks: what quotas are
// counted by. It is as append of [client].
func appendClient(dst []byte, x *exchange.Exchange) []byte {
	w := keyWriter{b: dst, start: len(dst)}
	w.client(x)
	return w.end()
}

// appendLimitKey appends the key of a limit in the shared store, that of the
// limit's name and parameters (print, a fingerprint of them) for one key. What
// stands in braces chooses the slot of a Redis cluster.
func appendLimitKey(dst, key []byte, name string, print uint32) []byte {
	dst = append(append(dst, "l:{"...), key...)
	return appendPrint(appendEscaped(append(dst, "}:"...), name), print)
}

// appendQuotaKey is appendLimitKey for a quota: client is from appendClient, name
// is <plan>.<period>, id names the day, week or month.
func appendQuotaKey(dst, client []byte, name, id string, print uint32) []byte {
	dst = append(append(dst, "q:{"...), client...)
	dst = append(appendEscaped(append(dst, "}:"...), name), ':')
	return appendPrint(appendEscaped(dst, id), print)
}

func appendPrint(dst []byte, print uint32) []byte {
	return hex.AppendEncode(append(dst, ':'), []byte{byte(print >> 24), byte(print >> 16), byte(print >> 8), byte(print)})
}

// bare are the bytes that stand for themselves in a key (unreserved, RFC 3986 §2.3).
var bare = func() (t [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-" {
		t[c] = true
	}
	return t
}()

const upperHex = "0123456789ABCDEF"

func appendEscaped[T string | []byte](dst []byte, s T) []byte {
	plain := 0
	for plain < len(s) && bare[s[plain]] {
		plain++
	}
	dst = append(dst, s[:plain]...)
	for i := plain; i < len(s); i++ {
		if c := s[i]; bare[c] {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// keyWriter puts a key together at b[start:]. Once that is longer than maxKey it
// is fed to a hash, so that b stays small whatever a client sends.
type keyWriter struct {
	b     []byte
	start int
	long  hash.Hash // nil as long as the key fits
}

// hashes are SHA-256 hashes for long keys. They are always reset.
var hashes = sync.Pool{New: func() any { return sha256.New() }}

func (w *keyWriter) part(p *keyPart, x *exchange.Exchange) {
	switch p.kind {
	case keyGlobal:
		w.raw("g")
	case keyClient:
		w.client(x)
	case keyAddress:
		w.address(x.Client)
	case keyRoute:
		w.route(x.Route)
	case keyHeader:
		w.header(p, &x.Request.Header)
	case keyQuery:
		w.query(p.name, x.Request.Query)
	case keyAttribute:
		w.attribute(p.name, x.Caller)
	case keyClaim:
		w.claim(p.name, x.Caller)
	}
}

func (w *keyWriter) client(x *exchange.Exchange) {
	if x.Caller == nil {
		w.address(x.Client)
		return
	}
	w.raw("c:")
	escape(w, x.Caller.Authenticator)
	w.raw("/")
	escape(w, x.Caller.ID)
}

func (w *keyWriter) address(a netip.Addr) {
	w.raw("a:")
	switch a = a.Unmap(); {
	case !a.IsValid():
		w.raw("-")
	case a.Is4():
		w.b = a.AppendTo(w.b)
	default:
		b := a.As16()
		clear(b[8:])
		w.b = netip.AddrFrom16(b).AppendTo(w.b)
		w.raw("/64")
	}
	w.spill()
}

func (w *keyWriter) route(r *exchange.Route) {
	if r == nil {
		w.raw("-")
		return
	}
	w.raw("r:")
	escape(w, r.API)
	w.raw("/")
	escape(w, r.Name)
}

func (w *keyWriter) header(p *keyPart, h *exchange.Header) {
	n := 0
	for i := range h.Len() {
		f := h.At(i)
		if f.ID != p.id || p.id == exchange.Other && !exchange.EqualFold(f.Name, p.field) {
			continue
		}
		if n++; n == 1 {
			w.raw("=")
		} else {
			escape(w, ",")
		}
		escape(w, f.Value)
	}
	if n == 0 {
		w.raw("-")
	}
}

func (w *keyWriter) attribute(name string, c *exchange.Caller) {
	if c != nil {
		if v, ok := c.Attributes[name]; ok {
			w.raw("=")
			escape(w, v)
			return
		}
	}
	w.raw("-")
}

func (w *keyWriter) claim(name string, c *exchange.Caller) {
	if c == nil {
		w.raw("-")
		return
	}
	switch v := c.Claim(name).(type) {
	case nil:
		w.raw("-")
	case string:
		w.raw("=")
		escape(w, v)
	default:
		w.raw("=")
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte(err.Error()) // claims come from JSON
		}
		escape(w, text)
	}
}

func (w *keyWriter) query(name string, query []byte) {
	raw, ok := router.QueryValue(query, name)
	if !ok {
		w.raw("-")
		return
	}
	w.raw("=")
	var room [keyStep]byte
	for len(raw) > 0 {
		n := decodable(raw)
		escape(w, router.DecodeQuery(room[:0], raw[:n]))
		raw = raw[n:]
	}
}

// decodable is the length of a first step of a query's value that ends in no
// percent encoding.
func decodable(raw []byte) int {
	if len(raw) <= keyStep {
		return len(raw)
	}
	for back := 1; back <= 2; back++ {
		if raw[keyStep-back] == '%' {
			return keyStep - back
		}
	}
	return keyStep
}

// raw appends what needs no escaping.
func (w *keyWriter) raw(s string) {
	w.b = append(w.b, s...)
	w.spill()
}

// escape appends a value, escaped.
func escape[T string | []byte](w *keyWriter, s T) {
	for len(s) > keyStep {
		w.b = appendEscaped(w.b, s[:keyStep])
		s = s[keyStep:]
		w.spill()
	}
	w.b = appendEscaped(w.b, s)
	w.spill()
}

// spill hashes what there is when it is longer than a key may be.
func (w *keyWriter) spill() {
	if len(w.b)-w.start <= maxKey {
		return
	}
	if w.long == nil {
		w.long = hashes.Get().(hash.Hash)
	}
	_, _ = w.long.Write(w.b[w.start:]) // a hash never fails
	w.b = w.b[:w.start]
}

func (w *keyWriter) end() []byte {
	w.spill()
	if w.long == nil {
		return w.b
	}
	_, _ = w.long.Write(w.b[w.start:])
	w.b = w.long.Sum(w.b[:w.start])
	w.long.Reset()
	hashes.Put(w.long)
	var sum [16]byte
	copy(sum[:], w.b[w.start:])
	return hex.AppendEncode(append(w.b[:w.start], "h:"...), sum[:])
}

package exchange

// HeaderID names a field that the gateway itself reads or writes, so that it
// is compared as a number. Other is every name not listed here.
type HeaderID uint8

// The known names. There are at most 63, so that a set of them is one word.
const (
	Other HeaderID = iota
	AcceptEncoding
	Age
	AltSvc
	Authorization
	CacheControl
	ClientCert
	Connection
	ContentEncoding
	ContentLength
	ContentType
	Cookie
	Date
	ETag
	Expect
	Expires
	Forwarded
	HTTP2Settings
	Host
	IfMatch
	IfModifiedSince
	IfNoneMatch
	KeepAlive
	LastModified
	Location
	Origin
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	Range
	RetryAfter
	Server
	SetCookie
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	XAPIKey
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedPrefix
	XForwardedProto
	XRealIP
	XRequestID
	Traceparent
	Tracestate
	known
)

var headerNames = [known][]byte{
	AcceptEncoding:     []byte("Accept-Encoding"),
	Age:                []byte("Age"),
	AltSvc:             []byte("Alt-Svc"),
	Authorization:      []byte("Authorization"),
	CacheControl:       []byte("Cache-Control"),
	ClientCert:         []byte("Client-Cert"),
	Connection:         []byte("Connection"),
	ContentEncoding:    []byte("Content-Encoding"),
	ContentLength:      []byte("Content-Length"),
	ContentType:        []byte("Content-Type"),
	Cookie:             []byte("Cookie"),
	Date:               []byte("Date"),
	ETag:               []byte("ETag"),
	Expect:             []byte("Expect"),
	Expires:            []byte("Expires"),
	Forwarded:          []byte("Forwarded"),
	HTTP2Settings:      []byte("HTTP2-Settings"),
	Host:               []byte("Host"),
	IfMatch:            []byte("If-Match"),
	IfModifiedSince:    []byte("If-Modified-Since"),
	IfNoneMatch:        []byte("If-None-Match"),
	KeepAlive:          []byte("Keep-Alive"),
	LastModified:       []byte("Last-Modified"),
	Location:           []byte("Location"),
	Origin:             []byte("Origin"),
	ProxyAuthenticate:  []byte("Proxy-Authenticate"),
	ProxyAuthorization: []byte("Proxy-Authorization"),
	ProxyConnection:    []byte("Proxy-Connection"),
	Range:              []byte("Range"),
	RetryAfter:         []byte("Retry-After"),
	Server:             []byte("Server"),
	SetCookie:          []byte("Set-Cookie"),
	TE:                 []byte("TE"),
	Trailer:            []byte("Trailer"),
	TransferEncoding:   []byte("Transfer-Encoding"),
	Upgrade:            []byte("Upgrade"),
	UserAgent:          []byte("User-Agent"),
	Vary:               []byte("Vary"),
	Via:                []byte("Via"),
	XAPIKey:            []byte("X-Api-Key"),
	XForwardedFor:      []byte("X-Forwarded-For"),
	XForwardedHost:     []byte("X-Forwarded-Host"),
	XForwardedPort:     []byte("X-Forwarded-Port"),
	XForwardedPrefix:   []byte("X-Forwarded-Prefix"),
	XForwardedProto:    []byte("X-Forwarded-Proto"),
	XRealIP:            []byte("X-Real-Ip"),
	XRequestID:         []byte("X-Request-Id"),
	Traceparent:        []byte("traceparent"),
	Tracestate:         []byte("tracestate"),
}

// Name is the usual spelling; empty for Other. The bytes are shared: do not
// write to them.
func (id HeaderID) Name() []byte { return headerNames[id] }

// Lookup returns the ID of a field name in any case. A multiplicative hash of
// four bytes gives the only name that it can be, which is then compared.
func Lookup(name []byte) HeaderID {
	if len(name) < 2 {
		return Other
	}
	id := hashedNames[nameHash(name)]
	if id != Other && EqualFold(name, headerNames[id]) {
		return id
	}
	return Other
}

// nameHash mixes the first, the middle and the last letter but one with the
// length. nameFactor was searched for so that no two known names fall on the
// same place; a test holds it to that.
func nameHash(name []byte) uint8 {
	n := len(name)
	word := uint32(name[0]|0x20) | uint32(name[n/2]|0x20)<<8 | uint32(name[n-2]|0x20)<<16 | uint32(n)<<24
	return uint8(word * nameFactor >> 24)
}

const nameFactor = 0xc50e2b99

var hashedNames = func() (t [256]HeaderID) {
	for id := Other + 1; id < known; id++ {
		t[nameHash(headerNames[id])] = id
	}
	return t
}()

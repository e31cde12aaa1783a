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

// Lookup returns the ID of a field name in any case.
func Lookup(name []byte) HeaderID {
	switch len(name) {
	case 2:
		switch name[0] | 0x20 {
		case 't':
			return match(name, TE)
		}
	case 3:
		switch name[0] | 0x20 {
		case 'a':
			return match(name, Age)
		case 'v':
			return match(name, Via)
		}
	case 4:
		switch name[0] | 0x20 {
		case 'd':
			return match(name, Date)
		case 'e':
			return match(name, ETag)
		case 'h':
			return match(name, Host)
		case 'v':
			return match(name, Vary)
		}
	case 5:
		switch name[0] | 0x20 {
		case 'r':
			return match(name, Range)
		}
	case 6:
		switch name[0] | 0x20 {
		case 'c':
			return match(name, Cookie)
		case 'e':
			return match(name, Expect)
		case 'o':
			return match(name, Origin)
		case 's':
			return match(name, Server)
		}
	case 7:
		switch name[0] | 0x20 {
		case 'a':
			return match(name, AltSvc)
		case 'e':
			return match(name, Expires)
		case 't':
			return match(name, Trailer)
		case 'u':
			return match(name, Upgrade)
		}
	case 8:
		switch name[0] | 0x20 {
		case 'i':
			return match(name, IfMatch)
		case 'l':
			return match(name, Location)
		}
	case 9:
		switch name[0] | 0x20 {
		case 'f':
			return match(name, Forwarded)
		case 'x':
			if id := match(name, XAPIKey); id != Other {
				return id
			}
			if id := match(name, XRealIP); id != Other {
				return id
			}
		}
	case 10:
		switch name[0] | 0x20 {
		case 'c':
			return match(name, Connection)
		case 'k':
			return match(name, KeepAlive)
		case 's':
			return match(name, SetCookie)
		case 't':
			return match(name, Tracestate)
		case 'u':
			return match(name, UserAgent)
		}
	case 11:
		switch name[0] | 0x20 {
		case 'c':
			return match(name, ClientCert)
		case 'r':
			return match(name, RetryAfter)
		case 't':
			return match(name, Traceparent)
		}
	case 12:
		switch name[0] | 0x20 {
		case 'c':
			return match(name, ContentType)
		case 'x':
			return match(name, XRequestID)
		}
	case 13:
		switch name[0] | 0x20 {
		case 'a':
			return match(name, Authorization)
		case 'c':
			return match(name, CacheControl)
		case 'i':
			return match(name, IfNoneMatch)
		case 'l':
			return match(name, LastModified)
		}
	case 14:
		switch name[0] | 0x20 {
		case 'c':
			return match(name, ContentLength)
		}
	case 15:
		switch name[0] | 0x20 {
		case 'a':
			return match(name, AcceptEncoding)
		case 'x':
			return match(name, XForwardedFor)
		}
	case 16:
		switch name[0] | 0x20 {
		case 'c':
			return match(name, ContentEncoding)
		case 'p':
			return match(name, ProxyConnection)
		case 'x':
			if id := match(name, XForwardedHost); id != Other {
				return id
			}
			if id := match(name, XForwardedPort); id != Other {
				return id
			}
		}
	case 17:
		switch name[0] | 0x20 {
		case 'i':
			return match(name, IfModifiedSince)
		case 't':
			return match(name, TransferEncoding)
		case 'x':
			return match(name, XForwardedProto)
		}
	case 18:
		switch name[0] | 0x20 {
		case 'p':
			return match(name, ProxyAuthenticate)
		case 'x':
			return match(name, XForwardedPrefix)
		}
	case 19:
		switch name[0] | 0x20 {
		case 'p':
			return match(name, ProxyAuthorization)
		}
	}
	return Other
}

func match(name []byte, id HeaderID) HeaderID {
	if EqualFold(name, headerNames[id]) {
		return id
	}
	return Other
}

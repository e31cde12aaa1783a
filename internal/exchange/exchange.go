// Package exchange holds one request and its response as they cross the
// gateway, and the one error type that says what went wrong on the way. It
// knows no protocol, socket, policy or configuration: drivers fill a Request,
// the gateway and its filters read and change it, a target fills the Response,
// the driver writes it.
//
// # Ownership
//
// An Exchange belongs to the driver that made it and to one goroutine at a
// time; only Cancel may be called from elsewhere. Every []byte in it is a span
// of memory that holds until the driver calls Reset: the read buffer, or
// memory from Scratch. Nothing may keep one longer without a copy, and nothing
// writes through one.
package exchange

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Proto is the protocol that the client speaks.
type Proto uint8

// The protocols.
const (
	HTTP10 Proto = iota
	HTTP11
	HTTP2
	HTTP3
)

var protoNames = [...]string{HTTP10: "HTTP/1.0", HTTP11: "HTTP/1.1", HTTP2: "HTTP/2.0", HTTP3: "HTTP/3.0"}

func (p Proto) String() string { return protoNames[p] }

// Unknown is the ContentLength of a body whose length only its end tells.
const Unknown = -1

// Request is what the client sent, as far as it has been read.
type Request struct {
	Method    string
	Proto     Proto
	TLS       bool
	Target    []byte // request-target as received; empty on HTTP/2
	Authority []byte // host[:port] from the absolute-form target, :authority or Host; validated, case as received
	Host      []byte // Authority without port, in lower case; IPv6 in brackets
	RawPath   []byte // path as received, before the first '?'; "*" for OPTIONS *
	Path      []byte // canonical path (set by the gateway before routing)
	Query     []byte // behind the first '?', as received
	HasQuery  bool   // whether there was a '?'

	// Header has every field but HTTP/2 pseudo-fields. Hop-by-hop fields are
	// there, marked Hop.
	Header  Header
	Trailer Header // complete once Body ended
	// NoTrailer keeps the trailer from the upstream: fields in it might pass for some that
	// a policy has taken off the header.
	NoTrailer bool

	// ContentLength is the declared length, Unknown for a body of unknown
	// length, 0 for none.
	ContentLength int64
	Body          Body   // nil: no body
	MaxBody       int64  // bytes of body the driver lets through, 0 = no limit; set by the gateway before the first Next
	Expect        bool   // Expect: 100-continue, not yet answered
	Upgrade       []byte // value of Upgrade when Connection names it and no body comes; nil otherwise

	// ForwardPath is the encoded path for the upstream, without the target's own
	// base path; ForwardPrefix is what was stripped from the client's path. The
	// gateway sets both.
	ForwardPath   []byte
	ForwardPrefix []byte
}

// Response is what the client gets: from a target, or made by the gateway.
type Response struct {
	Status  int
	Header  Header
	Trailer Header // complete once Body ended
	// ContentLength is the length of Body, Unknown when only its end tells. For
	// HEAD and 304 it may be the length that a GET would have had.
	ContentLength int64
	Body          Body   // nil: no body
	Tunnel        Tunnel // set with status 101: the driver joins it to the client's connection
	Close         bool   // close the client's connection after this response
}

// Body is a message body as it arrives. It is read by one goroutine. A body
// that waits for a peer should be a Canceler too: Cancel, from any goroutine,
// makes a Next that waits and those that follow fail at once, and leaves the
// peer's connection writable. Without it a target that has no use for the rest
// of a request body has to wait until the body fails by itself.
type Body interface {
	// Next returns the next piece, which holds until the next call to Next or
	// Close. It waits when nothing is there, at most as long as the exchange's
	// limits say. The error is io.EOF behind the last piece or together with it,
	// an *Error otherwise. A piece may be empty only together with an error.
	Next() ([]byte, error)
	// Ready reports whether Next would return without waiting.
	Ready() bool
	// Close gives back what the body holds; a body not read to its end is
	// abandoned. Calling it twice is allowed.
	Close() error
}

// Detacher is a response Body that can go on without the exchange that it came with.
type Detacher interface {
	Body
	// Detach makes the body y's: from then on it needs nothing of the exchange before, whose
	// Cancel does not reach it any more, and y's does. The trailer will be y's. It reports
	// false, and has changed nothing, when the two cannot be parted.
	Detach(y *Exchange) bool
}

// Tunnel is the far side of an upgraded connection. Read and Write may be
// called at the same time by different goroutines, and are interrupted by
// Close. CloseWrite passes on an end of input.
type Tunnel interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	CloseWrite() error
	SetDeadline(t time.Time) error
	Close() error
}

// Driver is the way back to the connection that an exchange came on.
type Driver interface {
	// Interim sends an informational response (100 to 199, not 101) at once. The
	// driver leaves out what the client's protocol version does not know.
	Interim(status int, h *Header) error
}

// Canceler can be told that nobody waits for its result any more. Cancel
// returns at once, may be called more than once, and from any goroutine.
type Canceler interface{ Cancel() }

// Prober is a Canceler that can look whether what it waits for can still come.
// Probe returns at once, and may be called from any goroutine, also when nothing
// waits any more.
type Prober interface{ Probe() }

// Conn is what all exchanges of one connection share. It does not change.
type Conn struct {
	Peer     netip.AddrPort // who opened the connection
	Local    netip.AddrPort
	Listener string // the listener's name, or its address
	TLS      *TLSInfo
	Shard    uint32 // spreads per-connection counters over cores; any value
}

// TLSInfo is what the handshake agreed on. It is shared and read-only.
type TLSInfo struct {
	Version, Cipher, ServerName, ALPN string
	// Client is the verified leaf certificate in DER, nil without one; Chain is
	// the verified chain behind it.
	Client  []byte
	Chain   [][]byte
	Subject string // distinguished name of Client, RFC 2253
}

// Param is one path parameter; Value is decoded and holds as long as the path.
type Param struct {
	Name  string
	Value []byte
}

// Route names the route that was chosen, for records and policies.
type Route struct{ API, Name, Stage, Pattern string }

// Trace is the W3C trace context that is passed on.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte // the gateway's own span
	Parent  [8]byte // the caller's span; zero when the trace began here
	Flags   byte
}

// Caller is who asks, once something has told. It is shared and read-only.
type Caller struct {
	// Authenticator is what vouched for the caller; empty for a client that the
	// configuration declares.
	Authenticator string
	ID            string // of the client, unique for its Authenticator
	Plan          string // name of the plan; empty: none
	Roles         []string
	Permissions   []string
	Attributes    map[string]string
	// Claims are what a token says, as JSON has it: numbers are float64 or json.Number.
	// Read-only.
	Claims map[string]any
	Key    string // name of the key that was used, for records; never the key itself
}

// Claim returns a claim by its name, or by a path of names with dots between them
// such as realm_access.roles; nil when there is none.
func (c *Caller) Claim(path string) any {
	if v, ok := c.Claims[path]; ok {
		return v
	}
	level := c.Claims
	for {
		name, rest, more := strings.Cut(path, ".")
		v := level[name]
		if !more {
			return v
		}
		var ok bool
		if level, ok = v.(map[string]any); !ok {
			return nil
		}
		path = rest
	}
}

// LimitState is what a limit says of itself behind its decision, for the
// RateLimit fields of the response.
type LimitState struct {
	Policy    []byte // its item of RateLimit-Policy, shared
	Name      []byte // its name as a structured-field string, quotes included, shared
	Remaining int64  // requests
	Reset     int64  // seconds, rounded up
}

// CacheResult is what became of a request at the response cache.
type CacheResult uint8

// The results.
const (
	CacheNone        CacheResult = iota // no cache was asked
	CacheHit                            // answered with a fresh response
	CacheStale                          // answered with a stale one, as is allowed
	CacheRevalidated                    // the upstream said that the stored one is still right
	CacheMiss                           // forwarded, and stored if it may be
	CacheCollapsed                      // answered with what another request was fetching
	CachePass                           // forwarded: what comes back there is not stored
	CacheBypass                         // forwarded: the request is not for a cache
	CacheResults
)

var cacheResults = [CacheResults]string{"", "hit", "stale", "revalidated", "miss", "collapsed", "pass", "bypass"}

func (r CacheResult) String() string { return cacheResults[r] }

// Cached is what the response cache has to do with an exchange.
type Cached struct {
	Result CacheResult
	// Status is the gateway's member of Cache-Status (RFC 9211), in scratch memory, for
	// responses that were forwarded; nil when no cache was asked.
	Status []byte
	// Task is the cache's own: what is to become of the response.
	Task any
}

// Releaser is something that an exchange holds until its end.
type Releaser interface{ Release() }

// Usage is what a target tells about the work it did.
type Usage struct {
	Name     string // the upstream's name in the config
	Target   string // the target that answered last
	Attempts int
	Reused   bool // the last attempt went over a kept connection
	// Sent and Head are when the last attempt began and when its response head
	// was complete, counted from Exchange.Start; zero when it never came to it.
	Sent, Head time.Duration
	// Waited is all the time spent waiting for the upstream, body included.
	Waited   time.Duration
	BytesIn  int64 // from the upstream, bodies only
	BytesOut int64 // to the upstream, bodies only
}

// Shadow is a refusal that a filter in shadow mode would have made.
type Shadow struct {
	Filter  string
	Refusal *Error
}

// Exchange is one request and its response.
type Exchange struct {
	Request  Request
	Response Response

	Conn    *Conn
	Driver  Driver
	Start   time.Time  // when the request head was complete
	Client  netip.Addr // who asks, seen through trusted proxies; set by the gateway
	Trusted bool       // Conn.Peer is a trusted proxy
	ID      []byte     // request id
	Trace   Trace
	Route   *Route
	RouteID int // the gateway's own number for Route
	Params  []Param
	// Caller is who asks, nil for nobody known.
	Caller *Caller
	// Limits are the limits that decided about the request, in their order.
	Limits []LimitState
	// Cached is what the response cache says.
	Cached Cached
	// Held is given back when the exchange ends, by the gateway.
	Held []Releaser
	// Deadline is when the response head must be there; zero: none.
	Deadline time.Time

	// Err is why the gateway answers by itself. A driver that cannot read a
	// request sets it before it hands the exchange over.
	Err *Error
	// Aborted is why the response ended early, nil when it was written whole.
	Aborted error
	// Reply says that a filter filled Response and no target is asked.
	Reply bool

	Usage    Usage
	BytesIn  int64 // request body bytes read
	BytesOut int64 // response bytes written, head included
	Elapsed  time.Duration
	// ClientWait is how long the driver waited for the client: for the rest of
	// its body, and until it took what was written. The driver counts it.
	ClientWait time.Duration

	// Pin is the gateway's own, from Serve to Done.
	Pin any
	// Reached is how many filters of the route's chain have seen the request.
	Reached int
	// Shadows are the refusals that were only recorded, in order.
	Shadows []Shadow
	// Timed says that this exchange is one of those whose filters are timed.
	Timed bool
	// Kept is what a target keeps for its next exchange: the memory of its work.
	// Reset leaves it, so that it lives as long as what the response points to.
	Kept any

	own      Bytes // the body of Answer
	scratch  []byte
	mu       sync.Mutex
	canceler Canceler
	canceled bool
}

// Reset makes x ready for the next request on any connection. It keeps memory,
// but not scratch memory beyond 64 KiB.
func (x *Exchange) Reset() {
	req, res := &x.Request, &x.Response
	req.Header.Reset()
	req.Trailer.Reset()
	res.Header.Reset()
	res.Trailer.Reset()
	*req = Request{Header: req.Header, Trailer: req.Trailer}
	*res = Response{Header: res.Header, Trailer: res.Trailer}
	x.Conn, x.Driver, x.Route, x.Err, x.Aborted, x.Pin = nil, nil, nil, nil, nil, nil
	x.Start, x.Deadline = time.Time{}, time.Time{}
	x.Client, x.Trusted, x.ID, x.Reply = netip.Addr{}, false, nil, false
	x.Trace, x.Usage = Trace{}, Usage{}
	x.RouteID = 0
	clear(x.Params)
	x.Params = x.Params[:0]
	x.BytesIn, x.BytesOut, x.Elapsed, x.ClientWait = 0, 0, 0, 0
	x.Caller, x.Cached = nil, Cached{}
	clear(x.Limits)
	x.Limits = x.Limits[:0]
	clear(x.Held)
	x.Held = x.Held[:0]
	x.Reached, x.Timed, x.own = 0, false, Bytes{}
	clear(x.Shadows)
	x.Shadows = x.Shadows[:0]
	if cap(x.scratch) > 64<<10 {
		x.scratch = nil
	}
	x.scratch = x.scratch[:0]
	x.Revive()
}

// Scratch returns n bytes that hold until Reset. Their content is undefined.
func (x *Exchange) Scratch(n int) []byte {
	if cap(x.scratch)-len(x.scratch) < n {
		x.scratch = make([]byte, 0, max(2*cap(x.scratch), n, 1024))
	}
	at := len(x.scratch)
	x.scratch = x.scratch[:at+n]
	return x.scratch[at : at+n : at+n]
}

// Copy returns b copied into scratch memory.
func (x *Exchange) Copy(b []byte) []byte {
	c := x.Scratch(len(b))
	copy(c, b)
	return c
}

// CopyString returns s copied into scratch memory.
func (x *Exchange) CopyString(s string) []byte {
	c := x.Scratch(len(s))
	copy(c, s)
	return c
}

// Answer makes the response one of the gateway's own: what was there is closed
// and dropped, body is not copied. An empty body is none.
func (x *Exchange) Answer(status int, contentType string, body []byte) {
	r := &x.Response
	if r.Body != nil {
		_ = r.Body.Close() // it is abandoned: there is nobody to tell
	}
	if r.Tunnel != nil {
		_ = r.Tunnel.Close()
	}
	r.Header.Reset()
	r.Trailer.Reset()
	*r = Response{Status: status, Header: r.Header, Trailer: r.Trailer, Close: r.Close}
	if contentType != "" {
		r.Header.AddID(ContentType, x.CopyString(contentType))
	}
	if len(body) > 0 {
		r.ContentLength = int64(len(body))
		x.own.Reset(body)
		r.Body = &x.own
	}
}

// OnCancel names what Cancel has to stop; nil: nothing any more. When the
// exchange was cancelled already, c is told at once and OnCancel returns false.
func (x *Exchange) OnCancel(c Canceler) bool {
	x.mu.Lock()
	x.canceler = c
	gone := x.canceled
	x.mu.Unlock()
	if gone && c != nil {
		c.Cancel()
	}
	return !gone
}

// Cancel says that the client has gone: whatever waits for this exchange stops.
// Any goroutine may call it between Reset and Reset.
func (x *Exchange) Cancel() {
	x.mu.Lock()
	x.canceled = true
	c := x.canceler
	x.mu.Unlock()
	if c != nil {
		c.Cancel()
	}
}

// Revive forgets a Cancel. A driver that keeps an Exchange for several
// connections calls it when another one takes it: a Cancel may have come, from
// another goroutine, behind the last Reset.
func (x *Exchange) Revive() {
	x.mu.Lock()
	x.canceler, x.canceled = nil, false
	x.mu.Unlock()
}

// Probe asks what waits for this exchange to look whether it waits in vain. A
// driver calls it now and then for exchanges that take long, from any goroutine
// between Reset and Reset.
func (x *Exchange) Probe() {
	x.mu.Lock()
	c := x.canceler
	x.mu.Unlock()
	if p, ok := c.(Prober); ok {
		p.Probe()
	}
}

// Canceled reports whether the client has gone.
func (x *Exchange) Canceled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.canceled
}

type cancelFunc context.CancelFunc

func (f cancelFunc) Cancel() { f() }

// Context returns a context that ends with Deadline or Cancel, for work that
// waits. It allocates; a step that does not wait has no use for it. stop must
// be called before the exchange goes on.
func (x *Exchange) Context() (ctx context.Context, stop context.CancelFunc) {
	var end context.CancelFunc
	if x.Deadline.IsZero() {
		ctx, end = context.WithCancel(context.Background())
	} else {
		ctx, end = context.WithDeadline(context.Background(), x.Deadline)
	}
	x.OnCancel(cancelFunc(end))
	return ctx, func() {
		x.OnCancel(nil)
		end()
	}
}

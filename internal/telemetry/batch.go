package telemetry

import (
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Texts of an entry, in the order they stand in the batch. What a client sends
// is cut to a length, so that a record has a bound; a cut text ends with "…".
const (
	textID = iota
	textHost
	textPath
	textQuery
	textAgent
	textReferer
	textAborted
	textReason
	texts
)

var textLimits = [texts]int{
	textID: maxRequestID, textHost: 256, textPath: 4096, textQuery: 4096,
	textAgent: 1024, textReferer: 2048, textAborted: 256, textReason: 256,
}

const ellipsis = "…"

// entry is one exchange as the access log needs it. Strings in it belong to the
// configuration or are immutable; what lies in the exchange's memory was copied
// to the batch's text.
type entry struct {
	options  *accessOptions
	route    *exchange.Route
	tls      *exchange.TLSInfo
	caller   *exchange.Caller
	start    int64 // Unix nanoseconds
	total    time.Duration
	own      time.Duration
	waited   time.Duration
	client   netip.Addr
	peer     netip.AddrPort
	method   string
	upstream string
	target   string
	bytesIn  int64
	bytesOut int64
	trace    [16]byte
	text     uint32 // where its texts begin
	lens     [texts]uint16
	status   uint16
	attempts uint16
	proto    exchange.Proto
	code     exchange.Code
	cache    exchange.CacheResult
	refused  bool // code holds
	reused   bool
}

// batch is entries and their texts. It grows to maxBatch and maxText and keeps
// its memory.
type batch struct {
	entries []entry
	text    []byte
}

func newBatch() *batch {
	return &batch{entries: make([]entry, 0, 64), text: make([]byte, 0, 16<<10)}
}

func (b *batch) reset() {
	clear(b.entries) // lets go of routes and TLS states
	b.entries, b.text = b.entries[:0], b.text[:0]
}

// fill is what an addition did to a batch.
type fill int

const (
	added fill = iota
	first      // the batch was empty before
	half       // it passed the middle of its room
	full       // nothing was added
)

// add appends the entry of x.
func (b *batch) add(x *exchange.Exchange, o *accessOptions, total, own time.Duration) fill {
	n, before := len(b.entries), len(b.text)
	if n >= maxBatch || before >= maxText {
		return full
	}
	if n == cap(b.entries) {
		grown := make([]entry, n, min(2*n, maxBatch))
		copy(grown, b.entries)
		b.entries = grown
	}
	b.entries = b.entries[:n+1]
	e := &b.entries[n]
	r, u := &x.Request, &x.Usage
	e.options, e.route, e.caller = o, x.Route, x.Caller
	start := x.Start
	if start.IsZero() {
		start = time.Now() // it was refused before its head was complete
	}
	e.start, e.total, e.own, e.waited = start.UnixNano(), total, own, u.Waited
	e.client, e.method = x.Client, r.Method
	e.upstream, e.target, e.attempts, e.reused = u.Name, u.Target, uint16(min(u.Attempts, 1<<16-1)), u.Reused
	e.bytesIn, e.bytesOut = x.BytesIn, x.BytesOut
	e.trace, e.proto, e.cache = x.Trace.TraceID, r.Proto, x.Cached.Result
	e.status = uint16(x.Response.Status)
	if x.Conn != nil {
		e.peer, e.tls = x.Conn.Peer, x.Conn.TLS
	}
	if x.Err != nil {
		e.code, e.refused = x.Err.Code, true
	}
	e.text = uint32(len(b.text))
	b.put(e, textID, x.ID)
	b.put(e, textHost, r.Host)
	path := r.Path
	if path == nil {
		path = r.RawPath // it was refused before it had a canonical one
	}
	b.put(e, textPath, path)
	b.put(e, textQuery, r.Query)
	b.put(e, textAgent, r.Header.GetID(exchange.UserAgent))
	if o.combined {
		b.put(e, textReferer, r.Header.Get(referer))
	}
	if x.Err != nil && x.Err.Cause != nil {
		b.put(e, textReason, []byte(x.Err.Cause.Error()))
	}
	if x.Aborted != nil {
		b.put(e, textAborted, []byte(x.Aborted.Error()))
	}
	switch {
	case n == 0:
		return first
	case n+1 == maxBatch/2, before < maxText/2 && len(b.text) >= maxText/2:
		return half
	}
	return added
}

var referer = []byte("Referer")

func (b *batch) put(e *entry, which int, v []byte) {
	limit := textLimits[which]
	if len(v) <= limit {
		b.text = append(b.text, v...)
		e.lens[which] = uint16(len(v))
		return
	}
	b.text = append(b.text, v[:limit]...)
	b.text = append(b.text, ellipsis...)
	e.lens[which] = uint16(limit + len(ellipsis))
}

// textOf returns one text of e.
func (b *batch) textOf(e *entry, which int) []byte {
	at := int(e.text)
	for _, n := range e.lens[:which] {
		at += int(n)
	}
	return b.text[at : at+int(e.lens[which])]
}

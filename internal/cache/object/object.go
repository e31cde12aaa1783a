// Package object is a stored response: what the levels of the cache keep, and
// its binary form.
package object

import (
	"bytes"
	"math"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Object is a stored response. It does not change once it is published (put
// into memory or handed to another goroutine), but for the atomics.
type Object struct {
	Key     string // what it is found by: Primary, and with a Vary the values that were asked with
	Primary string // the key of the request without its Vary; Key when there is none
	URI     string // "https://host/path?query": what purges compare
	Spec    string // the Vary, as semantics.VaryOf writes it; "" none
	Status  int
	Fields  []exchange.Field // the stored header; names and values belong to the object
	Body    []byte

	Born                 int64 // Unix ns: when the origin made it, as far as is known
	Stored               int64 // Unix ns: when it was stored
	Lifetime             int64 // s from Born
	StaleWhileRevalidate int64 // s from its expiry
	StaleIfError         int64 // s from its expiry; -1 never

	NoCache        bool // every use is validated first
	MustRevalidate bool // never used stale
	Open           bool // may answer requests with Authorization

	ETag         []byte // nil: none
	LastModified int64  // Unix s, 0: none
	Date         int64  // Unix s, 0: none
	Tags         []string

	Stamp      uint64 // purges applied when its fill began (memory's count); not in the binary form
	Refreshing atomic.Uint32
	Touched    atomic.Uint32
	Hits       atomic.Uint32 // answers that it gave, in samples of HitSample

	// Memory's, which sets them when it stores the object: the mark of its URI,
	// the marks of its tags when it has any, and the number of the last purge of
	// a prefix or of all that is known not to concern it.
	Mark    atomic.Pointer[Mark]
	Tagged  atomic.Pointer[[]*Mark]
	Checked atomic.Uint64

	kept int // bytes that Decode left under the object's slices and strings; 0: it was not decoded
}

// HitSample is how many answers one of Hits stands for: a counter that every core writes on
// every hit of a hot object would cost more than the rest of the hit.
const HitSample = 16

// Mark says when what it stands for (a URI or a tag) was last purged. Its
// fields belong to memory.
type Mark struct {
	Purged atomic.Uint64 // number of that purge, 0: none
	Hash   uint64        // of the name
	Holds  int32         // objects in memory that point here
}

// Expires is when o becomes stale, in Unix ns.
func (o *Object) Expires() int64 {
	const most = math.MaxInt64 / int64(time.Second)
	if o.Lifetime >= most || o.Born > math.MaxInt64-o.Lifetime*int64(time.Second) {
		return math.MaxInt64
	}
	return o.Born + o.Lifetime*int64(time.Second)
}

// CopyFields copies the fields of h that keep reports (nil: all), with names
// and values in one allocation. Known names in their usual spelling are not
// copied: the process has one of each.
func CopyFields(h *exchange.Header, keep func(*exchange.Field) bool) []exchange.Field {
	count, size := 0, 0
	for i := range h.Len() {
		if f := h.At(i); keep == nil || keep(f) {
			count++
			size += len(f.Value)
			if !usual(f) {
				size += len(f.Name)
			}
		}
	}
	if count == 0 {
		return nil
	}
	fields, text := make([]exchange.Field, 0, count), make([]byte, 0, size)
	span := func(b []byte) []byte {
		from := len(text)
		text = append(text, b...)
		return text[from:len(text):len(text)]
	}
	for i := range h.Len() {
		f := h.At(i)
		if len(fields) == count || keep != nil && !keep(f) {
			continue
		}
		name := f.ID.Name()
		if !usual(f) {
			name = span(f.Name)
		}
		fields = append(fields, exchange.Field{Name: name, Value: span(f.Value), ID: f.ID, Hop: f.Hop})
	}
	return fields
}

// usual reports whether f has a known name in its usual spelling.
func usual(f *exchange.Field) bool {
	return f.ID != exchange.Other && bytes.Equal(f.Name, f.ID.Name())
}

// With is a copy of o with another body, as if it had never been in memory.
// Everything else is shared.
func (o *Object) With(body []byte) *Object {
	c := &Object{
		Key: o.Key, Primary: o.Primary, URI: o.URI, Spec: o.Spec, Status: o.Status, Fields: o.Fields, Body: body,
		Born: o.Born, Stored: o.Stored, Lifetime: o.Lifetime, StaleWhileRevalidate: o.StaleWhileRevalidate, StaleIfError: o.StaleIfError,
		NoCache: o.NoCache, MustRevalidate: o.MustRevalidate, Open: o.Open,
		ETag: o.ETag, LastModified: o.LastModified, Date: o.Date, Tags: o.Tags, Stamp: o.Stamp, kept: o.kept,
	}
	if o.kept > 0 {
		c.kept += Rounded(cap(body))
	}
	c.Hits.Store(o.Hits.Load())
	return c
}

// Newer reports whether o is a more recent response than p: its Date is later, or of two
// with the same it came last (RFC 9111 §4).
func (o *Object) Newer(p *Object) bool {
	return o.Date > p.Date || o.Date == p.Date && o.Stored > p.Stored
}

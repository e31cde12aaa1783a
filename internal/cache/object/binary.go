package object

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// The binary form, version 1. Numbers are varints of encoding/binary in their
// shortest form, signed ones in zigzag.
//
//	3  "SLO"
//	1  version
//	16 the first half of the SHA-256 of all other bytes
//	   flags: 1 NoCache, 2 MustRevalidate, 4 Open, 8 has an ETag, 16 Primary is the beginning of Key
//	   Status; signed Born, Stored, Lifetime, StaleWhileRevalidate, StaleIfError, LastModified, Date
//	   length of Key, URI, Spec, Primary; number of Tags and the length of each
//	   number of fields; of each twice the length of the name, + 1 when it is hop-by-hop, and the length of the value
//	   length of the ETag, when there is one
//	   Key, URI, Spec, Primary (unless it is the beginning of Key), Tags
//	   names and values of the fields; the ETag; the Body, to the end
//
// Nothing has two forms: what Decode accepts is what Append writes, byte for
// byte. A version that is not known is an error: the object is fetched anew.
const (
	magic      = "SLO\x01"
	sumSize    = 16
	headerSize = len(magic) + sumSize
)

const (
	flagNoCache = 1 << iota
	flagMustRevalidate
	flagOpen
	flagETag
	flagPrefix
	flagsEnd
)

var (
	// ErrForm: not an object of this version.
	ErrForm = errors.New("no stored response of this version")
	// ErrDamaged: bytes were lost or changed.
	ErrDamaged = errors.New("the stored response is damaged")
)

// Append appends the binary form of o.
func (o *Object) Append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, make([]byte, sumSize)...)
	b = o.appendFacts(b)
	b = append(b, o.Key...)
	b = append(b, o.URI...)
	b = append(b, o.Spec...)
	if !strings.HasPrefix(o.Key, o.Primary) {
		b = append(b, o.Primary...)
	}
	for _, t := range o.Tags {
		b = append(b, t...)
	}
	for i := range o.Fields {
		b = append(b, o.Fields[i].Name...)
		b = append(b, o.Fields[i].Value...)
	}
	b = append(b, o.ETag...)
	b = append(b, o.Body...)
	sum := checksum(b[start:])
	copy(b[start+len(magic):], sum[:sumSize])
	return b
}

// appendFacts appends what stands before the texts.
func (o *Object) appendFacts(b []byte) []byte {
	flags := byte(0)
	for i, set := range [...]bool{o.NoCache, o.MustRevalidate, o.Open, o.ETag != nil, strings.HasPrefix(o.Key, o.Primary)} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(o.Status))
	for _, n := range [...]int64{o.Born, o.Stored, o.Lifetime, o.StaleWhileRevalidate, o.StaleIfError, o.LastModified, o.Date} {
		b = binary.AppendVarint(b, n)
	}
	for _, s := range [...]string{o.Key, o.URI, o.Spec, o.Primary} {
		b = binary.AppendUvarint(b, uint64(len(s)))
	}
	b = binary.AppendUvarint(b, uint64(len(o.Tags)))
	for _, t := range o.Tags {
		b = binary.AppendUvarint(b, uint64(len(t)))
	}
	b = binary.AppendUvarint(b, uint64(len(o.Fields)))
	for i := range o.Fields {
		f := &o.Fields[i]
		name := uint64(len(f.Name)) << 1
		if f.Hop {
			name |= 1
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, name), uint64(len(f.Value)))
	}
	if o.ETag != nil {
		b = binary.AppendUvarint(b, uint64(len(o.ETag)))
	}
	return b
}

// checksum covers all of an object's bytes but its own.
func checksum(b []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(b[:len(magic)])
	h.Write(b[headerSize:])
	h.Sum(sum[:0])
	return sum
}

// Decode reads what Append wrote and fails on anything else. Header and body
// of the object are spans of b: b belongs to the object from then on and is
// not written again.
func Decode(b []byte) (*Object, error) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return nil, ErrForm
	}
	if sum := checksum(b); !bytes.Equal(sum[:sumSize], b[len(magic):headerSize]) {
		return nil, ErrDamaged
	}
	d := decoder{facts: b[headerSize:]}
	o := new(Object)
	flags := d.flags()
	o.NoCache, o.MustRevalidate, o.Open = flags&flagNoCache != 0, flags&flagMustRevalidate != 0, flags&flagOpen != 0
	o.Status = d.length(math.MaxInt32)
	for _, n := range [...]*int64{&o.Born, &o.Stored, &o.Lifetime, &o.StaleWhileRevalidate, &o.StaleIfError, &o.LastModified, &o.Date} {
		*n = d.signed()
	}
	var sizes [4]int
	for i := range sizes {
		sizes[i] = d.length(len(b))
	}
	tags, tagged := d.lengths(1)
	fields, _ := d.lengths(2)
	etag := 0
	if flags&flagETag != 0 {
		etag = d.length(len(b))
	}
	texts := sizes[0] + sizes[1] + sizes[2] + tagged
	if flags&flagPrefix == 0 {
		texts += sizes[3]
	} else if sizes[3] > sizes[0] {
		d.failed = true
	}
	if d.failed || texts > len(d.facts) || flags >= flagsEnd {
		return nil, ErrDamaged
	}
	d.texts, d.facts = string(d.facts[:texts]), d.facts[texts:] // one copy for all strings
	o.Key, o.URI, o.Spec = d.text(sizes[0]), d.text(sizes[1]), d.text(sizes[2])
	if flags&flagPrefix != 0 {
		o.Primary = o.Key[:sizes[3]]
	} else if o.Primary = d.text(sizes[3]); strings.HasPrefix(o.Key, o.Primary) {
		return nil, ErrDamaged
	}
	if tags.count > 0 {
		o.Tags = make([]string, tags.count)
		for i := range o.Tags {
			o.Tags[i] = d.text(tags.next())
		}
	}
	if fields.count > 0 {
		o.Fields = make([]exchange.Field, fields.count)
		for i := range o.Fields {
			name, value := fields.next(), fields.next()
			f := &o.Fields[i]
			f.Name, f.Hop, f.Value = d.span(name>>1), name&1 != 0, d.span(value)
			f.ID = exchange.Lookup(f.Name)
		}
	}
	if flags&flagETag != 0 {
		o.ETag = d.span(etag)
	}
	o.Body, o.kept = d.span(len(d.facts)), Rounded(cap(b))+Rounded(texts)
	if d.failed {
		return nil, ErrDamaged
	}
	return o, nil
}

// decoder takes the front off facts; whatever does not fit sets failed and
// yields zero.
type decoder struct {
	facts  []byte
	texts  string
	failed bool
}

// list is a run of lengths that have been checked and are read once more.
type list struct {
	count int
	rest  []byte
}

func (l *list) next() int {
	v, n := binary.Uvarint(l.rest)
	l.rest = l.rest[n:]
	return int(v)
}

// lengths reads a number and so many times per lengths; sum is what they add
// up to.
func (d *decoder) lengths(per int) (l list, sum int) {
	most := len(d.facts)
	l.count = d.length(most / per) // each takes a byte at least
	l.rest = d.facts
	for range l.count * per {
		if sum += d.length(2*most + 1); d.failed || sum > 4*most {
			d.failed = true
			return list{}, 0
		}
	}
	return l, sum
}

func (d *decoder) flags() byte {
	if len(d.facts) == 0 {
		d.failed = true
		return 0
	}
	v := d.facts[0]
	d.facts = d.facts[1:]
	return v
}

// number reads an unsigned varint in its shortest form.
func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.facts)
	if d.failed || n <= 0 || n > 1 && d.facts[n-1] == 0 {
		d.failed = true
		return 0
	}
	d.facts = d.facts[n:]
	return v
}

func (d *decoder) signed() int64 {
	v := d.number()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) length(most int) int {
	v := d.number()
	if v > uint64(most) {
		d.failed = true
		return 0
	}
	return int(v)
}

func (d *decoder) text(n int) string {
	s := d.texts[:n]
	d.texts = d.texts[n:]
	return s
}

func (d *decoder) span(n int) []byte {
	if n > len(d.facts) {
		d.failed = true
		return nil
	}
	s := d.facts[:n:n]
	d.facts = d.facts[n:]
	return s
}

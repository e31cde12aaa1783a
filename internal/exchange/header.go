package exchange

import (
	"bytes"
	"iter"
)

// Field is one header or trailer field. Name and Value are spans of a buffer
// that somebody else owns (the read buffer, a policy's constants, the
// exchange's scratch): they hold until the exchange ends and are never written
// through. Whoever keeps one longer copies it.
type Field struct {
	Name  []byte // as received; compared without regard to case
	Value []byte // without surrounding white space
	ID    HeaderID
	Hop   bool // hop-by-hop (RFC 9110 §7.6.1): read by the gateway, never forwarded
}

// Header is an ordered list of fields; several may have one name. The zero
// value is empty. A Header is owned by one exchange and reuses its memory.
type Header struct {
	fields  []Field
	present uint64 // bit i: a field with HeaderID i may be here (never a false negative)
}

// Reset empties h and keeps its memory.
func (h *Header) Reset() {
	clear(h.fields)
	h.fields = h.fields[:0]
	h.present = 0
}

// Len is the number of fields.
func (h *Header) Len() int { return len(h.fields) }

// At returns field i for reading or changing in place; it holds until the next
// Add, Set, Del or Reset. A caller that changes Name calls Reindex after.
func (h *Header) At(i int) *Field { return &h.fields[i] }

// Append adds a field whose ID and Hop the caller has already determined. The
// parsers use it; everyone else calls Add.
func (h *Header) Append(f Field) {
	h.fields = append(h.fields, f)
	h.present |= 1 << f.ID
}

// Add appends a field.
func (h *Header) Add(name, value []byte) {
	h.Append(Field{Name: name, Value: value, ID: Lookup(name)})
}

// AddID appends a field with a known name in its usual spelling.
func (h *Header) AddID(id HeaderID, value []byte) {
	h.Append(Field{Name: id.Name(), Value: value, ID: id})
}

// Set replaces all fields of that name with one, in the place of the first.
func (h *Header) Set(name, value []byte) {
	h.set(Field{Name: name, Value: value, ID: Lookup(name)})
}

// SetID is Set for a known name.
func (h *Header) SetID(id HeaderID, value []byte) {
	h.set(Field{Name: id.Name(), Value: value, ID: id})
}

func (h *Header) set(f Field) {
	i := h.find(f.ID, f.Name, 0)
	if i < 0 {
		h.Append(f)
		return
	}
	h.fields[i] = f
	h.del(f.ID, f.Name, i+1)
}

// Del removes all fields of that name.
func (h *Header) Del(name []byte) { h.del(Lookup(name), name, 0) }

// DelID removes all fields with that known name.
func (h *Header) DelID(id HeaderID) { h.del(id, nil, 0) }

// Get returns the first value of a name, nil when there is none (an empty
// value is not nil).
func (h *Header) Get(name []byte) []byte {
	return h.value(h.find(Lookup(name), name, 0))
}

// GetID returns the first value of a known name, nil when there is none.
func (h *Header) GetID(id HeaderID) []byte { return h.value(h.find(id, nil, 0)) }

// Has reports whether a known name is present.
func (h *Header) Has(id HeaderID) bool { return h.find(id, nil, 0) >= 0 }

// Values yields every value of a name, in order.
func (h *Header) Values(name []byte) iter.Seq[[]byte] {
	return h.values(Lookup(name), name)
}

// ValuesID yields every value of a known name, in order.
func (h *Header) ValuesID(id HeaderID) iter.Seq[[]byte] { return h.values(id, nil) }

// Reindex recomputes the IDs after names were changed in place.
func (h *Header) Reindex() {
	h.present = 0
	for i := range h.fields {
		h.fields[i].ID = Lookup(h.fields[i].Name)
		h.present |= 1 << h.fields[i].ID
	}
}

// DelFunc removes the fields that drop reports.
func (h *Header) DelFunc(drop func(*Field) bool) {
	kept := h.fields[:0]
	for i := range h.fields {
		if !drop(&h.fields[i]) {
			kept = append(kept, h.fields[i])
		}
	}
	clear(h.fields[len(kept):])
	h.fields = kept
}

func (h *Header) values(id HeaderID, name []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := h.find(id, name, 0); i >= 0; i = h.find(id, name, i+1) {
			if !yield(h.fields[i].Value) {
				return
			}
		}
	}
}

func (h *Header) value(i int) []byte {
	switch {
	case i < 0:
		return nil
	case h.fields[i].Value == nil:
		return []byte{}
	}
	return h.fields[i].Value
}

func (h *Header) find(id HeaderID, name []byte, from int) int {
	if h.present&(1<<id) == 0 {
		return -1
	}
	for i := from; i < len(h.fields); i++ {
		if f := &h.fields[i]; f.ID == id && (id != Other || EqualFold(f.Name, name)) {
			return i
		}
	}
	return -1
}

func (h *Header) del(id HeaderID, name []byte, from int) {
	i := h.find(id, name, from)
	if i < 0 {
		return
	}
	kept := h.fields[:i]
	for ; i < len(h.fields); i++ {
		if f := &h.fields[i]; f.ID != id || id == Other && !EqualFold(f.Name, name) {
			kept = append(kept, *f)
		}
	}
	clear(h.fields[len(kept):])
	h.fields = kept
	if from == 0 && id != Other {
		h.present &^= 1 << id
	}
}

// EqualFold compares two ASCII names without regard to case. Bytes above 0x7F
// are compared as they are (unlike bytes.EqualFold, which folds Unicode, so
// that U+212A would equal "k").
func EqualFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	if bytes.Equal(a, b) {
		return true
	}
	for i, c := range a {
		if lower(c) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

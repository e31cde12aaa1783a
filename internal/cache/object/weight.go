package object

import (
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

const (
	fieldSize  = int(unsafe.Sizeof(exchange.Field{}))
	stringSize = int(unsafe.Sizeof(""))
)

// Weight is the memory that o holds in bytes, as the allocator rounds it: the
// object, its key, its header and its body, but not what a table that it
// stands in needs.
func (o *Object) Weight() uint64 {
	n := Rounded(int(unsafe.Sizeof(*o))) + Rounded(len(o.Fields)*fieldSize) + Rounded(len(o.Tags)*stringSize)
	if o.kept > 0 {
		return uint64(n + o.kept)
	}
	n += Rounded(len(o.Key)) + Rounded(len(o.Spec)) + Rounded(cap(o.Body))
	if !within(o.Primary, o.Key) {
		n += Rounded(len(o.Primary))
	}
	if !within(o.URI, o.Key) && !within(o.URI, o.Primary) {
		n += Rounded(len(o.URI))
	}
	for _, t := range o.Tags {
		n += Rounded(len(t))
	}
	text := 0
	for i := range o.Fields {
		f := &o.Fields[i]
		text += len(f.Value)
		if known := f.ID.Name(); len(f.Name) > 0 && (len(known) == 0 || &f.Name[0] != &known[0]) {
			text += len(f.Name)
		}
	}
	return uint64(n + Rounded(text))
}

// within reports whether s lies in the memory of whole.
func within(s, whole string) bool {
	if s == "" {
		return true
	}
	at, from := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.StringData(whole)))
	return at >= from && at-from+uintptr(len(s)) <= uintptr(len(whole))
}

// Rounded is about what the allocator takes for n bytes: a step of 16 up to
// 256, above an eighth of the power of two, above 32 KiB whole pages of 8 KiB.
func Rounded(n int) int {
	step := 16
	switch {
	case n > 32<<10:
		step = 8 << 10
	case n > 256:
		for step = 32; n > step*16; step *= 2 {
		}
	}
	return (n + step - 1) / step * step
}

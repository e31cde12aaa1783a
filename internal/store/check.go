package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
)

// check looks at every page that the newer head page of a bbolt file leads to,
// before bbolt maps it. bbolt follows what stands in the file without a question:
// an offset out of bounds ends the process, also from goroutines of its own, where
// no caller can help. Whoever passes here is followed safely.
//
// The format (bbolt's page.go, meta.go; in the byte order of the machine):
//
//	page:   id u64, flags u16, count u16, overflow u32; it is overflow+1 pages long
//	head:   page 0 and 1, flags 4: magic u32, version u32, page size u32, flags u32, root bucket
//	        (page u64, sequence u64), free list u64, pages in use u64, transaction u64, FNV-1a of these u64
//	branch: flags 1, per element: offset u32, key length u32, page u64
//	leaf:   flags 2, per element: flags u32 (1: the value is a bucket), offset u32, key length u32, value length u32
//	bucket: page u64, sequence u64; when page is 0 a leaf page follows inside
//
// Offsets are counted from the element's own beginning. What elements point to
// follows them in their order, without a gap; so a wrong number of elements is seen.

const (
	pageHead    = 16
	elementSize = 16
	headSize    = 64
	headMagic   = 0xED0CDAED
	headVersion = 2

	branchPage = 1
	leafPage   = 2
)

var order = binary.NativeEndian

// head is what a head page says.
type head struct{ size, root, pages, id uint64 }

type checker struct {
	file *os.File
	head head
	seen map[uint64]bool
}

// check returns what is wrong with the file at path.
func check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := newest(f)
	if err != nil {
		return err
	}
	if h.pages*h.size > uint64(info.Size()) {
		return fmt.Errorf("it has %d bytes, and should have %d", info.Size(), h.pages*h.size)
	}
	c := checker{file: f, head: h, seen: map[uint64]bool{0: true, 1: true}}
	return c.page(h.root, nil, nil)
}

// newest reads the two head pages and returns the newer one of those that are
// whole. The second is at the end of the first, whose length only they tell.
func newest(f *os.File) (best head, err error) {
	var first bool
	for at := int64(0); at <= 1<<24; at = max(at*2, 1<<10) {
		var b [pageHead + headSize]byte
		if n, err := f.ReadAt(b[:], at); n < len(b) {
			if at == 0 && n == 0 {
				return head{}, fmt.Errorf("nothing can be read: %w", err)
			}
			break
		}
		h, ok := parseHead(b[pageHead:])
		if !ok || at > 0 && (h.size != uint64(at)) {
			continue
		}
		if !first || h.id > best.id {
			best, first = h, true
		}
	}
	if !first {
		return head{}, errors.New("no head page is whole")
	}
	return best, nil
}

func parseHead(b []byte) (head, bool) {
	sum := fnv.New64a()
	sum.Write(b[:headSize-8])
	h := head{size: uint64(order.Uint32(b[8:])), root: order.Uint64(b[16:]), pages: order.Uint64(b[40:]), id: order.Uint64(b[48:])}
	ok := order.Uint32(b) == headMagic && order.Uint32(b[4:]) == headVersion && order.Uint64(b[56:]) == sum.Sum64() &&
		h.size >= 1<<10 && h.size <= 1<<24 && h.size&(h.size-1) == 0 && h.pages < 1<<32
	return h, ok
}

// page checks page id and all below it, whose keys must be in [from, to); nil is
// no bound.
func (c *checker) page(id uint64, from, to []byte) error {
	if id >= c.head.pages || c.seen[id] {
		return fmt.Errorf("page %d is used twice or is none", id)
	}
	var b [pageHead]byte
	if _, err := c.file.ReadAt(b[:], int64(id*c.head.size)); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	over := uint64(order.Uint32(b[12:]))
	if order.Uint64(b[:]) != id || id+over >= c.head.pages {
		return fmt.Errorf("page %d is not what it should be", id)
	}
	for i := id; i <= id+over; i++ {
		if c.seen[i] {
			return fmt.Errorf("page %d is used twice", i)
		}
		c.seen[i] = true
	}
	p := make([]byte, (over+1)*c.head.size)
	if _, err := c.file.ReadAt(p, int64(id*c.head.size)); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	var err error
	switch order.Uint16(p[8:]) {
	case branchPage:
		err = c.branch(p, from, to)
	case leafPage:
		err = c.leaf(p, from, to)
	default:
		err = fmt.Errorf("kind %d", order.Uint16(p[8:]))
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

var errElement = errors.New("an element out of place")

// reader takes what elements point to, one after the other.
type reader struct {
	page []byte
	n    int // of elements
	at   uint64
}

// elements begins with a page of elements.
func elements(p []byte) (reader, error) {
	n := int(order.Uint16(p[10:]))
	r := reader{page: p, n: n, at: uint64(pageHead + n*elementSize)}
	if r.at > uint64(len(p)) {
		return r, errElement
	}
	return r, nil
}

// next returns n bytes, which element i must say are at offset.
func (r *reader) next(i int, offset, n uint32) ([]byte, error) {
	begin, end := r.at, r.at+uint64(n)
	if uint64(pageHead+i*elementSize)+uint64(offset) != begin || end > uint64(len(r.page)) {
		return nil, errElement
	}
	r.at = end
	return r.page[begin:end], nil
}

func (c *checker) branch(p, from, to []byte) error {
	r, err := elements(p)
	if err != nil || r.n == 0 {
		return errElement
	}
	keys := make([][]byte, r.n, r.n+1)
	for i := range keys {
		e := p[pageHead+i*elementSize:]
		if keys[i], err = r.next(i, order.Uint32(e), order.Uint32(e[4:])); err != nil {
			return err
		}
	}
	if err := sorted(keys, from, to); err != nil {
		return err
	}
	keys = append(keys, to)
	for i := range r.n {
		if err := c.page(order.Uint64(p[pageHead+i*elementSize+8:]), keys[i], keys[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(p, from, to []byte) error {
	r, err := elements(p)
	if err != nil || r.n == 0 && from != nil { // only a bucket's first page may be empty
		return errElement
	}
	keys := make([][]byte, r.n)
	for i := range keys {
		e := p[pageHead+i*elementSize:]
		at, length := order.Uint32(e[4:]), order.Uint32(e[8:])
		if keys[i], err = r.next(i, at, length); err != nil {
			return err
		}
		v, err := r.next(i, at+length, order.Uint32(e[12:]))
		if err != nil {
			return err
		}
		switch order.Uint32(e) {
		case 0:
		case 1:
			err = c.bucket(v)
		default:
			err = errElement
		}
		if err != nil {
			return err
		}
	}
	return sorted(keys, from, to)
}

func (c *checker) bucket(v []byte) error {
	switch {
	case len(v) < elementSize:
		return errElement
	case order.Uint64(v) != 0:
		return c.page(order.Uint64(v), nil, nil)
	case len(v) < elementSize+pageHead || order.Uint16(v[elementSize+8:]) != leafPage:
		return errElement
	}
	return c.leaf(v[elementSize:], nil, nil)
}

func sorted(keys [][]byte, from, to []byte) error {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 || bytes.Compare(k, from) < 0 || to != nil && bytes.Compare(k, to) >= 0 {
			return errors.New("keys out of order")
		}
	}
	return nil
}

package server

import "sync"

// Buffer sizes. A head and a small body fit into the small one, which every busy
// connection has; the large one is for bodies and tunnels that flow, and goes
// back when they pause.
const (
	smallBuffer = 8 << 10
	largeBuffer = 32 << 10
	// firstBuffer is what an idle connection has: the first attempt to read must
	// have somewhere to put what is there already, and while the connection waits
	// it should hold next to nothing. Most heads without cookies fit.
	firstBuffer = 512
)

// buffer is a piece of memory on loan from a pool.
type buffer struct{ b []byte }

// buffers lends large and small buffers.
type buffers struct{ small, large sync.Pool }

func (p *buffers) getSmall() *buffer {
	if b, ok := p.small.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, smallBuffer)}
}

func (p *buffers) getLarge() *buffer {
	if b, ok := p.large.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, largeBuffer)}
}

// put takes b back; nil is allowed.
func (p *buffers) put(b *buffer) {
	switch {
	case b == nil:
	case len(b.b) == smallBuffer:
		p.small.Put(b)
	case len(b.b) == largeBuffer:
		p.large.Put(b)
	}
}

// input is what was read from a connection and not used yet. It begins in the
// small memory of its slot, and moves to a large buffer when a body flows, or to
// memory of its own for a head that is larger still.
type input struct {
	b    []byte // unread: b[r:w]
	r, w int
	keep int     // b[:keep] is in use by the exchange and is not overwritten
	lent *buffer // what b is, when it is from a pool
	own  [smallBuffer]byte
}

func (in *input) init() { in.b = in.own[:] }

func (in *input) unread() []byte { return in.b[in.r:in.w] }
func (in *input) empty() bool    { return in.r == in.w }

// spent reports whether nothing of another request is there: some clients end a
// body with an empty line.
func (in *input) spent() bool { return in.empty() || string(in.unread()) == "\r\n" }

// free is where to read to. It may be empty.
func (in *input) free() []byte { return in.b[in.w:] }

// rewind moves the unread bytes as far forward as keep allows. Spans of what was
// read before become invalid.
func (in *input) rewind() {
	if in.r == in.keep {
		return
	}
	n := copy(in.b[in.keep:], in.unread())
	in.r, in.w = in.keep, in.keep+n
}

// move takes the unread bytes to other memory. What is kept stays where it was
// and remains valid: the small memory belongs to the slot, a pooled buffer is
// given back only by settle.
func (in *input) move(to []byte, lent *buffer) {
	n := copy(to, in.unread())
	in.b, in.r, in.w, in.keep, in.lent = to, 0, n, 0, lent
}

// enlarge makes room for a body that flows.
func (in *input) enlarge(pool *buffers) {
	if in.lent != nil || len(in.unread()) >= largeBuffer {
		return
	}
	lent := pool.getLarge()
	in.move(lent.b, lent)
}

// grow makes room for a head that does not fit, up to most bytes in all. It
// reports whether there is room now. Nothing may be kept.
func (in *input) grow(pool *buffers, most int) bool {
	in.rewind()
	if in.w < len(in.b) {
		return true
	}
	if len(in.b) >= most {
		return false
	}
	// Not from the pool: the spans of the head must outlive a body's move to a
	// large buffer. Heads of this size are rare.
	lent := in.lent
	in.move(make([]byte, min(2*len(in.b), most)), nil)
	pool.put(lent)
	return true
}

// settle ends the use of everything that was kept. Unread bytes, the beginning
// of the next request, go back to the small memory if they fit.
func (in *input) settle(pool *buffers) {
	in.keep = 0
	if in.lent == nil && len(in.b) == smallBuffer {
		if in.empty() {
			in.r, in.w = 0, 0
		}
		return
	}
	if in.w-in.r > smallBuffer {
		return
	}
	lent := in.lent
	in.move(in.own[:], nil)
	pool.put(lent)
}

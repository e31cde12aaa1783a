package upstream

import "sync"

// Two sizes of buffer: most messages fit into a small one, which also bounds what
// a short exchange holds; a long body moves in large ones, for fewer system calls.
const (
	smallBuffer = 16 << 10
	largeBuffer = 64 << 10
)

// buffer is memory for one message, or a part of one.
type buffer struct{ b []byte }

// buffers keeps what was given back. The zero value is empty.
type buffers struct{ small, large sync.Pool }

// get returns a buffer of the smallest size that holds n bytes, or of the large
// size when none does. Its content is undefined.
func (p *buffers) get(n int) *buffer {
	pool, size := &p.small, smallBuffer
	if n > smallBuffer {
		pool, size = &p.large, largeBuffer
	}
	if b, ok := pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, size)}
}

// put takes b back. One that has grown past its size is dropped.
func (p *buffers) put(b *buffer) {
	b.b = b.b[:cap(b.b)]
	poison(b.b)
	switch len(b.b) {
	case smallBuffer:
		p.small.Put(b)
	case largeBuffer:
		p.large.Put(b)
	}
}

package exchange

import "io"

// Bytes is a body that is in memory. The zero value is an empty body.
type Bytes struct {
	b    []byte
	read bool
}

// NewBytes returns a body of b, which is not copied.
func NewBytes(b []byte) *Bytes { return &Bytes{b: b} }

// Reset makes b the body again, unread.
func (s *Bytes) Reset(b []byte) { *s = Bytes{b: b} }

// Next returns everything at once, with io.EOF.
func (s *Bytes) Next() ([]byte, error) {
	if s.read {
		return nil, io.EOF
	}
	s.read = true
	return s.b, io.EOF
}

// Whole returns all of the body, read or not. It is shared: nobody writes to it.
func (s *Bytes) Whole() []byte { return s.b }

// Ready is always true.
func (s *Bytes) Ready() bool { return true }

// Close does nothing.
func (s *Bytes) Close() error { return nil }

// Reader reads a Body as an io.Reader, for libraries that want one.
type Reader struct {
	Body  Body
	piece []byte
	err   error
}

// Read copies from the body; its error is the body's.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.piece) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.piece, r.err = r.Body.Next()
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

var (
	_ Body      = (*Bytes)(nil)
	_ io.Reader = (*Reader)(nil)
)

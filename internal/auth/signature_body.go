package auth

import (
	"crypto/subtle"
	"errors"
	"hash"
	"io"

	"github.com/sluice-gateway/sluice/internal/auth/httpsig"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// digestBody passes a body on and keeps its end back until all digests hold, so that
// nobody behind it ever sees a whole body that is not the one that was signed. With a
// declared length the end is the piece that completes it; without one it is the last
// piece that came, which is copied. A body that does not hold ends with a 401.
type digestBody struct {
	source  exchange.Body
	sums    []digestSum
	left    int64 // bytes until the declared length, or exchange.Unknown
	held    []byte
	spare   []byte // memory for the next one that is held
	last    []byte // behind held, when the source has ended
	ended   bool   // the source has ended, and the digests hold
	failure error
}

type digestSum struct {
	hash.Hash
	want []byte
}

var errBody = errors.New("the body is not the one of the Content-Digest that was signed")

func newDigestBody(source exchange.Body, digests []httpsig.Digest, length int64) *digestBody {
	b := &digestBody{source: source, left: length}
	for i := range digests {
		b.sums = append(b.sums, digestSum{digests[i].New(), digests[i].Sum})
	}
	return b
}

// holds reports whether what was hashed is what was signed.
func (b *digestBody) holds() bool {
	ok := 1
	for i := range b.sums {
		ok &= subtle.ConstantTimeCompare(b.sums[i].Sum(nil), b.sums[i].want)
	}
	return ok == 1
}

// take reads a piece and hashes it. At the end the error is io.EOF, or a refusal.
func (b *digestBody) take() ([]byte, error) {
	piece, err := b.source.Next()
	for i := range b.sums {
		_, _ = b.sums[i].Write(piece) // a hash never fails
	}
	if b.left != exchange.Unknown {
		b.left -= int64(len(piece))
	}
	if err != nil && err != io.EOF {
		b.failure = err
		return nil, err
	}
	if (err == io.EOF || b.left == 0) && !b.ended {
		if !b.holds() {
			e := refuse(errBody)
			e.Header = []exchange.Field{{Name: wwwAuthenticate, Value: []byte(signatureChallenge)}}
			b.failure = e
			return nil, e
		}
		b.ended = true
	}
	return piece, err
}

// Next returns the next piece.
func (b *digestBody) Next() ([]byte, error) {
	if b.failure != nil {
		return nil, b.failure
	}
	if b.left != exchange.Unknown {
		return b.take()
	}
	if b.ended {
		out := b.last
		b.last = nil
		return out, io.EOF
	}
	for {
		out := b.held
		piece, err := b.take()
		switch {
		case err == io.EOF && len(out) == 0:
			return piece, io.EOF
		case err == io.EOF && len(piece) == 0:
			b.held = nil
			return out, io.EOF
		case err == io.EOF:
			b.held, b.last = nil, piece
			return out, nil
		case err != nil:
			return nil, err
		}
		b.held, b.spare = append(b.spare[:0], piece...), out
		if len(out) > 0 {
			return out, nil
		}
	}
}

// Ready reports whether Next would return without waiting. To know that, the first
// piece has to be there already.
func (b *digestBody) Ready() bool {
	if b.failure != nil || b.ended && b.left == exchange.Unknown {
		return true
	}
	if b.left == exchange.Unknown && len(b.held) == 0 && b.source.Ready() {
		piece, err := b.take()
		if b.held = append(b.held[:0], piece...); err != nil {
			if b.failure == nil {
				b.last, b.held = b.held, nil
			}
			return true
		}
	}
	return b.source.Ready()
}

// Close gives the source back.
func (b *digestBody) Close() error { return b.source.Close() }

// Cancel stops a Next that waits.
func (b *digestBody) Cancel() {
	if c, ok := b.source.(exchange.Canceler); ok {
		c.Cancel()
	}
}

var (
	_ exchange.Body     = (*digestBody)(nil)
	_ exchange.Canceler = (*digestBody)(nil)
)

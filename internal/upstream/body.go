package upstream

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// The response's body. Pieces are spans of the read buffer; one is always decoded
// ahead as far as the buffer goes, so that Ready is exact and the end comes with the
// last piece. While it waits for the target it holds no buffer. There is no limit on
// how long a target may be silent: a stream of events may be so for hours.

// Next returns the next piece of the body.
func (k *call) Next() ([]byte, error) {
	if k.piece == nil && k.pieceErr == nil {
		k.fetch()
	}
	piece, err := k.piece, k.pieceErr
	k.piece = nil
	if err == nil {
		k.decode() // what follows in the buffer; it does not touch piece
		if k.piece == nil && k.pieceErr == io.EOF {
			err = io.EOF
		}
	}
	k.x.Usage.BytesIn += int64(len(piece))
	return piece, err
}

// Ready reports whether the buffer has a piece, or the end.
func (k *call) Ready() bool { return k.piece != nil || k.pieceErr != nil }

// Close ends the body. One that was not read to its end takes the connection with
// it, and one that ended before the request did takes the request.
func (k *call) Close() error {
	k.abandon()
	k.putGathered()
	k.putIn()
	k.piece = nil
	if k.pieceErr == nil {
		k.pieceErr = errClosed
	}
	return nil
}

// decode looks for the next piece, or the end, in the buffer.
func (k *call) decode() {
	for k.in != nil && k.start < k.end && k.pieceErr == nil {
		piece, n, err := k.dec.Next(k.in.b[k.start:k.end])
		k.start += n
		if len(piece) > 0 {
			k.piece = piece
			k.left -= int64(len(piece))
		}
		switch {
		case err == io.EOF:
			k.ended()
			return
		case err == http1.ErrIncomplete:
			return
		case err != nil:
			k.pieceErr = invalid(err)
			return
		case k.piece != nil:
			return
		}
	}
}

// ended is the end of the body. A connection on which the request goes on is left
// to Close.
func (k *call) ended() {
	k.pieceErr = io.EOF
	copyTrailer(k.x)
	if !k.pump.running() {
		k.release()
	}
}

// copyTrailer makes the trailer hold as long as the header does.
func copyTrailer(x *exchange.Exchange) {
	t := &x.Response.Trailer
	for i := range t.Len() {
		f := t.At(i)
		f.Name, f.Value = x.Copy(f.Name), x.Copy(f.Value)
	}
}

// fetch waits for the next piece, or the end.
func (k *call) fetch() {
	began := time.Now()
	for k.piece == nil && k.pieceErr == nil {
		if f := k.room(); f != nil {
			k.pieceErr = f.err
			break
		}
		n, err := k.conn.receive(k)
		if n > 0 {
			k.end += n
			k.grow = k.end == len(k.in.b)
			k.decode()
		}
		if err != nil && k.piece == nil && k.pieceErr == nil {
			k.finish(err)
		}
	}
	k.last = time.Now()
	k.x.Usage.Waited += k.last.Sub(began)
}

// finish says what a failed read of the body means. It leaves nothing when the read
// is to be tried again.
func (k *call) finish(err error) {
	c := k.conn
	switch {
	case c.canceled.Load():
		k.pieceErr = clientGone(err).err
	case c.aborted.Load():
		k.pieceErr = k.pump.result().err
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.within(time.Time{}, 0) // it was the head's
	case err == io.EOF:
		k.keep = false
		if err := k.dec.Finish(); err != nil {
			k.pieceErr = invalid(err)
			return
		}
		k.ended()
	default:
		k.pieceErr = broken(err, true).err
	}
}

// room makes room to read to: behind what is unread, at the front of the buffer, or
// in a larger one. With nothing unread there is no buffer, until Buffer is asked.
func (k *call) room() *fault {
	switch {
	case k.in == nil:
	case k.start == k.end:
		k.putIn()
	case k.start > 0:
		k.end = copy(k.in.b, k.in.b[k.start:k.end])
		k.start = 0
	case k.end == len(k.in.b):
		if k.end >= largeBuffer {
			return malformed(errLargeHead, "")
		}
		large := k.u.buffers.get(largeBuffer)
		copy(large.b, k.in.b[:k.end])
		k.u.buffers.put(k.in)
		k.in = large
	}
	return nil
}

// Buffer returns where to read to.
func (k *call) Buffer() []byte {
	if k.in == nil {
		size := smallBuffer
		if k.left > smallBuffer || k.grow || k.conn.large {
			size = largeBuffer
		}
		k.in = k.u.buffers.get(size)
		k.start, k.end = 0, 0
	}
	return k.in.b[k.end:]
}

// putIn gives the read buffer back.
func (k *call) putIn() {
	if k.in != nil {
		k.u.buffers.put(k.in)
		k.in = nil
	}
	k.start, k.end = 0, 0
}

// Detach implements exchange.Detacher. A call whose request is still being sent stays
// with its exchange.
func (k *call) Detach(y *exchange.Exchange) bool {
	x := k.x
	if k.pump.running() || k.expecting {
		return false
	}
	y.Start, y.Conn, y.Usage = x.Start, x.Conn, x.Usage
	y.Kept, x.Kept = k, nil
	k.x = y
	if t := &y.Response.Trailer; k.pieceErr == nil {
		k.dec.SetTrailer(t)
	}
	if k.conn == nil {
		return true // what is left of the body is in hand
	}
	alone := x.OnCancel(nil)
	if !y.OnCancel(k.conn) || !alone {
		k.conn.Cancel() // whoever was to have it has gone
	}
	return true
}

var _ exchange.Detacher = (*call)(nil)

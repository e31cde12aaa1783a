//go:build linux

package load

import (
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var (
	errFrame  = errors.New("bad HTTP/2 frame")
	errStream = errors.New("HTTP/2 stream was reset")
)

const (
	frameHead  = 9
	ourWindow  = 1 << 30 // both of a stream and, refilled at half, of the connection
	firstBytes = 65535   // window before any change, RFC 9113 §6.9.2
	maxFrame   = 16384
)

// framer speaks the client's side of HTTP/2 on one connection (RFC 9113): what a
// load needs of it. Requests have no body; of answers it takes the status and the
// length.
type framer struct {
	c         *conn
	in        []byte // a frame whose end has not come
	dec       *hpack.Decoder
	status    int // of the header block being decoded
	block     []byte
	blockOf   uint32 // stream whose header block goes on; 0: none
	blockEnds bool   // and whether the stream ends with it
	next      uint32
	window    int64 // bytes of DATA the server may still send on the connection
	goingAway bool
}

// newFramer queues the client's preface.
func newFramer(c *conn) *framer {
	f := &framer{c: c, next: 1, window: ourWindow}
	f.dec = hpack.NewDecoder(4096, func(h hpack.HeaderField) {
		if h.Name == ":status" {
			n, _ := number([]byte(h.Value))
			f.status = int(n)
		}
	})
	c.out = append(make([]byte, 0, 4096), http2.ClientPreface...)
	f.frame(http2.FrameSettings, 0, 0, 12)
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(http2.SettingEnablePush))
	c.out = binary.BigEndian.AppendUint32(c.out, 0)
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(http2.SettingInitialWindowSize))
	c.out = binary.BigEndian.AppendUint32(c.out, ourWindow)
	f.grow(ourWindow - firstBytes)
	return f
}

// frame queues a frame's head; its payload of n bytes follows.
func (f *framer) frame(t http2.FrameType, flags http2.Flags, stream uint32, n int) {
	f.c.out = append(f.c.out, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags))
	f.c.out = binary.BigEndian.AppendUint32(f.c.out, stream)
}

func (f *framer) grow(n uint32) {
	f.frame(http2.FrameWindowUpdate, 0, 0, 4)
	f.c.out = binary.BigEndian.AppendUint32(f.c.out, n)
}

// ask queues a request as one HEADERS frame.
func (f *framer) ask(s *slot, r *Request) {
	s.stream, s.status, s.length = f.next, 0, 0
	f.next += 2
	f.frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, s.stream, len(r.block))
	f.c.out = append(f.c.out, r.block...)
}

func (f *framer) underWay() int {
	n := 0
	for i := range f.c.slots {
		if f.c.slots[i].busy {
			n++
		}
	}
	return n
}

func (f *framer) slot(stream uint32) *slot {
	for i := range f.c.slots {
		if s := &f.c.slots[i]; s.busy && s.stream == stream {
			return s
		}
	}
	return nil
}

// feed takes bytes as they come and handles the frames that are whole.
func (f *framer) feed(p []byte) error {
	if len(f.in) > 0 {
		f.in = append(f.in, p...)
		rest, err := f.frames(f.in)
		f.in = f.in[:copy(f.in, rest)]
		return err
	}
	rest, err := f.frames(p)
	f.in = append(f.in, rest...)
	return err
}

func (f *framer) frames(p []byte) (rest []byte, err error) {
	for len(p) >= frameHead {
		n := int(p[0])<<16 | int(p[1])<<8 | int(p[2])
		if n > maxFrame {
			return nil, errFrame
		}
		if len(p) < frameHead+n {
			break
		}
		stream := binary.BigEndian.Uint32(p[5:]) &^ (1 << 31)
		if err := f.handle(http2.FrameType(p[3]), http2.Flags(p[4]), stream, p[frameHead:frameHead+n]); err != nil {
			return nil, err
		}
		p = p[frameHead+n:]
	}
	return p, nil
}

func (f *framer) handle(t http2.FrameType, flags http2.Flags, stream uint32, p []byte) error {
	if f.blockOf != 0 && (t != http2.FrameContinuation || stream != f.blockOf) {
		return errFrame
	}
	switch t {
	case http2.FrameData:
		return f.data(flags, stream, p)
	case http2.FrameHeaders:
		p, err := unpad(flags, p, flags.Has(http2.FlagHeadersPriority))
		if err != nil {
			return err
		}
		f.blockEnds = flags.Has(http2.FlagHeadersEndStream)
		return f.headers(flags, stream, p)
	case http2.FrameContinuation:
		return f.headers(flags, stream, p)
	case http2.FrameRSTStream:
		if f.slot(stream) != nil {
			return errStream
		}
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			f.frame(http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) && len(p) == 8 {
			f.frame(http2.FramePing, http2.FlagPingAck, 0, 8)
			f.c.out = append(f.c.out, p...)
		}
	case http2.FrameGoAway:
		f.goingAway = true
		if f.underWay() == 0 {
			return io.EOF
		}
	}
	return nil
}

// headers collects a header block and decodes it when it is whole.
func (f *framer) headers(flags http2.Flags, stream uint32, p []byte) error {
	if !flags.Has(http2.FlagHeadersEndHeaders) || f.blockOf != 0 {
		f.block = append(f.block, p...)
		f.blockOf = stream
		if !flags.Has(http2.FlagHeadersEndHeaders) {
			if len(f.block) > maxHead {
				return errLong
			}
			return nil
		}
		p = f.block
		f.block, f.blockOf = f.block[:0], 0
	}
	f.status = 0
	if _, err := f.dec.Write(p); err != nil {
		return err
	}
	if err := f.dec.Close(); err != nil {
		return err
	}
	s := f.slot(stream)
	if s == nil {
		return nil
	}
	if f.status >= 200 {
		s.status = f.status
	}
	if f.blockEnds {
		f.c.w.complete(s, s.status, s.length)
	}
	return nil
}

func (f *framer) data(flags http2.Flags, stream uint32, p []byte) error {
	f.window -= int64(len(p))
	if f.window < ourWindow/2 {
		f.grow(uint32(ourWindow - f.window))
		f.window = ourWindow
	}
	p, err := unpad(flags, p, false)
	if err != nil {
		return err
	}
	s := f.slot(stream)
	if s == nil {
		return nil
	}
	s.length += int64(len(p))
	if flags.Has(http2.FlagDataEndStream) {
		f.c.w.complete(s, s.status, s.length)
	}
	return nil
}

// unpad takes padding and priority away (RFC 9113 §6.1, §6.2).
func unpad(flags http2.Flags, p []byte, priority bool) ([]byte, error) {
	if flags.Has(http2.FlagDataPadded) {
		if len(p) == 0 || int(p[0]) >= len(p) {
			return nil, errFrame
		}
		p = p[1 : len(p)-int(p[0])]
	}
	if priority {
		if len(p) < 5 {
			return nil, errFrame
		}
		p = p[5:]
	}
	return p, nil
}

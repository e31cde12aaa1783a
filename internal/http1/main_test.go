package http1_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// usual are the limits that a gateway has when its config says nothing.
var usual = http1.Limits{Head: 32 << 10, Fields: 256}

// message is what became of one message: refused, unfinished, or read whole.
type message struct {
	err    *exchange.Error // of a refusal
	inBody bool            // err came with the body
	wait   bool            // more bytes are awaited
	head   string          // as describeRequest or describeResponse say it; "" when it was not read
	body   string          // as far as it was read
	whole  bool            // the body ended
	rest   string          // what is behind a whole message
	sent   string          // the fields that are passed on, as they are written
	tail   string          // those of the trailer
}

func (m message) String() string {
	switch {
	case m.err != nil && m.inBody:
		return fmt.Sprintf("%d in body", m.err.HTTPStatus())
	case m.err != nil:
		return fmt.Sprint(m.err.HTTPStatus())
	case m.wait:
		return "wait"
	}
	return "forward"
}

// cuts says how many of the n bytes that are left arrive next: 1 to n.
type cuts func(n int) int

func atOnce(n int) int { return n }
func singly(int) int   { return 1 }

// bySeed cuts as the bytes of seed say, over and over.
func bySeed(seed []byte) cuts {
	if len(seed) == 0 {
		return atOnce
	}
	at := 0
	return func(n int) int {
		size := int(seed[at%len(seed)])
		at++
		return min(n, max(size, 1))
	}
}

// feed is bytes that arrive in pieces, and the ones of them that nobody has
// taken yet. The buffer is always exactly as long as what has arrived, so that
// reading beyond it is out of range.
type feed struct {
	coming, buf []byte
	cut         cuts
}

func (f *feed) more() bool {
	if len(f.coming) == 0 {
		return false
	}
	n := f.cut(len(f.coming))
	buf := make([]byte, len(f.buf)+n)
	copy(buf, f.buf)
	copy(buf[len(f.buf):], f.coming)
	f.buf, f.coming = buf, f.coming[n:]
	return true
}

// head waits for a whole head, as a driver does, or for one that is too long.
func (f *feed) head(lim http1.Limits) {
	end, from := 0, 0
	for {
		end, from = http1.HeadEnd(f.buf, from)
		if end > 0 || len(f.buf) > lim.Head || !f.more() {
			return
		}
	}
}

// readRequest reads the first request of raw, arriving as cut says.
func readRequest(raw []byte, cut cuts, lim http1.Limits) message {
	f := &feed{coming: raw, cut: cut}
	var r exchange.Request
	for {
		f.head(lim)
		n, framing, err := http1.ParseRequest(f.buf, lim, &r)
		switch {
		case err == nil:
			m := message{head: describeRequest(&r, framing)}
			f.buf = f.buf[n:]
			m.sent = string(http1.AppendHeader(nil, &r.Header))
			f.body(&m, framing, exchange.Client, lim, &r.Trailer)
			return m
		case !errors.Is(err, http1.ErrIncomplete):
			return message{err: exchange.AsError(err)}
		case !f.more():
			return message{wait: true}
		}
	}
}

// readResponse reads the first response of raw to a request of method.
func readResponse(raw []byte, cut cuts, lim http1.Limits, method string) message {
	f := &feed{coming: raw, cut: cut}
	var r exchange.Response
	for {
		f.head(lim)
		n, framing, err := http1.ParseResponse(f.buf, lim, method, &r)
		switch {
		case err == nil:
			m := message{head: describeResponse(&r, framing)}
			f.buf = f.buf[n:]
			m.sent = string(http1.AppendHeader(nil, &r.Header))
			f.body(&m, framing, exchange.Upstream, lim, &r.Trailer)
			return m
		case !errors.Is(err, http1.ErrIncomplete):
			return message{err: exchange.AsError(err)}
		case !f.more():
			return message{wait: true}
		}
	}
}

// body reads a body to its end, or as far as the bytes go.
func (f *feed) body(m *message, framing http1.Framing, side exchange.Side, lim http1.Limits, trailer *exchange.Header) {
	var d http1.Decoder
	d.Reset(framing, side, lim, trailer)
	var body []byte
	defer func() { m.body = string(body) }()
	for {
		piece, n, err := d.Next(f.buf)
		if n > len(f.buf) || len(piece) > n {
			panic(fmt.Sprintf("%d bytes taken and %d yielded of %d", n, len(piece), len(f.buf)))
		}
		body = append(body, piece...)
		switch {
		case errors.Is(err, io.EOF):
			m.whole = true
			m.tail = string(http1.AppendHeader(nil, trailer))
			m.rest = string(f.buf[n:]) + string(f.coming)
			return
		case err != nil && !errors.Is(err, http1.ErrIncomplete):
			m.err, m.inBody = exchange.AsError(err), true
			return
		case err == nil && n == 0:
			panic("Next took nothing and asked for nothing")
		}
		f.buf = f.buf[n:]
		if err != nil && !f.more() {
			m.wait = d.Finish() != nil
			m.whole = !m.wait
			return
		}
	}
}

// describeRequest writes a request head with all that was read from it, hop-by-hop
// fields with a minus in front.
func describeRequest(r *exchange.Request, f http1.Framing) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\n", r.Method, r.Target, r.Proto)
	fmt.Fprintf(&b, "authority %q, host %q, path %q", r.Authority, r.Host, r.RawPath)
	if r.HasQuery {
		fmt.Fprintf(&b, ", query %q", r.Query)
	} else if r.Query != nil {
		fmt.Fprintf(&b, ", a query %q without a question mark", r.Query)
	}
	fmt.Fprintf(&b, "\n%s, length %d", describeFraming(f), r.ContentLength)
	if r.Expect {
		b.WriteString(", expects 100-continue")
	}
	if r.Upgrade != nil {
		fmt.Fprintf(&b, ", upgrade %q", r.Upgrade)
	}
	return b.String() + "\n" + describeHeader(&r.Header)
}

func describeResponse(r *exchange.Response, f http1.Framing) string {
	return fmt.Sprintf("%d\n%s, length %d\n", r.Status, describeFraming(f), r.ContentLength) + describeHeader(&r.Header)
}

func describeFraming(f http1.Framing) string {
	s := f.Kind.String()
	if f.Kind == http1.ByLength {
		s += fmt.Sprint(" ", f.Length)
	}
	if f.KeepAlive {
		return s + ", keep-alive"
	}
	return s + ", close"
}

func describeHeader(h *exchange.Header) string {
	var b strings.Builder
	for i := range h.Len() {
		f := h.At(i)
		if f.Hop {
			b.WriteString("-")
		}
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
		if f.ID != exchange.Lookup(f.Name) {
			fmt.Fprintf(&b, "  has the ID %d\n", f.ID)
		}
	}
	return b.String()
}

// crlf turns the line ends of a text in the source into those of HTTP.
func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// hasField reports whether fields as they are written have a name.
func hasField(written, name string) bool {
	for line := range bytes.SplitSeq([]byte(written), []byte("\r\n")) {
		if n, _, ok := bytes.Cut(line, []byte(":")); ok && exchange.EqualFold(n, []byte(name)) {
			return true
		}
	}
	return false
}

package upstream

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// responseLimits bound the head of a response: a large one is read into a large
// buffer.
var responseLimits = http1.Limits{Head: largeBuffer, Fields: 1000}

// maxInterims bounds the informational responses to one request.
const maxInterims = 100

// heads reads the heads that are in the buffer. done: the last was the response's
// own, and x.Response is filled.
func (k *call) heads() (done bool, f *fault) {
	for {
		b := k.in.b[k.start:k.end]
		size, resume := http1.HeadEnd(b, k.scanned)
		if size == 0 {
			k.scanned = resume
			if len(b) >= responseLimits.Head {
				return false, malformed(errLargeHead, "http_response_header_section_size")
			}
			return false, nil
		}
		k.scanned = 0
		k.start += size
		head := b[:size]
		if !bytes.HasPrefix(head, interimLine) || bytes.HasPrefix(head, upgradeLine) {
			head = k.x.Copy(head) // its spans hold longer than the buffer
		}
		r := &k.x.Response
		_, framing, err := http1.ParseResponse(head, responseLimits, k.x.Request.Method, r)
		if err != nil {
			return false, &fault{kind: badReply, err: invalid(err)}
		}
		switch {
		case r.Status == 101:
			return true, k.upgrade()
		case r.Status >= 200:
			return true, k.reply(framing)
		}
		if f := k.interim(); f != nil {
			return false, f
		}
		r.Header.Reset()
	}
}

// How informational responses begin, which are used up before the buffer is, and the
// one of them that is not.
var (
	interimLine = []byte("HTTP/1.1 1")
	upgradeLine = []byte("HTTP/1.1 101")
)

var errLargeHead = errors.New("the head is larger than " + strconv.Itoa(responseLimits.Head>>10) + " KiB")

// invalid completes an error of the parser.
func invalid(err error) *exchange.Error {
	e := exchange.AsError(err)
	if e.Detail == "" {
		e.Detail = "The upstream's response is not valid."
	}
	return e
}

// interim passes an informational response on. 100 is for whoever asked for it.
func (k *call) interim() *fault {
	r := &k.x.Response
	if k.interims++; k.interims > maxInterims {
		return malformed(errTooManyOf1, "")
	}
	if r.Status != 100 {
		if err := k.x.Driver.Interim(r.Status, &r.Header); err != nil {
			return clientGone(err)
		}
		return nil
	}
	if !k.expecting {
		return nil
	}
	if f := k.goOn(&r.Header); f != nil {
		return f
	}
	k.from = time.Now()
	return k.arm(k.from)
}

// reply fills the rest of x.Response: the head is complete.
func (k *call) reply(framing http1.Framing) *fault {
	x := k.x
	r := &x.Response
	k.last = time.Now()
	x.Usage.Head = k.last.Sub(x.Start)
	x.Usage.Waited += k.last.Sub(k.now)
	k.keep = framing.KeepAlive
	flowing, f := k.pumpAtHead()
	if f != nil {
		return f
	}
	if flowing || k.expecting || !k.pump.clean() {
		// The request has not ended, and its end will not be read.
		r.Close, k.keep = true, false
	}
	if k.keep && r.Header.Has(exchange.KeepAlive) {
		k.conn.idleFor = idleTime(r.Header.GetID(exchange.KeepAlive), k.u.times.idle)
	}
	if framing.Kind == http1.NoBody {
		if flowing {
			k.pieceErr = io.EOF
			r.Body = k // its Close ends the request
			return nil
		}
		k.release()
		k.putIn()
		return nil
	}
	k.dec.Reset(framing, exchange.Upstream, responseLimits, &r.Trailer)
	k.left = exchange.Unknown
	if framing.Kind == http1.ByLength {
		k.left = framing.Length
	}
	r.Body = k
	k.decode()
	return nil
}

// idleTime reads the timeout of a Keep-Alive field (RFC 2068 §19.7.1): the
// connection is used for a fifth less, at most five seconds, so that it is not in
// use when the target closes it.
func idleTime(v []byte, usual time.Duration) time.Duration {
	for p := range bytes.SplitSeq(v, []byte{','}) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(p), []byte{'='})
		if !exchange.EqualFold(name, timeoutParam) {
			continue
		}
		n, err := strconv.ParseUint(string(bytes.Trim(value, ` "`)), 10, 31)
		if err != nil {
			return usual
		}
		d := time.Duration(n) * time.Second
		return min(usual, d-min(d/5, 5*time.Second))
	}
	return usual
}

var timeoutParam = []byte("timeout")

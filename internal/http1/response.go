package http1

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// ParseResponse reads the response head that b begins with, an interim one too.
// method is the request's. It returns the bytes it took, or ErrIncomplete, or an
// *exchange.Error of the upstream's side. Spans in r alias b.
//
// 101 yields Upgraded; whether an upgrade was asked for is the caller's to know.
func ParseResponse(b []byte, lim Limits, method string, r *exchange.Response) (n int, f Framing, err error) {
	end, _ := HeadEnd(b, 0)
	if end == 0 && len(b) <= lim.Head {
		return 0, f, ErrIncomplete
	}
	if end == 0 || end > lim.Head {
		return 0, f, malformed(exchange.Upstream, "the head of the response is too large")
	}
	b = b[:end]
	n, minor, err := statusLine(b, r)
	if err != nil {
		return 0, f, err
	}
	h := head{side: exchange.Upstream}
	took, err := h.readFields(b[n:], lim.Fields, &r.Header)
	if err != nil {
		return 0, f, err
	}
	if n+took != len(b) {
		return 0, f, malformed(exchange.Upstream, "the head has an empty line that does not end in CR LF")
	}
	h.markNominated(&r.Header)
	f, err = h.responseFraming(minor, method, r)
	return end, f, err
}

// statusLine reads "HTTP/1.x NNN reason". The reason may be missing with its
// space, as some servers send it.
func statusLine(b []byte, r *exchange.Response) (next, minor int, err error) {
	nl := bytes.IndexByte(b, '\n')
	if nl < 1 || b[nl-1] != '\r' {
		return 0, 0, malformed(exchange.Upstream, "the status line does not end in CR LF")
	}
	line := b[:nl-1]
	const prefix = "HTTP/1."
	if len(line) < len("HTTP/1.1 200") || string(line[:len(prefix)]) != prefix || line[8] != ' ' ||
		len(line) > 12 && line[12] != ' ' || line[7] < '0' || line[7] > '9' {
		return 0, 0, malformed(exchange.Upstream, "the status line is not of HTTP/1")
	}
	status := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, 0, malformed(exchange.Upstream, "the status is not a number")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, 0, malformed(exchange.Upstream, "the status is below 100")
	}
	if skipValue(line, 12) != len(line) {
		return 0, 0, malformed(exchange.Upstream, "the reason has a control byte")
	}
	r.Status = status
	return nl + 1, min(int(line[7]-'0'), 1), nil
}

// responseFraming decides how the body ends (RFC 9112 §6.3).
func (h *head) responseFraming(minor int, method string, r *exchange.Response) (Framing, error) {
	f := Framing{KeepAlive: h.persistent(minor)}
	chunked, _ := h.chunked()
	switch {
	case h.lengths > 1:
		return f, malformed(exchange.Upstream, "there is more than one Content-Length")
	case h.codings > 0 && h.lengths > 0:
		return f, malformed(exchange.Upstream, "there are both Content-Length and Transfer-Encoding")
	case h.codings > 1 || h.codings == 1 && (!chunked || minor == 0):
		return f, malformed(exchange.Upstream, "the transfer coding is not chunked, or not of HTTP/1.1")
	}
	r.ContentLength = 0
	switch {
	case r.Status == 101:
		f.Kind, f.KeepAlive = Upgraded, false
	case r.Status < 200 || r.Status == 204:
	case method == "HEAD" || r.Status == 304:
		r.ContentLength = exchange.Unknown
		if h.lengths == 1 {
			r.ContentLength = h.length
		}
	case chunked:
		f.Kind, r.ContentLength = Chunked, exchange.Unknown
	case h.lengths == 1:
		r.ContentLength = h.length
		if h.length > 0 {
			f.Kind, f.Length = ByLength, h.length
		}
	default:
		f.Kind, f.KeepAlive, r.ContentLength = UntilClose, false, exchange.Unknown
	}
	return f, nil
}
